import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.golden import GOLDEN
from tests.parity import __main__ as parity
from tests.parity.compare import Case, Results, compare
from tests.parity.run import RUNNERS, find_cases, run_case
from xmask3d.errors import UserError


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["parity.py", *arguments])
    return parity.main()


def altered(folder: Path, case: str, name: str, change: float) -> Path:
    """A copy of a case with one recorded array changed."""
    shutil.copytree(GOLDEN / case, folder / case)
    outputs = dict(np.load(folder / case / "outputs.npz"))
    outputs[name] = outputs[name] + np.asarray(change, outputs[name].dtype)
    np.savez(folder / case / "outputs.npz", **outputs)
    return folder


def compared(recorded: dict[str, np.ndarray], results: Results) -> dict[str, float]:
    comparisons = compare(Case("case", {}, recorded), results)
    return {item.name: item.error for item in comparisons if not item.passed}


def test_parts_of_a_tensor_are_compared() -> None:
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    array = x.numpy()
    recorded = {
        "x": array,
        "x_every3": array.reshape(-1)[::3],
        "x_rows_every2": array[::2],
        "x_rowsum": array.sum(1),
        "x_rownorm": np.linalg.norm(array, axis=1),
        "x_shape": np.array([6, 4]),
        "x_stats": np.array([array.mean(), array.std(), np.linalg.norm(array), array.min(), array.max()]),
    }
    results = Results()
    results.forward("x", x)
    assert compared(recorded, results) == {}
    results.forward("x", x * 1.001)
    assert set(compared(recorded, results)) == set(recorded) - {"x_shape"}
    results.forward("x", x.T)
    assert "x_shape" in compared(recorded, results)
    results.forward("x", torch.full_like(x, torch.nan))
    assert set(compared(recorded, results)) == set(recorded) - {"x_shape"}


def test_gradients_are_compared_by_norm_and_labels_exactly() -> None:
    results = Results()
    results.gradient("grad", torch.tensor([1.0, 2e-5]))
    results.exact("label", torch.tensor([1, 2, 3]))
    results.exact("none", np.zeros(0))
    assert compared({"grad": np.array([1.0, 1.5e-5]), "label": np.array([1, 2, 3]), "none": np.zeros(0)}, results) == {}
    failed = compared({"grad": np.array([1.0, 0.0]), "label": np.array([1, 2, 4])}, results)
    assert failed == {"grad": pytest.approx(2e-5), "label": pytest.approx(1 / 3)}


def test_what_is_recorded_must_be_computed_or_left_out_with_a_reason() -> None:
    results = Results()
    results.forward("x", 1.0)
    recorded = {"x": np.array(1.0), "y_stats": np.zeros(5)}
    assert compared(recorded, results) == {"y_stats": np.inf}
    results.leave_out("y_.*", "nobody reads it", Case("case", {}, recorded))
    assert compared(recorded, results) == {}
    assert results.left_out == {"y_stats": "nobody reads it"}


@pytest.mark.parametrize(
    "case", ["b_mapping", "b_voxelize", "g_maskclip", "l_loader", pytest.param("e_ldm_full", marks=pytest.mark.slow)]
)
def test_recorded_cases_pass(case: str) -> None:
    report = run_case(GOLDEN / case)
    assert report.passed, "\n".join(report.lines())


def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, str(GOLDEN), "--case", "b_mapping") == 0
    assert "PASS  b_mapping: 3 equal" in capsys.readouterr().out
    wrong = altered(tmp_path / "wrong", "b_mapping", "mapping", 1)
    assert command(monkeypatch, str(wrong)) == 1
    printed = capsys.readouterr().out
    assert "FAIL  b_mapping" in printed and "mapping: error 1.00e+00" in printed
    assert command(monkeypatch, str(GOLDEN), "--case", "z_unknown") == 2
    shutil.copytree(GOLDEN / "b_mapping", tmp_path / "new" / "z_unknown")
    assert command(monkeypatch, str(tmp_path / "new")) == 2
    assert "UNKNOWN  z_unknown" in capsys.readouterr().out
    with pytest.raises(UserError, match="no cases"):
        command(monkeypatch, str(tmp_path / "nowhere"))


def test_a_small_change_of_a_recorded_number_fails(tmp_path: Path) -> None:
    assert not run_case(altered(tmp_path, "g_maskclip", "mask_embed", 0.01) / "g_maskclip").passed


def test_a_case_that_cannot_be_run_fails(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "b_mapping", tmp_path / "b_mapping")
    np.savez(tmp_path / "b_mapping" / "inputs.npz", points_world=np.zeros((3, 3)))
    report = run_case(tmp_path / "b_mapping")
    assert not report.passed and "cannot be run" in report.lines()[0]
    (tmp_path / "b_mapping" / "inputs.npz").write_bytes(b"damaged")
    assert "cannot be read" in run_case(tmp_path / "b_mapping").lines()[0]


def test_a_case_of_which_a_file_is_missing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(GOLDEN / "b_mapping", tmp_path / "b_mapping")
    shutil.copytree(GOLDEN / "b_voxelize", tmp_path / "b_voxelize")
    (tmp_path / "b_voxelize" / "inputs.npz").unlink()
    assert command(monkeypatch, str(tmp_path)) == 1
    assert "inputs.npz" in run_case(tmp_path / "b_voxelize").lines()[0]


def test_cases_are_found() -> None:
    assert find_cases(GOLDEN / "b_mapping") == [GOLDEN / "b_mapping"]
    assert find_cases(GOLDEN, "c_decoder") == [GOLDEN / "c_decoder"]
    assert {path.name for path in find_cases(GOLDEN)} <= set(RUNNERS)
