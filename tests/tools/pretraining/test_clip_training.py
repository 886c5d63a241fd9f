import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from tools.pretraining.clip_regions import encode_regions, image_patches
from tools.pretraining.clip_training import (
    ClipTrainer,
    encode_tokens,
    make_tokenizer,
    model_config,
    train_text,
)
from tools.pretraining.dataset import Pool
from tools.pretraining.features import TEACHER_DIM, FeaturePool, augment, patch_coverage
from xmask3d.models.clip import MaskClip
from xmask3d.models.loading.clip_weights import build_clip

TEXTS = ["a chair", "sofa", "a photo of a bed", "desk"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def small_clip(tokenizer) -> open_clip.CLIP:
    torch.manual_seed(0)
    return build_clip(model_config(tokenizer.vocab_size))


def trainer(pool: Pool, tokenizer, **options) -> ClipTrainer:
    rng = torch.Generator().manual_seed(1)
    features = FeaturePool(
        torch.randn(len(pool), 112, 12, 12, generator=rng).half(),
        torch.randn(len(pool), TEACHER_DIM, 12, 12, generator=rng).half(),
        patch_coverage(torch.from_numpy(pool.regions), pool.concepts.shape[1], 16).half(),
        torch.arange(len(pool)),
    )
    targets = F.normalize(torch.randn(len(TEXTS), 128, generator=rng), dim=1)
    clip = small_clip(tokenizer)
    return ClipTrainer(clip, tokenizer, pool, features, TEXTS, targets, steps=20, batch_size=3, **options)


def test_region_tokens_are_those_of_mask_clip(tokenizer) -> None:
    clip = small_clip(tokenizer).eval()
    images = torch.rand(2, 3, 192, 192)
    regions = torch.randint(0, 3, (2, 12, 12)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    coverage = patch_coverage(regions, 3, 16)
    logits = torch.stack([(regions == r).float() * 20 - 10 for r in range(3)], 1)
    mask_clip = MaskClip(clip)
    mask_clip.mean.copy_(torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1))
    mask_clip.std.copy_(torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1))
    with torch.no_grad():
        ours = encode_regions(clip.visual, image_patches(clip.visual, images), coverage > 0)
        views = clip.encode_image(mask_clip.preprocess(images))
        torch.testing.assert_close(ours.regions, mask_clip(images, logits), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.views, views, rtol=1e-4, atol=1e-5)


def test_text_embeddings_are_open_clips(tokenizer) -> None:
    clip = small_clip(tokenizer).eval()
    tokens = tokenizer(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(encode_tokens(clip, tokens), clip.encode_text(tokens), rtol=1e-4, atol=1e-5)


def test_coverage_counts_pixels() -> None:
    regions = torch.full((1, 32, 48), 255, dtype=torch.uint8)
    regions[0, :16, :8] = 0
    regions[0, 20:, 40:] = 1
    coverage = patch_coverage(regions, 2, 16)
    assert coverage.shape == (1, 2, 6)
    assert coverage[0, 0].tolist() == [0.5, 0, 0, 0, 0, 0]
    assert coverage[0, 1].tolist() == [0, 0, 0, 0, 0, 12 * 8 / 256]


def test_images_and_maps_are_moved_alike() -> None:
    maps = torch.zeros(8, 96, 96, dtype=torch.uint8)
    maps[:, 30:60, 20:70] = 1
    images = maps[:, None].float().expand(-1, 3, -1, -1) * 0.6 + 0.2
    moved, moved_maps = augment(images, maps, torch.Generator().manual_seed(0))
    for image, where in zip(moved, moved_maps, strict=True):
        inside, outside = image.mean(0)[where == 1], image.mean(0)[where == 0]
        assert (inside > (inside.mean() + outside.mean()) / 2).float().mean() > 0.97
    assert not torch.equal(moved_maps[0], moved_maps[1])


def test_mirrored_features_and_coverage_fit() -> None:
    fine, coverage = torch.zeros(1, 112, 2, 3), torch.zeros(1, 1, 6)
    fine[0, :, 1, 0], coverage[0, 0, 3] = 1, 1
    features = FeaturePool(fine.half(), fine[:, :96].half(), coverage.half(), torch.zeros(1, dtype=torch.long))
    mirrored, deep, covered = features.batch(torch.tensor([0]), flip=True)
    assert covered[0, 0].tolist() == [0, 0, 0, 0, 0, 1]
    assert torch.equal(mirrored[0, 0].flatten(), covered[0, 0]) and torch.equal(deep[0, 0].flatten(), covered[0, 0])
    assert features.batch(torch.tensor([0]), flip=False)[2][0, 0].tolist() == [0, 0, 0, 1, 0, 0]


def test_the_text_tower_learns(tokenizer) -> None:
    clip = small_clip(tokenizer)
    targets = F.normalize(torch.randn(len(TEXTS), 128, generator=torch.Generator().manual_seed(2)), dim=1)
    train_text(clip, tokenizer, TEXTS, targets, steps=30, batch_size=8)
    with torch.no_grad():
        assert F.cosine_similarity(encode_tokens(clip, tokenizer(TEXTS)), targets).mean() > 0.8


def test_a_step_is_repeatable_and_training_goes_on_after_restore(pool: Pool, tokenizer) -> None:
    first, again = trainer(pool, tokenizer), trainer(pool, tokenizer)
    losses = [first.train_step() for _ in range(2)]
    assert again.train_step() == losses[0]
    assert all(np.isfinite(value) for value in losses[1].values())
    state = first.state()
    resumed = trainer(pool, tokenizer, seed=5)
    resumed.restore(state)
    assert resumed.train_step() == first.train_step()
