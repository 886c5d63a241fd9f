"""Regions in place of labels: what they are, and that no label is read where they train."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.scenes import write_scenes
from tests.helpers.views import TRAINING
from xmask3d.data.datasets import TrainingViews
from xmask3d.data.regions import MOST_REGIONS, SceneRegions, divide_coarsely, region_map
from xmask3d.data.scannet import SCANNET, FileView
from xmask3d.data.scene import Scene
from xmask3d.errors import UserError
from xmask3d.splits import load_benchmark


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("scannet20/B15N4")


@pytest.fixture(scope="module")
def reader(tmp_path_factory, benchmark):
    root = write_scenes(tmp_path_factory.mktemp("scans"), {"train": 1}, views=2, spacing=0.1)
    return SCANNET.open(root, "train", benchmark)


class Unreadable:
    """A reader whose scenes and views raise where anyone looks at a label."""

    def __init__(self, reader):
        self._reader = reader

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def read_scene(self, name):
        class Secret(Scene):
            @property
            def labels(self):
                raise AssertionError("a label of a point was read")

            @labels.setter
            def labels(self, value):
                pass

        return Secret(**vars(self._reader.read_scene(name)))

    def read_view(self, scene, view):
        class SecretView(FileView):
            @property
            def label_map(self):
                raise AssertionError("a label picture was read")

        return SecretView(self._reader, scene, view)


def test_no_label_is_read_where_regions_train(reader, benchmark) -> None:
    secret = Unreadable(reader)
    with pytest.raises(AssertionError, match="label of a point"):
        TrainingViews(secret, benchmark, TRAINING)[0]
    sample = TrainingViews(secret, benchmark, TRAINING, regions=SceneRegions())[0]
    assert sample.classes is None
    assert (sample.labels == benchmark.num_base).all() and (sample.binary_labels == -1).all()
    found = sample.label_map.unique()
    assert 1 < len(found) <= MOST_REGIONS and torch.equal(found, torch.arange(len(found)))
    # The same view, with the same voxels, as one that trains on labels.
    labelled = TrainingViews(reader, benchmark, TRAINING)[0]
    assert labelled.view == sample.view and torch.equal(labelled.voxel_coords, sample.voxel_coords)


def test_regions_hardly_cross_objects(reader) -> None:
    scene = reader.read_scene(reader.scene_names[0])
    counts = np.zeros((divide_coarsely(scene).max() + 1, 21), np.int64)
    np.add.at(counts, (divide_coarsely(scene), scene.labels), 1)
    assert counts.max(1).sum() > 0.9 * len(scene.points)
    assert (divide_coarsely(replace(scene, points=scene.points[:1])) == 0).all()


def test_regions_are_kept(reader, tmp_path: Path, monkeypatch, caplog) -> None:
    scene, files = reader.read_scene(reader.scene_names[0]), reader.sources(reader.scene_names[0])
    first = SceneRegions(tmp_path).find(scene, files)
    (kept,) = (tmp_path / "regions").iterdir()
    monkeypatch.setattr("xmask3d.data.regions.divide_coarsely", lambda scene: first[::-1])
    assert np.array_equal(SceneRegions(tmp_path).find(scene, files), first)
    kept.write_bytes(kept.read_bytes()[:-9])
    assert np.array_equal(SceneRegions(tmp_path).find(scene, files), first[::-1]) and "damaged" in caplog.text
    own = np.arange(len(scene.points))
    assert SceneRegions(tmp_path).find(replace(scene, segments=own), files) is own


def test_a_region_map_has_the_largest_regions_and_the_nearest_point_everywhere() -> None:
    pixels = np.stack(np.meshgrid(np.arange(0, 40, 2), np.arange(0, 60, 2), indexing="ij"), -1).reshape(-1, 2)
    regions = np.where(pixels[:, 1] < 20, 7, 3)
    regions[0] = 9  # too small
    drawn = region_map(regions, pixels, (40, 60), (40, 60))
    assert drawn.dtype == np.int64 and drawn[0, 0] == 1 and (drawn[:, :19] == 1).all() and (drawn[:, 20:] == 0).all()
    assert (region_map(np.array([5, 5]), pixels[:2], (40, 60), (20, 30)) == 0).all()
    many = region_map(np.repeat(np.arange(600), 60), np.repeat(pixels, 60, 0), (40, 60), (40, 60))
    assert len(np.unique(many)) == MOST_REGIONS


def test_the_head_that_rests_is_not_asked(tmp_path: Path) -> None:
    from tests.helpers.tiny import write_config
    from xmask3d.build import build_criterion, label_settings
    from xmask3d.config import load_config
    from xmask3d.engine.gate import can_fit_gate

    path = write_config(tmp_path, tmp_path / "nowhere")
    config = load_config(path, ["train.supervision=none"])
    with pytest.raises(UserError, match=r"set evaluate\.gate=clip"):
        label_settings(config)
    soft = ["train.supervision=none", "evaluate.votes=soft", "evaluate.regions=gate"]
    with pytest.raises(UserError, match=r"evaluate\.regions=votes"):
        label_settings(load_config(path, [*soft, "evaluate.gate=none"]))
    config = load_config(path, [*soft, "evaluate.gate=clip", "evaluate.region_clip=0.5", "train.fit_gate=true"])
    assert label_settings(config).regions == "gate"
    benchmark = load_benchmark("scannet20/B15N4")
    assert not can_fit_gate(config, benchmark)
    names = [loss.name for loss in build_criterion(config, benchmark).losses]
    assert "binary" not in names and {"point_fused", "point_3d", "mask", "mask_regularisation"} <= set(names)
