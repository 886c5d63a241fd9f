"""Work on a GPU that is pretended: nothing stays on the host, which seldom waits, and results are those of the CPU."""

import re
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.pretend_cuda import CUDA, FakeTensor, pretending, use_pretended_gpu
from tests.helpers.runs import evaluate_run, run
from tools.studies import oracle
from xmask3d.config import load_config
from xmask3d.inference.labeller import BRANCHES
from xmask3d.segment.segmenter import Segmenter

LABELS = [f"labels_{branch}" for branch in BRANCHES]
WAITS_A_STEP = 6  # bounds and sizes of the voxels, costs of the matcher, and whether loss and gradient are finite


def train_on_pretended_gpu(config: Path, overrides: list[str], mistake: str = "") -> int:
    """Train, in a process of its own; prints how often a step waits."""
    from xmask3d.engine import train, trainer

    use_pretended_gpu()
    steps: list[Counter[str]] = []
    backward = trainer.Trainer.take_step

    def take_step(self: trainer.Trainer, *arguments: object) -> object:
        FakeTensor.waits.clear()
        try:
            return backward(self, *arguments)
        finally:
            steps.append(FakeTensor.waits.copy())

    trainer.Trainer.take_step = take_step
    if mistake == "points":
        translate = trainer.translate
        trainer.translate = lambda batch, *numbers: replace(
            translate(batch, *numbers), point_to_voxel=batch.point_to_voxel.cpu()
        )
    if mistake == "generator":
        trainer.generator_for = lambda *numbers, device: torch.Generator()
    with pretending():
        code = train.train(load_config(config, overrides))
    print("waits", max(sum(step.values()) for step in steps), steps[-1])
    print("last", sum(steps[-1].values()))
    return code


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["train.ema=0.9", "train.evaluate_every=1", "loss.mask_regularisation_start=0"],
        ["train.feature_cache=true", "train.accumulate=2", "protocol=reference"],
    ],
)
def test_a_run_never_mixes_devices_and_its_losses_are_those_of_the_cpu(
    tiny: Path, tmp_path: Path, overrides: list[str]
) -> None:
    logs = {}
    for name, target in (("cuda", train_on_pretended_gpu), ("cpu", _train_on_cpu)):
        output = tmp_path / name
        code = run(target, tiny, [f"output={output}", "train.epochs=2", *overrides], log=tmp_path / f"{name}.log")
        logs[name] = (tmp_path / f"{name}.log").read_text()
        assert code == 0, logs[name]
    found, expected = (re.findall(r"loss ([\d.]+)", log) for log in logs.values())
    assert len(found) == 8
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-4)
    # Later ones only nearly: AdamW turns the rounding of gradients that are zero in truth into steps of full size.
    assert [float(loss) for loss in found] == pytest.approx([float(loss) for loss in expected], rel=5e-2)
    assert "process(es) on cuda" in logs["cuda"]
    micro_batches = 2 if "train.accumulate=2" in overrides else 1
    most, last = (int(re.findall(rf"^{name} (\d+)", logs["cuda"], re.M)[0]) for name in ("waits", "last"))
    # Encodings are copied to the host when they are made, in the first epoch; after that a cache costs no wait.
    waits = last if "train.feature_cache=true" in overrides else most
    assert waits <= WAITS_A_STEP * micro_batches, logs["cuda"][-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(("mistake", "reason"), [("points", "same device"), ("generator", "device type for generator")])
def test_mistakes_are_noticed(tiny: Path, tmp_path: Path, mistake: str, reason: str) -> None:
    log = tmp_path / "log"
    assert run(train_on_pretended_gpu, tiny, [f"output={tmp_path / 'run'}"], mistake, log=log) == 70
    assert reason in log.read_text()


def test_tensors_of_two_devices_do_not_mix() -> None:
    with pretending() as waits:
        here, there = torch.ones(3), torch.ones(3, device=CUDA)
        assert there.device == CUDA and there.is_cuda and not here.is_cuda
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there + 1).sum().item() == 6 and there.cpu().tolist() == [1, 1, 1]
    assert sum(waits.values()) == 2
    assert torch.ones(3, device="cpu").sum().item() == 3


def evaluate_on_pretended_gpu(config: Path, overrides: list[str], checkpoint: Path, output: Path) -> int:
    use_pretended_gpu()
    with pretending():
        return evaluate_run(config, overrides, checkpoint, output)


@pytest.mark.slow
def test_an_evaluation_gives_the_labels_of_the_cpu(finished: Path, tiny: Path, tmp_path: Path) -> None:
    labels: dict[str, list[np.ndarray]] = {}
    regions = ["evaluate.votes=soft", "evaluate.regions=gate", "evaluate.region_clip=0.2", "evaluate.rotations=2"]
    for name, target in (("cuda", evaluate_on_pretended_gpu), ("cpu", evaluate_run)):
        for variant, overrides in (("plain", ["protocol=reference"]), ("regions", regions)):
            output = tmp_path / name / variant
            checkpoint = finished / "checkpoints" / "best.pt"
            assert run(target, tiny, overrides, checkpoint, output, log=tmp_path / "log") == 0, log_of(tmp_path)
            files = sorted(output.glob("*/scenes/*.npz"))
            labels.setdefault(name, []).extend(np.load(file)[key] for file in files for key in LABELS)
    assert len(labels["cuda"]) == len(labels["cpu"]) == 4 * len(LABELS)
    for found, expected in zip(labels["cuda"], labels["cpu"], strict=True):
        assert len(found) == len(expected) > 0 and np.mean(found == expected) > 0.999


@pytest.mark.slow
def test_a_segmenter_gives_the_labels_of_the_cpu(finished: Path, tiny: Path) -> None:
    scan = load_config(tiny).data.root / "scannet_2d" / "scene0002_00"
    found = {}
    for device in ("cpu", "cuda"):
        with pretending() if device == "cuda" else nullcontext():
            segmenter = Segmenter.from_pretrained(finished / "checkpoints" / "best.pt", tiny, device=device)
            result = segmenter(scan, ["sofa|couch", "floor", "potted plant"])
            again = segmenter.query(result.features, ["chair", "floor"])
        found[device] = result.labels, again.labels, result.features.fused
    for ours, expected in zip(found["cuda"][:2], found["cpu"][:2], strict=True):
        assert np.mean(ours == expected) > 0.999
    np.testing.assert_allclose(found["cuda"][2], found["cpu"][2], atol=2e-3)


@pytest.mark.slow
def test_the_oracle_study_gives_the_scores_of_the_cpu(
    finished: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, checkpoint = load_config(tiny), finished / "checkpoints" / "best.pt"
    expected = dict(oracle.score_with_truth(config, checkpoint))
    on_gpu = SimpleNamespace(device=CUDA, num_processes=1, process_index=0, autocast=nullcontext)
    monkeypatch.setattr(oracle, "make_accelerator", lambda precision: on_gpu)
    with pretending():
        found = dict(oracle.score_with_truth(config, checkpoint))
    assert found.keys() == oracle.VARIANTS.keys()
    for name, scores in found.items():
        assert scores == pytest.approx(expected[name], abs=0.01, nan_ok=True), name


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()[-3000:]


def _train_on_cpu(config: Path, overrides: list[str]) -> int:
    from xmask3d.engine.train import train

    return train(load_config(config, overrides))
