"""The findings about a machine, good and bad."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.helpers.command import run_command
from xmask3d import weights
from xmask3d.cli import machine
from xmask3d.cli.machine import Finding
from xmask3d.native import compiler, library


def test_this_machine_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("doctor") == 0
    printed = capsys.readouterr().out
    assert all(f"{title}:\n" in printed for title in machine.SECTIONS)
    assert "shipped rooms-B15N4/model.safetensors: " in printed and "all that is needed" in printed


def test_something_broken_is_an_exit_code_of_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look() -> Iterator[Finding]:
        yield Finding("missing", "a GPU", "nothing to do")
        yield Finding("broken", "torch", "reinstall it")

    monkeypatch.setattr(machine, "SECTIONS", {"torch": look})
    assert run_command("doctor") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "torch:",
        "  --     a GPU",
        "         nothing to do",
        "  BROKEN torch",
        "         reinstall it",
    ]


def test_packages_are_told_by_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = [
        "numpy>=1", "no-such-core>=2", 'only-elsewhere; sys_platform == "none"', 'no-such-viewer>=1; extra == "view"',
        'numpy; extra == "plots"', 'xmask3d[view]; extra == "all"',
    ]  # fmt: skip
    monkeypatch.setattr(metadata, "requires", lambda name: declared)
    found = {finding.text: finding for finding in machine.find_packages()}
    assert found["2 needed packages: no-such-core missing"].state == "broken"
    assert found["[view] the live viewer: no-such-viewer missing"].advice == "pip install 'xmask3d[view]'"
    assert found["[plots] bar charts and pictures of evaluations"].state == "there"
    assert len(found) == 3 and "only-elsewhere" not in str(found)


def test_every_extra_of_the_package_is_explained() -> None:
    extras = set(metadata.metadata("xmask3d").get_all("Provides-Extra") or [])
    assert extras - {"all"} <= machine.EXTRAS.keys()


def test_a_machine_without_compiler_works_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise compiler.BuildError("no C++ compiler found")

    monkeypatch.setattr(library, "library", fail)
    (finding,) = machine.find_compiler()
    assert finding.state == "missing" and "no C++ compiler found" in finding.text and "install g++" in finding.advice


def test_damaged_weights_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("rooms-B15N4", "stand-ins"):
        (tmp_path / folder).mkdir()
    (tmp_path / "rooms-B15N4" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "rooms-B15N4")
    monkeypatch.setattr(weights, "STAND_INS", tmp_path / "stand-ins")
    finding = next(machine.find_weights())
    assert finding.state == "broken" and "rooms-B15N4" in finding.text and "install" in finding.advice


def test_sizes_of_folders(tmp_path: Path) -> None:
    for name, size in (("a", 1500), ("inner/b", 20), ("left/c", 7)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert machine.folder_size(tmp_path, {tmp_path / "left"}) == 1520
    assert machine.folder_size(tmp_path / "none", set()) == 0
    assert [machine._size(count) for count in (999, 1500, 2.5e6, 3.2e9)] == ["999 B", "2 kB", "2 MB", "3.2 GB"]
