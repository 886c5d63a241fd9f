"""Winograd's convolutions are the direct ones, forward and backward, whatever is in parts."""

import pytest
import torch
import torch.nn.functional as F

from xmask3d.native import winograd
from xmask3d.native.compiler import BuildError
from xmask3d.native.winograd import Filters, conv2d, convolve, failure, worthwhile

compiled = pytest.mark.skipif(bool(failure()), reason=failure())


@pytest.fixture
def small_counts(monkeypatch) -> None:
    """Everything is worth it."""
    monkeypatch.setattr(winograd, "_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_TILES", 0)


def case(batch: int, channels: int, channels_out: int, height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, channels, height, width), (channels_out, channels, 3, 3), (channels_out,)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def assert_near(ours: torch.Tensor, true: torch.Tensor) -> None:
    assert ours.shape == true.shape
    assert (ours - true).norm() <= 1e-5 * true.norm()


@compiled
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (5, 64), (16, 67), (33, 130)])
@pytest.mark.parametrize("in_parts", [1, 8 << 20])
def test_values_and_gradients_are_the_direct_ones(size, in_parts, monkeypatch, small_counts) -> None:
    monkeypatch.setattr(winograd, "_BYTES", in_parts)  # a row of tiles, or one output channel, at a time
    x, weight, bias = leaves = [leaf.requires_grad_() for leaf in case(2, 3, 7, *size)]
    ours, true = conv2d(x, weight, bias), F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert type(ours.grad_fn).__name__ == "_ConvolveBackward"
    assert_near(ours, true)
    direction = torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    of_ours = torch.autograd.grad((ours * direction).sum(), leaves)
    of_true = torch.autograd.grad((true * direction).sum(), leaves)
    for one, other in zip(of_ours, of_true, strict=True):
        assert_near(one, other)


@compiled
def test_frozen_weights_keep_nothing_for_the_backward_pass(small_counts) -> None:
    x, weight, bias = case(1, 8, 8, 9, 9)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept_one: kept.append(kept_one) or kept_one, lambda one: one):
        out = conv2d(x.requires_grad_(), weight, bias)
    assert not kept
    out.sum().backward()
    assert_near(x.grad, torch.autograd.grad(F.conv2d(x, weight, bias, padding=1).sum(), x)[0])


@compiled
def test_trained_weights_must_not_change_before_the_backward_pass(small_counts) -> None:
    x, weight, _ = case(1, 8, 8, 9, 9)
    out = conv2d(x.requires_grad_(), weight.requires_grad_()).sum()
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@compiled
@pytest.mark.parametrize("wrong", ["maps", "bias", "channels", "width"])
def test_shapes_that_do_not_fit_are_refused_before_memory_is_touched(wrong: str) -> None:
    x, weight, bias = case(1, 3, 5, 8, 8)
    out = torch.full((1, 5, 8, 8), 7.0)
    maps = x[:, :2] if wrong == "maps" else x
    shift = bias[:4] if wrong == "bias" else bias
    target = {"channels": out[:, :4], "width": out[..., :7]}.get(wrong, out)
    with pytest.raises(ValueError, match="do not fit"):
        convolve(maps, Filters(weight), shift, target)
    assert (out == 7).all()


@compiled
def test_a_transposed_gradient(small_counts) -> None:
    x, weight, _ = case(1, 4, 6, 8, 12)
    true = torch.autograd.grad(F.conv2d(x.requires_grad_(), weight, padding=1).transpose(2, 3).square().sum(), x)[0]
    assert_near(torch.autograd.grad(conv2d(x, weight).transpose(2, 3).square().sum(), x)[0], true)


@compiled
def test_results_do_not_depend_on_other_images(small_counts) -> None:
    x, weight, bias = case(3, 6, 6, 12, 10)
    together = conv2d(x, weight, bias)
    assert torch.equal(together, torch.cat([conv2d(one[None], weight, bias) for one in x]))


@compiled
def test_only_what_gains_goes_this_way() -> None:
    x, weight = torch.zeros(1, 64, 32, 32), torch.zeros(64, 64, 3, 3)
    assert worthwhile(x, weight)
    assert not worthwhile(x[:, :, :31], weight)
    assert not worthwhile(x, weight[:63])
    assert not worthwhile(x.double(), weight.double())
    assert not worthwhile(x.contiguous(memory_format=torch.channels_last), weight)
    assert not worthwhile(x, weight[:, :, :1, :1])
    with torch.autocast("cpu", torch.bfloat16):
        assert not worthwhile(x, weight)
        assert conv2d(x, weight).dtype == torch.bfloat16


def test_without_a_compiler_it_is_the_direct_one(monkeypatch) -> None:
    monkeypatch.setattr(winograd, "failure", lambda: "no C++ compiler found")
    x, weight, bias = case(1, 64, 64, 32, 32)
    assert torch.equal(conv2d(x, weight, bias), F.conv2d(x, weight, bias, padding=1))


@compiled
def test_loops_that_are_wrong_are_not_used(monkeypatch) -> None:
    monkeypatch.setattr(winograd, "_WEIGHTS", winograd._WEIGHTS * 1.01)
    with pytest.raises(BuildError, match="self-test"):
        winograd._check()
