"""CLIP embeddings of regions, made from the image patches that a region's points fall in. Not part of the paper."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.data.batch import Batch
from xmask3d.models.clip import EncodedTokens, MaskClip

FEW = 10  # a view that sees fewer points of a region is ignored for it


class RegionEmbeddings:
    """Sums of the views' embeddings of regions, weighted by the square root of the number of points a view sees."""

    def __init__(self, divisions: Sequence[np.ndarray], mask_clip: MaskClip, frame_size: tuple[int, int]) -> None:
        """Start without views.

        Args:
            divisions: regions of the cloud's points, n int each.
            mask_clip: embeds sets of patches.
            frame_size: height and width of the grid that the points' pixels are on.
        """
        counts = [int(region.max()) + 1 for region in divisions]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        shifted = [region + start for region, start in zip(divisions, self._starts[:-1], strict=True)]
        self._regions = torch.from_numpy(np.stack(shifted, 1)).long()  # n x divisions
        self._mask_clip, self._frame_size = mask_clip, frame_size
        self._sums = torch.zeros(int(self._starts[-1]), mask_clip.dim, dtype=torch.float64)

    @torch.no_grad()
    def add(self, batch: Batch, tokens: EncodedTokens) -> None:
        """Add CLIP's embeddings of the regions in some views.

        Args:
            batch: B views with their points.
            tokens: result of `mask_clip.encode` for the views' images.
        """
        rows, columns = self._mask_clip.patch_grid
        height, width = self._frame_size
        pixels = batch.pixels.cpu()
        patch = (pixels[:, 0] * rows // height) * columns + pixels[:, 1] * columns // width
        found, local = self._regions[batch.point_index.cpu()].unique(return_inverse=True)  # N x divisions
        place = batch.point_batch.cpu()[:, None] * len(found) + local
        counts = torch.bincount(place.flatten(), minlength=batch.size * len(found)).view(batch.size, -1)
        visible = torch.zeros(batch.size * len(found), rows * columns, dtype=torch.bool)
        visible[place.flatten(), patch[:, None].expand_as(place).flatten()] = True
        embedded = self._mask_clip.embed_patches(tokens, visible.view(batch.size, len(found), -1))
        weights = torch.where(counts >= FEW, counts, 0).double().sqrt()
        whole = F.normalize(embedded.double().cpu(), dim=-1)
        # one by one, so that the order of summation is the same for any batch size
        for view, weight in zip(whole, weights, strict=True):
            self._sums.index_add_(0, found, view * weight[:, None])

    def log_probabilities(self, text: Tensor, temperature: float) -> list[np.ndarray]:
        """Return R x K log probabilities of the classes for each division; uniform for a region that no view shows."""
        similarity = F.normalize(self._sums, dim=-1) @ F.normalize(text.double().cpu(), dim=-1).T
        result = (temperature * similarity).log_softmax(-1).numpy()
        return [result[start:end] for start, end in zip(self._starts[:-1], self._starts[1:], strict=True)]
