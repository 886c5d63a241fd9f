"""Systems other than Linux, as far as imports and simulations can say."""

import ast
import io
import subprocess
import sys

import pytest

from xmask3d.engine import accelerator
from xmask3d.engine.logs import peak_memory
from xmask3d.errors import run_tool
from xmask3d.resources import REPOSITORY

SOURCES = sorted((REPOSITORY / "xmask3d").rglob("*.py"))
UNIX_ONLY = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "posix")

IMPORT_EVERYTHING = """
import importlib, os, pkgutil, sys
import accelerate, diffusers, matplotlib.figure, numpy, open_clip, PIL.Image, scipy.spatial, timm, torch, trimesh, viser
import torch.distributed.run, torch.utils.tensorboard, torchvision
import embreex.mesh_construction
for name in {unix}:
    sys.modules[name] = None
for name in ("getuid", "fork", "sysconf", "sched_getaffinity", "O_DIRECTORY", "O_NOFOLLOW", "getpgid", "killpg"):
    if hasattr(os, name):
        delattr(os, name)
import signal
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM"):
    if hasattr(signal, name):
        delattr(signal, name)
import xmask3d
names = [module.name for module in pkgutil.walk_packages(xmask3d.__path__, "xmask3d.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


def test_every_module_is_imported_without_what_windows_lacks() -> None:
    script = IMPORT_EVERYTHING.format(unix=UNIX_ONLY)
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_sources_are_of_python_3_10() -> None:
    for path in SOURCES:
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def test_memory_is_not_told_where_the_system_does_not_count_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert peak_memory(torch.device("cpu")) > 0.01
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(torch.device("cpu")) == 0


def test_a_console_of_few_characters_stops_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp850"))
    with pytest.raises(SystemExit) as ended:
        run_tool(lambda: print("5 ± 1 → büro", flush=True))
    assert ended.value.code == 0
    assert written.getvalue().decode("cp850").strip() == "5 ± 1 \\u2192 büro"


@pytest.mark.parametrize(("asked", "cpu"), [("mps", False), ("", True)])
def test_the_gpu_of_apple_is_taken_where_it_is_asked_for(
    asked: str, cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", asked)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(accelerator, "Accelerator", lambda cpu, **_: taken.append(cpu))
    accelerator.make_accelerator("float32")
    assert taken == [cpu]


@pytest.mark.parametrize("folder", ["xmask3d", "tools"])
def test_text_files_name_their_encoding(folder: str) -> None:
    for path in (REPOSITORY / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "attr", "") if isinstance(node, ast.Call) else ""
            if name in ("read_text", "write_text"):
                named = "encoding" in {keyword.arg for keyword in node.keywords}
                assert named or len(node.args) > (name == "write_text"), f"{path}:{node.lineno}"
