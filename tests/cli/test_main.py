"""The command as a whole: what is answered without imports, options given twice, consoles that cannot print a word."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.command import run_command
from xmask3d import __version__
from xmask3d.cli.main import run
from xmask3d.cli.registry import COMMANDS, load_command, make_parser, overview
from xmask3d.errors import UserError
from xmask3d.resources import REPOSITORY
from xmask3d.visualize.cloud import write_ply

HEAVY = ("torch", "diffusers", "open_clip", "scipy")
SCRIPT = """
import json, sys
from xmask3d.cli.main import main
codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        codes.append(ended.code)
json.dump([codes, [name for name in sys.argv[2:] if name in sys.modules]], sys.stderr)
"""


def apart(*lines: list[str], modules: tuple[str, ...] = HEAVY, **environment: str) -> tuple[list, list, str, str]:
    """Run command lines in one new process: exit codes, those of the modules that were imported, both outputs."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(lines), *modules],
        capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )  # fmt: skip
    error = done.stderr.decode()
    start = error.rindex("[[")
    codes, imported = json.loads(error[start:])
    return codes, imported, done.stdout.decode(), error[:start]


def test_help_and_mistyped_commands_import_nothing() -> None:
    modules = (*HEAVY, "numpy", "pydantic", *(f"xmask3d.cli.{name}" for name in COMMANDS))
    codes, imported, out, error = apart(["--help"], [], ["--version"], ["segmnt"], ["--query"], modules=modules)
    assert codes == [0, 0, 0, 1, 1] and imported == []
    assert all(name in out for name in COMMANDS) and f"xmask3d {__version__}\n" in out
    assert "error: unknown command 'segmnt'; did you mean 'segment'?\n" in error and error.count("\n") == 2


def test_help_of_every_command_imports_nothing_heavy() -> None:
    codes, imported, out, error = apart(*([name, "--help"] for name in COMMANDS), modules=(*HEAVY, "numpy", "pydantic"))
    assert codes == [0] * len(COMMANDS) and imported == [] and not error
    assert out.count("usage: xmask3d ") == len(COMMANDS)


def test_every_command_is_listed_and_documented() -> None:
    for name in COMMANDS:
        command = load_command(name)
        assert command.__doc__ and f"  {name:12}" in overview()
        assert make_parser(name).prog == f"xmask3d {name}"


MISTAKES = [
    (["train", "no.yaml"], "no.yaml"),
    (["train", "config/rooms/B15N4.yaml", "train.epoch=3"], "did you mean 'epochs'?"),
    (["train", "config/rooms/B15N4.yaml", "data.root=nowhere"], "no such folder"),
    (["train", "config/rooms/B15N4.yaml", "data.root=.", "model.diffusion=none.ckpt"], "none.ckpt: no such file"),
    (["train", "config/rooms/B15N4.yaml", "seed=1", "seed=2"], "seed is overridden already"),
    (["train", "config/rooms/B15N4.yaml", "data={}", "data.root=x"], "data is overridden already"),
    (["evaluate", "config/rooms/B15N4.yaml", "seed=1"], "checkpoint seed=1: no such file"),
    (["evaluate", "config/rooms/B15N4.yaml", "none.pt"], "checkpoint none.pt: no such file"),
    (["segment", "nowhere", "--query", "sofa"], "nowhere: no such file or folder"),
    (["segment", ".", "--query", "sofa", "--checkpoint", "none.pt"], "checkpoint none.pt: no such file"),
    (["segment", ".", "--query", "sofa", "--config", "none.yaml"], "configuration 'none.yaml': no such file"),
    (["segment", ".", "--classes", "scannet21"], "no such class list"),
    (["segment", ".", "--query", "sofa", "sofa"], "given twice"),
    (["segment", ".", "--querry", "sofa"], "unknown option --querry; did you mean --query?"),
    (["segment", ".", "--query", "sofa", "--up", "q"], "invalid choice: 'q'"),
    (["query", "none.features", "sofa"], "none.features: no such file"),
    (["view", "nowhere"], "nowhere: no such file or folder"),
    (["info", "nowhere"], "nowhere: no such file or folder"),
    (["rooms", "--out", "x", "--workers", "0"], "--workers 0: is 1 or more"),
    (["rooms", "--out", "x", "--furniture", "nowhere"], "--furniture nowhere: no such folder"),
    (["rooms"], "required: --out"),
    (["rooms", "--out", "x", "--check", "--seed", "1"], "--seed makes rooms, and --check makes none"),
    (["prepare", "nowhere", "out"], "nowhere: no such folder"),
    (["caption", "config/rooms/B15N4.yaml", "--batch", "0"], "--batch 0: is 1 or more"),
    (["check", "config/rooms/B15N4.yaml", "--views", "0"], "--views 0: is 1 or more"),
    (["check", "config/rooms/B15N4.yaml", "--data", "data.root=nowhere"], "no such folder"),
    (["convert", "none.pth.tar", "x.safetensors"], "none.pth.tar: no such checkpoint"),
    (["export", "nowhere", "out"], "nowhere: neither a result"),
    (["download", "scannet_4d"], "there is no download 'scannet_4d'"),
    (["compare", "runs"], "write NAME=PATH"),
    (["compare", "a=runs,"], "write NAME=PATH"),
    (["config", "train.epoch"], "did you mean 'train.epochs'?"),
    (["completion", "tcsh"], "invalid choice: 'tcsh'"),
    (["quickstart", "seed=1"], "name the configuration before its changes"),
]  # fmt: skip


def test_mistakes_are_one_line_each_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    lines = [
        [str(REPOSITORY / word) if word.startswith("config/") else word for word in line]
        for line, _ in MISTAKES
    ]  # fmt: skip
    codes, imported, out, error = apart(*lines, modules=("torch", "diffusers", "open_clip"))
    assert codes == [1] * len(MISTAKES) and imported == [] and not out
    told = error.splitlines()
    assert len(told) == len(MISTAKES)
    for (line, message), text in zip(MISTAKES, told, strict=True):
        assert text.startswith("error: ") and message in text, (line, text)


WITHOUT_EFFECT = [
    ["rooms", "--out", "x", "--furniture", "procedural", "--cache", "y"],
    ["prepare", ".", "x", "--s3dis", "--step", "3"],
    ["caption", "config/rooms/B15N4.yaml", "--novel"],
    ["caption", "config/rooms/B15N4.yaml", "--model", "template", "--device", "cpu"],
    ["check", "config/rooms/B15N4.yaml", "--weights", "--views", "3"],
    ["check", "config/rooms/B15N4.yaml", "--data", "--checkpoint", "x"],
    ["download", "b15n4", "--furniture-cache", "x"],
    ["download", "b15n4", "--data", "x"],
    ["download", "scannet_3d", "--pretrained", "x"],
    ["download", "b15n4", "--keep-archives"],
    ["download", "--list", "b15n4"],
    ["download", "furniture", "--url", "http://x"],
    ["convert", "README.md", "x.safetensors", "--steps-per-epoch", "4"],
]


@pytest.mark.parametrize("line", WITHOUT_EFFECT, ids=" ".join)
def test_an_option_without_effect_is_refused(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(UserError, match=r"--[a-z-]+ (is|has|prints) ?"):
        run(line)


def options() -> list[tuple[str, argparse.Action]]:
    """Every option of every command."""
    return [(name, action) for name in COMMANDS for action in make_parser(name)._actions if action.option_strings]


def values(action: argparse.Action) -> list[str]:
    """Values that an option takes."""
    value = next(iter(action.choices)) if action.choices else "1"
    return {None: [value], 0: []}.get(action.nargs, [value] * (action.nargs if isinstance(action.nargs, int) else 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "action"), options(), ids=lambda value: getattr(value, "dest", value))
def test_no_option_silently_keeps_the_last_of_two(name: str, action: argparse.Action) -> None:
    """What a command does with an option given twice: keep all values, refuse, or have one meaning anyway."""
    if isinstance(action, argparse._HelpAction):
        return
    option, parser = action.option_strings[0], make_parser(name)
    required = [word for each in parser._actions if each.required and each.dest != action.dest
                for word in (each.option_strings[:1] + values(each))]  # fmt: skip
    twice = [*required, option, *values(action), option, *values(action)]
    if action.nargs == 0:
        assert getattr(parser.parse(twice), action.dest) is True
    elif type(action) is argparse._AppendAction:
        once = values(action) if action.nargs else values(action)[0]
        assert getattr(parser.parse(twice), action.dest) == [once, once]
    elif action.nargs in ("+", "*"):
        assert getattr(parser.parse(twice), action.dest) == 2 * values(action)
    else:
        with pytest.raises(UserError, match="given 2 times; give it once"):
            parser.parse(twice)


def test_repeated_words_add_up() -> None:
    parsed = make_parser("segment").parse(["a", "--query", "sofa", "--query", "bed", "--background", "wall"])
    assert parsed.query == ["sofa", "bed"] and parsed.given == {"query", "background"}
    assert make_parser("info").parse(["a", "--up", "-z"]).up == "-z"
    assert make_parser("train").parse(["a", "--", "--b"]).overrides == ["--b"]
    with pytest.raises(UserError, match="given 2 times"):
        make_parser("segment").parse(["a", "--unit=m", "--unit", "cm"])


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_cannot_print_a_word_loses_nothing(encoding: str, tmp_path: Path) -> None:
    scan = tmp_path / "комната 沙发.ply"
    write_ply(scan, np.random.default_rng(0).random((500, 3)).astype(np.float32), np.zeros((500, 3), np.uint8))
    codes, imported, out, error = apart(
        ["info", str(scan)], ["info", str(tmp_path / "沙发")], modules=("torch",), PYTHONIOENCODING=encoding
    )
    assert codes == [0, 1] and imported == []  # a cloud is described without torch
    assert "\\u6c99\\u53d1: point cloud" in out and "\\u6c99\\u53d1: no such file or folder" in error


def test_output_that_nobody_reads_on_is_no_error() -> None:
    command = f"{sys.executable} -m xmask3d config | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.startswith("top level: ") and not done.stderr


def test_the_doors_are_the_commands() -> None:
    for door, name in (("train", "train"), ("test", "evaluate")):
        path = str(REPOSITORY / "tools" / f"{door}.py")
        shown = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True,
                               env={**os.environ, "PYTHONPATH": str(REPOSITORY)})  # fmt: skip
        assert shown.stdout.startswith(f"usage: xmask3d {name} ")


def test_codes_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("config", "train.epochs") == 0
    assert "train.epochs = 150  [at least 1]" in capsys.readouterr().out
    assert run_command("help", "train") == 0
    assert "usage: xmask3d train" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["info", "info scan --views", "export", "check", "rooms --out=", "query result"])
def test_empty_arguments_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command.split() if command.endswith("=") else [*command.split(), ""]
    assert run_command(*arguments) == 1
    assert "is empty, as a variable of the shell is that was not set" in capsys.readouterr().err
