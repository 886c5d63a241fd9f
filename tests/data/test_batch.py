"""Batches on their way to a GPU."""

import pytest
import torch
from torch import Tensor

from tests.helpers.outputs import random_batch


def test_every_tensor_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda x: pinned.append(x.clone()) or pinned[-1])
    batch = random_batch()
    result = batch.pin_memory()
    assert result.views == batch.views and len(pinned) >= 8
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            assert any(getattr(result, name) is x for x in pinned) and torch.equal(getattr(result, name), value)
