"""Configurations and class lists that come with the program, found by name from any folder."""

from pathlib import Path

import pytest

from xmask3d import resources
from xmask3d.config import load_config
from xmask3d.errors import UserError
from xmask3d.resources import (
    REPOSITORY,
    class_lists,
    find_configuration,
    find_file,
    scan_path,
    shipped_configurations,
)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("rooms/B15N4", "rooms/B15N4.yaml"),
        ("rooms/B15N4.yaml", "rooms/B15N4.yaml"),
        ("scannet/B15N4", "scannet/B15N4.yaml"),
        ("scannet20/B15N4", "scannet/B15N4.yaml"),
        ("scannet200/B170N30", "scannet200/B170N30.yaml"),
        ("config/s3dis/B8N4.yaml", "s3dis/B8N4.yaml"),
        ("config/s3dis/B8N4", "s3dis/B8N4.yaml"),
    ],
)
@pytest.mark.parametrize("checkout", [True, False])
def test_a_shipped_configuration_is_found(
    name: str, file: str, checkout: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not checkout:  # as in a wheel, whose folder of packages has no config/
        monkeypatch.setattr(resources, "configurations", lambda: REPOSITORY / "config")
        monkeypatch.setattr(resources, "IS_CHECKOUT", False)
    assert find_configuration(name) == REPOSITORY / "config" / file
    assert load_config(name) == load_config(REPOSITORY / "config" / file)


def test_a_file_of_the_user_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config/rooms").mkdir(parents=True)
    Path("config/rooms/B15N4.yaml").write_text("seed: 3")
    assert load_config("config/rooms/B15N4.yaml").seed == 3
    assert load_config("rooms/B15N4").seed != 3


@pytest.mark.parametrize(
    ("name", "near"),
    [("rooms/B15N5", "rooms/B15N4"), ("roms/B10N9.yaml", "rooms/B10N9"), ("config/s3dis/B8N5.yaml", "s3dis/B8N4")],
)
def test_an_unknown_name_gets_the_nearest_and_all(name: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        find_configuration(name)
    text = str(caught.value)
    assert f"'{name}'" in text and f"did you mean '{near}'?" in text and "\n" not in text
    assert text.endswith(f"shipped: {', '.join(shipped_configurations())}")
    assert {"rooms/fast", "scannet/B12N7", "scannet200/B150N50"} <= set(shipped_configurations())


@pytest.mark.parametrize("name", ["nothing like it", "/nowhere/a.yaml", "", "config"])
def test_what_resembles_nothing_gets_all(name: str) -> None:
    with pytest.raises(UserError, match="none is shipped under that name; shipped: cross/arkitscenes"):
        find_configuration(name)


def test_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_file("dataset/scannet20.yaml").is_file() and (class_lists() / "scannet20.yaml").is_file()
    (tmp_path / "mine").touch()
    assert find_file("mine") == Path("mine")


def test_paths_of_a_wheel_are_relative_to_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "IS_CHECKOUT", False)
    assert find_file("data/rooms") == Path("data/rooms")
    package = REPOSITORY / "xmask3d"
    assert (resources.configurations(), class_lists()) == (package / "config_files", package / "class_lists")


def test_the_name_example_stands_for_the_bundled_recording_unless_something_here_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundled = scan_path("example")
    assert len(list((bundled / "color").iterdir())) == 24
    assert sum(path.stat().st_size for path in bundled.rglob("*")) < 3_000_000
    assert scan_path("other") == Path("other") and scan_path(tmp_path / "example") == tmp_path / "example"
    Path("example").mkdir()
    assert scan_path("example") == Path("example")
