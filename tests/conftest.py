"""The order of the tests, and what many share: a tiny data set, tiny frozen networks and a finished run, made once."""

from pathlib import Path

import pytest
import torch

from tests.helpers.runs import run, train_run
from tests.helpers.tiny import write_config


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the campaign: damages tried on each format of file, and operations at which a command is killed."""
    parser.addoption("--mutations", type=int, default=200, help="damages tried on each format of file (default: 200)")
    parser.addoption("--kills", type=int, help="kills of each command (default: a few; 0: at every file operation)")


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Files with slow tests come first, so that processes which share the tests end at about the same time.

    Tests of a GPU are skipped where there is none. A campaign of a size that was asked for takes as long as it takes.
    """
    if config.getoption("--kills") is not None or config.getoption("--mutations") > 1000:
        for item in items:
            item.add_marker(pytest.mark.timeout(0))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _undo_determinism() -> None:
    """A training, of a test or fixture before, leaves torch deterministic: others would compute on other paths."""
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file: 8 samples an epoch in steps of 2, two epochs."""
    return write_config(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run that went through without a stop."""
    output = tmp_path_factory.mktemp("finished")
    assert (
        run(train_run, tiny, [f"output={output}", "train.ema=0.9", "train.evaluate_every=1"], log=output / "log") == 0
    )
    return output
