"""Build the site: `python -m tools.site OUT`. Needs mkdocs and pdoc, which the extra `dev` installs."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from xmask3d.errors import UserError, run_tool
from xmask3d.resources import REPOSITORY

PAGES = ("README.md", "installation.md", "CONTRIBUTING.md", "CHANGELOG.md")
FOLDERS = ("docs", "fig")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)")


def collect(folder: Path) -> None:
    """Copy pages and pictures, at the places they have in the repository, so that their links keep leading somewhere.

    A link to anything else, such as a configuration or a source file, becomes its words.
    """
    for name in PAGES:
        shutil.copy(REPOSITORY / name, folder)
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, folder / name)
    for page in folder.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(keep_links(text, page.parent), encoding="utf-8")


def keep_links(text: str, folder: Path) -> str:
    """Turn links of a page in a folder into words, except those to files that are there."""
    return LINK.sub(lambda link: link[0] if (folder / link[2]).is_file() else link[1], text)


def titles() -> list[dict[str, str]]:
    """List the pages in the order of the index, docs/README.md, by the names it gives them."""
    index = REPOSITORY / "docs" / "README.md"
    found = re.findall(r"^\| \[([^\]]+)\]\(([^)]+\.md)\)", index.read_text(encoding="utf-8"), re.M)
    return [{name: str((index.parent / path).resolve().relative_to(REPOSITORY))} for name, path in found]


def build(out: Path, module: str = "xmask3d") -> None:
    """Build the pages with mkdocs, which fails on any link that leads nowhere, and the API reference with pdoc.

    Args:
        out: folder to write the site into.
        module: package or module of the API reference.

    Raises:
        UserError: mkdocs or pdoc is missing or fails; its output is printed.
    """
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "pages"
        source.mkdir()
        collect(source)
        config = {
            "site_name": "xmask3d",
            "theme": "readthedocs",
            "docs_dir": str(source),
            "nav": [*titles(), {"API reference": "api.md"}],
            "validation": {"links": {"anchors": "warn", "unrecognized_links": "warn"}},
        }
        (source / "api.md").write_text(
            "# API reference\n\nThe docstrings, [by module](api/xmask3d.html).\n", encoding="utf-8"
        )
        (source / "api").mkdir()
        (source / "api" / "xmask3d.html").touch()  # pdoc writes it afterwards
        (Path(work) / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        _run("mkdocs", "build", "--strict", "--quiet", "-f", f"{work}/mkdocs.yml", "-d", str(out.resolve()))
    _run("pdoc", "--docformat", "google", "-o", str(out / "api"), module)


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=REPOSITORY, check=False)
    if done.returncode:
        raise UserError(f"{module} failed; if it is missing, install the extra dev: pip install -e '.[dev]'")


def main() -> int:
    """Build the site into the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write the site into")
    build(parser.parse_args().out)
    return 0


if __name__ == "__main__":
    run_tool(main)
