"""Packages: what is declared is what is imported, and without an optional one there is a line that says what to do."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest

from xmask3d.errors import UserError, missing_extra
from xmask3d.resources import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

MODULES = {"yaml": "pyyaml", "PIL": "pillow", "open_clip": "open-clip-torch"}
"""Names of modules that differ from their package's; written down, so that no package needs to be installed."""

NOT_IMPORTED = {"torchvision": "open_clip needs the build that fits torch, from the same index"}
OPTIONAL_BACK_ENDS = {"minkowskiengine", "spconv"}  # built by hand, or for comparison


def plain(name: str) -> str:
    """Name of a package as pip compares it, without version, extras and marker."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def declared() -> dict[str, set[str]]:
    """Packages by extra; "" is the core."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {plain(name) for name in names} - {"xmask3d"} for extra, names in extras.items()}


def imported(*folders: str) -> dict[str, set[str]]:
    """Packages that the sources below some folders import, lazily or not, and by which files."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in (REPOSITORY / folder).rglob("*.py"):
            for module in modules_of(ast.parse(path.read_text(encoding="utf-8"))):
                if module not in sys.stdlib_module_names and module not in ("xmask3d", "tools", "tests"):
                    found.setdefault(plain(MODULES.get(module, module)), set()).add(str(path.relative_to(REPOSITORY)))
    return found


def modules_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield "tensorboard" if node.module == "torch.utils.tensorboard" else node.module.split(".")[0]


def test_every_import_is_declared() -> None:
    known = declared()
    package = set().union(*(known[extra] for extra in known if extra not in ("dev", "pretrain", "all")))
    for name, files in imported("xmask3d").items():
        assert name in package | OPTIONAL_BACK_ENDS, f"{name}, imported by {files}, is not in pyproject.toml"
    for name, files in imported("tools").items():
        assert name in package | known["pretrain"] | OPTIONAL_BACK_ENDS, f"{name}, imported by {files}"
    for name, files in imported("tests").items():
        assert name in package | known["dev"] | {"tomli"}, f"{name}, imported by {files}"


def test_everything_declared_is_imported() -> None:
    known, package = declared(), imported("xmask3d")
    for extra, names in known.items():
        if extra in ("dev", "all"):
            continue
        used = imported("tools/pretraining") if extra == "pretrain" else package
        assert names <= set(used) | set(NOT_IMPORTED), f"extra '{extra}': {names - set(used)} is never imported"
    assert not known["all"] and len(known[""] & known["dev"]) == 0


def test_all_brings_every_extra_for_users() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(everything[len("xmask3d[") : -1].split(",")) == set(extras) - {"all", "dev", "pretrain"}


def test_core_imports_no_optional_package() -> None:
    """The commands that label and evaluate get by with the core."""
    known = declared()
    optional = set().union(*(known[extra] for extra in known if extra)) - known[""] - {"setuptools"}
    code = "import sys, xmask3d.segment.segmenter, xmask3d.engine.evaluate; "
    code += "print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True, check=True)
    owners = packages_distributions()
    used = {plain(owner) for module in done.stdout.split() for owner in owners.get(module, [])}
    assert "torch" in used and not used & optional


def test_constraints_name_what_is_declared() -> None:
    lines = (REPOSITORY / "scripts" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line) for line in lines if line and not line.startswith("#")}
    wanted = set().union(*(names for extra, names in declared().items() if extra not in ("pretrain", "captions")))
    assert pinned - {"execnet"} == wanted - {"pye57", "lzfse"}


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let imports of these packages fail as if they were not installed."""
    for module in modules:
        for name in [name for name in sys.modules if name.split(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)


def test_the_line_names_the_extra() -> None:
    error = missing_extra("the viewer", "view")
    assert str(error) == "the viewer: needs a package that is not installed: pip install 'xmask3d[view]'"


@pytest.mark.parametrize(
    ("package", "modules", "extra"),
    [("viser", ["segment.viewer"], "view"), ("embreex", ["rooms.shading"], "rooms")],
)
def test_without_an_optional_package(
    package: str, modules: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, package)
    for module in modules:
        monkeypatch.delitem(sys.modules, f"xmask3d.{module}", raising=False)
        with pytest.raises(UserError, match=rf"pip install 'xmask3d\[{extra}\]'"):
            __import__(f"xmask3d.{module}")


def test_training_goes_on_without_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from xmask3d.engine.logs import RunLog

    without(monkeypatch, "tensorboard")
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    log = RunLog(tmp_path)
    log.scalars({"loss": 1.0}, 1)
    log.picture("view", np.zeros((2, 2, 3), np.uint8), 1)
    log.line("a line")
    log.close()
    assert "pip install 'xmask3d[train]'" in capsys.readouterr().out
    assert not (tmp_path / "tensorboard").exists()
    assert (tmp_path / "train.log").read_text().splitlines()[-1].endswith("a line")
