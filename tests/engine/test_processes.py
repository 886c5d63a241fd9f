"""Promises of a run on one, two and three processes: kills of one of them, signals, other numbers of processes."""

import signal
from pathlib import Path

import pytest

from tests.engine.test_train import assert_same_run
from tests.helpers.runs import finish, run, start, train_run
from xmask3d.checkpoints.checkpoint import CheckpointFolder, read_checkpoint
from xmask3d.checkpoints.validations import read_validations

SETTINGS = ["train.batch_size=6", "data.views_per_scene=6", "train.save_minutes=0", "train.evaluate_every=1"]
LAST = "checkpoints/step-00000004.pt"


@pytest.fixture(scope="module")
def completed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Output folders of undisturbed runs, by number of processes: two epochs of two steps."""
    outputs = {}
    for processes in (1, 2, 3):
        outputs[processes] = tmp_path_factory.mktemp(f"processes-{processes}")
        overrides = [*SETTINGS, f"output={outputs[processes]}"]
        assert run(train_run, tiny, overrides, processes=processes, log=outputs[processes] / "log") == 0
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_one_of_them_is_killed_and_then_stopped(
    processes: int, completed: dict[int, Path], tiny: Path, tmp_path: Path
) -> None:
    overrides, log = [*SETTINGS, f"output={tmp_path}"], tmp_path / "log"
    started = start(train_run, tiny, overrides, 1, signal.SIGKILL, processes - 1, processes=processes, log=log)
    assert finish(started)[-1] == -signal.SIGKILL  # and none of the others waits without end
    found = CheckpointFolder(tmp_path / "checkpoints").load_newest()
    assert found is not None and found[1].step == 1
    code = run(train_run, tiny, overrides, 1, signal.SIGINT, processes - 1, processes=processes, log=log)
    assert code == 130 and "stopped by a signal after step 3, saved" in log.read_text()
    assert run(train_run, tiny, overrides, processes=processes, log=log) == 0
    whole = completed[processes]
    assert_same_run(whole / LAST, tmp_path / LAST)
    assert_same_run(whole / "checkpoints/best.pt", tmp_path / "checkpoints/best.pt")
    assert read_validations(whole / "checkpoints") == read_validations(tmp_path / "checkpoints")


@pytest.mark.slow
@pytest.mark.parametrize("before, after", [(1, 2), (2, 1), (1, 3)])
def test_it_resumes_on_another_number_of_processes(before: int, after: int, tiny: Path, tmp_path: Path) -> None:
    overrides, log = [*SETTINGS, f"output={tmp_path}"], tmp_path / "log"
    assert run(train_run, tiny, overrides, 1, signal.SIGTERM, processes=before, log=log) == 143
    assert run(train_run, tiny, overrides, processes=after, log=log) == 0
    assert f"resume at step 2 of 4 (2 epochs of 2), {after} process(es)" in log.read_text()
    checkpoint = read_checkpoint(tmp_path / LAST)
    assert checkpoint.step == 4 and len(checkpoint.rng) == after
    assert sorted(read_validations(tmp_path / "checkpoints")) == [2, 4]
