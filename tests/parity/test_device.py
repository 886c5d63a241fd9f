"""The recorded cases on a GPU that is pretended: everything is on it, and the numbers are the same."""

from pathlib import Path

import pytest
import torch

from tests.helpers.golden import GOLDEN
from tests.helpers.pretend_cuda import CUDA, FakeTensor, pretending
from tests.parity.compare import Case, compare
from tests.parity.device import on_device
from tests.parity.run import RUNNERS


@pytest.mark.parametrize("name", ["d_projection", "g_maskclip", "c_decoder", "h_inference"])
def test_a_case_passes_on_a_pretended_gpu(name: str) -> None:
    with pretending() as waits, on_device(CUDA):
        case = Case.load(GOLDEN / name)
        compared = compare(case, RUNNERS[name](case))
        assert sum(waits.values()) > 0  # results came from there
    assert compared and all(item.passed for item in compared)


def test_what_the_runners_make_is_on_the_device(tmp_path: Path) -> None:
    case = Case("case", {"x": torch.ones(3).numpy()}, {})
    with pretending(), on_device(CUDA):
        made = [torch.zeros(2), torch.tensor([1.0]), case.tensor("x"), torch.nn.Linear(2, 2).weight.data]
        made.append(torch.randn(2, generator=torch.Generator("cpu").manual_seed(1)))
        assert all(isinstance(x, FakeTensor) for x in made)
        assert not isinstance(torch.zeros(2, device="cpu"), FakeTensor)
        assert not torch.backends.cudnn.allow_tf32
        assert made[0].tolist() == [0, 0]
    assert torch.backends.cudnn.allow_tf32 and torch.zeros(2).is_cpu
