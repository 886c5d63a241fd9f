"""Instance AP: recorded cases, whose rules are in tests/golden_ap/README.md."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmask3d.metrics.instances import (
    OVERLAPS,
    InstanceScores,
    SceneMatches,
    average_precision,
    count_merged_and_split,
    match_scene,
)
from xmask3d.splits import load_benchmark

GOLDEN = Path(__file__).parents[1] / "golden_ap"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/outputs.json") if '"instance"' in path.read_text())


def read_case(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(GOLDEN / name / "inputs.npz") as file:
        return dict(file), json.loads((GOLDEN / name / "outputs.json").read_text())


def match_case(
    inputs: dict[str, np.ndarray], recorded: dict[str, Any], suffix: str = "", class_agnostic: bool = False
) -> list[SceneMatches]:
    judged = [entry["id"] for entry in recorded["per_class"].values()]
    scenes = []
    for k in range(recorded["num_scenes"]):
        truth = inputs[f"scene{k}_gt{suffix}"]
        masks = np.unpackbits(inputs[f"scene{k}_masks"], axis=1, count=len(truth)).astype(bool)
        classes, confidences = inputs[f"scene{k}_classes{suffix}"], inputs[f"scene{k}_confidences"]
        scenes.append(match_scene(truth, masks, classes, confidences, judged, class_agnostic))
    return scenes


def same(value: float, recorded: float | None) -> bool:
    return np.isnan(value) if recorded is None else value == pytest.approx(recorded, abs=1e-9)


def check(scenes: list[SceneMatches], recorded: dict[str, Any]) -> None:
    areas = average_precision(scenes)
    assert [percent / 100 for percent in OVERLAPS] == recorded["overlaps"]
    classes = list(recorded["per_class"].values())
    groups = {
        name: [k for k, entry in enumerate(classes) if entry["group"] == name]
        for name in ("head", "common", "tail")
        if name in recorded
    }
    scores = InstanceScores(areas, groups)
    for k, entry in enumerate(classes):
        for name in ("ap", "ap50", "ap25"):
            assert same(scores.per_class[name][k], entry[name])
        assert areas[k] == pytest.approx(entry.get("ap_per_overlap", [np.nan] * 10), abs=1e-9, nan_ok=True)
    for name in ("ap", "ap50", "ap25"):
        assert same(scores.mean(name), recorded[name])
        assert all(same(scores.mean(name, group), recorded[group][name]) for group in groups)


def test_there_are_15_cases_of_instances() -> None:
    assert len(CASES) == 15


@pytest.mark.parametrize("name", CASES)
def test_recorded_average_precision(name: str) -> None:
    inputs, recorded = read_case(name)
    check(match_case(inputs, recorded), recorded)
    if recorded["class_agnostic"]:
        check(match_case(inputs, recorded, "_labelled", class_agnostic=True), recorded)


def test_scenes_that_count_twice_are_the_same_as_repeated_ones() -> None:
    inputs, recorded = read_case("mixed_tied_confidence")
    scenes = match_case(inputs, recorded)
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 3], [0, 0, 0]])
    resampled = average_precision(scenes, weights)
    for areas, times in zip(resampled[:3], weights[:3], strict=True):
        repeated = [scene for scene, count in zip(scenes, times, strict=True) for _ in range(count)]
        np.testing.assert_allclose(areas, average_precision(repeated), atol=1e-12)
    assert np.isnan(resampled[3]).all()


def test_classes_of_instances_are_those_of_the_class_lists() -> None:
    _, recorded = read_case("scannet200")
    benchmark = load_benchmark("scannet200/B170N30")
    judged = [benchmark.file_ids_2d[i] for i in benchmark.groups["instances"]]
    assert judged == [entry["id"] for entry in recorded["per_class"].values()]
    for name in ("head", "common", "tail"):
        ids = {entry["id"] for entry in recorded["per_class"].values() if entry["group"] == name}
        assert ids == {benchmark.file_ids_2d[i] for i in benchmark.groups[name]} & set(judged)
    _, recorded = read_case("mixed")
    benchmark = load_benchmark("scannet20full/all")
    judged = [benchmark.file_ids_2d[i] for i in benchmark.groups["instances"]]
    assert judged == [entry["id"] for entry in recorded["per_class"].values()]


def test_merged_and_split_objects_are_counted() -> None:
    truth = np.repeat([5001, 5002, 6001, 7001, 0, 5003], [200, 200, 300, 300, 100, 50])
    predicted = np.repeat([0, 0, 1, 1, 2, 3, 3, 4, 4, 5], [200, 110, 90, 0, 150, 150, 150, 150, 100, 50])
    masks = predicted == np.arange(6)[:, None]
    # Mask 0 holds two chairs; object 6001 is in halves, of which mask 3 lies outside to one half; void and small ones
    # do not count.
    assert count_merged_and_split(truth, masks, [5, 6, 7]) == (2, 0)
    halves = np.repeat(np.arange(8), [200, 200, 150, 150, 300, 100, 25, 25]) == np.arange(8)[:, None]
    assert count_merged_and_split(truth, halves, [5, 6, 7]) == (0, 1)
    assert count_merged_and_split(truth, halves, [5, 7]) == (0, 0)
    assert count_merged_and_split(truth, np.zeros((0, len(truth)), bool), [5]) == (0, 0)
