"""Image features of a pool, computed once: those of the frozen stem of the CLIP, and those of its teacher."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import trange

from tools.pretraining.dataset import Pool
from tools.pretraining.teachers import ImageNetFeatures

TEACHER_DIM = 96
PATCH = 16


@dataclass
class FeaturePool:
    """Features of M variants of the views of a pool.

    Attributes:
        fine: M x 112 x h x w float16, of the stem.
        deep: M x 96 x h x w float16, what to predict: deeper ImageNet features, whitened.
        coverage: M x R x (h w) float16, share of each patch that each region covers.
        views: M int64, which view of the pool.
    """

    fine: Tensor
    deep: Tensor
    coverage: Tensor
    views: Tensor

    def batch(self, rows: Tensor, flip: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return `fine`, `deep` and `coverage` of some rows in float32, mirrored if `flip`."""
        h, w = self.fine.shape[-2:]
        coverage = self.coverage[rows].float().unflatten(-1, (h, w))
        parts = [self.fine[rows].float(), self.deep[rows].float(), coverage]
        fine, deep, coverage = [part.flip(-1) for part in parts] if flip else parts
        return fine, deep, coverage.flatten(2)

    @staticmethod
    def load(path: Path) -> "FeaturePool":
        """Read a file in which `torch.save` put the attributes by their names."""
        return FeaturePool(**torch.load(path, weights_only=True))


def extract_features(pool: Pool, *, variants: int, seed: int = 0, batch_size: int = 32) -> FeaturePool:
    """Extract features of every view as it is, and of `variants` - 1 random crops of it in other colours."""
    teacher, rng = ImageNetFeatures(), torch.Generator().manual_seed(seed)
    spread = torch.from_numpy(pool.images[:: max(1, len(pool) // 128)]).permute(0, 3, 1, 2).float() / 255
    projection = _whitening(teacher(spread)[1])
    parts: list[tuple[Tensor, ...]] = []
    for start in trange(0, len(pool) * variants, batch_size, desc="image features"):
        numbers = torch.arange(start, min(start + batch_size, len(pool) * variants))
        # Variants of one view are apart: the first pass over the pool is the plain one.
        rows = numbers % len(pool)
        images = torch.from_numpy(pool.images[rows.numpy()]).permute(0, 3, 1, 2).float() / 255
        maps = torch.from_numpy(pool.regions[rows.numpy()])
        changed_images, changed_maps = augment(images, maps, rng)
        plain = numbers < len(pool)
        images = torch.where(plain[:, None, None, None], images, changed_images)
        maps = torch.where(plain[:, None, None], maps, changed_maps)
        with torch.autocast("cpu", torch.bfloat16):
            fine, deep = teacher(images)
        deep = F.interpolate(_project(deep, *projection), fine.shape[-2:], mode="bilinear", align_corners=False)
        coverage = patch_coverage(maps, pool.concepts.shape[1], PATCH)
        parts.append((fine.half(), deep.half(), coverage.half(), rows))
    return FeaturePool(*(torch.cat(column) for column in zip(*parts, strict=True)))


def augment(images: Tensor, regions: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crop images B x 3 x H x W and region maps B x H x W alike at random, and change the images' colours."""
    b = len(images)
    zoom = 0.5 + 0.5 * torch.rand(b, 1, generator=rng).sqrt()
    stretch = 1 + 0.2 * (torch.rand(b, 1, generator=rng) - 0.5)
    scale = torch.cat([zoom * stretch, zoom / stretch], 1).clamp(max=1)
    shift = (2 * torch.rand(b, 2, generator=rng) - 1) * (1 - scale)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale[:, 0], scale[:, 1], shift
    grid = F.affine_grid(theta, [b, 1, *images.shape[-2:]], align_corners=False)
    images = F.grid_sample(images, grid, align_corners=False, padding_mode="reflection")
    mapped = F.grid_sample(regions[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].to(torch.uint8)
    gain = 1 + 0.5 * (torch.rand(b, 1, 1, 1, generator=rng) - 0.5) + 0.2 * (torch.rand(b, 3, 1, 1, generator=rng) - 0.5)
    contrast = 1 + 0.5 * (torch.rand(b, 1, 1, 1, generator=rng) - 0.5)
    middle = images.mean((1, 2, 3), keepdim=True)
    images = ((images - middle) * contrast + middle) * gain
    return (images + 0.02 * torch.randn(b, 1, *images.shape[-2:], generator=rng)).clamp(0, 1), mapped


def patch_coverage(regions: Tensor, count: int, patch: int) -> Tensor:
    """Return the share of each patch that each region covers: B x H x W (numbers, 255 none) to B x count x patches."""
    b, h, w = regions.shape
    rows, columns = h // patch, w // patch
    tile = (torch.arange(h) // patch)[:, None] * columns + torch.arange(w) // patch
    number = regions.clamp(max=count).long() + (count + 1) * (tile + rows * columns * torch.arange(b).view(b, 1, 1))
    counts = torch.bincount(number.flatten(), minlength=b * rows * columns * (count + 1))
    return counts.view(b, rows * columns, count + 1)[..., :count].transpose(1, 2).float() / patch**2


def _whitening(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute how to centre and scale each channel and turn to the main directions, partly whitened."""
    flat = features.permute(0, 2, 3, 1).flatten(0, 2)
    mean, scale = flat.mean(0), flat.std(0) + 1e-3
    _, values, directions = torch.linalg.svd((flat - mean) / scale, full_matrices=False)
    deviation = values[:TEACHER_DIM] / len(flat) ** 0.5
    return mean, scale, directions[:TEACHER_DIM].T / deviation.sqrt()


def _project(features: Tensor, mean: Tensor, scale: Tensor, directions: Tensor) -> Tensor:
    return ((features.permute(0, 2, 3, 1) - mean) / scale @ directions).permute(0, 3, 1, 2)
