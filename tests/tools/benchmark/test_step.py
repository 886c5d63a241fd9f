import tempfile
import types
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny import write_config
from tools.benchmark.case import Case, Request
from tools.benchmark.sample import write_scene
from tools.benchmark.step import Training, cases, prepare
from xmask3d.config import load_config


def test_the_plain_step_has_the_same_losses(tmp_path: Path) -> None:
    """In float64, where the matching of networks that know nothing does not hang on the order of sums."""
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder), 8000, 2, split="train")
        overrides = [f"data.root={folder}", "data.train_split=train"]
        training = Training(load_config(write_config(tmp_path), overrides), "cpu", 2)
    training.model.double()
    training.clip_text.double()
    training.batch, training.text = training.batch.to("cpu", torch.float64), training.text.double()
    ours, plain = training.encoding(), training.plain()
    assert ours["total"] > 0 and "mask_regularisation" in ours
    torch.testing.assert_close(plain, ours, rtol=1e-9, atol=1e-9)


def test_a_step_with_kept_encodings_has_nearly_the_same_losses(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    losses = {}
    for case in cases(Request(views=(2,), points=(8000,))):
        torch.manual_seed(0)  # whatever ran before
        job = prepare(case, config)
        assert job.operations > 0
        losses[case.contender] = job.run()
    for name, value in losses["xmask3d-encoding"].items():
        # Encodings are kept in half precision, and a mask may be matched with another target for it.
        assert float(losses["xmask3d"][name]) == pytest.approx(float(value), rel=0.15, abs=0.05)


def test_points_are_drawn_on_the_device_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, make = [], torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": asked.append(device) or make("cpu"))
    step = types.SimpleNamespace(
        device="cuda:0",
        clip_text=lambda captions: captions,
        batch=types.SimpleNamespace(captions=[]),
        text=None,
        epoch=0,
        step=lambda *arguments: torch.rand(3, generator=arguments[-1]),
        finish=lambda losses, _: losses,
        optimizer=None,
    )
    first, again = Training.encoding(step), Training.encoding(step)
    assert asked == ["cuda:0", "cuda:0"]
    assert torch.equal(first, again)


def test_steps_of_several_sizes() -> None:
    listed: list[Case] = cases(Request(views=(1, 4)))
    assert [case.name for case in listed[::2]] == [
        "training step, 1 views of 150k points",
        "training step, 4 views of 150k points",
    ]
