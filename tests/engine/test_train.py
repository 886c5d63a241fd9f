"""The training loop with the real classes at a tiny size."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.runs import finish, run, start, train_run
from xmask3d.checkpoints.checkpoint import Checkpoint, CheckpointFolder, load_weights, read_checkpoint
from xmask3d.checkpoints.validations import read_validations
from xmask3d.config import load_config
from xmask3d.engine import trainer as module
from xmask3d.engine.resume_check import check_resumable
from xmask3d.engine.train import check_captions, open_trainer, train
from xmask3d.errors import UserError
from xmask3d.models.diffusion import DiffusionFeatures, EncodedImages

LAST = "checkpoints/step-00000008.pt"
NO_MASKS = [
    f"loss.{name}=0"
    for name in ("mask_class", "mask", "dice", "point_fused", "caption_fused", "caption_2d", "mask_regularisation")
]
SAME = ["train.ema=0.9", "train.evaluate_every=1"]  # as the finished run of the fixture


def differences(a: object, b: object, name: str = "") -> list[str]:
    """Names of the values in which two nests of dicts, lists and tensors are not bit for bit the same."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [name]
    if isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys(), name
        return [found for key in a for found in differences(a[key], b[key], f"{name}.{key}")]
    if isinstance(a, list | tuple):
        assert isinstance(b, list | tuple) and len(a) == len(b), name
        return [found for i, item in enumerate(a) for found in differences(item, b[i], f"{name}.{i}")]
    return [] if a == b else [name]


def assert_same_run(first: Path, second: Path) -> None:
    a, b = read_checkpoint(first), read_checkpoint(second)
    assert a.step == b.step
    for part in ("model", "optimizer", "ema", "rng"):
        assert not differences(getattr(a, part), getattr(b, part), part)


def test_a_finished_run(finished: Path, tiny: Path) -> None:
    lines = (finished / "train.log").read_text()
    assert "start at step 0 of 8 (2 epochs of 4), 1 process(es)" in lines
    assert "epoch 2, 1 view(s) a scene: hIoU fused" in lines and "complete: 2 epochs, 8 steps" in lines
    assert load_config(finished / "config.yaml") == load_config(tiny, [*SAME, f"output={finished}"])
    checkpoint = read_checkpoint(finished / LAST)
    assert checkpoint.step == 8 and checkpoint.steps_per_epoch == 4
    assert (finished / "checkpoints" / "best.pt").exists()
    assert not any(name.startswith(("diffusion.", "mask_clip.")) for name in checkpoint.model)
    assert load_weights(finished / LAST).keys() == checkpoint.model.keys()
    averaged = [name for name in checkpoint.model if not torch.equal(checkpoint.model[name], checkpoint.ema[name])]
    assert "fuser.linear.weight" in averaged


def test_a_run_starts_from_the_weights_that_it_is_given(finished: Path, tiny: Path, tmp_path: Path) -> None:
    still = ["train.lr_3d=1e-12", "train.lr_others=1e-12", "train.epochs=1", "train.weight_decay=0"]
    given = load_weights(finished / LAST)
    # A container of others may hold more than the network.
    torch.save({"state_dict": given | {"left.over": torch.zeros(1)}}, tmp_path / "theirs.pth.tar")
    options = [f"output={tmp_path / 'run'}", f"train.start_from={tmp_path / 'theirs.pth.tar'}", *still]
    assert run(train_run, tiny, options, log=tmp_path / "log") == 0
    found = load_weights(tmp_path / "run" / "checkpoints" / "step-00000004.pt")
    trained = [name for name in given if "running_" not in name and "num_batches" not in name]
    assert all(torch.allclose(found[name], given[name], atol=1e-9) for name in trained)
    assert (
        run(train_run, tiny, [f"output={tmp_path / 'other'}", "train.start_from=missing.pt"], log=tmp_path / "no") == 1
    )
    assert "missing.pt: no such checkpoint" in (tmp_path / "no").read_text()


def test_curves_have_their_right_names(finished: Path) -> None:
    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    losses = {
        "mask_class", "mask", "dice", "mask_class_aux", "mask_aux", "dice_aux", "point_fused", "point_3d",
        "caption_fused", "caption_3d", "caption_2d", "binary", "mask_regularisation", "total",
    }  # fmt: skip
    assert {f"loss/{name}" for name in losses} <= names
    scores = [f"{branch}_{score}" for branch in ("fused", "2d", "3d") for score in ("hiou", "miou_base", "miou_novel")]
    assert {f"validation/{score}" for score in scores} <= names
    assert {"validation/binary_accuracy", "lr/3d", "lr/others"} <= names
    assert {"run/samples_per_second", "run/peak_memory_gib", "run/gradient_norm"} <= names
    values = {name: [event.value for event in events.Scalars(f"loss/{name}")] for name in losses}
    assert len(values["total"]) == 8
    # The regularisation, and with it MaskCLIP, starts in the second epoch.
    assert [event.step for event in events.Scalars("loss/mask_regularisation")] == [5, 6, 7, 8]
    for i in range(4):
        parts = sum(values[name][i] for name in losses - {"total", "mask_regularisation"})
        assert parts == pytest.approx(values["total"][i], rel=1e-5)
    rates = [event.value for event in events.Scalars("lr/3d")]
    assert rates[0] == pytest.approx(1e-3) and rates[4] == pytest.approx(5e-4)


def test_a_complete_run_says_so(finished: Path, tiny: Path, capsys: pytest.CaptureFixture) -> None:
    before = (finished / LAST).stat().st_mtime_ns
    assert train(load_config(tiny, [*SAME, f"output={finished}"])) == 0
    assert "complete: 2 epochs, 8 steps" in capsys.readouterr().out
    assert (finished / LAST).stat().st_mtime_ns == before


def test_killed_at_a_random_step_it_ends_in_the_same_weights(tiny: Path, finished: Path, tmp_path: Path) -> None:
    kill_at = random.randrange(1, 8)
    overrides = [*SAME, f"output={tmp_path}", "train.save_minutes=0"]
    assert run(train_run, tiny, overrides, kill_at) == -signal.SIGKILL
    found = CheckpointFolder(tmp_path / "checkpoints").load_newest()
    assert found is not None and found[1].step == kill_at, f"killed in step {kill_at}"
    assert run(train_run, tiny, overrides) == 0
    assert_same_run(finished / LAST, tmp_path / LAST)


def test_a_damaged_newest_checkpoint_costs_some_steps_only(tiny: Path, finished: Path, tmp_path: Path) -> None:
    overrides = [*SAME, f"output={tmp_path}", "train.save_minutes=0", "train.keep=3"]
    assert run(train_run, tiny, overrides, 6) == -signal.SIGKILL
    damaged = tmp_path / "checkpoints" / "step-00000006.pt"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    assert run(train_run, tiny, overrides, log=tmp_path / "log") == 0
    text = (tmp_path / "log").read_text()
    assert f"{damaged}: damaged" in text and "resume at step 5 of 8" in text
    assert_same_run(finished / LAST, tmp_path / LAST)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(tiny: Path, tmp_path: Path, number: int, code: int) -> None:
    overrides = [f"output={tmp_path}", "train.epochs=500"]
    processes = start(train_run, tiny, overrides, log=tmp_path / "log")
    deadline = time.monotonic() + 120
    while "step 2/" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline and processes[0].is_alive()
        time.sleep(0.05)
    os.kill(processes[0].pid, number)
    assert finish(processes) == [code]
    text = (tmp_path / "log").read_text()
    found = CheckpointFolder(tmp_path / "checkpoints").load_newest()
    assert found is not None and found[1].step >= 2
    assert f"stopped by a signal after step {found[1].step}, saved" in text


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit_too(tiny: Path, finished: Path, tmp_path: Path) -> None:
    overrides = [*SAME, f"output={tmp_path}", "train.save_minutes=0"]
    assert run(train_run, tiny, overrides, 5, processes=2, log=tmp_path / "log") == -signal.SIGKILL
    assert run(train_run, tiny, overrides, processes=2, log=tmp_path / "log") == 0
    text = (tmp_path / "log").read_text()
    assert "2 process(es) on cpu" in text and "resume at step 5 of 8" in text and text.count("complete:") == 1
    pair, alone = read_checkpoint(tmp_path / LAST), read_checkpoint(finished / LAST)
    assert len(pair.rng) == 2 and pair.step == 8
    # Batch norm sees one sample a process instead of two, so the weights are near those of one process, not equal.
    assert pair.model.keys() == alone.model.keys()
    whole = tmp_path / "whole"
    assert run(train_run, tiny, [*SAME, f"output={whole}"], processes=2) == 0
    assert_same_run(whole / LAST, tmp_path / LAST)


def test_micro_batches_and_averaging(tiny: Path, tmp_path: Path) -> None:
    config = load_config(tiny, [f"output={tmp_path}", "train.accumulate=2", "train.epochs=1", "train.clip_grad=1.0"])
    assert train(config) == 0
    assert read_checkpoint(tmp_path / "checkpoints" / "step-00000004.pt").ema is None


def test_without_losses_that_read_masks_the_2d_branch_rests(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*arguments: object, **named: object) -> None:
        raise AssertionError("no loss reads masks")

    monkeypatch.setattr(DiffusionFeatures, "forward", unexpected)
    config = load_config(tiny, [*NO_MASKS, f"output={tmp_path}", "train.evaluate_every=0", "train.save_every=1"])
    assert train(config) == 0
    first, last = (read_checkpoint(tmp_path / f"checkpoints/step-0000000{step}.pt").model for step in (4, 8))
    changed = {name.split(".")[0] for name in last if not torch.equal(first[name], last[name])}
    assert changed == {"point_encoder", "binary_head", "classifier", "mask_decoder"}
    assert [name for name in last if name.startswith("mask_decoder") and not torch.equal(first[name], last[name])] == [
        "mask_decoder.post_mask_embed.logit_scale"
    ]


@pytest.mark.slow
def test_half_precision(tiny: Path, tmp_path: Path) -> None:
    assert run(train_run, tiny, [f"output={tmp_path}", "train.precision=bfloat16", "train.epochs=1"]) == 0
    weights = read_checkpoint(tmp_path / "checkpoints" / "step-00000004.pt").model
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert weights["fuser.linear.weight"].dtype == torch.float32


@pytest.mark.parametrize("condition", ["image", "text"])
def test_other_conditions_train_and_label(condition: str, tiny: Path, tmp_path: Path) -> None:
    config = load_config(
        tiny,
        [
            f"output={tmp_path}", f"model.condition={condition}", "train.feature_cache=true", "train.epochs=1",
            "evaluate.condition_text=captions",
        ],
    )  # fmt: skip
    assert train(config) == 0
    weights = load_weights(tmp_path / "checkpoints" / "step-00000004.pt")
    assert weights["conditioner.alpha_cond"].abs().max() > 0
    assert ("conditioner.perceptron.0.weight" in weights) == (condition == "image")


def test_kept_encodings_are_made_once_a_view(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, images = DiffusionFeatures.encode, []

    def counted(self: DiffusionFeatures, batch: torch.Tensor) -> EncodedImages:
        images.append(len(batch))
        return encode(self, batch)

    monkeypatch.setattr(DiffusionFeatures, "encode", counted)
    overrides = ["train.feature_cache=true", "train.evaluate_every=0"]
    assert train(load_config(tiny, [*overrides, f"output={tmp_path / 'memory'}"])) == 0
    assert 0 < sum(images) <= 4, "two epochs of eight samples show four views"
    kept = [*overrides, f"data.cache={tmp_path / 'cache'}"]
    assert train(load_config(tiny, [*kept, f"output={tmp_path / 'first'}"])) == 0
    files = list((tmp_path / "cache").glob("encodings-*/*/*.safetensors"))
    assert len(files) == sum(images) / 2
    assert train(load_config(tiny, [*kept, f"output={tmp_path / 'second'}"])) == 0
    assert len(files) == sum(images) / 2, "the second run finds them on disk"
    for name in ("first", "second"):
        assert_same_run(tmp_path / "memory" / LAST, tmp_path / name / LAST)


def test_without_masks_no_picture_is_encoded(tiny: Path, tmp_path: Path) -> None:
    kept = ["train.feature_cache=true", f"data.cache={tmp_path / 'cache'}", "train.evaluate_every=0"]
    overrides = [f"output={tmp_path / 'run'}", "train.epochs=1", *NO_MASKS, *kept]
    assert train(load_config(tiny, overrides)) == 0
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_stop_in_a_validation_leaves_it_to_the_next_start(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    validate, stops = module.validate, [True, False]

    def stopped(*arguments: object) -> tuple | None:
        if stops.pop(0):
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments)

    monkeypatch.setattr(module, "validate", stopped)
    config = load_config(tiny, [f"output={tmp_path}", "train.epochs=1", "train.evaluate_every=1"])
    assert train(config) == 143
    folder = tmp_path / "checkpoints"
    saved = read_checkpoint(folder / "step-00000004.pt")
    assert read_validations(folder) == {} and not (folder / "best.pt").exists()
    assert train(config) == 0 and stops == []
    assert "epoch 1, 1 view(s) a scene: hIoU fused" in (tmp_path / "train.log").read_text()
    assert list(read_validations(folder)) == [4] and read_checkpoint(folder / "best.pt").step == 4
    assert not differences(saved.model, read_checkpoint(folder / "best.pt").model)
    assert train(config) == 0  # would end in an IndexError if it validated again
    assert "complete: 1 epochs, 4 steps" in capsys.readouterr().out


def test_a_validation_that_a_signal_cut_in_any_process_counts_in_none(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmask3d.engine.validate.gather_object", lambda mine: [*mine, True])
    assert train(load_config(tiny, [f"output={tmp_path}", "train.epochs=1", "train.evaluate_every=1"])) == 0
    assert "hIoU" not in (tmp_path / "train.log").read_text() and not (tmp_path / "checkpoints/best.pt").exists()


def test_float16_needs_a_gpu(tiny: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match=r"train\.precision=float16 needs a GPU; use bfloat16 or float32"):
        train(load_config(tiny, [f"output={tmp_path}", "train.precision=float16"]))


def test_a_loss_that_is_not_finite_stops_the_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xmask3d.losses.criterion import Criterion

    forward, calls = Criterion.forward, []

    def broken(self: Criterion, *arguments: object, **keywords: object) -> dict[str, torch.Tensor]:
        losses = forward(self, *arguments, **keywords)
        calls.append(1)
        if len(calls) == 3:
            losses["dice"] = losses["dice"] * float("nan")
            losses["total"] = losses["total"] + losses["dice"]
        return losses

    monkeypatch.setattr(Criterion, "forward", broken)
    config = load_config(tiny, [f"output={tmp_path}", "train.save_minutes=0"])
    with pytest.raises(UserError) as caught:
        train(config)
    text = str(caught.value)
    assert "step 3: loss or gradient is not finite" in text and "dice nan" in text and "step-00000002.pt" in text
    assert "\n" not in text
    found = CheckpointFolder(tmp_path / "checkpoints").load_newest()
    assert found is not None and found[1].step == 2
    assert all(torch.isfinite(value).all() for value in found[1].model.values())


def test_a_full_disk_names_what_is_intact(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saves = torch.save, []

    def full(payload: object, file: BinaryIO) -> None:
        saves.append(file)
        if len(saves) == 3:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(payload, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"step-00000003.pt: .*No space left on device.*step-00000002.pt is intact"):
        train(load_config(tiny, [f"output={tmp_path}", "train.save_minutes=0"]))
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("*.pt")) == ["step-00000001.pt", "step-00000002.pt"]


def test_another_configuration_is_refused(finished: Path, tiny: Path) -> None:
    overrides = [*SAME, f"output={finished}", "train.epochs=9", "train.log_every=7", "evaluate.novel_ratio=0.1"]
    trainer = open_trainer(load_config(tiny, overrides))
    assert (trainer.step, trainer.total_steps) == (8, 36)
    with pytest.raises(UserError) as caught:
        train(load_config(tiny, [*overrides, "train.lr_3d=0.5", "model.queries=7"]))
    text = str(caught.value)
    assert "train.lr_3d: 0.001 in the run, 0.5 now" in text and "model.queries: 4 in the run, 7 now" in text
    assert "epochs" not in text and "\n" not in text
    checkpoint = read_checkpoint(finished / LAST)
    config = load_config(tiny, [*SAME, f"output={finished}"])
    with pytest.raises(UserError, match="had 4 steps an epoch, the data now give 5"):
        check_resumable(config, checkpoint, 5)
    check_resumable(config, Checkpoint(**{**vars(checkpoint), "step": 1}), 4)


def test_missing_data_and_batches_too_large(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        train(load_config(tiny, [f"output={tmp_path}", f"data.root={tmp_path / 'nowhere'}"]))
    with pytest.raises(UserError, match=r"fewer than train\.batch_size=64"):
        train(load_config(tiny, [f"output={tmp_path}", "train.batch_size=64"]))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"):
        train(load_config(tiny, [f"output={tmp_path / 'file' / 'below'}"]))


def test_training_with_few_captions_is_refused_or_warns(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(tiny)
    known = json.loads((config.data.root / "captions.json").read_text())
    drawn = open_trainer(load_config(tiny, [f"output={tmp_path / 'run'}"])).views.all_views()
    assert len(drawn) == 4

    def check(missing: int, *options: str) -> str | None:
        captions = tmp_path / f"{missing}.json"
        left = {scene: dict(sentences) for scene, sentences in known.items()}
        for scene, view in drawn[:missing]:
            del left[scene][view]
        captions.write_text(json.dumps(left))
        chosen = load_config(tiny, [f"output={tmp_path / 'run'}", f"data.captions={captions}", *options])
        trainer = open_trainer(chosen)
        return check_captions(chosen, trainer.criterion, trainer.views)

    assert check(0) is None
    for missing in (1, 4):
        with pytest.raises(UserError, match=rf"^{missing} of 4 views .*{missing}[.]json.*xmask3d download captions"):
            check(missing)
    without = [f"loss.caption_{name}=0" for name in ("fused", "3d", "2d")]
    assert check(4, *without) is None
    with pytest.raises(UserError, match=r"though model[.]condition is text"):
        check(4, *without, "model.condition=text")
    monkeypatch.setattr("xmask3d.engine.train.UNCAPTIONED", 0.25)
    warning = check(1)
    assert warning and warning.startswith("1 of 4 views of split 'train' have no caption")
    with pytest.raises(UserError, match=r"^2 of 4 views"):
        check(2)


def test_training_without_captions_stops_before_the_first_step(tiny: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.json"
    captions.write_text("{}")
    with pytest.raises(UserError, match=r"have no caption.*loss\.caption_fused"):
        train(load_config(tiny, [f"output={tmp_path / 'run'}", f"data.captions={captions}"]))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
