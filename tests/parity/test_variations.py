import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.golden import load_case
from tests.helpers.variations import VARIATIONS
from tests.parity.compare import Case
from tests.parity.run import RUNNERS, run_case

# The others take long; they differ from these in their networks only.
QUICK = ("b_mapping", "b_voxelize", "d_projection", "f_criterion", "g_maskclip", "h_inference", "l_loader")
# What the variation does not have.
GONE = {
    "d_projection": r"(sq|rect)_.*",
    "f_criterion": r".*(loss_\w+_1|_b1|_aux1_b0|(masks|embed|scale)2)(_\w+)?",
    "h_inference": r"view[12]/.*",
    "l_loader": r"train_view1/.*",
}


def write(folder: Path, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "outputs.npz", **outputs)
    return folder


@pytest.mark.parametrize("name", QUICK)
def test_cases_of_other_inputs_are_run_and_compared(name: str, tmp_path: Path) -> None:
    inputs, recorded = load_case(name)
    inputs = VARIATIONS[name](inputs)
    case = Case.load(write(tmp_path / name, inputs, recorded))
    computed = {key: value.array for key, value in RUNNERS[name](case).values.items()}
    floats = [array for array in computed.values() if array.dtype.kind == "f"]
    assert all(np.isfinite(array).all() for array in floats)
    report = run_case(write(tmp_path / name, inputs, recorded))
    skipped = [item.name for item in report.comparisons if "not computed" in item.note]
    assert [key for key in skipped if not re.fullmatch(GONE.get(name, ""), key)] == []
    assert not report.passed
    # Had these numbers been recorded, the case would pass, and a change of one would fail it.
    assert run_case(write(tmp_path / name, inputs, computed)).passed
    key = max(computed, key=lambda key: computed[key].size)
    changed = computed[key] + (1 if computed[key].dtype.kind in "iuf" else 0)
    changed = ~computed[key] if computed[key].dtype == bool else changed
    report = run_case(write(tmp_path / name, inputs, computed | {key: changed}))
    assert [item.name for item in report.comparisons if not item.passed] == [key]


@pytest.mark.parametrize(
    ("name", "lacking"), [("b_mapping", "intrinsics"), ("h_inference", "view0/mask_embed"), ("f_criterion", "row")]
)
def test_an_input_that_is_missing_is_named(name: str, lacking: str, tmp_path: Path) -> None:
    inputs, recorded = load_case(name)
    del inputs[lacking]
    report = run_case(write(tmp_path / name, inputs, recorded))
    assert not report.passed and f"{name}/inputs.npz has no array '{lacking}'" in report.lines()[0]


def test_inputs_that_are_drawn_are_checked_against_what_was_recorded_of_them(tmp_path: Path) -> None:
    inputs, recorded = load_case("c_decoder")
    inputs["feature_seed"] = np.array(78)
    report = run_case(write(tmp_path / "c_decoder", inputs, recorded))
    assert "the input 'features_s2' drawn here is not the recorded one" in report.lines()[0]


def test_only_what_is_recorded_needs_inputs(tmp_path: Path) -> None:
    inputs, recorded = load_case("b_mapping")
    del inputs["points_camera"]
    assert run_case(write(tmp_path / "b_mapping", inputs, {"mapping": recorded["mapping"]})).passed
    inputs, recorded = load_case("b_voxelize")
    del inputs["quant_coords"]
    kept = {name: array for name, array in recorded.items() if not name.startswith("quant_")}
    assert run_case(write(tmp_path / "b_voxelize", inputs, kept)).passed


def test_hashes_are_of_the_coordinates_as_given(tmp_path: Path) -> None:
    inputs, recorded = load_case("b_voxelize")
    inputs["quant_coords"] = inputs["quant_coords"] - 5
    hashes: list[int] = []
    for row in inputs["quant_coords"].astype(int).tolist():
        value = 14695981039346656037
        for coordinate in row:
            value = (value * 1099511628211 % 2**64) ^ (coordinate % 2**64)
        hashes.append(value)
    distinct = sorted(set(hashes))
    index = np.array([hashes.index(value) for value in distinct])
    inverse = np.array([distinct.index(value) for value in hashes])
    changed = {"quant_hash": np.array(hashes, np.uint64), "quant_fnv_index": index, "quant_fnv_inverse": inverse}
    assert not np.array_equal(index, recorded["quant_fnv_index"])
    assert run_case(write(tmp_path / "b_voxelize", inputs, recorded | changed)).passed


def test_validation_without_a_usable_view_says_so(tmp_path: Path) -> None:
    inputs, recorded = load_case("l_loader")
    inputs |= {name: np.zeros_like(array) for name, array in inputs.items() if name.endswith("/depth")}
    report = run_case(write(tmp_path / "l_loader", inputs, recorded))
    assert "no view of the scene can be used in validation epoch 0" in report.lines()[0]
