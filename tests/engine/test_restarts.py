"""Runs that go on by themselves: a lost process under torchrun on two nodes, and SLURM's time limit."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.test_train import assert_same_run
from tests.helpers.runs import run, train_run
from xmask3d.resources import REPOSITORY

SETTINGS = ["train.batch_size=4", "data.views_per_scene=6", "train.save_minutes=0"]
LAST = "checkpoints/step-00000006.pt"

pytestmark = pytest.mark.timeout(1800)  # a run of several launches, each of which imports everything

SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
echo $$ > "$FAKES/pid"
SLURM_NODEID=0 exec "$@"
"""
SCONTROL = """#!/bin/sh
case "$1" in
    show) echo localhost ;;
    requeue) echo "$2" >> "$FAKES/requeued" ;;
esac
"""


@pytest.fixture
def environment() -> dict[str, str]:
    """This one, with one thread a process and this Python."""
    venv = str(Path(sys.executable).parent.parent)
    return {**os.environ, "OMP_NUM_THREADS": "1", "XMASK3D_VENV": venv, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run of two processes."""
    output = tmp_path_factory.mktemp("undisturbed")
    code = run(train_run, tiny, [*SETTINGS, f"output={output}"], processes=2, log=output / "log", timeout=900)
    assert code == 0
    return output


def wait_for(condition: Callable[[], object], seconds: float = 600) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def saved(output: Path, step: int) -> bool:
    """Return True where a checkpoint of that step, or of a later one, is there."""
    return max((int(path.stem[5:]) for path in output.glob("checkpoints/step-*.pt")), default=0) >= step


def rank_of(process: int) -> int | None:
    """Rank that torchrun gave a process, None where it is no worker, or gone."""
    try:
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((int(variable[5:]) for variable in variables if variable.startswith(b"RANK=")), None)


def worker_of(launcher: int) -> int:
    """The worker that a torchrun has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    found: list[int] = []
    wait_for(lambda: found.extend(c for c in map(int, children.read_text().split()) if rank_of(c) is not None) or found)
    return found[0]


@pytest.mark.slow
def test_a_run_on_two_nodes_goes_on_when_a_process_is_killed(
    undisturbed: Path, tiny: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    output, log = tmp_path / "run", tmp_path / "log"

    def going(resumed: int) -> bool:
        return saved(output, 2) and log.read_text().count("resume at step") >= resumed

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment |= {"NNODES": "2", "NPROC": "1", "MAX_RESTARTS": "3", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": str(free.getsockname()[1])}  # fmt: skip
    command = ["sh", str(REPOSITORY / "scripts/train.sh"), str(tiny), *SETTINGS, "data.workers=1", f"output={output}"]
    with log.open("w") as stream:
        nodes = [
            subprocess.Popen(command, stdout=stream, stderr=stream, env={**environment, "NODE_RANK": node})
            for node in "01"
        ]
        try:
            for victim in (0, 1):
                wait_for(lambda resumed=victim: going(resumed) or any(node.poll() is not None for node in nodes))
                workers = {rank_of(worker): worker for worker in (worker_of(node.pid) for node in nodes)}
                os.kill(workers[victim], signal.SIGKILL)
            codes = [node.wait(900) for node in nodes]
        finally:
            for node in nodes:
                if node.poll() is None:
                    node.terminate()
    assert codes == [0, 0], log.read_text()
    said = log.read_text()
    assert said.count("resume at step") >= 2 and "another process is at work" not in said
    assert "find_unused_parameters" not in said  # a warning that means nothing here
    assert_same_run(undisturbed / LAST, output / LAST)


@pytest.mark.slow
def test_slurm_stops_the_run_at_its_time_limit_and_it_resumes(
    tiny: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "run"
    assert run(train_run, tiny, [*SETTINGS, f"output={undisturbed}"], log=tmp_path / "log-1", timeout=600) == 0
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "squeue": "#!/bin/sh\necho RUNNING\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment |= {"FAKES": str(tmp_path), "PATH": f"{tmp_path}:{environment['PATH']}", "NPROC": "1",
                    "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here", "SLURM_SUBMIT_DIR": str(REPOSITORY)}  # fmt: skip
    command = [
        "sh",
        str(REPOSITORY / "scripts/slurm_train.sh"),
        str(tiny),
        *SETTINGS,
        "data.workers=1",
        f"output={output}",
    ]
    job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: saved(output, 2) or job.poll() is not None)
    launcher = int((tmp_path / "pid").read_text())
    for process in (worker_of(launcher), launcher):  # all processes of the job's step, as SLURM does
        os.kill(process, signal.SIGTERM)
    said = job.communicate(timeout=600)[0]
    assert job.returncode == 143 and "stopped by a signal after step" in said, said
    assert (tmp_path / "requeued").read_text() == "7\n" and not saved(output, 6)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0 and "resume at step" in again.stdout + again.stderr, again.stderr
    assert (tmp_path / "requeued").read_text() == "7\n"
    assert_same_run(undisturbed / LAST, output / LAST)


def test_the_slurm_script_is_understood_by_a_plain_shell(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts/slurm_train.sh"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    lines = script.read_text().splitlines()
    options = [line for line in lines if line.startswith("#SBATCH ")]
    assert lines[1 : 1 + len(options)] == options  # SLURM reads none below the first command
    shown = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Train, or resume,") and shown.rstrip().endswith("all variables of train.sh")
    lost = subprocess.run(["sh", str(script), "a"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert lost.returncode == 1 and "is not the repository" in lost.stderr
