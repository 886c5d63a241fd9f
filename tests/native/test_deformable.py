"""Deformable attention by the compiled loops is that of plain torch."""

import pytest
import torch

from xmask3d.models.deformable_attention import DeformableAttention
from xmask3d.native import deformable
from xmask3d.native.compiler import BuildError
from xmask3d.native.deformable import attend, attend_plainly, failure, usable

compiled = pytest.mark.skipif(bool(failure()), reason=failure())


def case(
    batch: int, count: int, heads: int, size: int, sizes: list[tuple[int, int]], points: int
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    cells, levels = sum(height * width for height, width in sizes), len(sizes)
    values = torch.randn(batch, cells, heads, size, generator=generator)
    # Wide enough to leave the levels at every side.
    offsets = 3 * torch.randn(batch, count, heads, levels, points, 2, generator=generator)
    weights = torch.randn(batch, count, heads, levels * points, generator=generator)
    return [values, offsets, weights, torch.rand(count, 2, generator=generator)]


@compiled
@pytest.mark.parametrize("size", [8, 16, 24, 32, 48, 64])
@pytest.mark.parametrize(("batch", "count", "heads", "points"), [(1, 1, 1, 1), (3, 11, 2, 4)])
def test_values_and_gradients_are_those_of_plain_torch(
    size: int, batch: int, count: int, heads: int, points: int
) -> None:
    sizes = [(1, 2), (5, 3), (7, 7)]
    *leaves, reference = case(batch, count, heads, size, sizes, points)
    results = []
    for function in (attend, attend_plainly):
        for leaf in leaves:
            leaf.grad = None
            leaf.requires_grad_()
        out = function(*leaves, reference, sizes)
        out.sum().backward()  # a gradient that lies nowhere as a whole
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@compiled
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    sizes = [(9, 8), (4, 4)]
    *leaves, reference = case(2, 70, 4, 24, sizes, 4)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for leaf in leaves:
                leaf.grad = None
                leaf.requires_grad_()
            attend(*leaves, reference, sizes).square().sum().backward()
            results.append([leaf.grad.clone() for leaf in leaves])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@compiled
def test_a_place_that_is_no_number_spoils_its_query_alone() -> None:
    sizes = [(3, 3)]
    values, offsets, weights, reference = case(1, 2, 1, 8, sizes, 2)
    offsets[0, 1, 0, 0, 0, 0] = torch.nan
    out = attend(values, offsets, weights, reference, sizes)
    assert out[0, 1].isnan().any()
    assert out[0, 0].isfinite().all()


@compiled
def test_shapes_that_do_not_fit_are_refused_before_memory_is_touched() -> None:
    values, offsets, weights, reference = case(1, 4, 2, 8, [(2, 2)], 3)
    with pytest.raises(ValueError, match="do not fit levels"):
        attend(values, offsets, weights, reference, [(2, 3)])
    with pytest.raises(ValueError, match="do not fit levels"):
        attend(values, offsets, weights[..., 1:], reference, [(2, 2)])
    with pytest.raises(ValueError, match="reference"):
        attend(values, offsets, weights, reference[1:], [(2, 2)])


def test_the_plain_way_copies_nothing_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`new_tensor` and `tensor` take numbers from the host, which waits for a GPU."""
    values = torch.arange(6.0).view(1, 6, 1, 1)
    offsets = torch.tensor([1.0, -1.0]).view(1, 1, 1, 1, 1, 2)
    weights, reference = torch.ones(1, 1, 1, 1), torch.tensor([[0.5, 0.75]])
    for owner, name in ((torch.Tensor, "new_tensor"), (torch, "tensor")):
        monkeypatch.setattr(owner, name, None)
    # Of two rows of three cells, from the middle of the lower one a cell to the right and one up.
    out = attend_plainly(values, offsets, weights, reference, [(2, 3)])
    torch.testing.assert_close(out, torch.full((1, 1, 1), 2.0))


def test_double_precision_and_other_head_sizes_go_the_plain_way() -> None:
    values, *others = case(1, 4, 2, 8, [(2, 2)], 3)
    assert not usable(values.double(), *others)
    assert not usable(values[..., :5], *others)
    assert usable(values, *others) == (not failure())


def test_loops_that_compute_wrongly_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(deformable, "attend", lambda *arguments: 1.01 * attend_plainly(*arguments))
    with pytest.raises(BuildError, match="self-test"):
        deformable._check()


def test_the_layer_gives_the_same_in_either_precision() -> None:
    torch.manual_seed(0)
    layer = DeformableAttention(32, heads=4, levels=2, points=3)
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.3)
    torch.nn.init.normal_(layer.attention_weights.weight, std=0.3)
    query, memory, reference = torch.randn(2, 6, 32), torch.randn(2, 20, 32), torch.rand(6, 2)
    single = layer(query, reference, memory, [(4, 4), (2, 2)])
    double = layer.double()(query.double(), reference.double(), memory.double(), [(4, 4), (2, 2)])
    torch.testing.assert_close(single, double.float(), rtol=1e-4, atol=1e-5)
