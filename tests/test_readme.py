"""The pages: commands exist and take their arguments, links lead somewhere; the quickstart runs from rooms to table."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import run_command
from tests.helpers.runs import command_run
from tests.helpers.runs import run as run_forked
from xmask3d.cli import quickstart
from xmask3d.cli.ablate import read_variants
from xmask3d.cli.registry import COMMANDS, make_parser
from xmask3d.config import load_config
from xmask3d.resources import REPOSITORY

DOCS = [str(page.relative_to(REPOSITORY)) for page in sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES = ["README.md", "installation.md", "CONTRIBUTING.md", *DOCS]
ROOMS = "--train-rooms 2 --val-rooms 1 --views 4 --seed 1 --furniture procedural --workers 1"


def commands() -> list[list[str]]:
    """Every line of a shell block that calls a script or tool of the project."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and "=" in words[0]:
                    words.pop(0)
                if len(words) > 1 and words[0] in ("sh", "python", "xmask3d"):
                    found.append(words)
    return found


def tool_commands() -> list[list[str]]:
    """Those of `commands` that call a file of the repository."""
    return [words for words in commands() if words[0] != "xmask3d" and words[1:3] != ["-m", "pytest"]]


def called(words: list[str]) -> list[str]:
    """The file that a command runs, and its arguments; `python -m` names a module."""
    if words[1] != "-m":
        return words[1:]
    file = Path(*words[2].split("."))
    main = file / "__main__.py"
    return [str(main if (REPOSITORY / main).is_file() else file.with_suffix(".py")), *words[3:]]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in the repository with this Python."""
    venv = str(Path(sys.executable).parent.parent)
    return subprocess.run(
        words, cwd=REPOSITORY, env={**os.environ, "XMASK3D_VENV": venv, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True, text=True, timeout=380, check=False,
    )  # fmt: skip


def test_scripts_and_configurations_of_the_pages_exist() -> None:
    assert len(commands()) >= 10
    for words in tool_commands():
        assert (REPOSITORY / called(words)[0]).is_file(), words
        for word in words[2:]:
            if word.startswith("config/"):
                load_config(REPOSITORY / word)


def test_tests_that_the_pages_run_exist() -> None:
    found = [word for words in commands() if words[1:3] == ["-m", "pytest"] for word in words if "/" in word]
    assert found and all((REPOSITORY / word).exists() for word in found), found


def test_tools_of_the_pages_have_their_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, set[str]] = {}
    for words in tool_commands():
        if words[0] == "python":
            assert words[1] == "-m"
            if names := {word for word in words[3:] if word.startswith("--")}:
                options[words[2]] = options.get(words[2], set()) | names
    for tool, names in options.items():
        monkeypatch.setattr(sys, "argv", [tool, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(tool, run_name="__main__", alter_sys=True)
        assert not ended.value.code, tool
        shown = capsys.readouterr().out
        assert all(name.split("=")[0] in shown for name in names), (tool, names)


def console_commands() -> list[list[str]]:
    """Every command line of `xmask3d` in the pages: in shell blocks, and in words that are set as code."""
    found = [words[1:] for words in commands() if words[0] == "xmask3d"]
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (REPOSITORY / page).read_text(), flags=re.DOTALL)
        found += [shlex.split(code)[1:] for code in re.findall(r"`(xmask3d [^`]+)`", text)]
    return found


def test_console_commands_of_the_pages_are_understood() -> None:
    console = console_commands()
    named = {words[0] for words in console}
    assert named >= {"segment", "query", "view", "info", "rooms", "caption", "check", "convert", "export", "doctor"}
    for words in console:
        assert words[0] in (*COMMANDS, "--help", "--version"), words
        if len(words) > 1 and words[1:] != ["--help"]:
            make_parser(words[0]).parse(words[1:])


def test_no_page_names_a_tool_that_is_not_there() -> None:
    files = [*(REPOSITORY / page for page in PAGES), *(REPOSITORY / "xmask3d").rglob("*.py")]
    files += [*(REPOSITORY / "scripts").glob("*.sh"), *(REPOSITORY / "config").rglob("*.yaml")]
    for file in files:
        for name in re.findall(r"\btools/[\w/]+\.py", file.read_text()):
            assert (REPOSITORY / name).is_file(), (file, name)


def anchors(page: Path) -> set[str]:
    """Names that links can give to the headings of a page, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_relative_links_of_the_pages_lead_to_files_and_headings(page: str) -> None:
    text = re.sub(r"```.*?```", "", (REPOSITORY / page).read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = ((REPOSITORY / page).parent / name).resolve() if name else REPOSITORY / page
        assert target.is_relative_to(REPOSITORY) and target.exists(), (page, link)
        assert not heading or heading in anchors(target), (page, link)


def test_the_readme_is_short_and_the_index_names_every_page() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150
    index = (REPOSITORY / "docs" / "README.md").read_text()
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page


def fork(command: list[str], log: Path) -> int | None:
    """Run a command of `xmask3d` in a forked process, which adds what it prints to a file."""
    return run_forked(command_run, command, log=log)


@pytest.mark.slow
def test_quickstart_goes_from_rooms_to_a_table_and_does_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [
        "config/rooms/fast.yaml", f"data.root={tmp_path / 'rooms'}", f"output={tmp_path / 'run'}", "train.epochs=1"
    ]  # fmt: skip
    command = [sys.executable, "-m", "xmask3d", "quickstart", *overrides, "--pictures", "1"]
    first = run(*command, XMASK3D_ROOMS=ROOMS, NPROC="1")
    assert first.returncode == 0, first.stderr
    assert "hIoU" in first.stdout and "Next" in first.stdout
    results = list((tmp_path / "run").rglob("results.json"))
    assert len(results) == 1
    content = json.loads(results[0].read_text())
    assert content["benchmark"] == "scannet20/B15N4" and content["protocol"] == "default"
    assert len(content["scenes"]) == 1 and content["views"] == 4
    assert any(results[0].parent.rglob("*.ply")) and any(results[0].parent.rglob("*.png"))

    checkpoint = next((tmp_path / "run").rglob("*.pt"))
    before = checkpoint.stat().st_mtime_ns
    log, codes = tmp_path / "log", []
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("XMASK3D_ROOMS", ROOMS)
    monkeypatch.setenv("NPROC", "1")
    # From here on a server forks the processes, which saves them their imports.
    monkeypatch.setattr(quickstart, "step", lambda title, command, processes=1: codes.append(fork(command, log)))
    assert run_command("quickstart", *overrides, "--pictures", "1") == 0 and codes == [0, 0, 0], log.read_text()
    assert "complete" in log.read_text() and log.read_text().count("mIoU_n") == 1
    assert checkpoint.stat().st_mtime_ns == before
    assert run_command("compare", f"one={tmp_path / 'run'}") == 0
    assert "| one | 1 |" in capsys.readouterr().out
    assert run_command("check", *overrides) == 0


def test_a_user_error_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    overrides = [f"data.root={tmp_path / 'nowhere'}", f"output={tmp_path}"]
    result = run("sh", "scripts/train.sh", "config/rooms/fast.yaml", *overrides)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: ") and "nowhere" in result.stderr


def stand_in_for_python(folder: Path) -> Path:
    """An environment in a folder whose Python writes its arguments into a file, which is returned."""
    python, log = folder / "bin" / "python", folder / "calls"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{log}"\n')
    python.chmod(0o755)
    return log


@pytest.mark.parametrize(
    "name",
    ["quickstart", "ablation", "test", "install", "train", "eval", "install_minkowski", "download_datasets",
     "download_checkpoints"],
)  # fmt: skip
def test_scripts_explain_themselves_and_do_nothing_else(name: str, tmp_path: Path) -> None:
    log = stand_in_for_python(tmp_path / "venv")
    shown = run("sh", f"scripts/{name}.sh", "--help", XMASK3D_VENV=str(tmp_path / "venv"))
    assert shown.returncode == 0 and not shown.stderr
    assert len(shown.stdout.splitlines()) >= 3 and "set -eu" not in shown.stdout
    assert not log.exists()


@pytest.mark.parametrize(
    "name, tool", [("quickstart", "xmask3d quickstart"), ("ablation", "xmask3d ablate"), ("test", "pytest")]
)
def test_environments_are_found_from_other_folders(name: str, tool: str, tmp_path: Path) -> None:
    log = stand_in_for_python(tmp_path / "my venv")
    settings = {"XMASK3D_VENV": "my venv", "SEEDS": "1", "NPROC": "1", "XMASK3D_TEST_PROCESSES": "1"}
    script = str(REPOSITORY / "scripts" / f"{name}.sh")
    done = subprocess.run(
        ["sh", script], cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert tool in log.read_text().splitlines()[-1]


def test_an_index_of_cpu_builds_keeps_the_tested_versions(tmp_path: Path) -> None:
    log = stand_in_for_python(tmp_path / "venv")
    settings = {"XMASK3D_VENV": str(tmp_path / "venv"), "XMASK3D_TORCH_INDEX": "file:///builds"}
    for extras in ("rooms,train", "rooms,train", "dev"):
        assert run("sh", "scripts/install.sh", XMASK3D_EXTRAS=extras, **settings).returncode == 0
    calls = log.read_text().splitlines()
    assert len(calls) == 4  # nothing twice
    constraints = f"-c {REPOSITORY / 'scripts' / 'constraints.txt'}"
    assert all(constraints in call for call in calls)
    assert "--index-url file:///builds" in calls[0] and calls[0].endswith("torch torchvision")
    assert calls[1].endswith(f"-e {REPOSITORY}[rooms,train]") and calls[3].endswith(f"-e {REPOSITORY}[dev]")


def test_a_python_without_torch_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to("/bin/false")
    scripts = tmp_path / "clone" / "scripts"
    scripts.mkdir(parents=True)
    for name in ("train.sh", "launch.sh"):
        (scripts / name).write_text((REPOSITORY / "scripts" / name).read_text())
    settings = {key: value for key, value in os.environ.items() if key != "XMASK3D_VENV"}
    settings["PATH"] = f"{tmp_path}{os.pathsep}{settings['PATH']}"
    done = subprocess.run(
        ["sh", str(scripts / "train.sh"), "some.yaml"], env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: python3 has no torch; sh scripts/install.sh")


def test_the_variants_of_the_ablation_are_understood(tmp_path: Path) -> None:
    log = stand_in_for_python(tmp_path / "venv")  # in place of days of training
    settings = {"XMASK3D_VENV": str(tmp_path / "venv"), "SEEDS": "7,8", "OUT": str(tmp_path / "runs"), "NPROC": "1"}
    done = run("sh", "scripts/ablation.sh", "train.epochs=2", **settings)
    assert done.returncode == 0, done.stderr
    *_, called = log.read_text().splitlines()
    words = called.removeprefix("-m xmask3d ablate ").split()
    options = make_parser("ablate").parse_args(words)
    assert (options.overrides, options.seeds, options.out) == (["train.epochs=2"], "7,8", tmp_path / "runs")
    variants = read_variants(options.vary, options.variant)
    assert list(variants) == ["full", "no-regularisation", "no-condition", "no-novel-labels", "baseline"]
    for changes in variants.values():
        load_config(options.config, [*options.overrides, *changes])
