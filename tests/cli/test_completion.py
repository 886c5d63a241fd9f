"""Completion scripts, tried out in the shells that are here."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.command import run_command
from xmask3d.cli.completion import bash, fish
from xmask3d.cli.registry import COMMANDS


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["se"], ["segment"]),
        (["segment", "--u"], ["--unit", "--up"]),
        (["segment", "room.ply", "--unit", ""], ["m", "cm", "mm", "ft", "in"]),
        (["info", "room.ply", "--up", "-"], ["-z", "-y", "-x"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["train", "config/"], []),
    ],
)
def test_bash_offers_commands_options_and_choices(typed: list[str], offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(bash())
    words = " ".join(f"'{word}'" for word in ("xmask3d", *typed))
    asked = f'. ./script; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _xmask3d; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert sorted(done.stdout.split()) == sorted(offered)


def test_fish_and_zsh_know_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("completion", "fish") == 0
    printed = capsys.readouterr().out
    assert printed == fish()
    named = re.findall(r"-n __fish_use_subcommand -f -a (\w+) -d '", printed)
    assert named == list(COMMANDS)
    unit = (
        "complete -c xmask3d -n '__fish_seen_subcommand_from info' -l unit -r -fa 'm cm mm ft in' "
        "-d 'unit of a point cloud'"
    )
    assert unit in printed.splitlines()
    assert all(line.count("'") % 2 == 0 for line in printed.replace("\\'", "").splitlines())
    assert run_command("completion", "zsh") == 0
    assert capsys.readouterr().out == "autoload -U +X bashcompinit && bashcompinit\n" + bash()
