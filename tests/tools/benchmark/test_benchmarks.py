import json

import pytest
import torch

from tests.sparse.clouds import random_cloud
from tools.benchmark import runner
from tools.benchmark.case import Case, Measurement, Request
from tools.benchmark.machine import Machine
from tools.benchmark.report import markdown, plot, read_json, write_json
from tools.benchmark.runner import run_case, run_parts
from tools.benchmark.sparse import PerOffsetManager, cases, multiply_adds, room_voxels
from xmask3d.errors import UserError
from xmask3d.models.mink_unet import MinkUNet
from xmask3d.sparse import SparseTensor, sparse_tensor
from xmask3d.sparse.coordinates import CoordinateMaps

MACHINE = Machine("some cpu", 2, 8.0, "Linux", "2.0", 1, "cpu", 0.5, {"float32": 50.0})


def small_network() -> MinkUNet:
    return MinkUNet(3, 4, planes=(4,) * 8, layers=(1,) * 8, stem=4)


def tiny_case(**changes: str) -> Case:
    options = {"network": "MinkUNet18A", "voxels": 200, "step": "forward", "kind": "float32"}
    return Case("sparse", "a", "xmask3d", {**options, **changes}, repeats=2)


def test_room_has_the_voxels_asked_for_like_a_scanned_surface() -> None:
    voxels = room_voxels(5000)
    assert voxels.shape == (5000, 4)
    assert voxels.unique(dim=0).shape == voxels.shape
    assert torch.equal(voxels, room_voxels(5000))
    neighbours = (CoordinateMaps(voxels).neighbours(1, 3).table < 5000).sum(1).float().mean()
    assert 10 < neighbours < 17


def test_multiply_adds_of_a_lone_voxel_count_one_tap_of_every_kernel() -> None:
    network = small_network()
    maps = CoordinateMaps(torch.tensor([[0, 5, 5, 5]], dtype=torch.int32))
    expected = sum(parameter[0].numel() if parameter.ndim == 3 else parameter.numel()
                   for name, parameter in network.named_parameters() if name.endswith("kernel"))  # fmt: skip
    assert multiply_adds(network, maps) == expected


def test_per_offset_reference_equals_the_default() -> None:
    torch.manual_seed(0)
    network = small_network().double()
    cloud, features = random_cloud(), torch.randn(150, 3, dtype=torch.float64)
    manager = PerOffsetManager(cloud)
    results = []
    for x in (sparse_tensor(cloud, features), SparseTensor(manager.arrange(features), 1, manager)):
        network.zero_grad()
        out = network(x)[1]
        out.square().sum().backward()
        results.append([out, *(parameter.grad for parameter in network.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_file_of_something_else_is_named(tmp_path) -> None:
    (tmp_path / "b.json").write_text("[]")
    for name in ("b.json", "none.json"):
        with pytest.raises(UserError, match=f"{name} does not hold measurements"):
            read_json(tmp_path / name)


def test_cases_name_contenders_in_float32_only_but_our_own() -> None:
    found = cases(Request(against=("per-offset", "torch"), voxels=(1000,)))
    assert len(found) == 2 * 2 * (3 + 2)
    assert {case.options["kind"] for case in found if case.contender == "torch"} == {"float32", "bfloat16"}
    assert {case.options["kind"] for case in found if case.contender == "per-offset"} == {"float32"}
    on_cpu = cases(Request(against=("spconv",), voxels=(1000,)))
    assert {case.options["step"] for case in on_cpu if case.contender == "spconv"} == {"forward"}


def test_a_contender_that_no_part_knows_is_named() -> None:
    with pytest.raises(UserError, match="'torchsparse' is unknown to sparse"):
        run_parts(["sparse"], Request(against=("torchsparse",)))


def test_a_case_is_measured_in_its_own_process() -> None:
    measurement = run_case(tiny_case())
    assert not measurement.failure
    assert len(measurement.seconds) == 2
    assert 0 < measurement.median < 60
    assert measurement.peak_bytes > 10**8
    assert measurement.operations > 10**6


def test_only_the_cases_named_are_run(monkeypatch) -> None:
    monkeypatch.setattr(runner, "run_case", lambda case, interpreter: Measurement(case))
    request = Request(voxels=(1000, 2000), only=("MinkUNet18A", "2k", "step"))
    names = [measurement.case.name for measurement in runner.run_parts(["sparse"], request)]
    assert names == ["MinkUNet18A, 2k voxels, step, float32", "MinkUNet18A, 2k voxels, step, bfloat16"]


def test_failures_are_reported_in_one_line() -> None:
    assert "cannot start" in run_case(tiny_case(), "/no/such/python").failure
    assert "KeyError" in run_case(tiny_case(network="unheard-of")).failure


def test_reports_compare_with_ours(tmp_path) -> None:
    other = Case("sparse", "a", "minkowski", {})
    entries = [
        Measurement(tiny_case(), (0.3, 0.2, 0.1), (0.4, 0.4, 0.4), 2**30, 10**9),
        Measurement(other, (0.6, 0.5, 0.7), (0.9, 0.9, 0.9), 2**31, 10**9),
        Measurement(other, failure="not there"),
    ]
    rows = markdown(MACHINE, entries).splitlines()
    assert rows[-3].split(" | ")[2:] == ["0.200", "0.100-0.300", "0.40", "1.00", "1.0", "5", "10%", "1.00", "0.0 |"]
    assert rows[-2].split(" | ")[5] == "3.00"
    assert "not there" in rows[-1]
    write_json(tmp_path / "a.json", MACHINE, entries)
    assert json.loads((tmp_path / "a.json").read_text())["measurements"][1]["seconds"] == [0.6, 0.5, 0.7]
    assert read_json(tmp_path / "a.json") == (MACHINE, entries)
    plot(tmp_path / "a.png", entries)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_scenes_that_were_timed_alone_are_drawn_by_their_views(tmp_path, monkeypatch) -> None:
    drawn: list[tuple[list[float], list[float], str]] = []
    keep = lambda axes, views, seconds, label, **_: drawn.append((list(views), list(seconds), label))  # noqa: E731
    monkeypatch.setattr("matplotlib.axes.Axes.plot", keep)
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda *_, **__: None)
    entries = [scene(1000, 4, "xmask3d", 2.0), scene(1000, 1, "xmask3d", 1.0), scene(50, 1, "xmask3d", 0.5)]
    compared = [scene(1000, 30, name, seconds) for name, seconds in (("xmask3d", 3.0), ("plain", 9.0))]
    plot(tmp_path / "a.png", [*entries, *compared])
    assert drawn == [([1], [0.5], "50 points"), ([1, 4], [1.0, 2.0], "1,000 points")]


def scene(points: int, views: int, contender: str, seconds: float) -> Measurement:
    case = Case("scene", f"{points} points, {views} views", contender, {"points": points, "views": views})
    return Measurement(case, (seconds,), (seconds,), 2**30)
