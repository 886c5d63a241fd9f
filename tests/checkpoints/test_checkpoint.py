"""Checkpoints: whole or not at all, checked when read, and the newest good one wins."""

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xmask3d.build import build_model
from xmask3d.checkpoints import checkpoint as module
from xmask3d.checkpoints.checkpoint import (
    GATE_ENTRY,
    Checkpoint,
    CheckpointFolder,
    apply_weights,
    find_checkpoint,
    load_gate,
    load_weights,
    random_state,
    read_checkpoint,
    restore_random_state,
    weights_digest,
)
from xmask3d.checkpoints.names import published_name
from xmask3d.config import load_config
from xmask3d.errors import UserError
from xmask3d.seal import read_sealed_json


def state(step: int, size: int = 1000, ema: bool = False) -> Checkpoint:
    weights = {"weight": torch.full((size,), float(step))}
    return Checkpoint(
        step=step,
        steps_per_epoch=10,
        model=weights,
        optimizer={"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        config={"seed": 1, "train": {"epochs": 3}},
        ema={"weight": torch.zeros(size)} if ema else None,
        rng=[random_state()],
    )


def damage(path: Path, offset: int = 700) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def test_round_trip(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "new" / "checkpoints")
    path = folder.save(state(7))
    found = folder.load_newest()
    assert found is not None and found[0] == path
    loaded = found[1]
    assert (loaded.step, loaded.steps_per_epoch, loaded.config) == (7, 10, {"seed": 1, "train": {"epochs": 3}})
    assert torch.equal(loaded.model["weight"], torch.full((1000,), 7.0))
    assert loaded.optimizer["param_groups"][0]["lr"] == 0.1
    assert path.with_name(path.name + ".sha256").read_text() == (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    )


def test_keeps_the_newest_few_the_milestones_and_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2, milestones=frozenset({20}))
    for step in (10, 20, 30, 40, 50):
        folder.save(state(step))
        if step == 10:
            assert folder.mark_best(step, 0.5)
        assert not folder.mark_best(step, 0.4)
    assert [path.name for path in folder.paths()] == ["step-00000050.pt", "step-00000040.pt", "step-00000020.pt"]
    assert read_checkpoint(tmp_path / "best.pt").step == 10
    assert folder.mark_best(50, 0.6)
    assert read_checkpoint(tmp_path / "best.pt").step == 50
    assert not list(tmp_path.glob(".part-*"))


def test_what_a_kill_leaves_is_tidied_away(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (10, 20, 30):
        folder.save(state(step))
    folder.mark_best(20, 0.5)
    expected = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "step-00000010.pt").write_bytes(b"older than the newest two")
    for name in ("step-00000010.pt.sha256", "step-00000005.pt.sha256", ".part-0-1-2.pt"):
        (tmp_path / name).touch()
    folder.tidy(30)
    assert sorted(path.name for path in tmp_path.iterdir()) == expected


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"score": "x"}', "\\udcff{"])
def test_a_damaged_record_of_the_best_is_replaced(content: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = CheckpointFolder(tmp_path)
    for step, score in ((10, 0.5), (20, 0.3)):
        folder.save(state(step))
        if step == 20:
            (tmp_path / "best.json").write_text(content, errors="surrogateescape")
        assert folder.mark_best(step, score)
    assert "best.json: damaged" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "best.pt").step == 20
    assert read_sealed_json(tmp_path / "best.json") == {"score": 0.3, "from": "step-00000020.pt"}


def test_a_kill_while_the_best_is_marked_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(state(10))
    folder.mark_best(10, 0.5)
    folder.save(state(20))
    write, written = module.atomic_write, []

    def killed(path: Path, *arguments: object, **keywords: object) -> None:
        if len(written) == stop:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *arguments, **keywords)

    for allowed in (1, 2):
        stop = allowed
        written.clear()
        monkeypatch.setattr(module, "atomic_write", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.mark_best(20, 0.6)
        monkeypatch.setattr(module, "atomic_write", write)
    assert folder.mark_best(20, 0.6)
    assert read_checkpoint(tmp_path / "best.pt").step == 20


def test_a_damaged_newest_one_is_named_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    for step in (1, 2, 3):
        folder.save(state(step))
    newest, second, _ = folder.paths()
    damage(newest)
    second.write_bytes(second.read_bytes()[:-100])
    found = folder.load_newest()
    assert found is not None and found[1].step == 1
    warnings = capsys.readouterr().err
    assert newest.name in warnings and second.name in warnings and "damaged" in warnings
    folder.save(state(2))  # the run goes on: what lay beyond it was damaged, and goes
    assert [path.name for path in folder.paths()] == ["step-00000002.pt", "step-00000001.pt"]


def test_truncation_is_noticed_without_a_digest(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    path = folder.save(state(1))
    path.with_name(path.name + ".sha256").unlink()
    assert read_checkpoint(path).step == 1
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=path.name):
        read_checkpoint(path)


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    damage(folder.save(state(1)))
    with pytest.raises(UserError, match="none of its 1 checkpoints can be read"):
        folder.load_newest()
    assert CheckpointFolder(tmp_path / "empty").load_newest() is None


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    torch.save({"format": module.FORMAT, "step": Evil()}, tmp_path / "step-00000001.pt")
    with pytest.raises(UserError, match="damaged or foreign"):
        read_checkpoint(tmp_path / "step-00000001.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_full_disk_leaves_the_previous_one(tmp_path: Path) -> None:
    """With a limit on the size of files, which fails writes half way like a full disk."""
    folder = CheckpointFolder(tmp_path, keep=1)
    before = folder.save(state(1, 1000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(UserError) as caught:
            folder.save(state(2, 1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(before) in str(caught.value) and "intact" in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [before.name, before.name + ".sha256"]
    found = folder.load_newest()
    assert found is not None and found[1].step == 1


def test_killed_while_writing(tmp_path: Path) -> None:
    """SIGKILL in the midst of a write leaves a temporary file that nobody takes for a checkpoint."""
    program = f"""
        import os, signal, torch
        from tests.checkpoints.test_checkpoint import state
        from xmask3d.checkpoints import checkpoint
        from pathlib import Path
        folder = checkpoint.CheckpointFolder(Path({str(tmp_path)!r}))
        folder.save(state(1))
        def die(payload, file):
            file.write(bytes(2000))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        torch.save = die
        folder.save(state(2))
    """
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=root, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".part-*"))) == 1
    folder = CheckpointFolder(tmp_path)
    found = folder.load_newest()
    assert found is not None and found[1].step == 1
    folder.save(state(3))
    assert not list(tmp_path.glob(".part-*"))


def test_weights_prefer_the_average(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert load_weights(folder.save(state(1)))["weight"][0] == 1
    assert load_weights(folder.save(state(2, ema=True)))["weight"][0] == 0
    save_file({"weight": torch.ones(3)}, tmp_path / "plain.safetensors")
    assert torch.equal(load_weights(tmp_path / "plain.safetensors")["weight"], torch.ones(3))
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"bad.safetensors: damaged"):
        load_weights(tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="no such"):
        load_weights(tmp_path / "missing.pt")


def test_a_published_checkpoint_is_renamed(tiny: Path, tmp_path: Path) -> None:
    model = build_model(load_config(tiny)).model
    state = {f"module.{published_name(name)}": value for name, value in model.state_dict().items()}
    constants = {"module.criterion.empty_weight": torch.ones(16), "module.binary_loss_func.pos_weight": torch.ones(1)}
    path = tmp_path / "b15n4.pth.tar"
    torch.save({"epoch": 150, "state_dict": state | constants, "optimizer": {}, "best_iou": 0.0}, path)
    weights = load_weights(path)
    assert weights.keys() == model.state_dict().keys()
    apply_weights(model, weights, path)
    assert torch.equal(weights["fuser.linear.weight"], state["module.criterion.fuser.linear.weight"])
    torch.save({"state_dict": {"module.backbone.stem": torch.ones(1)}}, path)
    assert list(load_weights(path)) == ["module.backbone.stem"]  # for apply_weights to judge


def test_weights_that_do_not_fit_are_refused() -> None:
    model = nn.Linear(2, 3)
    apply_weights(model, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "x.pt")
    assert model.weight.sum() == 6
    with pytest.raises(UserError, match=r"x.pt.*1 tensors missing.*first: bias"):
        apply_weights(model, {"weight": torch.ones(3, 2)}, "x.pt")
    with pytest.raises(UserError, match=r"1 of another shape.*first: bias"):
        apply_weights(model, {"weight": torch.ones(3, 2), "bias": torch.zeros(4)}, "x.pt")
    more = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "other": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 unknown.*first: other"):
        apply_weights(model, more, "x.pt")
    apply_weights(model, more, "x.pt", strict=False)
    assert model.weight.sum() == 0


@pytest.mark.parametrize("weight", [torch.full((3, 2), float("nan")), torch.full((3, 2), -float("inf")).half(),
                                    torch.ones(3, 2).long(), torch.ones(3, 2, dtype=torch.complex64),
                                    torch.eye(3, 2).to_sparse()])  # fmt: skip
def test_weights_that_are_no_numbers_of_a_network_are_refused(weight: torch.Tensor) -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(UserError, match=r"x\.pt: weight holds (NaN or infinity|numbers of another kind)"):
        apply_weights(model, {"weight": weight, "bias": torch.zeros(3)}, "x.pt")
    apply_weights(model, {"weight": torch.ones(3, 2).double(), "bias": torch.zeros(3).half()}, "x.pt")
    assert model.weight.sum() == 6


@pytest.mark.parametrize("gate", ["a b c", "1,2"])
def test_a_gate_that_is_no_numbers_is_refused(tmp_path: Path, gate: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", {GATE_ENTRY: gate})
    with pytest.raises(UserError, match=r"a\.safetensors: damaged, or not a model with numbers of the region gate"):
        load_gate(tmp_path / "a.safetensors")


def test_finding_a_checkpoint_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint yet"):
        find_checkpoint("newest", tmp_path)
    folder = CheckpointFolder(tmp_path / "checkpoints")
    first = folder.save(state(1))
    folder.mark_best(1, 0.1)
    second = folder.save(state(2))
    assert find_checkpoint("newest", tmp_path) == second
    assert find_checkpoint("best", tmp_path).name == "best.pt"
    assert find_checkpoint(str(first), tmp_path) == first


def test_random_state_comes_back() -> None:
    saved = random_state()
    first = (torch.rand(3), np.random.rand(3), random.random())
    restore_random_state(saved)
    second = (torch.rand(3), np.random.rand(3), random.random())
    assert torch.equal(first[0], second[0]) and (first[1] == second[1]).all() and first[2] == second[2]


def test_a_digest_that_is_not_text(tmp_path: Path) -> None:
    path = CheckpointFolder(tmp_path).save(state(1))
    path.with_name(path.name + ".sha256").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="its SHA-256 is not the one"):
        read_checkpoint(path)


def test_digests_of_weights_tell_apart_what_sums_do_not() -> None:
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, 3, dtype=torch.bfloat16), "n": torch.tensor(3)}
    digest = weights_digest(weights)
    assert weights_digest(dict(reversed(weights.items()))) == digest and len(digest) == 64
    others = [
        {"a": torch.tensor([2.0, 1.0])},
        {"a": torch.tensor([1.0, 2.0]).double()},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"b": torch.zeros(3, 2, dtype=torch.bfloat16)},
        {"c": torch.tensor([1.0, 2.0])},
    ]
    digests = {weights_digest(weights | other) for other in others}
    assert len(digests) == 5 and digest not in digests
    assert weights_digest({"a": torch.arange(6).view(2, 3).T}) == weights_digest(
        {"a": torch.tensor([[0, 3], [1, 4], [2, 5]])}
    )
