"""The steps of the quickstart; tests/test_readme.py runs all of it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from xmask3d.cli import quickstart
from xmask3d.errors import UserError

LAUNCH = ["-m", "xmask3d.cli.launch", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize(("processes", "launch"), [(1, []), (2, LAUNCH)])
def test_a_step_is_started_in_as_many_processes_as_are_asked_for(
    processes: int, launch: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(
        subprocess, "run", lambda words, **_: started.append(words) or SimpleNamespace(returncode=len(started) - 1)
    )
    quickstart.step("Training", ["train", "rooms/fast"], processes)
    assert started == [[sys.executable, *launch, "-m", "xmask3d", "train", "rooms/fast"]]
    assert ("torchrun" in capsys.readouterr().out) == (processes > 1)
    with pytest.raises(UserError, match="'Training' ended with exit code 1; fix what it says above"):
        quickstart.step("Training", ["train", "rooms/fast"], processes)
