"""Settings of rooms that look like scans: files, pairs and refusals."""

from pathlib import Path

import pytest

from xmask3d.errors import UserError
from xmask3d.rooms.scanned.settings import ScanSettings, read_settings


def test_pairs_go_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "hard.yaml"
    file.write_text("clutter: 2\njpeg: [20, 40]\n")
    settings = read_settings(file, ["clutter=0.5", "grain=3,8", "tilt=30"])
    assert (settings.clutter, settings.jpeg, settings.grain, settings.tilt) == (0.5, (20, 40), (3, 8), 30)
    assert settings.blur == ScanSettings().blur


def test_a_single_number_is_a_range_of_one() -> None:
    assert read_settings(None, ["jpeg=70"]).jpeg == (70, 70)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("cluter=1", "cluter: no such setting of rooms; did you mean clutter"),
        ("clutter", "expected key=value"),
        ("clutter=many", "--set: clutter many: input should be a valid number"),
        ("clutter=-1", "clutter -1: input should be greater than or equal to 0"),
        ("slope=1.5", r"slope 1\.5: input should be less than or equal to 1"),
        ("jpeg=0,50", r"jpeg \[0, 50\]: input should be greater than or equal to 1"),
        ("grain=5,2", "the lower limit is above the upper one"),
        ("grain=1,2,3", "tuple should have at most 2 items"),
        ("voxel_size=0", "input should be greater than 0"),
        ("blur=true", "input should be a valid number"),
        ("blur=2026-13-45", "--set blur=2026-13-45: not valid YAML"),
    ],
)
def test_impossible_settings_are_refused_by_name(pair: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_settings(None, [pair])


def test_files_that_hold_no_settings_are_refused(tmp_path: Path) -> None:
    for content in ("- 1\n", "a: [\n", "a: 1\na: 2\n"):
        (tmp_path / "file.yaml").write_text(content)
        with pytest.raises(UserError, match=r"file\.yaml"):
            read_settings(tmp_path / "file.yaml", [])
    with pytest.raises(UserError, match=r"none\.yaml: missing"):
        read_settings(tmp_path / "none.yaml", [])


def test_every_setting_is_explained_and_is_a_json_value() -> None:
    settings = ScanSettings()
    assert all(field.description for field in ScanSettings.model_fields.values())
    assert settings.changed(settings.values, "test") == settings == ScanSettings.model_validate(settings.values)


def test_the_page_lists_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rooms.md").read_text()
    for name, value in ScanSettings().values.items():
        default = f"{value:g}" if isinstance(value, float) else ", ".join(f"{limit:g}" for limit in value)
        assert f"| `{name}` | {default} | " in page
