"""Pool of collage views on disk: rendered once, read many times."""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tools.pretraining.collages import make_collage, model_table, render_view
from xmask3d.files import atomic_write
from xmask3d.rooms.furniture import FurnitureModel, load_catalogue, procedural_models, split_models
from xmask3d.rooms.render import Renderer

SIDE = 192
VIEWS_PER_COLLAGE = 8
COLLAGES_PER_SHARD = 8
MAX_REGIONS = 16
MIN_PIXELS = 80
"""A thing that shows fewer of the 192 x 192 pixels is not described."""


@dataclass
class Pool:
    """Views and their regions.

    Attributes:
        images: N x 192 x 192 x 3 uint8.
        regions: N x 192 x 192 uint8, region number in the view, 255 outside.
        concepts: N x 16 int16 concept id of each region, -1 beyond the last.
        kinds, keys: per view, kind and model key of each region.
    """

    images: np.ndarray
    regions: np.ndarray
    concepts: np.ndarray
    kinds: list[list[str]]
    keys: list[list[str]]

    def __len__(self) -> int:
        return len(self.images)


def furniture(root: Path, split: str, *, seed: int = 0, split_seed: int = 0, per_kind: int = 6) -> list[FurnitureModel]:
    """Return the furniture of one split: library models and `per_kind` rule-made models of each kind.

    Args:
        root: folder of the furniture archives.
        seed: seed of the rule-made models. split_seed: seed of the library's division; must be that of the rooms.
    """
    library = split_models(load_catalogue(root), split_seed)[split]
    return library + procedural_models(split, seed, per_kind)


def render_pool(
    root: Path, out: Path, split: str, *, collages: int, seed: int, split_seed: int, per_kind: int, workers: int
) -> None:
    """Render `collages` random collages, 8 views each, into shards in `out`; shards that exist are kept."""
    out.mkdir(parents=True, exist_ok=True)
    furniture(root, split, split_seed=split_seed, per_kind=1)
    jobs = [
        (root, out / f"{split}_{shard:04d}.npz", split, shard, seed, split_seed, per_kind)
        for shard in range((collages + COLLAGES_PER_SHARD - 1) // COLLAGES_PER_SHARD)
    ]
    jobs = [job for job in jobs if not job[1].exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in tqdm(pool.map(_render_shard, jobs), total=len(jobs), desc=f"rendering {split} views"):
            pass


def load_pool(folder: Path, split: str, limit: int | None = None) -> Pool:
    """Read the shards of a split."""
    shards = [np.load(path) for path in sorted(folder.glob(f"{split}_*.npz"))[:limit]]
    words = [json.loads(str(shard["words"])) for shard in shards]
    return Pool(
        np.concatenate([shard["images"] for shard in shards]),
        np.concatenate([shard["regions"] for shard in shards]),
        np.concatenate([shard["concepts"] for shard in shards]),
        [kinds for part in words for kinds in part["kinds"]],
        [keys for part in words for keys in part["keys"]],
    )


@lru_cache(maxsize=2)
def _table(root: Path, split: str, seed: int, split_seed: int, per_kind: int) -> dict[str, list[FurnitureModel]]:
    return model_table(furniture(root, split, seed=seed, split_seed=split_seed, per_kind=per_kind))


def _render_shard(job: tuple[Path, Path, str, int, int, int, int]) -> None:
    root, path, split, shard, seed, split_seed, per_kind = job
    table = _table(root, split, seed, split_seed, per_kind)
    views = []
    for index in range(shard * COLLAGES_PER_SHARD, (shard + 1) * COLLAGES_PER_SHARD):
        rng = np.random.default_rng([seed, index, *split.encode()])
        collage = make_collage(rng, table)
        renderer = Renderer(collage.meshes, light=collage.light)
        for _ in range(VIEWS_PER_COLLAGE):
            color, instance = render_view(rng, collage, renderer, SIDE)
            views.append((color, *describe_regions(instance, collage.concepts, collage.kinds, collage.keys)))
    images, regions, concepts, kinds, keys = zip(*views, strict=True)
    arrays = {"images": np.stack(images), "regions": np.stack(regions), "concepts": np.stack(concepts)}
    words = json.dumps({"kinds": kinds, "keys": keys})
    atomic_write(path, lambda part: np.savez(part, **arrays, words=words), sync=False)


def describe_regions(
    instance: np.ndarray, concepts: Sequence[int], kinds: Sequence[str], keys: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Merge the six sides of the box by name and number large regions, the largest first."""
    meshes = np.arange(len(concepts))
    meshes[:6] = [0, 1, 2, 2, 2, 2]
    owner = np.where(instance >= 0, meshes[instance], -1)
    found, counts = np.unique(owner[owner >= 0], return_counts=True)
    order = [int(found[i]) for i in np.argsort(-counts) if counts[i] >= MIN_PIXELS][:MAX_REGIONS]
    regions = np.full(instance.shape, 255, np.uint8)
    ids = np.full(MAX_REGIONS, -1, np.int16)
    for number, mesh in enumerate(order):
        regions[owner == mesh] = number
        ids[number] = concepts[mesh]
    return regions, ids, [kinds[mesh] for mesh in order], [keys[mesh] for mesh in order]
