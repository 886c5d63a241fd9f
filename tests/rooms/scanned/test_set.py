"""A tiny set of rooms that look like scans, on disk: files, labels, objects, determinism, manifest."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xmask3d.cli.main import main
from xmask3d.data.prepare.labels import NYU20
from xmask3d.errors import UserError
from xmask3d.rooms import generate
from xmask3d.rooms.generate import find_furniture, make_rooms
from xmask3d.rooms.manifest import check_set
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.scanned.truth import NOBODY, nearest_instance
from xmask3d.rooms.viewpoints import INTRINSICS

VIEWS = 3
SETTINGS = ScanSettings()


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rooms")
    make_rooms(out, 1, 1, VIEWS, seed=4, furniture=None, settings=SETTINGS)
    return out


def _cloud(out: Path, split: str, scene: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return torch.load(out / "scannet_3d" / split / f"{scene}_vh_clean_2.pth", weights_only=False)


def _contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("split", "scene"), [("train", "scene0000_00"), ("val", "scene5000_00")])
def test_points_project_onto_their_own_labels_and_colours(rooms: Path, split: str, scene: str) -> None:
    coords, colors, labels = _cloud(rooms, split, scene)
    assert coords.dtype == colors.dtype == labels.dtype == np.float32 and len(coords) > 10_000
    nyu = np.zeros(256, int)
    nyu[:20] = NYU20
    folder = rooms / "scannet_2d" / scene
    for stem in ("0", "20", "40"):
        pose = np.loadtxt(folder / "pose" / f"{stem}.txt")
        depth = np.asarray(Image.open(folder / "depth" / f"{stem}.png")) / 1000
        assert 0.01 < (depth == 0).mean() < 0.7
        local = (coords - pose[:3, 3]) @ pose[:3, :3]
        column = np.round(local[:, 0] / local[:, 2] * INTRINSICS[0, 0] + INTRINSICS[0, 2]).astype(int)
        row = np.round(local[:, 1] / local[:, 2] * INTRINSICS[1, 1] + INTRINSICS[1, 2]).astype(int)
        seen = np.flatnonzero((local[:, 2] > 0.1) & (column >= 0) & (column < 320) & (row >= 0) & (row < 240))
        seen = seen[np.abs(depth[row[seen], column[seen]] - local[seen, 2]) < 0.05]
        assert len(seen) >= 500
        image = np.asarray(Image.open(folder / "label" / f"{stem}.png"))
        known = seen[labels[seen] < 255]
        assert np.mean(image[row[known], column[known]] == nyu[labels[known].astype(int)]) > 0.9
        picture = np.asarray(Image.open(folder / "color" / f"{stem}.jpg")).astype(float) / 127.5 - 1
        assert np.abs(picture[row[seen], column[seen]] - colors[seen]).mean() < 0.25


@pytest.mark.parametrize(("split", "scene"), [("train", "scene0000_00"), ("val", "scene5000_00")])
def test_objects_are_of_their_points_classes(rooms: Path, split: str, scene: str) -> None:
    _, _, labels = _cloud(rooms, split, scene)
    objects = np.array((rooms / "instance_gt" / split / f"{scene}.txt").read_text().split(), int)
    assert len(objects) == len(labels)
    classes = np.append(NYU20, np.zeros(236, int))[labels.astype(int)]
    np.testing.assert_array_equal(objects // 1000, classes)
    assert ((objects % 1000 > 0) == (classes > 0)).all()
    assert len(np.unique(objects[objects > 0])) > len(np.unique(classes[classes > 0])) - 1


def test_points_far_from_every_surface_have_no_label() -> None:
    surface = np.array([[0, 0, 0], [1, 0, 0]], np.float32)
    points = np.array([[0.02, 0, 0], [0.9, 0, 0], [0.99, 0, 0.01]], np.float32)
    assert nearest_instance(points, surface, np.array([4, 7], np.int32), 0.05).tolist() == [4, NOBODY, 7]


def test_noise_takes_labels_only_where_no_surface_is_near(rooms: Path) -> None:
    _, _, labels = _cloud(rooms, "train", "scene0000_00")
    assert {0.0, 1.0} < set(np.unique(labels).tolist()) and 0.005 < (labels == 255).mean() < 0.6


def test_the_manifest_tells_version_seed_settings_and_digest(rooms: Path, tmp_path: Path) -> None:
    content = json.loads((rooms / "rooms.json").read_text())
    assert content["version"] == "v1" and content["arguments"]["seed"] == 4
    assert content["settings"] == SETTINGS.values
    assert check_set(rooms) == content["digest"]
    make_rooms(tmp_path, 1, 0, VIEWS, seed=4, furniture=None, settings=SETTINGS)
    assert (
        json.loads((tmp_path / "rooms.json").read_text())["rooms"]["scene0000_00"] == content["rooms"]["scene0000_00"]
    )
    (tmp_path / "scannet_2d" / "scene0000_00" / "pose" / "0.txt").write_text("other")
    with pytest.raises(UserError, match=r"1 of 1 rooms differ from rooms\.json, such as scene0000_00"):
        check_set(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rooms.json").write_text("{}")
    with pytest.raises(UserError, match="no manifest of rooms with digests"):
        check_set(tmp_path)


@pytest.mark.slow
def test_same_seed_gives_the_same_files_on_any_number_of_processes(rooms: Path, tmp_path: Path) -> None:
    make_rooms(tmp_path, 1, 1, VIEWS, seed=4, furniture=None, workers=2, settings=SETTINGS)
    assert _contents(tmp_path) == _contents(rooms)


def test_settings_change_the_rooms_and_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(generate, "make_room", lambda job, make=generate.make_room: made.append(job.scene) or make(job))
    for settings in (SETTINGS, SETTINGS, SETTINGS.changed({"tilt": 30}, "test")):
        make_rooms(tmp_path, 1, 0, 1, seed=4, furniture=None, settings=settings)
    assert len(made) == 2


def test_missing_furniture_is_an_error_unless_it_is_declined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def unavailable(cache: Path) -> Path:
        raise UserError("cannot get the furniture: no network")

    monkeypatch.setattr(generate, "get_furniture", unavailable)
    with pytest.raises(UserError, match="no network"):
        find_furniture("auto", tmp_path, required=True)
    arguments = ["rooms", "--out", str(tmp_path / "out"), "--version", "v1", "--cache", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "no network" in capsys.readouterr().err


def test_settings_are_for_v1(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["rooms", "--out", str(tmp_path / "out"), "--set", "clutter=1"])
    assert "is for --version v1" in capsys.readouterr().err
