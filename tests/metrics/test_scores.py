"""Means over class groups, and headlines by name."""

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.metrics.scores import Scores, Tally, check_headlines, find_headline, title_of

GROUPS = {"base": (0, 1), "novel": (2, 3), "foreground": (1, 2, 3)}
# Truth: 4 points of class 0, 2 of class 1, 2 of class 2, none of class 3.
COUNTS = np.array([[2, 1, 0, 1, 0], [0, 1, 0, 0, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]])


def test_groups_by_hand() -> None:
    scores = Scores.of(Tally(COUNTS, GROUPS), ["hiou", "miou_foreground", "macc_base"])
    assert scores.iou == pytest.approx([2 / 5, 1 / 3, 1 / 2, 0])
    assert scores.miou == pytest.approx(
        {"base": 11 / 30, "novel": 1 / 4, "foreground": 5 / 18, "all": (2 / 5 + 1 / 3 + 1 / 2) / 4}
    )
    assert scores.macc["foreground"] == pytest.approx(1 / 3)
    assert scores.headlines == pytest.approx(
        {"hiou": 2 * (11 / 30) * (1 / 4) / (11 / 30 + 1 / 4), "miou_foreground": 5 / 18, "macc_base": 1 / 2}
    )
    flat = scores.as_dict()
    assert flat["miou_foreground"] == scores.miou["foreground"] and flat["miou"] == scores.miou["all"]
    assert flat["accuracy_novel"] == pytest.approx(1 / 4) and flat["mean_accuracy"] == scores.macc["all"]


def test_foreground_drops_points_of_the_background_and_classes_without_points() -> None:
    tally = Tally(COUNTS, GROUPS)
    # Without the points of class 0, class 1 has no false positive; class 3 never occurs and is left out.
    assert find_headline("f_miou")(tally) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert find_headline("f_macc")(tally) == pytest.approx((1 / 2 + 1 / 2) / 2)


def weakest(tally: Tally) -> float:
    """A score of one's own: IoU of the worst class."""
    return float(tally.iou.min())


def test_a_dotted_path_names_a_score_of_ones_own() -> None:
    name = f"{__name__}.weakest"
    assert Scores.of(Tally(COUNTS[:3, [0, 1, 2, 4]], {}), [name]).headlines == {name: pytest.approx(1 / 3)}
    assert (title_of(name), title_of("f_miou")) == ("weakest", "f-mIoU")


@pytest.mark.parametrize(
    "name, message",
    [
        ("hiuo", "no score 'hiuo'; known: hiou"),
        ("miou_head", "no class group 'head'.*base, novel, foreground, all"),
        ("no.such.module", "cannot be imported"),
        ("math.pi", "is no function"),
    ],
)
def test_scores_that_cannot_be_had_are_named_before_work_begins(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_headlines(["hiou", name], 4, GROUPS)
