"""Arithmetic of a GPU in training and in evaluation."""

import pytest
import torch

from xmask3d.engine.accelerator import evaluation_arithmetic, unusable_gpu, use_training_arithmetic

cudnn = torch.backends.cudnn


def flags() -> tuple[bool, bool]:
    return cudnn.allow_tf32, cudnn.benchmark


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("allow_tf32", "benchmark"):
        monkeypatch.setattr(cudnn, name, getattr(cudnn, name))


def test_training_rounds_to_tf32_and_the_published_evaluation_does_not() -> None:
    cudnn.allow_tf32 = False
    use_training_arithmetic()
    assert flags() == (True, True)
    with evaluation_arithmetic(reference=True):
        assert flags() == (False, False)
    assert flags() == (True, True)
    with evaluation_arithmetic(reference=False):
        assert flags() == (True, False)
    with pytest.raises(ValueError, match="stopped"), evaluation_arithmetic(reference=True):
        raise ValueError("stopped")
    assert flags() == (True, True)


def test_a_gpu_that_torch_cannot_use_is_no_silent_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020).\nPlease update.")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.init", init)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert unusable_gpu() is None  # no driver
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    warning = unusable_gpu() or ""
    assert "uses no GPU: The NVIDIA driver on your system is too old (found version 12020)" in warning
    assert "\n" not in warning
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unusable_gpu() is None
