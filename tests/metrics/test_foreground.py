"""Foreground scores under every published choice: recorded cases, whose rules are in tests/golden_ap/README.md."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.metrics.test_instances import read_case
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.metrics.scores import ForegroundRules, Tally
from xmask3d.splits import load_benchmark

CASES = {"semantic_scannet20": "scannet20full/all", "semantic_scannet200": "scannet200/B170N30"}
GROUPS = {"wall_floor_ceiling": "foreground", "regionplc": "foreground_regionplc"}


def tallies(case: str) -> Iterator[tuple[str, Tally]]:
    """Counts of the free predictions ("free"), and of those that avoid each exclusion (by its name)."""
    inputs, recorded = read_case(case)
    benchmark = load_benchmark(CASES[case])
    for kind in ("free", *recorded["exclusions"]):
        matrix = ConfusionMatrix(benchmark.num_classes)
        for k in range(recorded["num_scenes"]):
            predicted = inputs[f"scene{k}_pred" if kind == "free" else f"scene{k}_pred_{kind}"]
            matrix.update(torch.from_numpy(predicted), torch.from_numpy(inputs[f"scene{k}_gt"]))
        yield kind, Tally(matrix.counts.numpy(), benchmark.groups)


@pytest.mark.parametrize("case", CASES)
def test_recorded_foreground_scores(case: str) -> None:
    _, recorded = read_case(case)
    counted = dict(tallies(case))
    assert len(recorded["results"]) == 16
    for result in recorded["results"]:
        tally = counted["free" if result["predictions"] == "free" else result["exclusion"]]
        rules = ForegroundRules(GROUPS[result["exclusion"]], result["background_points"], result["absent_classes"])
        assert rules.miou(tally) == pytest.approx(result["f_miou"], abs=1e-9)
        assert rules.macc(tally) == pytest.approx(result["f_macc"], abs=1e-9)
    default = counted["wall_floor_ceiling"]
    assert ForegroundRules().miou(default) == pytest.approx(recorded["f_miou"], abs=1e-9)
    assert ForegroundRules().macc(default) == pytest.approx(recorded["f_macc"], abs=1e-9)
    for absent, means in recorded["all_classes"].items():
        assert counted["free"].miou(absent=absent) == pytest.approx(means["miou"], abs=1e-9)
        assert counted["free"].macc(absent=absent) == pytest.approx(means["macc"], abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_recorded_classes(case: str) -> None:
    _, recorded = read_case(case)
    counted = dict(tallies(case))
    for exclusion, classes in recorded["per_class"].items():
        tally = counted[exclusion].within(GROUPS[exclusion])
        assert sorted(entry["index"] for entry in classes.values() if entry["truth"]) == list(
            np.flatnonzero(tally.truth)
        )
        for entry in classes.values():
            k = entry["index"]
            assert (tally.hits[k], tally.truth[k], tally.union[k]) == (
                entry["intersection"], entry["truth"], entry["union"],
            )  # fmt: skip
            if entry["iou"] is not None:
                assert (tally.iou[k], tally.accuracy[k]) == pytest.approx((entry["iou"], entry["acc"]), abs=1e-9)
