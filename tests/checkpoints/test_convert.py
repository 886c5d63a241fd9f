import math
from pathlib import Path

import pytest
import torch

from tests.helpers.command import run_command
from tests.helpers.golden import GOLDEN
from tests.helpers.published import write_released
from tests.helpers.runs import run, train_run
from tests.parity.compare import Case, compare
from tests.parity.end_to_end import build_model as build_recorded
from tests.parity.end_to_end import evaluate
from xmask3d.build import build_model
from xmask3d.checkpoints import convert as conversion
from xmask3d.checkpoints.checkpoint import apply_weights, load_weights, read_checkpoint
from xmask3d.checkpoints.convert import convert
from xmask3d.checkpoints.published import Layout
from xmask3d.config import load_config
from xmask3d.errors import UserError


@pytest.fixture(scope="module")
def released(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = Layout.of(build_model(load_config(tiny)).model)
    return write_released(tmp_path_factory.mktemp("released") / "b15n4.pth.tar", layout)


def test_the_command_goes_there_and_back(
    tiny: Path, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    native, back = tmp_path / "native.safetensors", tmp_path / "new" / "back.pth.tar"
    assert not run_command("convert", released, native, "--optimizer", "--config", tiny)
    assert "epoch 150, optimizer state of" in capsys.readouterr().out
    assert not run_command("convert", native, back, "--optimizer", "--config", tiny)
    first, second = (torch.load(path, weights_only=True) for path in (released, back))
    assert list(first["state_dict"]) == list(second["state_dict"])
    assert all(torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"])
    for index, state in first["optimizer"]["state"].items():
        assert all(torch.equal(value, second["optimizer"]["state"][index][what]) for what, value in state.items())
    assert first["optimizer"]["param_groups"] == second["optimizer"]["param_groups"]
    assert not list(tmp_path.rglob(".part-*"))


def test_a_training_goes_on_from_a_released_checkpoint(tiny: Path, released: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = load_config(tiny)
    # 150 epochs of 4 steps are done; one more is taken.
    convert(released, output / "checkpoints" / "step-00000600.pt", config, optimizer=True, steps_per_epoch=4)
    assert run(train_run, tiny, [f"output={output}", "train.epochs=151"], log=tmp_path / "log") == 0
    assert "resume at step 600 of 604" in (tmp_path / "log").read_text()
    after = read_checkpoint(output / "checkpoints" / "step-00000604.pt")
    name = "point_encoder.encoder.conv0p1s1.kernel"
    before = torch.load(released, weights_only=True)["optimizer"]["state"]
    assert after.step == 604 and not torch.equal(after.model[name], load_weights(released)[name])
    assert before[0]["step"] == 45000 and after.optimizer["state"][0]["step"] == 45004
    # A higher number would stay the newest, a lower one or none would not be gone on from.
    for name in ("step-00045000.pt", "mine.pt"):
        with pytest.raises(UserError, match=r"step 600 of the run; name it .*step-00000600\.pt"):
            convert(released, tmp_path / name, config, optimizer=True, steps_per_epoch=4)


def test_a_run_is_published(tiny: Path, finished: Path, tmp_path: Path) -> None:
    source = sorted((finished / "checkpoints").glob("step-*.pt"))[-1]
    convert(source, tmp_path / "ours.pth.tar", optimizer=True)
    convert(source, tmp_path / "average.safetensors")
    layout = Layout.of(build_model(load_config(tiny)).model)
    payload = torch.load(tmp_path / "ours.pth.tar", weights_only=True)
    assert list(payload["state_dict"]) == [f"module.{name}" for name in layout.shapes] and payload["epoch"] == 2
    assert payload["state_dict"]["module.criterion.empty_weight"].tolist() == pytest.approx([1.0] * 15 + [0.1])
    assert payload["state_dict"]["module.binary_loss_func.pos_weight"].tolist() == pytest.approx([0.267])
    run_checkpoint = read_checkpoint(source)
    weights = load_weights(tmp_path / "ours.pth.tar")
    assert all(torch.equal(weights[name], tensor) for name, tensor in run_checkpoint.model.items())
    # And back into a run: the same optimiser.
    convert(
        tmp_path / "ours.pth.tar", tmp_path / "step-00000008.pt", load_config(tiny), optimizer=True, steps_per_epoch=4
    )
    again = read_checkpoint(tmp_path / "step-00000008.pt")
    assert again.step == run_checkpoint.step
    for index, state in run_checkpoint.optimizer["state"].items():
        assert all(torch.equal(value, again.optimizer["state"][index][what]) for what, value in state.items())
    # Without the optimiser the averaged weights are taken, as evaluation does.
    assert run_checkpoint.ema is not None
    average = load_weights(tmp_path / "average.safetensors")
    assert all(torch.equal(average[name], tensor) for name, tensor in run_checkpoint.ema.items())


def test_the_converted_file_gives_the_recorded_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip_text = build_recorded(fill=False)
    monkeypatch.setattr(conversion, "network_of", lambda _: model)
    released = write_released(tmp_path / "b15n4.pth.tar", Layout.of(model), optimizer=False)
    convert(released, tmp_path / "b15n4.safetensors")
    case = Case.load(GOLDEN / "k_end2end")
    apply_weights(model, load_weights(tmp_path / "b15n4.safetensors"), released)
    compared = [item for item in compare(case, evaluate(case, model, clip_text)) if item.name.startswith("eval/")]
    assert [item.name for item in compared if not item.passed] == []
    assert {"eval/binary_pred", "eval/final_mask_3d"} <= {item.name for item in compared if item.tolerance == 0}


def test_the_published_sizes_are_the_default(tmp_path: Path) -> None:
    layout = Layout.of(conversion.network_of(load_config("config/scannet/B15N4.yaml")))
    values = [math.prod(shape) for shape in layout.shapes.values() if shape is not None]
    constants = 1 + 16
    assert len(layout.shapes) == 1073 and sum(values) + constants == 82_975_490


def test_mistakes_are_named(tiny: Path, released: Path, tmp_path: Path) -> None:
    config = load_config(tiny)
    with pytest.raises(UserError, match="one file"):
        convert(released, released, config)
    with pytest.raises(UserError, match="name it with --config"):
        convert(released, tmp_path / "step-00000001.pt", optimizer=True)
    with pytest.raises(UserError, match="convert with --optimizer"):
        convert(released, tmp_path / "step-00000001.pt", config)
    convert(released, tmp_path / "native.safetensors", config)
    with pytest.raises(UserError, match="holds no optimizer"):
        convert(tmp_path / "native.safetensors", tmp_path / "back.pth.tar", config, optimizer=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        convert(released, tmp_path / "file" / "native.safetensors", config)
    with pytest.raises(UserError, match=r"\d+ of another shape: .*\(expected|.*, expected"):
        convert(released, tmp_path / "wrong.safetensors")
