import subprocess
import sys

import numpy as np
import pytest
import torch

from xmask3d.models.gate import allowed_classes, gate, log_softmax, soft_gate

NOVEL = torch.tensor([False, True, False, True, True])


def test_base_classes_are_left_to_what_is_base() -> None:
    is_base = torch.tensor([[True, False], [False, True]])
    allowed = allowed_classes(is_base, NOVEL)
    assert allowed.shape == (2, 2, 5)
    assert torch.equal(allowed[0, 0], ~NOVEL) and torch.equal(allowed[0, 1], NOVEL)
    for novel in (torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)):
        assert allowed_classes(is_base, novel).all()


def test_what_is_not_allowed_is_below_all_others() -> None:
    gated = gate(torch.tensor([[5.0, 1.0], [-1e30, 1.0]]), torch.tensor([[False, True], [True, False]]))
    assert gated.argmax(-1).tolist() == [1, 0] and gated.isfinite().all() and gated.dtype == torch.float32


def test_a_soft_gate_shares_the_probability_among_each_kind() -> None:
    novel = torch.tensor([False, False, True])
    scores = torch.tensor([[0.6, 0.2, 0.2], [0.3, 0.3, 0.4]]).log()
    shared = soft_gate(scores, torch.tensor([0.8, 0.45]), novel).exp()
    torch.testing.assert_close(shared, torch.tensor([[0.6, 0.2, 0.2], [0.225, 0.225, 0.55]]))
    torch.testing.assert_close(soft_gate(scores, torch.tensor([0.8, 0.45]), ~(novel | True)), scores)
    sure = soft_gate(scores, torch.tensor([1.0, 0.0]), novel)
    assert sure.isfinite().all() and sure.argmax(-1).tolist() == [0, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_gated_as_tensors_are(dtype: type) -> None:
    rng = np.random.default_rng(0)
    scores, base = rng.normal(size=(50, 5)).astype(dtype), rng.random(50).astype(dtype)
    base[:2] = 0, 1
    novel = NOVEL.numpy()
    tensors = torch.from_numpy(scores), torch.from_numpy(base)
    hard = gate(scores, allowed_classes(base > 0.5, novel))
    np.testing.assert_array_equal(hard, gate(tensors[0], allowed_classes(tensors[1] > 0.5, NOVEL)))
    soft = soft_gate(scores, base, novel)
    assert hard.dtype == soft.dtype == dtype
    np.testing.assert_allclose(soft, soft_gate(*tensors, NOVEL), rtol=1e-5)
    np.testing.assert_allclose(log_softmax(scores), tensors[0].log_softmax(-1), rtol=1e-5)


def test_saved_features_need_no_torch() -> None:
    program = "import sys, xmask3d.segment.saved_features; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
