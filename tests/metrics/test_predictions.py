"""Predictions of any method: scores, intervals over scenes, files of results, and comparisons of two methods."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.metrics.test_instances import read_case
from xmask3d.errors import UserError
from xmask3d.metrics.compare import check_comparable, load_statistics, many_scenes, markdown, paired, read_row
from xmask3d.metrics.predictions import (
    PredictionResults,
    ScenePrediction,
    SceneTruth,
    has_several_classes,
    score_predictions,
)
from xmask3d.metrics.scores import Scores, Tally
from xmask3d.metrics.statistics import Protocol
from xmask3d.splits import load_benchmark

BENCHMARK = load_benchmark("scannet20/B15N4")


def score(
    wrong: float,
    name: str = "mine",
    scenes: int = 6,
    protocol: Protocol | None = None,
    benchmark: str = "scannet20/B15N4",
) -> PredictionResults:
    """A method that labels a share of the points wrong; the truth is the same for all."""
    pairs = []
    for k in range(scenes):
        rng = np.random.default_rng(k)
        truth = rng.integers(0, 20, 400)
        predicted = np.where(rng.random(400) < wrong, rng.integers(0, 19, 400), truth)
        pairs.append((SceneTruth(f"scene{k}", truth), ScenePrediction(f"scene{k}.txt", "index", predicted)))
    return score_predictions(pairs, load_benchmark(benchmark), protocol, method=name, resamples=200)


def golden(name: str, several: bool = False, benchmark: str = "scannet20full/all") -> PredictionResults:
    inputs, recorded = read_case(name)
    pairs = []
    for k in range(recorded["num_scenes"]):
        objects = inputs[f"scene{k}_gt"].astype(np.int64)
        masks = np.unpackbits(inputs[f"scene{k}_masks"], axis=1, count=len(objects)).astype(bool)
        classes, confidences = inputs[f"scene{k}_classes"], inputs[f"scene{k}_confidences"]
        if several:
            masks, confidences = np.repeat(masks, 2, 0), np.repeat(confidences, 2)
            classes = np.stack([classes, np.full_like(classes, 1)], 1).reshape(-1)
        predicted = ScenePrediction(f"{k}.txt", "index", None, masks, classes, confidences)
        labels = np.full(len(objects), 20)
        pairs.append((SceneTruth(f"scene{k}", labels, objects), predicted))
    return score_predictions(pairs, load_benchmark(benchmark), resamples=50)


def test_scores_are_those_of_all_scenes_together() -> None:
    results = score(0.4)
    truth = np.concatenate([np.random.default_rng(k).integers(0, 20, 400) for k in range(6)])
    assert results.statistics.tally().truth.tolist() == np.bincount(truth, minlength=20)[:19].tolist()
    expected = Scores.of(Tally(results.statistics.counts.sum(0), BENCHMARK.groups), ("hiou", "f_miou", "f_macc"))
    for name in ("hiou", "f_miou", "f_macc"):
        assert results.values[name] == pytest.approx(expected.headlines[name], abs=1e-12)
    assert results.values["miou_novel"] == pytest.approx(expected.miou["novel"], abs=1e-12)
    assert results.values["macc_all"] == pytest.approx(expected.macc["all"], abs=1e-12)
    low, high = results.intervals["hiou"]
    assert low < results.values["hiou"] < high and high - low < 0.1
    assert score(0.4).intervals == results.intervals  # seeded


@pytest.mark.parametrize("name", ["mixed", "scannet200"])
def test_recorded_average_precision_by_group(name: str) -> None:
    benchmark = "scannet200/B170N30" if name == "scannet200" else "scannet20full/all"
    results, (_, recorded) = golden(name, benchmark=benchmark), read_case(name)
    for kind in ("ap", "ap50", "ap25"):
        assert results.values[kind] == pytest.approx(recorded[kind], abs=1e-9)
        for group in {"head", "common", "tail"} & recorded.keys():
            assert results.values[f"{kind}_{group}"] == pytest.approx(recorded[group][kind], abs=1e-9)
    rows = {row["class"]: row for row in results.rows()}
    chair = recorded["per_class"]["chair"]
    assert rows["chair"]["ap"] == (None if chair["ap"] is None else pytest.approx(chair["ap"], abs=1e-9))
    assert "hiou" not in results.values and results.statistics.protocol.classes_per_mask == "one"


def test_masks_under_several_classes_are_a_protocol_of_their_own(tmp_path: Path) -> None:
    for name, several in (("one", False), ("several", True)):
        golden("mixed", several).write(tmp_path / name)
    rows = [read_row(name, [tmp_path / name]) for name in ("one", "several")]
    with pytest.raises(UserError, match="classes per mask differs: one has 'one', several has 'several'"):
        check_comparable(rows)
    masks = np.ones((2, 8), bool)
    assert not has_several_classes(ScenePrediction("", "index", None, masks, np.array([4, 4]), np.ones(2)))


def test_files_hold_everything_that_scores_depend_on(tmp_path: Path) -> None:
    results = score(0.4)
    results.write(tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["headlines"]["hiou"] == results.values["hiou"]
    assert content["matching"] == {"index": 6} and content["bootstrap"] == {"resamples": 200, "seed": 0, "per_cent": 95}
    assert {"truth_sha256", "statistics_sha256", "versions", "protocol", "class_list", "scenes"} <= content.keys()
    text = (tmp_path / "results.txt").read_text()
    assert f"{100 * results.values['hiou']:.2f}" in text and "scenes 6 by index" in text and "f-mIoU" in text
    head, wall = (tmp_path / "results.csv").read_text().splitlines()[:2]
    assert head == "class,groups,points,iou,accuracy" and wall.startswith("wall,base,")
    loaded = load_statistics(read_row("mine", [tmp_path]).paths[0])
    assert np.array_equal(loaded.counts, results.statistics.counts)
    assert {name: value[0] for name, value in loaded.headlines().items()} == results.values
    golden("mixed").write(tmp_path / "instances")
    again = load_statistics(read_row("instances", [tmp_path / "instances"]).paths[0])
    assert again.headlines()["ap"][0] == golden("mixed").values["ap"]


def test_two_methods_are_compared_on_the_same_scenes(tmp_path: Path) -> None:
    for name, wrong in (("good", 0.2), ("bad", 0.5), ("same", 0.2)):
        score(wrong, name).write(tmp_path / name)
    good, bad, same = (read_row(name, [tmp_path / name]) for name in ("good", "bad", "same"))
    table = markdown([good, bad]).splitlines()
    assert table[0].startswith("| run | n | hIoU | mIoU base | mIoU novel | f-mIoU | f-mAcc | mIoU all |")
    assert many_scenes([good, bad])
    lines = paired(good, bad)
    gain = 100 * (score(0.2).values["hiou"] - score(0.5).values["hiou"])
    assert lines[0].startswith(f"hIoU: good beats bad by {gain:.1f} ± ") and float(lines[0].split("±")[1]) < gain
    assert paired(bad, good)[0] == lines[0]
    assert paired(good, same)[0] == "hIoU: good and same do not differ measurably: 0.0 ± 0.0"


def test_runs_of_several_seeds_are_compared_in_pairs(tmp_path: Path) -> None:
    """What a seed does to both methods cancels out; with other numbers of runs it does not."""
    for seed, hard in enumerate((0.1, 0.3, 0.5)):
        for name, more in (("good", 0.0), ("bad", 0.1)):
            score(hard + more, name).write(tmp_path / name / f"seed-{seed}")
    rows = [read_row(name, [tmp_path / name]) for name in ("good", "bad")]
    assert [row.runs for row in rows] == [3, 3] and many_scenes(rows)
    lines = paired(*rows)
    values = [[score(hard + more).values["hiou"] for hard in (0.1, 0.3, 0.5)] for more in (0.0, 0.1)]
    gain = 100 * (np.mean(values[0]) - np.mean(values[1]))
    assert lines[0].startswith(f"hIoU: good beats bad by {gain:.1f} ± ")
    assert "of 6 scenes and of 3 and 3 runs" in lines[-1]
    fewer = read_row("bad", [tmp_path / "bad" / "seed-0", tmp_path / "bad" / "seed-1"])
    assert float(paired(rows[0], fewer)[0].split("±")[1]) > 2 * float(lines[0].split("±")[1])


@pytest.mark.parametrize(
    "other, message",
    [
        (lambda: score(0.2, scenes=5), "set of scenes differs: a has 6 scenes, b has 5 scenes"),
        (lambda: score(0.2, protocol=Protocol(background="kept")), "background differs: a has 'dropped', b has 'kept'"),
        (lambda: score(0.2, benchmark="scannet20/B12N7"), "class list and split differs"),
    ],
)
def test_protocols_are_not_mixed(tmp_path: Path, other, message: str) -> None:
    score(0.2).write(tmp_path / "a")
    other().write(tmp_path / "b")
    with pytest.raises(UserError, match=f"one table holds one protocol; {message}"):
        check_comparable([read_row(name, [tmp_path / name]) for name in "ab"])


def test_restricted_predictions_name_no_background() -> None:
    with pytest.raises(UserError, match=r"scene0\.txt: has points of 'wall', which restricted predictions cannot name"):
        score(0.2, protocol=Protocol(predictions="restricted"))


def test_predictions_that_cannot_be_scored() -> None:
    truth = SceneTruth("a", np.zeros(4, np.int64))
    labels = ScenePrediction("a.txt", "index", np.zeros(4, np.int64))
    masks = ScenePrediction("a.txt", "index", None, np.ones((1, 4), bool), np.array([4]), np.ones(1))
    for pairs, message in (
        ([], "no scene"),
        ([(truth, labels), (truth, labels)], "given twice"),
        ([(truth, masks)], r"objects of a are not known \(--objects\)"),
        ([(truth, ScenePrediction("a.txt", "index"))], "neither labels nor instances"),
        ([(truth, labels), (SceneTruth("b", truth.labels), ScenePrediction("b", "index"))], "1 of 2 scenes have"),
    ):
        with pytest.raises(UserError, match=message):
            score_predictions(pairs, BENCHMARK)


def test_counts_that_vanished_are_named(tmp_path: Path) -> None:
    score(0.2).write(tmp_path)
    (tmp_path / "statistics.npz").write_bytes(b"no")
    with pytest.raises(UserError, match=r"statistics\.npz: missing or damaged"):
        load_statistics(read_row("a", [tmp_path]).paths[0])


def test_classes_that_a_resample_did_not_draw_do_not_count_as_wrong() -> None:
    truth = [np.repeat([0, 5], 50), np.repeat([1, 9], 50), np.repeat([0, 12], 50)]
    pairs = [(SceneTruth(f"scene{k}", labels), ScenePrediction("", "index", labels)) for k, labels in enumerate(truth)]
    results = score_predictions(pairs, BENCHMARK, resamples=100)
    # All that is predicted is right: 2 of 15 base classes, 3 of 4 novel ones and 5 of 19 occur.
    assert results.values["miou_novel"] == pytest.approx(3 / 4) and results.values["miou_all"] == pytest.approx(5 / 19)
    only_first = results.statistics.headlines(np.array([[3, 0, 0]]))
    assert only_first["miou_novel"][0] == pytest.approx(1 / 2)  # toilet occurs nowhere and counts 0
    assert only_first["f_miou"][0] == 1.0 and only_first["miou_all"][0] == pytest.approx(2 / 16)
