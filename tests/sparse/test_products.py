"""Products with prepared weights, also where the processor or torch lacks some of them."""

import os
import subprocess
import sys

import pytest
import torch

from xmask3d.sparse.products import Weight, has_onednn_linear

# Small numbers of few bits: every product and sum is exact in bfloat16.
PROGRAM = """
import torch
from xmask3d.sparse.products import Weight
left, matrix = torch.eye(4)[:3] * 2, torch.arange(20.0).view(4, 5)
print(Weight(matrix.bfloat16(), 3).product(left.bfloat16()).tolist())
"""


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_product(kind: torch.dtype) -> None:
    left, matrix = torch.eye(4, dtype=kind)[:3] * 2, torch.arange(20).view(4, 5).to(kind)
    product = Weight(matrix, 3).product(left)
    assert product.dtype == kind
    assert torch.equal(product, 2 * matrix[:3])


def test_bfloat16_on_a_processor_that_lacks_it() -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str((2 * torch.arange(15.0).view(3, 5)).tolist())


def test_a_torch_that_does_not_tell_is_not_trusted_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    class Operators:
        """A namespace of torch's without the question."""

        _linear_pointwise = None

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", Operators())
    assert has_onednn_linear() and not has_onednn_linear(torch.bfloat16) and not has_onednn_linear(torch.float64)
