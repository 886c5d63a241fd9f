"""Facts of data sets, and finding them by the configuration's `data.layout`."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.scenes import write_scenes
from xmask3d.build import build_reader, dataset_spec
from xmask3d.config import Config, load_config
from xmask3d.data.check import published_scenes
from xmask3d.data.dataset_spec import DatasetSpec
from xmask3d.data.scannet import LAYOUTS, S3DIS, SCANNET, SCANNET200, ScanNetReader
from xmask3d.errors import UserError
from xmask3d.splits import load_benchmark

BENCHMARK = load_benchmark("scannet20/B15N4")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """A data set of one's own: ScanNet's files with depth in tenths of millimetres."""
    spec = DatasetSpec("my_package.MINE", ScanNetReader, one_camera=True, depth_unit=10_000.0, captions="said.json")
    module = ModuleType("my_package")
    module.MINE, module.OTHER = spec, "no data set"  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "my_package", module)
    return spec


def of(layout: str, **data: object) -> Config:
    return Config.model_validate({"data": {"layout": layout, **data}})


def test_data_sets_that_come_with_the_program() -> None:
    published = {"scannet": SCANNET, "scannet200": SCANNET200, "s3dis": S3DIS}
    assert list(LAYOUTS) == [*published, "scannetpp", "matterport", "arkitscenes", "replica"]
    assert {name: LAYOUTS[name] for name in published} == published
    assert [dataset_spec(of(name)) for name in LAYOUTS] == list(LAYOUTS.values())
    assert SCANNET.scenes == SCANNET200.scenes == {"train": 1201, "val": 312} and not S3DIS.scenes
    assert [spec.one_camera for spec in LAYOUTS.values()] == [True, True, *[False] * 5]


def test_a_data_set_by_dotted_path(own: DatasetSpec, tmp_path: Path) -> None:
    root = write_scenes(tmp_path, {"train": 1}, views=1, spacing=0.2)
    (root / "said.json").write_text('{"scene0000_00": {"0": "a room"}}')
    reader = build_reader(of("my_package.MINE", root=root), BENCHMARK, "train")
    usual = build_reader(of("scannet", root=root), BENCHMARK, "train")
    view, expected = (each.read_view("scene0000_00", "0") for each in (reader, usual))
    assert (view.depth * 10 == pytest.approx(expected.depth)) and expected.depth.max() > 1
    assert view.caption == "a room" and expected.caption not in (None, "a room")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            "kitti",
            "^data.layout: 'kitti' is unknown; known: scannet, scannet200, .*, replica, or the dotted",
        ),
        ("my_package.OTHER", "^data.layout: my_package.OTHER is no DatasetSpec"),
        ("my_package.NONE", "^data.layout: my_package.NONE cannot be imported"),
    ],
)
def test_a_wrong_layout_is_one_line(own: DatasetSpec, layout: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataset_spec(of(layout))


def test_somebody_elses_configuration_imports_no_data_set(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data: {layout: my_package.MINE}\n")
    with pytest.raises(UserError, match=r"data\.layout names code.*my_package\.MINE"):
        load_config(path, trusted=False)


def test_the_number_of_scenes_is_known_unless_the_layout_is_imitated(tmp_path: Path) -> None:
    root = write_scenes(tmp_path, {"train": 1}, views=1, spacing=0.2)
    assert published_scenes(ScanNetReader(SCANNET, root, "train", BENCHMARK)) == 1201
    assert published_scenes(ScanNetReader(replace(SCANNET, scenes={}), root, "train", BENCHMARK)) is None
    (root / "rooms.json").write_text("{}")
    assert published_scenes(ScanNetReader(SCANNET, root, "train", BENCHMARK)) is None
