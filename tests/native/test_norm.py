"""Batch norm with shortcut and ReLU by the compiled loops is that of plain torch."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.native import norm
from xmask3d.native.compiler import BuildError
from xmask3d.native.norm import failure, normalise, usable

pytestmark = pytest.mark.skipif(bool(failure()), reason=failure())

FLOAT, BFLOAT = torch.float32, torch.bfloat16


def case(rows: int, channels: int, low: bool = False, low_shortcut: bool | None = False) -> list[Tensor | None]:
    """x, shortcut, weight, bias, running mean, running variance."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(rows, channels, generator=generator) + 5
    shortcut = 2 * torch.randn(rows, channels, generator=generator)
    vectors = [torch.rand(channels, generator=generator) + 0.5 for _ in range(4)]
    added = None if low_shortcut is None else shortcut.to(BFLOAT if low_shortcut else FLOAT)
    return [x.to(BFLOAT if low else FLOAT), added, *vectors]


def plain(x: Tensor, shortcut: Tensor | None, *vectors: Tensor, training: bool, relu: bool) -> Tensor:
    weight, bias, mean, variance = vectors
    y = F.batch_norm(x, mean, variance, weight, bias, training, momentum=0.3)
    y = y if shortcut is None else y + shortcut
    return y.relu() if relu else y


@pytest.mark.parametrize(("rows", "channels"), [(2, 1), (3, 19), (64, 16), (131, 96), (1000, 35)])
@pytest.mark.parametrize("low_shortcut", [None, False, True])
@pytest.mark.parametrize(("low", "relu"), list(product([False, True], [False, True])))
def test_results_statistics_and_gradients_are_those_of_torch_in_double_precision(
    rows: int, channels: int, low: bool, low_shortcut: bool | None, relu: bool
) -> None:
    x, shortcut, weight, bias, mean, variance = case(rows, channels, low, low_shortcut)
    leaves = [t for t in (x, shortcut, weight, bias) if t is not None]
    exact = [t.double().requires_grad_() for t in leaves]
    others = [mean.double(), variance.double()]
    y = plain(exact[0], None if shortcut is None else exact[1], *exact[-2:], *others, training=True, relu=relu)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(BFLOAT if low else FLOAT)
    expected = torch.autograd.grad(y, exact, seed.double())
    for leaf in leaves:
        leaf.requires_grad_()
    (out,) = normalise(
        x, weight, bias, mean, variance, training=True, momentum=0.3, shortcut=shortcut, relu=relu, types=[seed.dtype]
    )
    assert out.dtype == seed.dtype
    torch.testing.assert_close(out.double(), y, rtol=5e-3 if low else 1e-5, atol=1e-5)
    torch.testing.assert_close(mean.double(), others[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance.double(), others[1], rtol=1e-5, atol=1e-6)
    for leaf, ours, true in zip(leaves, torch.autograd.grad(out, leaves, seed), expected, strict=True):
        assert ours.dtype == leaf.dtype
        tolerance = 5e-3 if leaf.dtype == BFLOAT else 2e-5
        # Of two rows the gradient is nearly nothing beside what it is the difference of.
        torch.testing.assert_close(ours.double(), true, rtol=tolerance, atol=tolerance * 3)


def test_both_results_are_one_and_their_gradients_add_up() -> None:
    x, _, *vectors = case(300, 40)
    x.requires_grad_()
    wide, narrow = normalise(x, *vectors, training=True, types=[FLOAT, BFLOAT])
    assert torch.equal(narrow, wide.bfloat16())
    seeds = [
        torch.randn(300, 40, generator=torch.Generator().manual_seed(i)).to(t) for i, t in ((1, FLOAT), (2, BFLOAT))
    ]
    together = torch.autograd.grad([wide, narrow], x, seeds, retain_graph=True)[0]
    summed = torch.autograd.grad(wide, x, seeds[0] + seeds[1].float(), retain_graph=True)[0]
    assert torch.equal(together, summed)
    (alone,) = torch.autograd.grad(narrow, x, seeds[1])
    torch.testing.assert_close(alone, together - torch.autograd.grad(
        normalise(x, *vectors, training=True)[0], x, seeds[0])[0], rtol=1e-4, atol=1e-4)  # fmt: skip


def test_running_statistics_take_the_batch_s_place_outside_of_training() -> None:
    x, shortcut, *vectors = case(50, 24)
    before = [vector.clone() for vector in vectors]
    (out,) = normalise(x.requires_grad_(), *vectors, training=False, shortcut=shortcut)
    torch.testing.assert_close(out, plain(x, shortcut, *vectors, training=False, relu=True).detach())
    assert not out.requires_grad
    assert all(torch.equal(one, other) for one, other in zip(vectors, before, strict=True))


def test_gradients_of_parts_of_wider_rows_are_read_in_place() -> None:
    x, _, *vectors = case(90, 20)
    x.requires_grad_()
    seed = torch.randn(90, 50, generator=torch.Generator().manual_seed(1))
    for part in (seed[:, 7:27], seed[:, ::2][:, :20], seed[:1, :20].expand(90, 20)):
        (out,) = normalise(x, *vectors, training=True)
        strided = torch.autograd.grad(out, x, part)[0]
        (out,) = normalise(x, *vectors, training=True)
        assert torch.equal(strided, torch.autograd.grad(out, x, part.clone(memory_format=torch.contiguous_format))[0])


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            x, shortcut, *vectors = case(700, 33)
            x.requires_grad_()
            (out,) = normalise(x, *vectors, training=True, shortcut=shortcut)
            results.append([out, *vectors, *torch.autograd.grad(out.square().sum(), x)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("kind", [FLOAT, BFLOAT])
def test_what_is_no_number_stays_none(kind: torch.dtype) -> None:
    x, _, *vectors = case(70, 18)
    x[3, 2] = x[3, 17] = torch.nan
    (out,) = normalise(x, *vectors, training=True, types=[kind])
    assert out[:, [2, 17]].isnan().all()
    assert out[:, [0, 1, 16]].isfinite().all()


def test_large_means_do_not_spoil_small_deviations() -> None:
    x = 1000 + 0.1 * torch.randn(4000, 17, generator=torch.Generator().manual_seed(0))
    mean, variance = torch.zeros(17), torch.ones(17)
    (out,) = normalise(x, torch.ones(17), torch.zeros(17), mean, variance, training=True, momentum=1, relu=False)
    torch.testing.assert_close(variance.double(), x.double().var(0), rtol=1e-3, atol=0)
    exact = (x.double() - x.double().mean(0)) / (x.double().var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=2e-2)


def test_what_does_not_fit_is_refused_before_memory_is_touched() -> None:
    x, shortcut, *vectors = case(9, 4)
    with pytest.raises(ValueError, match=r"features \(9, 3\)"):
        normalise(x[:, :3], *vectors, training=True)
    with pytest.raises(ValueError, match=r"features \(1, 4\)"):
        normalise(x[:1], *vectors, training=True)
    with pytest.raises(ValueError, match=r"shortcut \(8, 4\)"):
        normalise(x, *vectors, training=True, shortcut=shortcut[:8])
    with pytest.raises(ValueError, match="float16"):
        normalise(x, *vectors, training=True, types=[torch.float16])
    assert usable(x, shortcut)
    assert not usable(x.double())
    assert not usable(x, shortcut[:1])


def test_loops_that_compute_wrongly_are_not_used(monkeypatch) -> None:
    monkeypatch.setattr(norm, "normalise", lambda *args, **kwargs: [1.01 * y for y in normalise(*args, **kwargs)])
    with pytest.raises(BuildError, match="self-test"):
        norm._check()
