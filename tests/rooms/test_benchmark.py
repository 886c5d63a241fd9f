"""The fixed set of rooms: its digests, the comparison with it, and what cannot be asked for together with it."""

import json
from pathlib import Path

import pytest

from tests.helpers.command import run_command
from xmask3d.errors import UserError
from xmask3d.rooms import generate
from xmask3d.rooms.manifest import FixedSet, set_digest


def manifest(out: Path, rooms: dict[str, str]) -> Path:
    out.mkdir(exist_ok=True)
    content = {name: {"split": "val", "digest": digest} for name, digest in rooms.items()}
    (out / "rooms.json").write_text(json.dumps({"rooms": content, "digest": set_digest(rooms)}))
    return out


def test_the_set_is_complete() -> None:
    fixed = FixedSet.read("v1")
    assert (fixed.version, fixed.seed, fixed.views, fixed.train_rooms, fixed.val_rooms) == ("v1", 1, 10, 300, 48)
    assert list(fixed.rooms) == [f"scene{i:04d}_00" for i in (*range(300), *range(5000, 5048))]
    assert set_digest(fixed.rooms) == fixed.digest == "70c954381cc9219b280ca9479e60545480468a7c3738cf1779295250c11bb35b"


def test_rooms_are_compared_by_digest(tmp_path: Path) -> None:
    fixed = FixedSet.read("v1")
    two = {name: fixed.rooms[name] for name in ("scene0003_00", "scene5001_00")}
    assert fixed.compare(manifest(tmp_path, two)).startswith("2 of the 348 rooms")
    assert (
        fixed.compare(manifest(tmp_path, fixed.rooms)) == f"all 348 rooms of the benchmark set, digest {fixed.digest}"
    )
    for other in (two | {"scene5001_00": "0" * 64}, two | {"scene0300_00": "0" * 64}):
        with pytest.raises(UserError, match=r"1 of \d rooms are not of the benchmark set, such as scene"):
            fixed.compare(manifest(tmp_path, other))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "2"], "--seed is fixed in a benchmark set"),
        (["--version", "v1"], "--version is fixed in a benchmark set"),
        (["--set", "tilt=3"], "--set is fixed in a benchmark set"),
        (["--furniture", "procedural"], "needs the library's furniture"),
        (["--val-rooms", "49"], "--val-rooms 49: the benchmark set has 48"),
    ],
)
def test_nothing_of_the_set_can_be_changed(arguments: list[str], message: str, tmp_path: Path, capfd) -> None:
    assert run_command("rooms", "--benchmark", "v1", "--out", tmp_path / "x", *arguments) != 0
    assert message in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "x").exists()


def test_rooms_of_other_furniture_are_refused(tmp_path: Path, monkeypatch, capfd) -> None:
    def none(cache: Path) -> Path:
        raise UserError("cannot get the furniture")

    monkeypatch.setattr(generate, "get_furniture", none)
    assert run_command("rooms", "--benchmark", "v1", "--out", tmp_path / "x") == 1
    assert "cannot get the furniture" in capfd.readouterr().err and not (tmp_path / "x").exists()


def test_the_command_makes_and_compares_as_many_rooms_as_are_asked_for(tmp_path: Path, monkeypatch, capfd) -> None:
    asked = []

    def make(out, train_rooms, val_rooms, views, seed, furniture, workers, settings) -> None:
        asked.append((train_rooms, val_rooms, views, seed, settings is not None))
        manifest(out, {"scene5000_00": FixedSet.read("v1").rooms["scene5000_00"]})

    monkeypatch.setattr(generate, "make_rooms", make)
    monkeypatch.setattr(generate, "get_furniture", lambda cache: cache)
    assert run_command("rooms", "--benchmark", "v1", "--out", tmp_path / "x", "--train-rooms", "0") == 0
    assert asked == [(0, 48, 10, 1, True)] and "1 of the 348 rooms" in capfd.readouterr().out
    assert run_command("rooms", "--benchmark", "v1", "--out", tmp_path / "x", "--check") == 1  # no files behind it
