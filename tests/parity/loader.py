"""Reading a scene from disk and making samples of it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.views import read_whole
from tests.parity.compare import Case, Results
from tests.parity.end_to_end import case_benchmark
from xmask3d.data.datasets import ValidationViews
from xmask3d.data.files import write_points
from xmask3d.data.images import resize_nearest
from xmask3d.data.sample import Sample
from xmask3d.data.sample_maker import make_sample
from xmask3d.data.scannet import SCANNET, ScanNetReader
from xmask3d.data.view_settings import ViewFilter, ViewSettings
from xmask3d.errors import UserError
from xmask3d.splits import Benchmark

SCENE, FRAME_STEP = "scene0000_00", 20
# Before samples are collated the published loader has this in their first column of coordinates.
BATCH_COLUMN = 1
# Training and whole-scene evaluation differ in how many visible points and labelled ones a view needs.
TRAINING = ViewSettings((512, 512), 0.02, 10, 0.25, ViewFilter(401, 64_999, 11), voxel_order="hash")
WHOLE_SCENE = replace(TRAINING, filter=ViewFilter(min_points=400, min_labelled=10))


def run(case: Case) -> Results:
    """l_loader: the samples of training, validation and whole-scene evaluation."""
    results = Results()
    benchmark = case_benchmark(case)
    with tempfile.TemporaryDirectory() as folder:
        views = _write(case, Path(folder))
        reader = SCANNET.open(folder, "train", benchmark, published_intrinsics=True)
        scene = reader.read_scene(SCENE)
        kept = 0
        for index, view in enumerate(views):
            try:
                frame = read_whole(reader, SCENE, view)
            except UserError:
                continue  # a pose of infinities sees nothing, so no published loader uses the view
            sample = make_sample(scene, frame, benchmark, TRAINING)
            if sample is not None:
                _add_training(results, case, f"train_view{index}/", sample)
            sample = make_sample(scene, frame, benchmark, WHOLE_SCENE)
            if sample is not None:
                # The whole-scene loader numbers the views that it keeps.
                _add_scene_view(results, case, f"infer/view{kept}/", sample, len(scene.points))
                kept += 1
        _add_validation(results, case, benchmark, reader, views)
        assert scene.labels is not None
        labels = _fold(scene.labels, benchmark.num_classes, case.outputs.get("infer/labels_in", scene.labels))
        results.exact("infer/labels_in", labels)
        results.exact("infer/n_views", kept)
    reason = "a map of the published loader that nothing reads"
    results.leave_out(r"train_view\d+/binary_label_2d", reason, case)
    return results


def _write(case: Case, root: Path) -> list[str]:
    """Put the recorded scene on disk; returns the names of its views."""
    arrays = case.inputs
    write_points(
        root / "scannet_3d" / "train" / f"{SCENE}_vh_clean_2.pth", arrays["points"], arrays["colors"], arrays["labels"]
    )
    folder = root / "scannet_2d" / SCENE
    for part in ("color", "depth", "pose", "label"):
        (folder / part).mkdir(parents=True)
    views = [str(FRAME_STEP * index) for index in range(sum(name.endswith("/jpg") for name in arrays))]
    for index, view in enumerate(views):
        (folder / "color" / f"{view}.jpg").write_bytes(arrays[f"view{index}/jpg"].tobytes())
        Image.fromarray(arrays[f"view{index}/depth"]).save(folder / "depth" / f"{view}.png")
        Image.fromarray(arrays[f"view{index}/label"]).save(folder / "label" / f"{view}.png")
        np.savetxt(folder / "pose" / f"{view}.txt", arrays[f"view{index}/pose"], fmt="%.17g")
    return views


def _add_training(results: Results, case: Case, prefix: str, sample: Sample) -> None:
    assert sample.labels is not None and sample.label_map is not None
    results.exact(f"{prefix}locals_3d", _with_batch(sample.points.numpy()))
    results.exact(f"{prefix}coords", _with_batch(sample.voxel_coords.numpy()))
    results.forward(f"{prefix}feats", sample.voxel_features)
    results.exact(f"{prefix}labels", sample.labels)
    results.exact(f"{prefix}label_2d", sample.label_map)
    results.forward(f"{prefix}img", sample.image.permute(1, 2, 0).contiguous() * 255)
    results.exact(f"{prefix}x_label", sample.pixels[:, 0])
    results.exact(f"{prefix}y_label", sample.pixels[:, 1])
    results.exact(f"{prefix}inds_reconstruct", sample.point_to_voxel)
    _add_binary(results, case, prefix, sample)


def _add_scene_view(results: Results, case: Case, prefix: str, sample: Sample, num_points: int) -> None:
    seen = np.zeros(num_points, bool)
    seen[sample.point_index.numpy()] = True
    results.exact(f"{prefix}mask_2d", np.packbits(seen))
    results.exact(f"{prefix}coords_rowsum", _with_batch(sample.voxel_coords.numpy()).sum(1))
    _add_binary(results, case, prefix, sample)


def _add_validation(
    results: Results, case: Case, benchmark: Benchmark, reader: ScanNetReader, views: list[str]
) -> None:
    data = ValidationViews(reader, benchmark, replace(TRAINING, voxel_order="grid"), step=2)  # as published
    for epoch in range(sum(name.startswith("val_epoch") and name.endswith("/view") for name in case.outputs)):
        data.set_epoch(epoch)
        sample, prefix = data[0], f"val_epoch{epoch}/"
        if sample is None:
            raise UserError(f"case {case.name}: no view of the scene can be used in validation epoch {epoch}")
        assert sample.classes is not None
        results.exact(f"{prefix}view", views.index(sample.view))
        classes = sample.classes.numpy()
        recorded = case.outputs.get(f"{prefix}labels", classes)
        results.exact(f"{prefix}labels", _fold(classes, benchmark.num_classes, recorded))
        _add_binary(results, case, prefix, sample)
        frame = reader.read_view(SCENE, sample.view).label_map
        assert frame is not None
        pixels = resize_nearest(frame, (512, 512))
        for name in (name for name in case.outputs if name.startswith(f"{prefix}label_2d_every")):
            step = int(name.rpartition("every")[2])
            results.exact(name, _fold(pixels.reshape(-1)[::step], benchmark.num_classes, case.outputs[name]))


def _add_binary(results: Results, case: Case, prefix: str, sample: Sample) -> None:
    assert sample.binary_labels is not None
    name = f"{prefix}binary_label"
    ours = sample.binary_labels.numpy()
    recorded = case.outputs.get(name, ours)
    both = (ours < 0) & (recorded > 1) if ours.shape == recorded.shape else np.zeros(len(ours), bool)
    results.exact(name, np.where(both, recorded, ours) if both.any() else ours)


def _with_batch(rows: np.ndarray) -> np.ndarray:
    return np.column_stack([np.full(len(rows), BATCH_COLUMN, rows.dtype), rows])


def _fold(classes: np.ndarray, ignored: int, recorded: np.ndarray) -> np.ndarray:
    """Our classes, with the recording's number where both ignore a point: it has several kinds of ignored points."""
    if classes.shape != recorded.shape:
        return classes
    both = (classes == ignored) & ((recorded < 0) | (recorded >= ignored))
    return np.where(both, recorded, classes)
