"""What an evaluation draws."""

from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.build import build_reader
from xmask3d.cli.evaluation_pictures import draw_evaluation, evenly
from xmask3d.config import load_config
from xmask3d.engine.evaluate import evaluate


def test_a_chart_and_some_scenes_are_drawn(tiny: Path, finished: Path, tmp_path: Path) -> None:
    config = load_config(tiny, ["train.ema=0.9"])
    results = evaluate(config, finished / "checkpoints" / "step-00000008.pt", output=tmp_path)
    assert results is not None
    draw_evaluation(results, build_reader(config, results.benchmark, config.data.val_split), 1)
    drawn = [path.stem for path in (results.folder / "pictures").iterdir()]
    assert len(drawn) == 1 and drawn[0] in results.scenes
    assert sorted(path.name for path in (results.folder / "clouds").iterdir()) == [
        f"{drawn[0]}_{kind}.ply" for kind in ("input", "prediction", "truth")
    ]
    assert len(np.unique(np.asarray(Image.open(results.folder / "results.png")).reshape(-1, 3), axis=0)) > 10


def test_evenly_spaced_scenes() -> None:
    names = list("abcdefg")
    assert evenly(names, 3) == ["a", "d", "g"] and evenly(names, 0) == [] and evenly(names, 99) == names
    assert evenly(names, 1) == ["a"]
