"""The compiled loops against the same sums in plain torch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.sparse.clouds import random_cloud
from xmask3d.sparse.coordinates import CoordinateMaps
from xmask3d.sparse.native import kernels
from xmask3d.sparse.native.kernels import PairLists, failure, outer, product

pytestmark = pytest.mark.skipif(bool(failure()), reason=failure())

KINDS = [torch.float32, torch.bfloat16] if not failure() and kernels.has_bfloat16() else [torch.float32]
CHANNELS = [(1, 1), (3, 32), (5, 100), (96, 96), (100, 3), (16, 256), (33, 48)]


def random_rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_table(targets: int = 700, taps: int = 5, sources: int = 300) -> Tensor:
    """Half of the entries missing."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 2 * sources, (targets, taps), generator=generator).clamp(max=sources).int()


def gathered(source: Tensor, table: Tensor) -> Tensor:
    """T x K x A in float64, zero for the missing."""
    return functional.pad(source.double(), (0, 0, 0, 1))[table.long()]


def assert_near(actual: Tensor, expected: Tensor, kind: torch.dtype) -> None:
    assert actual.shape == expected.shape
    assert (actual.double() - expected).norm() <= (1e-6 if kind == torch.float32 else 3e-3) * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("inner", "width"), CHANNELS)
def test_product_sums_over_taps(inner: int, width: int, kind: torch.dtype) -> None:
    table = random_table()
    source, weight = random_rows(300, inner, seed=2).to(kind), random_rows(5, inner, width, seed=3)
    used = weight.to(kind).double()
    out = product(source, PairLists.of_table(table, 300), weight)
    assert out.dtype == kind
    assert_near(out, torch.einsum("tka,kab->tb", gathered(source, table), used), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("inner", "width"), CHANNELS)
def test_outer_sums_over_pairs(inner: int, width: int, kind: torch.dtype) -> None:
    table = random_table()
    source, target = random_rows(300, inner, seed=2).to(kind), random_rows(700, width, seed=4).to(kind)
    total = outer(source, target, PairLists.of_table(table, 300))
    assert total.dtype == torch.float32
    assert_near(total, torch.einsum("tka,tb->kab", gathered(source, table), target.double()), kind)


def test_product_takes_weights_of_any_layout_and_taps_in_reverse() -> None:
    pairs, source = PairLists.of_table(random_table(), 300), random_rows(300, 7, seed=2)
    weight = random_rows(5, 9, 7, seed=3).transpose(1, 2)
    expected = product(source, pairs, weight.contiguous())
    assert torch.equal(product(source, pairs, weight), expected)
    assert torch.equal(product(source, pairs, weight.flip(0), mirrored=True), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_results_repeat_bit_for_bit_on_any_number_of_threads(kind: torch.dtype) -> None:
    pairs = PairLists.of_table(random_table(targets=5000, sources=4000), 4000)
    source, target = random_rows(4000, 96, seed=2).to(kind), random_rows(5000, 80, seed=3).to(kind)
    weight = random_rows(5, 96, 80, seed=4)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 1, 2, 3, 8):
        torch.set_num_threads(threads)
        results.append((product(source, pairs, weight), outer(source, target, pairs)))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2, 8])
@pytest.mark.parametrize("extent", [8, 40, 90], ids=["dense", "loose", "lone voxels"])
def test_neighbours_are_those_of_the_table(extent: int, stride: int, kernel_size: int) -> None:
    cloud = random_cloud(count=900 if extent > 8 else 800, extent=extent, lowest=-13)
    maps = CoordinateMaps(cloud)
    kernel_map = maps.neighbours(stride, kernel_size)
    expected = PairLists.of_table(kernel_map.table, kernel_map.source_rows)
    keys, bits = maps.keys(stride)
    found = PairLists.of_neighbours(keys, kernel_size, bits)
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in ("starts", "rows", "places"))


@pytest.mark.parametrize("rows", [1, 64, 65, 3000], ids=str)
def test_pairs_of_a_table_are_sorted_by_block_and_tap(rows: int) -> None:
    table = random_table(targets=rows, taps=3)
    pairs = PairLists.of_table(table, 300)
    found = []
    for index, (start, stop) in enumerate(zip(pairs.starts[:-1].tolist(), pairs.starts[1:].tolist(), strict=True)):
        block, tap = divmod(index, 3)
        for pair in range(start, stop):
            found.append((block * pairs.block_rows + int(pairs.places[pair]), tap, int(pairs.rows[pair])))
    expected = [(row, tap, int(table[row, tap])) for row in range(rows) for tap in range(3) if table[row, tap] < 300]
    assert sorted(found) == expected


def test_a_library_that_computes_wrongly_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(kernels, "outer", lambda source, target, pairs: outer(source, target, pairs) + 1)
    with pytest.raises(kernels.BuildError, match="self-test"):
        kernels._check()


def test_shapes_that_do_not_fit_are_refused_before_memory_is_touched() -> None:
    pairs = PairLists.of_table(random_table(), 300)
    weight = random_rows(5, 8, 4, seed=1)
    for rows, channels in ((299, 8), (300, 7)):
        with pytest.raises(ValueError, match="do not fit 300 rows and 5 taps"):
            product(random_rows(rows, channels, seed=2), pairs, weight)
    with pytest.raises(ValueError, match="do not fit"):
        product(random_rows(300, 8, seed=2), pairs, weight[:4])
    with pytest.raises(ValueError, match="pairs of 300 and 700 rows"):
        outer(random_rows(300, 8, seed=2), random_rows(699, 4, seed=3), pairs)
    with pytest.raises(ValueError, match="odd up to 17"):
        PairLists.of_neighbours(torch.arange(4), 2, 5)
