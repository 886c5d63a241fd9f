"""The worked example of a metric in docs/extending.md, as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from xmask3d.config import Config
from xmask3d.metrics.scores import Scores, Tally

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def test_the_example_of_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.read_text().split("## A metric\n")[1].split("\n## ")[0]
    code, settings = re.findall(r"```(?:python|yaml)\n(.*?)```", section, re.DOTALL)[:2]
    (tmp_path / "my_scores.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = Config.model_validate({"benchmark": "scannet20/B15N4", "data": {"root": "x"}} | yaml.safe_load(settings))
    counts = np.array([[5, 0, 0, 0], [0, 3, 1, 0], [0, 0, 1, 1]])
    scores = Scores.of(Tally(counts, {"base": (0,), "novel": (1, 2), "foreground": (1, 2)}), config.evaluate.headlines)
    assert scores.headlines["my_scores.weakest_novel"] == pytest.approx(1 / 3)
    assert scores.headlines["miou_foreground"] == pytest.approx((3 / 4 + 1 / 3) / 2)
