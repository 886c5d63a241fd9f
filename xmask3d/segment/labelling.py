"""Features and masks of a scan, from all its views, or from its shape if it has no pictures.

Views are read one after the other, batches shrink when memory runs out, and progress is saved so that stopped work
resumes.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmask3d.data.batch import collate
from xmask3d.data.datasets import SceneViews
from xmask3d.data.sample import Sample
from xmask3d.data.view_settings import ViewSettings
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.geometry.voxels import axis_rotation, voxelise
from xmask3d.guarded import read_arrays
from xmask3d.inference.class_scores import gateable_classes
from xmask3d.inference.instances import split_by_mask
from xmask3d.inference.settings import Gating
from xmask3d.models.outputs import gather_by_owner
from xmask3d.models.xmask3d import XMask3D
from xmask3d.scan.scan import Scan
from xmask3d.seal import check_seal, sealed
from xmask3d.segment.feature_accumulator import FeatureAccumulator
from xmask3d.segment.settled import ROUNDS, Settling, by_worth
from xmask3d.splits import Benchmark

log = logging.getLogger(__name__)

SAVE_EVERY = 30.0  # seconds between saved states, or more if saving is slow
SAVE_SHARE = 0.05  # largest share of the time to spend on saving
TILE, MARGIN = 6.0, 1.0  # size of the tiles of a cloud without pictures, and of the margin around them, in metres
TILE_POINTS = 300_000  # smaller clouds are not divided into tiles
BATCH_POINTS = 1_000_000  # views with more points together go through the networks in parts; about 2 GiB


@dataclass
class Labelled:
    """Output of the networks for n points.

    Attributes:
        features: features of the places, summed over views.
        masks: point numbers of each view's masks.
        done: number of views processed. used: number of views that showed enough.
    """

    features: FeatureAccumulator
    masks: list[np.ndarray] = field(default_factory=list)
    done: int = 0
    used: int = 0

    def state(self) -> dict[str, np.ndarray]:
        """Return arrays that `restore` needs."""
        joined = np.concatenate(self.masks) if self.masks else np.zeros(0, np.int64)
        return {
            **self.features.state(),
            "mask_points": joined.astype(np.int32),
            "mask_sizes": np.array([len(mask) for mask in self.masks], np.int64),
            "counts": np.array([self.done, self.used]),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Resume from a state."""
        self.features.restore(state)
        bounds = np.cumsum(state["mask_sizes"])[:-1]
        self.masks = np.split(np.array(state["mask_points"]), bounds) if len(state["mask_sizes"]) else []
        self.done, self.used = (int(n) for n in state["counts"])


class SavedState:
    """File with the state of unfinished work, used only for exactly the same work.

    Args:
        path: path of the file; None to keep nothing.
        key: everything that the work depends on.
    """

    def __init__(self, path: Path | None, *key: object) -> None:
        self._path = path
        self._key = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=16).hexdigest()
        self._due = time.monotonic() + SAVE_EVERY

    def load(self) -> dict[str, np.ndarray] | None:
        """Load the state; None unless it is complete and belongs to this work."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            check_seal(self._path)
            arrays = read_arrays(self._path)
            return arrays if str(arrays["key"]) == self._key else None
        except (UserError, KeyError):  # incomplete or of other work, so the work is done again
            return None

    def save(self, state: Callable[[], dict[str, np.ndarray]], *, now: bool = False) -> None:
        """Save the state if enough time has passed since the last time."""
        start = time.monotonic()
        if self._path is None or (not now and start < self._due):
            return
        arrays: dict[str, Any] = {"key": np.array(self._key), **state()}
        atomic_write(self._path, sealed(lambda part: np.savez(part, **arrays)))
        end = time.monotonic()
        self._due = end + max(SAVE_EVERY, (end - start) / SAVE_SHARE)


def check_batch_size(batch_size: int | None) -> None:
    """Raise `UserError` for a batch size below 1; None means any size."""
    if batch_size is not None and batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: at least one view at once is needed")


class ScanLabeller:
    """Labeller of scans by the classes of the model's benchmark; queries are compared with the features it returns.

    Args:
        model: model in evaluation mode, on `device`.
        benchmark: classes that the model was trained on.
        device: device of the computation.
        views: settings of the samples.
        gating: how the binary head chooses between base and novel classes when masks compete for points.
        precision: autocast type; float16 counts as float32 on a CPU.
        batch_size: number of views at once; it is reduced when memory runs out.

    Raises:
        UserError: the batch size is below 1.
    """

    def __init__(
        self,
        model: XMask3D,
        benchmark: Benchmark,
        device: torch.device,
        views: ViewSettings,
        gating: Gating,
        precision: str = "float32",
        batch_size: int = 8,
    ) -> None:
        check_batch_size(batch_size)
        self.model, self.benchmark, self.device = model, benchmark, device
        self.views, self.precision, self.batch_size = views, precision, batch_size
        self._novel = gateable_classes(torch.from_numpy(benchmark.novel_mask).to(device), gating)

    def run(
        self,
        scan: Scan,
        text: Tensor,
        saved: SavedState | None = None,
        report: Callable[[int, int], None] | None = None,
        *,
        settle: float | None = None,
        fast: bool = False,
    ) -> Labelled:
        """Label a scan from all its views, or from its shape alone if it has no usable view.

        Args:
            text: K x D embeddings of the benchmark's classes.
            saved: state of unfinished work.
            report: called with the number of finished views and of all views.
            settle: share of labels; once a round of views changes no more than this, the remaining views are left out.
                None for all views.
            fast: label from the shape alone in any case, without reading pictures.
        """
        saved = saved or SavedState(None)
        result = Labelled(FeatureAccumulator(scan.scene.points, text.shape[1]))
        if state := saved.load():
            result.restore(state)
        text = text.to(self.device)
        total = 0 if fast else len(scan.scene.view_names)
        views = SceneViews(scan, scan.scene.name, self.benchmark, self.views)
        order, together = list(range(total)), self.batch_size
        settling = None
        if settle is not None:
            order, together = by_worth(views), max(-(-total // ROUNDS), 1)
            settling = Settling(result.features, text, settle)
        with torch.no_grad():
            for samples, count in self._batches(views, order[result.done :], together):
                for group in _groups(samples, self.batch_size):
                    for part in self._fit(group, text):
                        self._add(result, *part)
                result.done += count
                result.used += len(samples)
                settled = settling is not None and bool(result.used) and settling.has_settled(result.features)
                if settled and result.done < total:
                    scan.lines.append(f"labels settled after {result.done} of {total} views")
                    result.done = total
                saved.save(result.state)
                if report:
                    report(result.done, total)
                if settled:
                    break
            if not result.used:
                if total:
                    scan.lines.append("warning: no view shows enough points; labelled by shape alone")
                self._look_at_cloud(scan, result)
        if total:
            saved.save(result.state, now=True)
        return result

    @staticmethod
    def _batches(views: SceneViews, order: list[int], together: int) -> Iterator[tuple[list[Sample], int]]:
        """Yield usable samples of the next views, and the number of these views; the next batch is read in parallel."""

        def read(rows: list[int]) -> tuple[list[Sample], int]:
            return [sample for sample in (views[row] for row in rows) if sample is not None], len(rows)

        batches = [order[first : first + together] for first in range(0, len(order), together)]
        with ThreadPoolExecutor(1) as reader:
            waiting = reader.submit(read, batches[0]) if batches else None
            for following in [*batches[1:], None]:
                if waiting is None:
                    return
                ready = waiting.result()
                waiting = None if following is None else reader.submit(read, following)
                yield ready

    def _fit(self, samples: list[Sample], text: Tensor) -> Iterator[tuple]:
        """Run samples at once or, if they do not fit into memory, in halves, which does not affect results."""
        if not samples:
            return
        try:
            results = self._forward(samples, text)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            results = None
        if results is not None:
            yield results
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(samples) == 1:
            raise UserError(
                f"view {samples[0].view}: does not fit into memory on {self.device} even alone; "
                f"try --device cpu, a machine with more memory, or a smaller model"
            )
        self.batch_size = half = max(1, len(samples) // 2)
        log.warning("out of memory with %d views at once; continuing with %d", len(samples), half)
        yield from self._fit(samples[:half], text)
        yield from self._fit(samples[half:], text)

    def _forward(self, samples: list[Sample], text: Tensor) -> tuple:
        """Return for each point of the views: its number, fused and CLIP feature, base probability and mask."""
        batch = collate(samples).to(self.device)
        with self._precision():
            outputs = self.model(batch, text, mask_clip=True, novel=self._novel)
        fused = outputs.fused
        clip = gather_by_owner(outputs.clip_embeddings.float(), fused.owner, fused.point_batch)
        return batch.point_index, fused.points_fused, clip, outputs.binary_logits.float().sigmoid(), fused.mask

    def _precision(self) -> contextlib.AbstractContextManager:
        precision = self.precision
        if precision == "float32" or (self.device.type == "cpu" and precision == "float16"):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, precision))

    @staticmethod
    def _add(result: Labelled, index: Tensor, fused: Tensor, clip: Tensor | None, base: Tensor, mask: Tensor) -> None:
        result.features.add(index, fused, clip, base)
        result.masks += split_by_mask(index.cpu().numpy(), mask.cpu().numpy())

    def _look_at_cloud(self, scan: Scan, result: Labelled) -> None:
        """Run the 3D branch alone: both sparse networks, in overlapping tiles if there are many points."""
        points, colors = scan.scene.points, scan.scene.colors
        rotation = axis_rotation(2, self.views.angle)
        for inner, near in _tiles(points):
            voxels = voxelise(points[near], self.views.voxel_size, rotation)
            coords = torch.from_numpy(np.pad(voxels.coords, ((0, 0), (1, 0)))).to(self.device)
            features = torch.from_numpy(colors[near][voxels.first_point]).to(self.device)
            with self._precision():
                _, voxels_3d, binary = self.model.encode_points(coords, features, 1)
            rows = torch.from_numpy(voxels.point_to_voxel[np.isin(near, inner, assume_unique=True)]).to(self.device)
            index = torch.from_numpy(inner)
            base = binary.float()[rows].sigmoid()
            self._add(result, index, voxels_3d.float()[rows], None, base, torch.full_like(index, -1))


def _tiles(points: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return the points of each tile of the floor plan, and those including the margin; both ascending."""
    everything = np.arange(len(points))
    if len(points) <= TILE_POINTS:
        yield everything, everything
        return
    low = points[:, :2].min(0)
    cells = np.floor((points[:, :2] - low) / TILE).astype(np.int64)
    for x, y in np.unique(cells, axis=0):
        inner = np.flatnonzero((cells == (x, y)).all(1))
        corner = low + np.array([x, y]) * TILE
        near = np.flatnonzero(((points[:, :2] >= corner - MARGIN) & (points[:, :2] < corner + TILE + MARGIN)).all(1))
        near = np.union1d(near, inner)  # allowance for rounding at the tile's edge
        yield inner, near


def _groups(samples: list[Sample], largest: int) -> Iterator[list[Sample]]:
    """Yield samples in order, in groups of at most `largest` and `BATCH_POINTS` points, but at least one sample."""
    group: list[Sample] = []
    count = 0
    for sample in samples:
        if group and (len(group) == largest or count + len(sample.points) > BATCH_POINTS):
            yield group
            group, count = [], 0
        group.append(sample)
        count += len(sample.points)
    if group:
        yield group


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))
