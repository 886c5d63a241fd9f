"""Preparation of many scenes in parallel processes; a failure is reported and does not stop the others."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from xmask3d.errors import UserError
from xmask3d.guarded import read_lines
from xmask3d.workers import allowed_workers


def read_list(path: Path) -> list[str]:
    """Read the scene names of a list file, one per line."""
    names = read_lines(Path(path), "a list of scenes, one name a line")
    if not names:
        raise UserError(f"scene list {path}: is empty")
    for name in names:
        if name != Path(name).name:
            raise UserError(f"scene list {path}: {name[:80]!r} is no scene name; give one a line, without folders")
    return names


def run_all(function: Callable[..., Any], jobs: Iterable[tuple], workers: int) -> Iterator[tuple[tuple, Any]]:
    """Call `function(*job)` for every job and yield (job, result or UserError) as they end."""
    jobs = list(jobs)
    workers = allowed_workers(workers, alone=1)
    if workers <= 1:
        for job in tqdm(jobs, disable=None, unit="scene"):
            yield job, _attempt(function, job)
        return
    with ProcessPoolExecutor(workers) as pool:
        futures: dict[Future, tuple] = {pool.submit(_attempt, function, job): job for job in jobs}
        try:
            for future in tqdm(as_completed(futures), total=len(jobs), disable=None, unit="scene"):
                yield futures[future], future.result()
        finally:
            # Ctrl-C must not wait for scenes that have not begun. It must wait for the pool's end, however: a process
            # that was
            # started by multiprocessing would otherwise close the pool's queue before the workers are asked to end.
            pool.shutdown(cancel_futures=True)


def _attempt(function: Callable[..., Any], job: tuple) -> Any:
    try:
        return function(*job)
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{error.filename or job[0]}: {error.strerror or error}")
    except Exception as error:
        # Damage takes more forms than readers foresee, and must not stop the work on other scenes.
        return UserError(f"{job[0]}: cannot be read ({type(error).__name__}: {error}); is a file of it damaged?")
