"""Downloads by name, from a list to a file."""

from pathlib import Path

import pytest

from tests.helpers.command import run_command
from xmask3d.data.download import items


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path, Path, bool, tuple[str, ...] | None]]:
    """What would be fetched."""
    calls: list = []

    def download(name, data, pretrained, *, keep_archive, urls, furniture):
        calls.append((name, data, pretrained, keep_archive, urls))
        return data / name

    monkeypatch.setattr(items, "download", download)
    return calls


def test_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("download", "--list") == 0
    listed = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert sorted(listed) == sorted([*items.ITEMS, "furniture"])


def test_several_names_go_where_they_are_asked_to(fetched: list, tmp_path: Path, capsys) -> None:
    line = ["download", "scannet_3d", "B15N4", "--data", tmp_path, "--pretrained", tmp_path / "p", "--keep-archives"]
    assert run_command(*line) == 0
    assert fetched == [(name, tmp_path, tmp_path / "p", True, None) for name in ("scannet_3d", "b15n4")]
    printed = capsys.readouterr().out
    assert f"scannet_3d: {tmp_path / 'scannet_3d'}\n" in printed and "evaluate: sh scripts/eval.sh CONFIG" in printed


def test_a_mirror_is_for_one_name(fetched: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("download", "b15n4", "--url", "https://mirror/x") == 0
    assert fetched[0][0] == "b15n4" and fetched[0][4] == ("https://mirror/x",)
    assert run_command("download", "b15n4", "b12n7", "--url", "https://mirror/x") == 1
    assert run_command("download", "nothing") == 1
    assert len(fetched) == 1 and capsys.readouterr().err.count("error: ") == 2


def test_nobody_is_asked_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("download") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: say what to download")
