"""Regions seen by CLIP: patches under their points, views weighted by what they see, a share in the class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.outputs import FRAME, random_batch
from tests.helpers.pretend_cuda import pretending
from tests.helpers.tiny import write_clip
from xmask3d.inference.region_embeddings import FEW, RegionEmbeddings
from xmask3d.inference.region_labels import label_regions
from xmask3d.models.clip import MaskClip, load_clip


class Patches:
    """CLIP of 2 x 2 patches that embeds a set of them as their numbers, one axis a patch, turned by the view."""

    dim, patch_grid = 4, (2, 2)

    def embed_patches(self, tokens: Sequence[int], visible: Tensor) -> Tensor:
        return torch.stack([visible[row].float().roll(turn, -1) for row, turn in enumerate(tokens)])


def embeddings_of(regions: list[int], pixels: list[tuple[int, int]], views: list[int]) -> RegionEmbeddings:
    batch = random_batch()
    batch.point_index = torch.arange(len(regions)).repeat_interleave(FEW)
    batch.pixels = torch.tensor(pixels).repeat_interleave(FEW, 0)
    batch.point_batch = torch.tensor(views).repeat_interleave(FEW)
    found = RegionEmbeddings([np.array(regions)], Patches(), (4, 6))  # type: ignore[arg-type]
    found.add(batch, [0, 1])  # type: ignore[arg-type]
    return found


def cosines(embeddings: RegionEmbeddings) -> Tensor:
    """Cosines with the four axes, from log probabilities at temperature 1."""
    logits = torch.from_numpy(embeddings.log_probabilities(torch.eye(4), 1.0)[0])
    return logits - logits.amin(1, keepdim=True)


def test_a_region_is_the_patches_under_its_points() -> None:
    # Region 0 falls in the top left and the bottom right patch of view 0, region 1 in the top right one.
    found = cosines(embeddings_of([0, 0, 1], [(1, 2), (2, 3), (0, 5)], [0, 0, 0]))
    half = 2**-0.5
    torch.testing.assert_close(found, torch.tensor([[half, 0, 0, half], [0, 1, 0, 0]], dtype=torch.float64))


def test_views_count_by_the_root_of_their_points() -> None:
    # Four times the points, so twice the weight, in view 0; view 1 turns its axes by one.
    found = cosines(embeddings_of([0] * 5, [(0, 0)] * 5, [0, 0, 0, 0, 1]))
    expected = F.normalize(torch.tensor([[2.0, 1, 0, 0]], dtype=torch.float64))
    torch.testing.assert_close(found, expected)


def test_a_batch_on_the_host_asks_a_gpu(tmp_path: Path) -> None:
    mask_clip, batch = MaskClip(load_clip(write_clip(tmp_path))[0]), random_batch()
    regions = np.arange(int(batch.point_index.max()) + 1) % 2
    images = torch.rand(batch.size, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def embed(images: Tensor) -> np.ndarray:
        found = RegionEmbeddings([regions], mask_clip, FRAME)
        found.add(batch, mask_clip.encode(images))
        return found.log_probabilities(torch.eye(mask_clip.dim), 1.0)[0]

    expected = embed(images)
    with pretending():
        mask_clip.to("cuda")
        np.testing.assert_allclose(embed(images.to("cuda")), expected, rtol=1e-5)
    assert np.ptp(expected) > 0.01


def test_a_region_that_no_view_shows_says_nothing() -> None:
    embeddings = RegionEmbeddings([np.array([0, 1])], Patches(), (4, 6))  # type: ignore[arg-type]
    np.testing.assert_allclose(np.exp(embeddings.log_probabilities(torch.eye(4), 14.0)[0]), 0.25)


def test_clip_has_its_share_among_its_kind_only() -> None:
    votes, novel = np.array([[60, 40, 0], [60, 40, 0]]), np.array([False, False, True])
    voice = [np.log(np.array([[0.1, 0.2, 0.7]]))]
    region = [np.array([0, 0])]
    labels, _ = label_regions(votes, region, novel, None, 1.0, voice, 0.0)
    np.testing.assert_array_equal(labels, [0, 0])
    labels, shares = label_regions(votes, region, novel, None, 1.0, voice, 0.8)
    np.testing.assert_array_equal(labels, [1, 1])  # not the novel class, for which nobody voted
    odds = (40 / 60) ** 0.2 * 2**0.8
    assert shares[0] == pytest.approx(odds / (1 + odds), abs=1e-5)
