"""`xmask3d evaluate --predictions` and `xmask3d compare`, from files of other methods to a table."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.command import run_command
from tests.helpers.scenes import write_scenes
from xmask3d.config import load_config
from xmask3d.data.files import read_points


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Configuration of two tiny scenes with truth of labels and of objects, and overrides that find them."""
    root = write_scenes(tmp_path_factory.mktemp("data"), {"val": 2}, views=1, spacing=0.1)
    (root / "instance_gt" / "val").mkdir(parents=True)
    for name, (_, labels) in truth_of(root).items():
        ids = np.where(labels < 19, nyu40()[np.minimum(labels, 18)] * 1000 + 1, 0)
        (root / "instance_gt" / "val" / f"{name}.txt").write_text("\n".join(map(str, ids)))
    return ["scannet/B15N4", f"data.root={root}"]


def nyu40() -> np.ndarray:
    return np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36])


def truth_of(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    files = sorted((root / "scannet_3d" / "val").iterdir())
    read = {path.stem.removesuffix("_vh_clean_2"): read_points(path) for path in files}
    return {name: (points, np.asarray(labels)) for name, (points, _, labels) in read.items()}


def write_predictions(folder: Path, config: list[str], wrong: float) -> Path:
    """Labels as text, a share of them wrong, and each class of a scene as one object."""
    root = load_config(config[0], config[1:]).data.root
    rng = np.random.default_rng(0)
    for name, (_, labels) in truth_of(Path(root)).items():
        predicted = np.where(rng.random(len(labels)) < wrong, rng.integers(0, 19, len(labels)), labels)
        for part in ("semantic", "instance/masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "semantic" / f"{name}.txt").write_text("\n".join(map(str, nyu40()[np.minimum(predicted, 18)])))
        lines = []
        for k in np.unique(labels[labels < 19]):
            mask = folder / "instance" / "masks" / f"{name}_{k}.txt"
            mask.write_text("\n".join(map(str, (predicted == k).astype(int))))
            lines.append(f"masks/{mask.name} {nyu40()[k]} 0.9")
        (folder / "instance" / f"{name}.txt").write_text("\n".join(lines))
    return folder


def test_from_files_of_two_methods_to_a_table(
    config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, wrong in (("good", 0.0), ("bad", 0.6)):
        folder = write_predictions(tmp_path / name, config, wrong)
        options = ["--predictions", folder, "--out", tmp_path / "scored" / name, "--resamples", "50"]
        assert run_command("evaluate", *config, *options) == 0
    printed = capsys.readouterr().out
    assert "good on scannet20/B15N4: 2 scenes" in printed and "points matched: scenes 2 by index" in printed
    good, bad = (json.loads((tmp_path / "scored" / n / "results.json").read_text()) for n in ("good", "bad"))
    assert good["headlines"]["miou_all"] > bad["headlines"]["miou_all"] and good["headlines"]["ap50"] == 1.0
    assert good["protocol"]["classes_per_mask"] == "one" and good["data"]["split"] == "val"
    assert sorted(good["files"])[-1].startswith("semantic/") and good["points_without_class"] == 0
    for suffix in ("txt", "csv", "png"):
        assert (tmp_path / "scored" / "good" / f"results.{suffix}").stat().st_size > 100
    assert run_command("compare", *(f"{name}={tmp_path / 'scored' / name}" for name in ("good", "bad"))) == 0
    table = capsys.readouterr().out
    assert "| good | 1 | " in table and "AP50" in table and "mIoU all: good beats bad by" in table


@pytest.mark.parametrize(
    "options, message",
    [
        (["--foreground", "seats"], "--foreground seats: no such class group; known: base, novel"),
        (["--scenes", "scene9"], "scene scene9: not in the validation split"),
        (["--restricted"], "has points of 'wall', which restricted predictions cannot name"),
        (["--pictures", "1"], "--pictures: only of a checkpoint"),
        (["--resamples", "-1"], "--resamples -1: is 0 or more"),
        (["newest"], "--predictions: scores files in place of a checkpoint; leave out newest"),
    ],
)
def test_mistakes_are_one_line(
    config: list[str], tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_predictions(tmp_path / "mine", config, 0.0)
    arguments = [config[0], *options[:1], config[1]] if options == ["newest"] else [*config, *options]
    assert run_command("evaluate", *arguments, "--predictions", folder, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_protocols_do_not_share_a_table(config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_predictions(tmp_path / "mine", config, 0.3)
    for name, options in (("dropped", []), ("kept", ["--background", "kept"])):
        options = [*options, "--resamples", "0", "--out", tmp_path / name]
        assert run_command("evaluate", *config, "--predictions", folder, *options) == 0
    assert run_command("compare", f"a={tmp_path / 'dropped'}", f"b={tmp_path / 'kept'}") == 1
    assert "background differs: a has 'dropped', b has 'kept'" in capsys.readouterr().err


def test_options_of_predictions_need_predictions(config: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("evaluate", config[0], "newest", *config[1:], "--restricted") == 1
    assert "--restricted: only with --predictions" in capsys.readouterr().err
    assert run_command("evaluate", config[0]) == 1
    assert "name a CHECKPOINT" in capsys.readouterr().err
