"""A tiny set of rooms on disk: layout, agreement of cloud and frames, determinism, resuming."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xmask3d.data.prepare.labels import NYU20
from xmask3d.errors import UserError
from xmask3d.rooms import generate
from xmask3d.rooms import viewpoints as camera
from xmask3d.rooms.generate import Job, find_furniture, is_finished, make_rooms
from xmask3d.rooms.manifest import attribution
from xmask3d.rooms.render import Frame
from xmask3d.rooms.structure import BuiltRoom
from xmask3d.rooms.viewpoints import INTRINSICS
from xmask3d.rooms.writer import objects_file, scene_files

VIEWS = 3


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rooms")
    make_rooms(out, train_rooms=2, val_rooms=1, views=VIEWS, seed=4, furniture=None)
    return out


def _cloud(out: Path, split: str, scene: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return torch.load(out / "scannet_3d" / split / f"{scene}_vh_clean_2.pth", weights_only=False)


def _contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_files_are_where_scannet_has_them(rooms: Path) -> None:
    clouds = sorted(str(path.relative_to(rooms / "scannet_3d")) for path in rooms.glob("scannet_3d/*/*"))
    assert clouds == [f"{s}_vh_clean_2.pth" for s in ("train/scene0000_00", "train/scene0001_00", "val/scene5000_00")]
    for scene in ("scene0000_00", "scene0001_00", "scene5000_00"):
        folder = rooms / "scannet_2d" / scene
        for name, ending in (("color", "jpg"), ("depth", "png"), ("pose", "txt"), ("label", "png")):
            assert sorted(path.name for path in (folder / name).iterdir()) == [
                f"{i * 20}.{ending}" for i in range(VIEWS)
            ]
        np.testing.assert_allclose(np.loadtxt(folder / "intrinsics.txt"), INTRINSICS, atol=1e-6)
    assert not list(rooms.rglob(".part-*"))
    assert (rooms / "contact_sheet.png").is_file()


def test_frames_have_scannets_types_and_ids(rooms: Path) -> None:
    folder = rooms / "scannet_2d" / "scene0000_00"
    for stem in ("0", "20", "40"):
        images = {
            name: np.asarray(Image.open(folder / name / f"{stem}.{'jpg' if name == 'color' else 'png'}"))
            for name in ("color", "depth", "label")
        }
        assert images["color"].shape == (240, 320, 3) and images["color"].dtype == np.uint8
        assert images["depth"].shape == (240, 320) and images["depth"].dtype == np.uint16
        assert images["label"].dtype == np.uint8 and set(np.unique(images["label"])) <= {0, *NYU20}
        assert 0.9 < np.mean(images["depth"] > 0) < 1 and 500 < np.median(images["depth"]) < 6000
        pose = np.loadtxt(folder / "pose" / f"{stem}.txt")
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-5)


def test_cloud_has_scannets_form(rooms: Path) -> None:
    coords, colors, labels = _cloud(rooms, "train", "scene0000_00")
    assert coords.dtype == colors.dtype == labels.dtype == np.float32
    assert coords.shape == colors.shape == (len(labels), 3) and len(labels) > 20000
    assert np.abs(colors).max() <= 1 and colors.std() > 0.1
    assert set(np.unique(labels)) <= {*range(20), 255}
    assert {0, 1} <= set(np.unique(labels))
    # One point a cell of 2.5 cm.
    assert len(np.unique(np.round(coords / 0.025), axis=0)) > 0.75 * len(coords)


@pytest.mark.parametrize(
    ("split", "scene"), [("train", "scene0000_00"), ("train", "scene0001_00"), ("val", "scene5000_00")]
)
def test_points_project_onto_their_own_labels_and_colours(rooms: Path, split: str, scene: str) -> None:
    coords, colors, labels = _cloud(rooms, split, scene)
    nyu = np.zeros(256, int)
    nyu[:20] = NYU20
    folder = rooms / "scannet_2d" / scene
    for stem in ("0", "20", "40"):
        pose = np.loadtxt(folder / "pose" / f"{stem}.txt")
        depth = np.asarray(Image.open(folder / "depth" / f"{stem}.png")) / 1000
        local = (coords - pose[:3, 3]) @ pose[:3, :3]
        column = np.round(local[:, 0] / local[:, 2] * INTRINSICS[0, 0] + INTRINSICS[0, 2]).astype(int)
        row = np.round(local[:, 1] / local[:, 2] * INTRINSICS[1, 1] + INTRINSICS[1, 2]).astype(int)
        inside = (local[:, 2] > 0.1) & (column >= 0) & (column < 320) & (row >= 0) & (row < 240)
        seen = np.flatnonzero(inside)
        seen = seen[np.abs(depth[row[seen], column[seen]] - local[seen, 2]) < 0.05]
        assert len(seen) >= 500
        image = np.asarray(Image.open(folder / "label" / f"{stem}.png"))
        assert np.mean(image[row[seen], column[seen]] == nyu[labels[seen].astype(int)]) > 0.93
        picture = np.asarray(Image.open(folder / "color" / f"{stem}.jpg")).astype(float) / 127.5 - 1
        assert np.abs(picture[row[seen], column[seen]] - colors[seen]).mean() < 0.12


def test_objects_are_of_their_points_classes(rooms: Path) -> None:
    for split, scene in (("train", "scene0000_00"), ("val", "scene5000_00")):
        _, _, labels = _cloud(rooms, split, scene)
        objects = np.array((rooms / "instance_gt" / split / f"{scene}.txt").read_text().split(), int)
        classes = np.append(NYU20, np.zeros(236, int))[labels.astype(int)]
        np.testing.assert_array_equal(objects // 1000, classes)
        assert ((objects % 1000 > 0) == (classes > 0)).all()
        chairs = np.unique(objects[classes == 5])
        assert len(chairs) == len(np.unique(chairs % 1000))
        # Floor, wall, ceiling, perhaps a rug, then the pieces: no number is taken twice.
        numbers = np.unique(objects[objects > 0])
        assert len(np.unique(numbers % 1000)) == len(numbers) > 5


def test_clean_rooms_are_those_of_before(rooms: Path) -> None:
    found = {}
    for split, scene in (("train", "scene0000_00"), ("val", "scene5000_00")):
        coords, colors, labels = _cloud(rooms, split, scene)
        values = (coords.mean(), colors.mean(), colors.std(), np.minimum(labels, 20).mean())
        found[scene] = (len(coords), *(round(float(value), 3) for value in values))
    assert found == {
        "scene0000_00": (33587, 1.66, 0.115, 0.509, 4.736),
        "scene5000_00": (26864, 1.691, -0.051, 0.4, 3.237),
    }


def test_captions_name_what_is_seen(rooms: Path) -> None:
    sentences = json.loads((rooms / "captions.json").read_text())
    assert {scene: list(frames) for scene, frames in sentences.items()} == {
        scene: ["0", "20", "40"] for scene in ("scene0000_00", "scene0001_00", "scene5000_00")
    }
    assert all(len(text.split()) >= 2 for frames in sentences.values() for text in frames.values())


def test_summary_shows_that_no_model_is_in_both_splits(rooms: Path) -> None:
    summary = json.loads((rooms / "rooms.json").read_text())
    assert summary["arguments"] == {
        "furniture": "procedural",
        "seed": 4,
        "train_rooms": 2,
        "val_rooms": 1,
        "views": VIEWS,
    }
    assert summary["models"]["train"] and summary["models"]["val"]
    assert not set(summary["models"]["train"]) & set(summary["models"]["val"])


@pytest.mark.slow
def test_same_seed_gives_the_same_files_on_any_number_of_processes(rooms: Path, tmp_path: Path) -> None:
    make_rooms(tmp_path, train_rooms=2, val_rooms=1, views=VIEWS, seed=4, furniture=None, workers=2)
    assert _contents(tmp_path) == _contents(rooms)


def test_finished_rooms_are_kept_and_others_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(generate, "make_room", lambda job, make=generate.make_room: made.append(job.scene) or make(job))
    make_rooms(tmp_path, train_rooms=1, val_rooms=1, views=1, seed=0, furniture=None)
    before = _contents(tmp_path)
    make_rooms(tmp_path, train_rooms=1, val_rooms=1, views=1, seed=0, furniture=None)
    assert made == ["scene0000_00", "scene5000_00"] and _contents(tmp_path) == before
    (tmp_path / "scannet_3d" / "train" / "scene0000_00_vh_clean_2.pth").unlink()
    make_rooms(tmp_path, train_rooms=1, val_rooms=0, views=1, seed=0, furniture=None)
    assert made == ["scene0000_00", "scene5000_00", "scene0000_00"]
    assert [path.name for path in (tmp_path / "scannet_2d").iterdir()] == ["scene0000_00"]


def test_other_arguments_leave_nothing_of_the_rooms_before(tmp_path: Path) -> None:
    make_rooms(tmp_path / "twice", train_rooms=1, val_rooms=0, views=3, seed=0, furniture=None)
    for out in ("twice", "once"):
        make_rooms(tmp_path / out, train_rooms=1, val_rooms=0, views=1, seed=1, furniture=None)
    assert _contents(tmp_path / "twice") == _contents(tmp_path / "once")


def test_scenes_of_others_are_not_written_over(tmp_path: Path) -> None:
    cloud = tmp_path / "scannet_3d" / "val" / "scene5000_00_vh_clean_2.pth"
    cloud.parent.mkdir(parents=True)
    cloud.touch()
    with pytest.raises(UserError, match=r"scene5000_00_vh_clean_2\.pth: a scene that is no room of this tool"):
        make_rooms(tmp_path, train_rooms=1, val_rooms=1, views=1, seed=0, furniture=None)
    assert cloud.exists() and not (tmp_path / "records").exists()


def test_furniture_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_rooms(tmp_path, train_rooms=1, val_rooms=0, views=1, seed=0, furniture=None)
    monkeypatch.setattr(generate, "models_of", lambda furniture, seed: {"train": [], "val": []})
    with pytest.raises(UserError, match="made before have furniture that is missing from None"):
        make_rooms(tmp_path, train_rooms=1, val_rooms=0, views=1, seed=0, furniture=None)


def test_cameras_are_looked_for_until_one_sees_something(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    judged, visible = [], camera.visible_things

    def third(built: BuiltRoom, frame: Frame) -> np.ndarray | None:
        judged.append(frame)
        things = visible(built, frame)
        return things if things is not None and len(judged) > 30 else None

    monkeypatch.setattr(camera, "visible_things", third)
    make_rooms(tmp_path, train_rooms=1, val_rooms=0, views=1, seed=0, furniture=None)
    assert len(judged) > 30
    monkeypatch.setattr(camera, "visible_things", lambda built, frame: None)
    monkeypatch.setattr(camera, "PATIENCE", 20)
    with pytest.raises(UserError, match=r"no camera in a \w+ sees anything"):
        make_rooms(tmp_path, train_rooms=1, val_rooms=0, views=1, seed=1, furniture=None)


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--seed -1: use 0 or more"):
        make_rooms(tmp_path, 1, 0, 5, -1, None)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/scannet_3d/train: the folder cannot be made"):
        make_rooms(tmp_path / "file", 1, 0, 5, 0, None)
    with pytest.raises(UserError, match="at least one room"):
        make_rooms(tmp_path, 0, 0, 5, 0, None)
    with pytest.raises(UserError, match="sh3f archive"):
        find_furniture(str(tmp_path), tmp_path)
    assert find_furniture("procedural", tmp_path) is None


def test_auto_goes_on_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def unavailable(cache: Path) -> Path:
        raise UserError("cannot get the furniture: no network")

    monkeypatch.setattr(generate, "get_furniture", unavailable)
    assert find_furniture("auto", tmp_path) is None
    assert "no network" in capsys.readouterr().out


def test_attribution_without_library_models() -> None:
    assert "made by rule" in attribution([])


def test_a_record_of_another_kind_counts_as_none(tmp_path: Path) -> None:
    job = Job(tmp_path, "train", 0, 2, 0, None)
    for path in (
        *scene_files(tmp_path, "train", job.scene)[:1],
        objects_file(tmp_path, "train", job.scene),
        job.record,
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    good = {"identity": job.identity, "captions": {}, "points": 1, "frames_per_class": {}, "models": [], "digest": ""}
    bad = [[], 3, None, "x", [good], *({**good, name: value} for name in good for value in (None, [[1]]))]
    for content in ("", "{", "[" * 200_000, *map(json.dumps, bad)):
        job.record.write_text(content)
        assert not is_finished(job)
    job.record.write_text(json.dumps(good))
    assert is_finished(job)
    job.record.unlink()
    job.record.mkdir()
    assert not is_finished(job)
