from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tests.helpers.views import PUBLISHED
from tools.benchmark.case import Request
from tools.benchmark.sample import (
    NAMES,
    SCENE,
    cases,
    plain_label_map,
    plain_projection,
    plain_sample,
    plain_voxels,
    prepare,
    write_scene,
)
from xmask3d.data.sample_maker import make_sample
from xmask3d.data.scannet import SCANNET
from xmask3d.splits import load_benchmark


def test_cases_of_the_benchmark_command() -> None:
    listed = cases(Request(against=("plain",), repeats=1, points=(20_000, 150_000)))
    names = [(case.name, case.contender) for case in listed]
    assert len(set(names)) == 12 and ("sample, scannet200, 150k points", "plain") in names
    assert len(cases(Request())) == 4
    job = prepare(next(case for case in listed if case.contender == "xmask3d-kept"))
    for _ in range(2):
        (points, voxels), _folder = job.run()
        assert points > voxels > 1000


def test_plain_steps_give_the_same_sample(tmp_path: Path) -> None:
    write_scene(tmp_path, 20_000, views=4)
    benchmark = load_benchmark(NAMES["scannet"])
    reader = SCANNET.open(tmp_path, "train", benchmark)
    settings = replace(PUBLISHED, voxel_size=0.06, voxel_order="hash", image_size=(192, 192))
    scene, generator = reader.read_scene(SCENE), np.random.default_rng(0)
    for name in scene.view_names:
        view = reader.read_view(SCENE, name)
        ours = make_sample(scene, view, benchmark, settings)
        assert ours is not None and len(ours.points) > 1000
        rows, columns, visible = plain_projection(scene.points, view.pose, view.depth)
        assert torch.equal(ours.pixels, torch.from_numpy(np.stack([rows, columns], 1)))
        assert np.array_equal(ours.point_index, np.flatnonzero(visible))
        cells, first, inverse = plain_voxels(scene.points[visible], 0.06, 0.0)
        assert np.array_equal(ours.voxel_coords[ours.point_to_voxel], cells[inverse])
        assert np.array_equal(np.unique(inverse[first]), np.arange(len(cells))) and len(cells) == len(ours.voxel_coords)
        ids = np.asarray(benchmark.file_ids_2d)[view.label_map.clip(max=18)]
        ids = np.where(view.label_map < 19, ids, 0)
        assert torch.equal(plain_label_map(ids, benchmark, (192, 192)), ours.label_map)
    points, voxels = plain_sample(tmp_path, benchmark, "scannet", generator)
    assert points > voxels > 1000


def test_the_200_classes_too(tmp_path: Path) -> None:
    write_scene(tmp_path, 20_000)
    points, _ = plain_sample(tmp_path, load_benchmark(NAMES["scannet200"]), "scannet200", np.random.default_rng(0))
    assert points > 1000
