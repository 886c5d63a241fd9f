import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.tiny import write_config
from tools.benchmark.case import Request
from tools.benchmark.sample import write_scene
from tools.benchmark.scene import PUBLISHED, Scenes, cases, prepare
from xmask3d.config import load_config
from xmask3d.data.batch import Batch
from xmask3d.inference.labeller import Encodings, Labeller


def scenes_in_float64(config: Path, folder: tempfile.TemporaryDirectory, batch_size: int) -> Scenes:
    overrides = [f"data.root={folder.name}", "data.val_split=val", f"evaluate.batch_size={batch_size}", *PUBLISHED]
    scenes = Scenes(load_config(config, overrides), folder)
    labeller = scenes.labeller
    labeller.model.double()
    labeller.text = labeller.text.double()
    return scenes


def test_batches_and_the_plain_loop_give_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where labels of networks that know nothing do not hang on the order of sums."""
    config = write_config(tmp_path)
    folder = tempfile.TemporaryDirectory()
    write_scene(Path(folder.name), 6000, 5, split="val")
    label = Labeller.__call__

    def in_float64(self: Labeller, batch: Batch, encodings: Encodings) -> tuple:
        return label(self, batch.to("cpu", torch.float64))

    monkeypatch.setattr(Labeller, "__call__", in_float64)
    batched = scenes_in_float64(config, folder, 3)
    labels = batched.ours()
    assert len(labels) == 6000 and len(np.unique(labels)) > 1
    alone = scenes_in_float64(config, folder, 1).ours()
    np.testing.assert_array_equal(labels, alone)
    assert np.mean(labels == batched.plain()) > 0.999


def test_a_case_runs(tmp_path: Path) -> None:
    listed = cases(Request(against=("xmask3d-1", "plain"), views=(2,), points=(6000,)))
    assert [case.contender for case in listed] == ["xmask3d", "xmask3d-1", "plain"]
    assert {case.name for case in listed} == {"scene, 6k points, 2 views"}
    assert len(prepare(listed[1], write_config(tmp_path)).run()) == 6000
