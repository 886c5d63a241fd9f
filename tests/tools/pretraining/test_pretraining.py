"""A pre-training that was stopped goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tools.pretraining import pretraining
from tools.pretraining.dataset import Pool
from tools.pretraining.features import FeaturePool
from tools.pretraining.pretraining import Plan


def test_a_stop_while_features_are_written_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(*(np.zeros((1, 2, 2), np.uint8) for _ in range(3)), [], [])
    made = FeaturePool(torch.rand(1, 2), torch.rand(1, 3), torch.rand(1, 4), torch.arange(1))
    monkeypatch.setattr(pretraining, "extract_features", lambda *_, **__: made)
    path, save = tmp_path / "features.pt", torch.save

    def stop(value: object, file: Path) -> None:
        save(value, file)
        file.write_bytes(file.read_bytes()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            pretraining._features(path, pool, Plan())
    for _ in range(2):  # made anew, then read
        features = pretraining._features(path, pool, Plan())
        for name, tensor in vars(made).items():
            assert torch.equal(getattr(features, name), tensor)
    assert [file.name for file in tmp_path.iterdir()] == ["features.pt"]
