"""The region gate is fitted at the end of a training, and evaluations find it."""

from pathlib import Path

import pytest
from accelerate import Accelerator

from xmask3d.checkpoints.checkpoint import load_gate, read_checkpoint, save_checkpoint
from xmask3d.checkpoints.export import export_model
from xmask3d.config import load_config
from xmask3d.engine.gate import can_fit_gate, unused_fit
from xmask3d.engine.train import train
from xmask3d.inference.gate_weights import FIXED, FIXED_ASKED, GateWeights, clip_alone
from xmask3d.open_model import open_labeller
from xmask3d.splits import load_benchmark

REGIONS = [
    "evaluate.votes=soft",
    "evaluate.regions=gate",
    "evaluate.gate=soft",
    "evaluate.region_clip=0.2",
    "train.fit_gate=true",
]


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("gate")
    config = load_config(tiny, [*REGIONS, f"output={output}", "train.epochs=1", "train.ema=0.5"])
    assert train(config) == 0
    return output


def labeller_weights(run: Path, checkpoint: Path, *overrides: str) -> GateWeights:
    config = load_config(run / "config.yaml", list(overrides))
    labeller = open_labeller(config, checkpoint, load_benchmark(config.benchmark), Accelerator(cpu=True))
    return labeller.settings.gate_weights


def test_fitted_weights_are_kept_and_used(finished: Path) -> None:
    path = finished / "checkpoints" / "step-00000004.pt"
    fitted = GateWeights.read(load_gate(path))
    assert fitted is not None and fitted != FIXED_ASKED and fitted.asked == 1
    assert labeller_weights(finished, path) == fitted
    assert labeller_weights(finished, path, "evaluate.gate=clip") == clip_alone(4, 15)
    assert labeller_weights(finished, path, "evaluate.region_clip=0") == FIXED


def test_an_exported_model_has_them_too(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmask3d.checkpoints.export.portable", lambda config: config)
    export = export_model(finished, tmp_path, "newest")
    assert load_gate(export.path) == load_gate(finished / "checkpoints" / "step-00000004.pt")


def test_a_checkpoint_of_earlier_versions_has_the_fixed_ones(finished: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(finished / "checkpoints" / "step-00000004.pt")
    checkpoint.gate = None
    save_checkpoint(checkpoint, tmp_path / "old.pt")
    assert labeller_weights(finished, tmp_path / "old.pt") == FIXED_ASKED


@pytest.mark.parametrize(
    "override",
    [
        "evaluate.gate=clip",
        "evaluate.regions=votes",
        "evaluate.region_clip=0",
        "train.fit_gate=false",
        "train.novel_supervision=none",
        "protocol=reference",
    ],
)
def test_labels_that_training_may_not_read_fit_nothing(tiny: Path, override: str) -> None:
    config = load_config(tiny, REGIONS)
    benchmark = load_benchmark(config.benchmark)
    assert can_fit_gate(config, benchmark) and unused_fit(config, benchmark) is None
    config = load_config(tiny, [*REGIONS, override])
    assert not can_fit_gate(config, benchmark)
    assert (unused_fit(config, benchmark) is None) == (not config.train.fit_gate)
