"""`xmask3d ablate`: variants and seeds, each in a folder of its own, and one table."""

from pathlib import Path

import pytest

from tests.helpers.command import run_command
from xmask3d.cli import ablate
from xmask3d.cli.ablate import read_seeds, read_variants
from xmask3d.errors import UserError


def test_values_are_combined_and_variants_added() -> None:
    assert read_variants(["model.condition=point,none", "loss.binary=0,1.5"], [["plain", "loss.mask=0"]]) == {
        "condition=point,binary=0": ['model.condition="point"', "loss.binary=0"],
        "condition=point,binary=1.5": ['model.condition="point"', "loss.binary=1.5"],
        "condition=none,binary=0": ['model.condition="none"', "loss.binary=0"],
        "condition=none,binary=1.5": ['model.condition="none"', "loss.binary=1.5"],
        "plain": ["loss.mask=0"],
    }
    assert list(read_variants([], [["a"], ["b", "seed=1"]])) == ["a", "b"]


@pytest.mark.parametrize(
    "vary, named, message",
    [
        ([], [], "at least two variants"),
        (["seed=1"], [], "at least two variants"),
        (["seed"], [], "--vary 'seed': write KEY=A,B"),
        ([], [["a"], ["a"]], "of different names"),
        ([], [["a/b"], ["c"]], "'a/b' is no name of a folder"),
    ],
)
def test_variants_that_cannot_be_told_apart(vary: list[str], named: list[list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_variants(vary, named)


@pytest.mark.parametrize("text", ["", "1,1", "1,x", "-1"])
def test_seeds_are_different_numbers(text: str) -> None:
    assert read_seeds("3,1") == [3, 1]
    with pytest.raises(UserError, match="--seeds"):
        read_seeds(text)


def test_an_ablation_stops_goes_on_and_ends_in_a_table(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["ablate", tiny, "train.epochs=1", "train.evaluate_every=0", "--vary", "model.condition=point,none"]
    asked += ["--seeds", "1,2", "--out", tmp_path]
    assert run_command(*asked, "--vary", "train.epoch=1,2") == 1
    assert "did you mean" in capsys.readouterr().err and not list(tmp_path.iterdir())

    def stopped(config: object) -> int:
        cells.append(config.output.relative_to(tmp_path).as_posix())  # type: ignore[attr-defined]
        return 143 if len(cells) == 3 else run_cell(config)  # type: ignore[arg-type]

    cells, run_cell = list[str](), ablate.run_cell
    monkeypatch.setattr(ablate, "run_cell", stopped)
    assert run_command(*asked) == 143
    first, second = (f"condition={value}" for value in ("point", "none"))
    assert cells == [f"{first}/seed-1", f"{second}/seed-1", f"{first}/seed-2"]
    assert f"| {second} | 1 |" in (tmp_path / "ablation.md").read_text()
    before = (tmp_path / cells[0] / "checkpoints" / "step-00000004.pt").stat().st_mtime_ns
    capsys.readouterr()
    assert run_command(*asked) == 0
    assert "complete: 1 epochs" in capsys.readouterr().out
    assert (tmp_path / cells[0] / "checkpoints" / "step-00000004.pt").stat().st_mtime_ns == before
    table = (tmp_path / "ablation.md").read_text()
    assert f"| {first} | 2 |" in table and f"| {second} | 2 |" in table and "resamples of 2 scenes and of 2" in table
