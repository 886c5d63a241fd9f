"""Starting training and evaluation in processes of their own, quickly: a server imports everything once and forks."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from xmask3d.config import load_config
from xmask3d.errors import run_tool

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.helpers.runs", "xmask3d.engine.train", "xmask3d.engine.evaluate"])


def start(target: Callable[..., int | None], *arguments: Any, log: Path | None = None, processes: int = 1) -> list:
    """Start `target(*arguments)` in one process, or in several that form a torchrun-like group; does not wait."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if log:
        log.touch()
    started = []
    for rank in range(processes):
        group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in group.items()} if processes > 1 else {}
        process = _CONTEXT.Process(target=_main, args=(target, arguments, environment, log))
        process.start()
        started.append(process)
    return started


def finish(started: list[BaseProcess], timeout: float = 240) -> list[int | None]:
    """Wait for processes; their exit codes, negative for a signal."""
    for process in started:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"a process was still running after {timeout} s")
    return [process.exitcode for process in started]


def run(
    target: Callable[..., int | None],
    *arguments: Any,
    log: Path | None = None,
    processes: int = 1,
    timeout: float = 240,
) -> int | None:
    """Start and wait; the largest exit code in absolute value."""
    codes = finish(start(target, *arguments, log=log, processes=processes), timeout)
    return max(codes, key=lambda code: abs(code or 0))


def train_run(
    config: Path, overrides: list[str], at: int | None = None, number: int = signal.SIGKILL, rank: int | None = None
) -> int:
    """What xmask3d train does; in the midst of step `at` (from 0) a process sends itself a signal.

    Args:
        rank: the one process that gets it; all by default.
    """
    from xmask3d.engine import trainer as module
    from xmask3d.engine.train import train

    if at is not None and rank in (None, int(os.environ.get("RANK", 0))):
        forward = module.TrainingStep.forward

        def deadly(self: module.TrainingStep, *arguments: Any, **keywords: Any) -> Any:
            losses = forward(self, *arguments, **keywords)
            if deadly.step == at:
                os.kill(os.getpid(), number)
            deadly.step += 1
            return losses

        deadly.step = 0
        module.TrainingStep.forward = deadly
    return train(load_config(config, overrides))


def evaluate_run(config: Path, overrides: list[str], checkpoint: Path, output: Path) -> int:
    """What xmask3d evaluate does."""
    from xmask3d.engine.evaluate import evaluate

    evaluate(load_config(config, overrides), checkpoint, output=output)
    return 0


def command_run(arguments: list[str]) -> int:
    """What `xmask3d` does with a command line."""
    from xmask3d.cli.main import run as run_command_line

    return run_command_line(arguments)


def _main(target: Callable[..., int | None], arguments: tuple, environment: dict[str, str], log: Path | None) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    with contextlib.ExitStack() as stack:
        if log:
            file = stack.enter_context(open(log, "a", buffering=1))
            stack.enter_context(contextlib.redirect_stdout(file))
            stack.enter_context(contextlib.redirect_stderr(file))
        try:
            run_tool(lambda: target(*arguments))
        except Exception:
            traceback.print_exc()
            sys.exit(70)
