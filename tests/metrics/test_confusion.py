import pytest
import torch

from tests.helpers.golden import load_case
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.metrics.scores import harmonic_mean


def test_matches_recorded_scores() -> None:
    inputs, outputs = load_case("h_inference")
    base, novel = inputs["base_category"].tolist(), inputs["novel_category"].tolist()
    for branch in ("fused", "2d", "3d"):
        matrix = ConfusionMatrix(19)
        matrix.update(torch.from_numpy(outputs[f"scene_label_{branch}"]), torch.from_numpy(inputs["scene_labels"]))
        for name, area in zip(("intersection", "union", "target"), matrix.areas(), strict=True):
            assert area.tolist() == outputs[f"{name}_{branch}"].tolist()
        scores = matrix.scores({"base": base, "novel": novel})
        assert scores.miou["base"] == pytest.approx(float(outputs[f"mIoU_base_{branch}"]))
        assert scores.miou["novel"] == pytest.approx(float(outputs[f"mIoU_novel_{branch}"]))
        assert scores.headlines["hiou"] == pytest.approx(float(outputs[f"hIoU_{branch}"]))


def test_a_small_table_by_hand() -> None:
    matrix = ConfusionMatrix(4)
    truth = torch.tensor([0, 0, 0, 1, 1, 2, 4, -1])
    predicted = torch.tensor([0, 0, 1, 1, 0, 2, 0, 2])
    matrix.update(predicted[:3], truth[:3])
    matrix.update(predicted[3:], truth[3:])
    scores = matrix.scores({"base": [0, 1], "novel": [2, 3]})
    assert scores.iou == pytest.approx([2 / 4, 1 / 3, 1, 0])
    assert scores.accuracy == pytest.approx([2 / 3, 1 / 2, 1, 0])
    assert scores.counts == [3, 2, 1, 0]
    assert scores.miou["base"] == pytest.approx(5 / 12) and scores.miou["novel"] == pytest.approx(1 / 2)
    assert scores.headlines["hiou"] == pytest.approx(2 * 5 / 12 * 0.5 / (5 / 12 + 0.5))
    assert scores.all_accuracy == pytest.approx(4 / 6)
    assert scores.miou["all"] == pytest.approx((2 / 4 + 1 / 3 + 1) / 4)
    assert scores.macc["all"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 4)
    assert scores.macc["novel"] == pytest.approx(1 / 2)


def test_points_without_prediction_are_misses_of_no_class() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([-1, 0, 7]), torch.tensor([0, 0, 1]))
    scores = matrix.scores({"base": [0], "novel": [1]})
    assert scores.iou == [0.5, 0.0] and scores.all_accuracy == pytest.approx(1 / 3)


def test_nothing_counted_gives_zeros() -> None:
    scores = ConfusionMatrix(3).scores({"base": [0, 1], "novel": [2]})
    assert (scores.headlines["hiou"], scores.all_accuracy, scores.iou) == (0.0, 0.0, [0.0] * 3)
    assert ConfusionMatrix(2).scores({"base": [0, 1], "novel": []}).miou["novel"] == 0.0
    assert harmonic_mean(0.5, 1.0) == pytest.approx(2 / 3)


def test_processes_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, other = ConfusionMatrix(2), ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
    other.update(torch.tensor([1]), torch.tensor([1]))
    assert matrix.reduce() is matrix and matrix.counts.sum() == 2
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda counts: counts.add_(other.counts))
    assert matrix.reduce().scores({"base": [0], "novel": [1]}).iou == [0.5, 0.5]
