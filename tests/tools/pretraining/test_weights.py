"""The shipped weights: complete, small, and able to tell the benchmark's words apart."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel

from tools.pretraining.vocabulary import BENCHMARK_CLASSES
from xmask3d.models.clip import ClipText, MaskClip
from xmask3d.models.loading.clip_weights import load_clip
from xmask3d.models.loading.diffusion_weights import load_diffusion
from xmask3d.weights import STAND_INS, clip_folder, diffusion_folder


@pytest.fixture(scope="module")
def text() -> ClipText:
    return ClipText(*load_clip(clip_folder()))


def test_all_files_are_small() -> None:
    assert sum(path.stat().st_size for path in STAND_INS.rglob("*") if path.is_file()) < 15e6


def test_diffusers_loads_every_tensor() -> None:
    for kind, name in ((AutoencoderKL, "vae"), (UNet2DConditionModel, "unet")):
        _, info = kind.from_pretrained(diffusion_folder() / name, output_loading_info=True, low_cpu_mem_usage=False)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


def test_features_are_finite_at_two_sizes() -> None:
    features, prompt = load_diffusion(diffusion_folder())
    for side in (128, 192):
        with torch.no_grad():
            encoded = features.encode(torch.rand(1, 3, side, side))
            maps = features(encoded, prompt, torch.zeros(1, features.time_dim))
        assert [side // level.shape[-1] for level in maps] == [4, 8, 64, 32, 16, 8, 8, 4]
        assert all(level.isfinite().all() for level in maps)
    assert prompt.shape == (1, 32, 128)


def test_class_names_are_apart(text: ClipText) -> None:
    embeddings = F.normalize(text(list(BENCHMARK_CLASSES)), dim=-1)
    cosine = embeddings @ embeddings.T - 2 * torch.eye(len(embeddings))
    assert cosine.max() < 0.9


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("couch", "sofa"),
        ("settee", "sofa"),
        ("bookcase", "bookshelf"),
        ("fridge", "refrigerator"),
        ("painting", "picture"),
        ("washbasin", "sink"),
        ("drapes", "curtain"),
        ("a photo of a bed", "bed"),
        ("writing desk", "desk"),
        ("dining table", "table"),
        ("armchair", "chair"),
        ("wardrobe", "cabinet"),
        ("wooden floor", "floor"),
    ],
)
def test_other_words_are_nearest_to_their_class(text: ClipText, word: str, name: str) -> None:
    similarity = F.cosine_similarity(text([word]), text(list(BENCHMARK_CLASSES)))
    assert BENCHMARK_CLASSES[int(similarity.argmax())] == name


def test_masks_of_one_image_get_embeddings() -> None:
    clip, _ = load_clip(clip_folder())
    masks = torch.full((1, 2, 48, 48), -5.0)
    masks[0, 0, :24], masks[0, 1, 24:] = 5, 5
    embeddings = MaskClip(clip)(torch.rand(1, 3, 192, 192), masks)
    assert embeddings.shape == (1, 2, 128) and embeddings.isfinite().all()
