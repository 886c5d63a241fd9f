"""Parts by dotted path: found, or one line that says what is missing."""

import math
import sys
from pathlib import Path

import pytest

from xmask3d.dotted import import_dotted, is_dotted
from xmask3d.errors import UserError


def test_a_dotted_path_is_told_from_names_and_files() -> None:
    assert is_dotted("math.pi") and is_dotted("a.b.C")
    for name in ("scannet", "ViT-L-14/openai", "sd-v1.3", "a..b", ".a", "1.5"):
        assert not is_dotted(name)


def test_what_it_names_is_imported() -> None:
    assert import_dotted("math.pi", "key") == math.pi


@pytest.mark.parametrize("path", ["no_such_package.Part", "math.no_such_name"])
def test_a_wrong_path_is_one_line(path: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.part: {path} cannot be imported .*PYTHONPATH$"):
        import_dotted(path, "model.part")


def test_the_working_folder_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part_of_my_own.py").write_text("ANSWER = 7\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    assert import_dotted("part_of_my_own.ANSWER", "key") == 7
    assert sys.path[-1] == str(tmp_path), "nothing installed is shadowed"
