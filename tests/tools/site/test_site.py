"""The site: its reference of keys is of the present schema, and no link of its pages leads nowhere."""

from pathlib import Path

import pytest

from tools.site import __main__ as site
from tools.site import configuration
from xmask3d.config import Config
from xmask3d.errors import UserError


def test_the_configuration_page_is_of_the_present_schema() -> None:
    page = configuration.PAGE.read_text(encoding="utf-8")
    assert page == configuration.page(), "run python -m tools.site.configuration"
    assert f"| `seed` | `{Config().seed}` |" in page


def test_links_outside_the_site_become_words(tmp_path: Path) -> None:
    (tmp_path / "other.md").touch()
    text = "[a](other.md#b) [code](../xmask3d/build.py) ![c](fig.png) [web](https://example.org)"
    assert site.keep_links(text, tmp_path) == "[a](other.md#b) code ![c](fig.png) [web](https://example.org)"


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("pdoc")
    site.build(tmp_path / "site", "xmask3d.models.xmask3d")
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "docs/own_scan/" in home and "API reference" in home
    assert "class XMask3D" in _text(tmp_path / "site" / "api" / "xmask3d" / "models" / "xmask3d.html")


def test_a_builder_that_is_missing_is_one_line() -> None:
    with pytest.raises(UserError, match="no_such_module failed; if it is missing, install the extra dev"):
        site._run("no_such_module")


def _text(page: Path) -> str:
    import re

    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))
