"""The record of a run's validations."""

from pathlib import Path

import pytest

from xmask3d.checkpoints.validations import FILE, read_validations, record_validation
from xmask3d.errors import UserError


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    assert read_validations(tmp_path) == {}
    record_validation(tmp_path, 4, {"fused_hiou": 0.25})
    record_validation(tmp_path, 12, {"fused_hiou": 0.5})
    record_validation(tmp_path, 4, {"fused_hiou": 0.75})
    assert read_validations(tmp_path) == {4: {"fused_hiou": 0.75}, 12: {"fused_hiou": 0.5}}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"x": {}}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_validations(tmp_path) == {}


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"validations\.json: cannot be written"):
        record_validation(tmp_path / "file", 1, {})
