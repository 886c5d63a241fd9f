"""Configuration keys on the console."""

import pytest

from tests.helpers.command import run_command
from xmask3d.cli.config import describe, walk
from xmask3d.config import Config
from xmask3d.errors import UserError


def test_every_key_has_a_sentence_and_a_line() -> None:
    keys = {key: field for key, field, _ in walk(Config(), ())}
    assert len(keys) > 80 and {"seed", "data.root", "model.binary_unet.layers", "train.epochs"} <= keys.keys()
    assert all(field.description for field in keys.values())
    lines = describe([], Config())
    assert all(any(line.startswith(f"  {key} = ") for line in lines) for key in keys)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("train.epochs", "  train.epochs = 150  [at least 1]"),
        ("seed", "  seed = 5557  [at least 0, below 2147483648]"),
        ("protocol", "  protocol = default  [default | reference]"),
        ("train.clip_grad", "  train.clip_grad = null  [above 0 or null]"),
        ("data.captions", "  data.captions = null  [path or null]"),
        ("data.rotate", "  data.rotate = true  [true | false]"),
        ("data.frame_size", "  data.frame_size = [240, 320]"),
        ("model.binary_unet.layers", "  model.binary_unet.layers = [2, 2, 2, 2, 2, 2, 2, 2]"),
    ],
)
def test_a_key_shows_its_default_and_range(asked: str, line: str) -> None:
    section, found, sentence = describe([asked], Config())
    assert found == line and sentence.strip() and ": " in section


def test_a_section_and_the_values_of_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("config", "rooms/B15N4", "train", "loss.mask", "train.epochs=3") == 0
    printed = capsys.readouterr().out
    assert "  train.epochs = 3  (default: 150)  [at least 1]\n      epochs" in printed
    assert "  loss.mask = " in printed and "loss.mask_class" not in printed and "  data." not in printed
    assert printed.startswith("loss: Weights of the losses") and "\ntrain: Optimisation.\n" in printed


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("train.epoch", "train.epochs"), ("epochs", "train.epochs"), ("trian", "train"), ("loss.lr_3d", "train.lr_3d")],
)
def test_an_unknown_key_gets_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"unknown key '{asked}'; did you mean '{nearest}'"):
        describe([asked], Config())
    with pytest.raises(UserError, match="unknown key 'zzz'; xmask3d config prints all"):
        describe(["zzz"], Config())


def test_changes_need_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("config", "train.epochs=3") == 1
    assert "name one configuration" in capsys.readouterr().err
    assert run_command("config", "rooms/B15N4", "seed=1", "seed=2") == 1
    assert "seed is overridden already" in capsys.readouterr().err
