"""Work on a GPU that is pretended: nothing stays on the host, which seldom waits, and results are those of the CPU."""

import re
import shutil
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from tests.engine.test_train import LAST, assert_same_run
from tests.helpers.pretend_cuda import CUDA, FakeTensor, pretending, use_pretended_gpu
from tests.helpers.runs import evaluate_run, finish, run, start
from tools.studies import oracle
from xmask3d.config import load_config
from xmask3d.data.batch import Batch
from xmask3d.inference.labeller import BRANCHES
from xmask3d.models.outputs import gather_by_owner
from xmask3d.segment import labelling
from xmask3d.segment.segmenter import Segmenter

LABELS = [f"labels_{branch}" for branch in BRANCHES]
WAITS_A_STEP = 6  # bounds and sizes of the voxels, costs of the matcher, and whether loss and gradient are finite


def train_on_pretended_gpu(config: Path, overrides: list[str]) -> int:
    """Train, with pictures; prints how often a step waits."""
    from xmask3d.engine import train, trainer
    from xmask3d.visualize.view_picture import draw_view

    use_pretended_gpu()
    steps: list[Counter[str]] = []
    take_step = trainer.Trainer.take_step

    def counted(self: trainer.Trainer, *arguments: object) -> object:
        FakeTensor.waits.clear()
        try:
            return take_step(self, *arguments)
        finally:
            steps.append(FakeTensor.waits.copy())

    def draw(**options: object) -> np.ndarray:
        picture = draw_view(**options)
        print("picture", picture.shape)
        return picture

    trainer.Trainer.take_step = counted
    with pretending():
        code = train.train(load_config(config, overrides), draw)
    print("waits", max(sum(step.values()) for step in steps), steps[-1])
    print("last", sum(steps[-1].values()))
    return code


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["train.ema=0.9", "train.evaluate_every=1", "train.picture_every=1", "loss.mask_regularisation_start=0"],
        ["train.feature_cache=true", "train.accumulate=2", "protocol=reference"],
    ],
)
def test_a_run_never_mixes_devices_and_its_losses_are_those_of_the_cpu(
    tiny: Path, tmp_path: Path, overrides: list[str]
) -> None:
    targets = {"cuda": train_on_pretended_gpu, "cpu": _train_on_cpu}
    started = {
        name: start(target, tiny, [f"output={tmp_path / name}", *overrides], log=tmp_path / f"{name}.log")
        for name, target in targets.items()
    }
    codes = {name: finish(each) for name, each in started.items()}
    logs = {name: (tmp_path / f"{name}.log").read_text() for name in targets}
    assert codes == {"cuda": [0], "cpu": [0]}, logs
    found, expected = (re.findall(r"loss ([\d.]+)", log) for log in logs.values())
    assert len(found) == 8
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-4)
    # Later ones only nearly: AdamW turns the rounding of gradients that are zero in truth into steps of full size.
    assert [float(loss) for loss in found] == pytest.approx([float(loss) for loss in expected], rel=5e-2)
    assert "process(es) on cuda" in logs["cuda"]
    assert ("picture (" in logs["cuda"]) == ("train.picture_every=1" in overrides)
    micro_batches = 2 if "train.accumulate=2" in overrides else 1
    most, last = (int(re.findall(rf"^{name} (\d+)", logs["cuda"], re.M)[0]) for name in ("waits", "last"))
    # Encodings are copied to the host when they are made, in the first epoch; after that a cache costs no wait.
    waits = last if "train.feature_cache=true" in overrides else most
    assert waits <= WAITS_A_STEP * micro_batches, logs["cuda"][-2000:]


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    whole, resumed, log = tmp_path / "whole", tmp_path / "resumed", tmp_path / "log"
    overrides = ["train.ema=0.9", "train.save_minutes=0", "train.keep=10"]
    assert run(train_on_pretended_gpu, tiny, [f"output={whole}", *overrides], log=log) == 0, log_of(tmp_path)
    (resumed / "checkpoints").mkdir(parents=True)
    for path in (whole / "checkpoints").glob("step-00000003.pt*"):
        shutil.copy(path, resumed / "checkpoints")
    assert run(train_on_pretended_gpu, tiny, [f"output={resumed}", *overrides], log=log) == 0, log_of(tmp_path)
    assert "resume at step 3 of 8" in log.read_text()
    assert_same_run(whole / LAST, resumed / LAST)


move = Batch.to


def keep_points(batch: Batch) -> Batch:
    """Leave the points' voxels on the host."""
    return replace(batch, point_to_voxel=batch.point_to_voxel.cpu())


def make_mistakes(config: Path, checkpoint: Path, folder: Path) -> int:
    """Train and evaluate with what was forgotten on the host; prints how each mistake was noticed."""
    from xmask3d.engine import evaluate, train, trainer
    from xmask3d.inference import labeller

    use_pretended_gpu()
    translate, label_views = trainer.translate, labeller.label_views
    mistakes = {
        "training, points": (trainer, "translate", lambda batch, *numbers: keep_points(translate(batch, *numbers))),
        "training, generator": (trainer, "generator_for", lambda *numbers, device: torch.Generator()),
        "evaluation, points": (Batch, "to", lambda batch, *place: keep_points(move(batch, *place))),
        "evaluation, novel": (
            labeller, "label_views", lambda a, b, text, novel, **o: label_views(a, b, text, novel.cpu(), **o),
        ),
    }  # fmt: skip
    for name, (module, attribute, mistake) in mistakes.items():
        output = folder / name
        with patch.object(module, attribute, mistake), pretending():
            try:
                if name.startswith("training"):
                    train.train(load_config(config, [f"output={output}"]))
                else:
                    evaluate.evaluate(load_config(config), checkpoint, output=output)
            except RuntimeError as error:
                print(f"{name}: {error}")
    return 0


@pytest.mark.slow
def test_mistakes_are_noticed(finished: Path, tiny: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run(make_mistakes, tiny, finished / "checkpoints" / "best.pt", tmp_path, log=log) == 0, log_of(tmp_path)
    for name in ("training, points", "evaluation, points", "evaluation, novel"):
        assert re.search(f"^{name}: .*same device", log.read_text(), re.M), log_of(tmp_path)
    assert re.search("^training, generator: .*device type for generator", log.read_text(), re.M), log_of(tmp_path)


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


def evaluate_twice(config: Path, checkpoint: Path, output: Path, device: str) -> int:
    """Evaluate as published, and by regions, on the pretended GPU or the CPU."""
    regions = ["evaluate.votes=soft", "evaluate.regions=gate", "evaluate.region_clip=0.2", "evaluate.rotations=2"]
    if device == "cuda":
        use_pretended_gpu()
    with pretending() if device == "cuda" else nullcontext():
        for variant, overrides in (("plain", ["protocol=reference"]), ("regions", regions)):
            evaluate_run(config, overrides, checkpoint, output / variant)
    return 0


@pytest.mark.slow
def test_an_evaluation_gives_the_labels_of_the_cpu(finished: Path, tiny: Path, tmp_path: Path) -> None:
    labels: dict[str, list[np.ndarray]] = {}
    checkpoint, log = finished / "checkpoints" / "best.pt", tmp_path / "log"
    devices = ("cuda", "cpu")
    started = [start(evaluate_twice, tiny, checkpoint, tmp_path / name, name, log=log) for name in devices]
    assert [finish(each) for each in started] == [[0], [0]], log_of(tmp_path)
    for name in devices:
        files = sorted((tmp_path / name).glob("*/*/scenes/*.npz"))
        labels[name] = [np.load(file)[key] for file in files for key in LABELS]
    assert len(labels["cuda"]) == len(labels["cpu"]) == 4 * len(LABELS)
    for found, expected in zip(labels["cuda"], labels["cpu"], strict=True):
        assert len(found) == len(expected) > 0 and np.mean(found == expected) > 0.999


@pytest.mark.slow
def test_a_segmenter_gives_the_labels_of_the_cpu(finished: Path, tiny: Path) -> None:
    scan = load_config(tiny).data.root / "scannet_2d" / "scene0002_00"
    mistakes = (
        (Batch, "to", lambda batch, *place: keep_points(move(batch, *place))),
        (labelling, "gather_by_owner", lambda queries, owner, batch: gather_by_owner(queries, owner.cpu(), batch)),
    )
    found = {}
    for device in ("cpu", "cuda"):
        with pretending() if device == "cuda" else nullcontext():
            segmenter = Segmenter.from_pretrained(finished / "checkpoints" / "best.pt", tiny, device=device)
            result = segmenter(scan, ["sofa|couch", "floor", "potted plant"])
            again = segmenter.query(result.features, ["chair", "floor"])
            for mistake in mistakes if device == "cuda" else ():
                with patch.object(*mistake), pytest.raises(RuntimeError, match="same device"):
                    segmenter(scan, ["sofa", "floor"])
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
