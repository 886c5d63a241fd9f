"""Deformable attention against bilinear samples taken one by one."""

import math

import pytest
import torch

from xmask3d.models.deformable_attention import DeformableAttention, attend


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


def sampled(level: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Bilinear sample of a height x width x size level at a place in cells; zero beyond the edge."""
    total = torch.zeros(level.shape[-1])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < level.shape[0] and 0 <= column < level.shape[1]:
                total = total + (1 - abs(y - row)) * (1 - abs(x - column)) * level[row, column]
    return total


def test_every_query_sums_weighted_samples_of_all_levels() -> None:
    sizes = [(1, 2), (5, 3), (4, 4)]
    values, offsets, weights, reference = case(2, 3, 2, 8, sizes, 2)
    out = attend(values, offsets, weights, reference, sizes).view(2, 3, 2, 8)
    for sample, query, head in ((0, 0, 0), (0, 2, 1), (1, 1, 0), (1, 2, 1)):
        expected, first = torch.zeros(8), 0
        for level, (height, width) in enumerate(sizes):
            cells = values[sample, first : first + height * width, head].view(height, width, 8)
            first += height * width
            for point in range(2):
                x, y = reference[query] * torch.tensor([width, height]) + offsets[sample, query, head, level, point]
                share = weights[sample, query, head, 2 * level + point]
                expected += share * sampled(cells, float(x) - 0.5, float(y) - 0.5)
        torch.testing.assert_close(out[sample, query, head], expected, rtol=1e-4, atol=1e-4)


def test_a_place_that_is_no_number_spoils_its_query_alone() -> None:
    sizes = [(3, 3)]
    values, offsets, weights, reference = case(1, 2, 1, 8, sizes, 2)
    offsets[0, 1, 0, 0, 0, 0] = torch.nan
    out = attend(values, offsets, weights, reference, sizes)
    assert out[0, 1].isnan().any()
    assert out[0, 0].isfinite().all()


def test_nothing_is_copied_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`new_tensor` and `tensor` take numbers from the host, which waits for a GPU."""
    values = torch.arange(6.0).view(1, 6, 1, 1)
    offsets = torch.tensor([1.0, -1.0]).view(1, 1, 1, 1, 1, 2)
    weights, reference = torch.ones(1, 1, 1, 1), torch.tensor([[0.5, 0.75]])
    for owner, name in ((torch.Tensor, "new_tensor"), (torch, "tensor")):
        monkeypatch.setattr(owner, name, None)
    # Of two rows of three cells, from the middle of the lower one a cell to the right and one up.
    out = attend(values, offsets, weights, reference, [(2, 3)])
    torch.testing.assert_close(out, torch.full((1, 1, 1), 2.0))


def test_the_layer_gives_the_same_in_either_precision() -> None:
    torch.manual_seed(0)
    layer = DeformableAttention(32, heads=4, levels=2, points=3)
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.3)
    torch.nn.init.normal_(layer.attention_weights.weight, std=0.3)
    query, memory, reference = torch.randn(2, 6, 32), torch.randn(2, 20, 32), torch.rand(6, 2)
    single = layer(query, reference, memory, [(4, 4), (2, 2)])
    double = layer.double()(query.double(), reference.double(), memory.double(), [(4, 4), (2, 2)])
    torch.testing.assert_close(single, double.float(), rtol=1e-4, atol=1e-5)
