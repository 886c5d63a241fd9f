"""The drawing of the architecture: arrows are imports, and the page has the drawing of the present imports."""

from pathlib import Path

import pytest

from tools.studies import architecture
from xmask3d.resources import REPOSITORY


def test_arrows_are_imports_without_those_that_follow_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "house"
    files = {
        "roof/tiles.py": "from house.walls.bricks import Brick\ndef lazy():\n    import house.ground\n",
        "walls/bricks.py": "from typing import TYPE_CHECKING\nfrom house import ground\n"
        "if TYPE_CHECKING:\n    from house.roof import tiles\n",
        "ground.py": "import numpy\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert architecture.read_uses(package) == {"roof": {"walls", "ground"}, "walls": {"ground"}, "ground": set()}
    monkeypatch.setattr(architecture, "GROUPS", {"above": ["roof"], "below": ["walls", "ground"]})
    assert architecture.draw(package).splitlines()[-2:] == ["    roof --> walls", "    walls --> ground"]
    assert '        ground["ground.py"]' in architecture.draw(package)


def test_the_page_has_the_drawing_of_the_present_imports() -> None:
    drawing = architecture.draw(REPOSITORY / "xmask3d")
    assert f"```mermaid\n{drawing}```" in architecture.PAGE.read_text(), "run python -m tools.studies.architecture"
