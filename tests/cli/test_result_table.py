"""Printed answer."""

import pytest

from tests.segment.test_result_files import result_of
from xmask3d.cli.result_table import print_result


def test_notes_on_words_files_and_clicks_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    about = {"wording": ["'sofas' is taken as sofa"], "notes": ["9 vertices take the label"], "corrected": 1234}
    print_result(result_of(["bed", "floor"], about=about))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [*about["wording"], *about["notes"], "1,234 points are labelled by clicks (--corrections)"]
    assert lines[5].split()[:2] == ["bed", "40"] and len(lines) == 7
