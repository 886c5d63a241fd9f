"""The compiled loops against the same sums in plain torch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xmask3d.sparse.native import kernels
from xmask3d.sparse.native.kernels import BlockedKernelMap, failure, forward, weight_gradient

pytestmark = pytest.mark.skipif(bool(failure()), reason=failure())

CHANNELS = [(1, 1), (3, 32), (5, 100), (96, 96), (100, 3), (16, 256), (33, 48), (16, 16), (32, 96), (38, 83), (83, 38)]
CHANNELS += [(7, 8), (8, 7), (48, 16), (256, 130)]


def random_rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_table(targets: int = 700, taps: int = 5, sources: int = 300) -> Tensor:
    """Half of the entries missing."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 2 * sources, (targets, taps), generator=generator).clamp(max=sources).int()


def gathered(source: Tensor, table: Tensor) -> Tensor:
    """T x K x A in float64, zero for the missing."""
    return functional.pad(source.double(), (0, 0, 0, 1))[table.long()]


def assert_near(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual.double() - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize(("inner", "width"), CHANNELS)
def test_forward_sums_over_taps(inner: int, width: int) -> None:
    table = random_table()
    source, weight = random_rows(300, inner, seed=2), random_rows(5, inner, width, seed=3)
    out = forward(source, BlockedKernelMap.of_table(table, 300), weight)
    assert_near(out, torch.einsum("tka,kab->tb", gathered(source, table), weight.double()))


@pytest.mark.parametrize(("inner", "width"), CHANNELS)
def test_weight_gradient_sums_over_pairs(inner: int, width: int) -> None:
    table = random_table()
    source, target = random_rows(300, inner, seed=2), random_rows(700, width, seed=4)
    total = weight_gradient(source, target, BlockedKernelMap.of_table(table, 300))
    assert total.dtype == torch.float32
    assert_near(total, torch.einsum("tka,tb->kab", gathered(source, table), target.double()))


@pytest.mark.parametrize("pairs_of_a_tap", [0, 1, 2, 15, 16, 17, 31, 32, 33, 64], ids=str)
def test_taps_of_few_pairs(pairs_of_a_tap: int) -> None:
    table = torch.full((70, 3), 40, dtype=torch.int32)
    table[3 : 3 + pairs_of_a_tap, 1] = torch.arange(pairs_of_a_tap, dtype=torch.int32) * 7 % 40
    table[50:60, 2] = 39
    kernel_map = BlockedKernelMap.of_table(table, 40)
    source, target = random_rows(40, 45, seed=2), random_rows(70, 50, seed=4)
    weight = random_rows(3, 45, 50, seed=3)
    expected = torch.einsum("tka,kab->tb", gathered(source, table), weight.double())
    assert_near(forward(source, kernel_map, weight), expected)
    expected = torch.einsum("tka,tb->kab", gathered(source, table), target.double())
    assert_near(weight_gradient(source, target, kernel_map), expected)


def test_what_no_pair_names_is_not_read() -> None:
    table = torch.full((70, 2), 40, dtype=torch.int32)
    table[:35, 0] = torch.arange(35, dtype=torch.int32)
    kernel_map = BlockedKernelMap.of_table(table, 40)
    source, target = random_rows(40, 45, seed=2), random_rows(70, 50, seed=4)
    source[35:], target[35:] = torch.nan, torch.nan
    assert forward(source, kernel_map, random_rows(2, 45, 50, seed=3)).isfinite().all()
    assert weight_gradient(source, target, kernel_map).isfinite().all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("layout", ["rows", "columns", "neither"])
def test_forward_packs_weights_of_any_layout(layout: str, mirrored: bool) -> None:
    kernel_map, source = BlockedKernelMap.of_table(random_table(), 300), random_rows(300, 70, seed=2)
    weight = random_rows(5, 70, 90, seed=3)
    laid = {
        "rows": weight,
        "columns": weight.transpose(1, 2).contiguous().transpose(1, 2),
        "neither": torch.stack((weight, weight), -1)[..., 0],
    }
    expected = forward(source, kernel_map, weight.flip(0) if mirrored else weight)
    assert torch.equal(forward(source, kernel_map, laid[layout], mirrored), expected)


def test_forward_takes_weights_of_any_layout_and_taps_in_reverse() -> None:
    kernel_map, source = BlockedKernelMap.of_table(random_table(), 300), random_rows(300, 7, seed=2)
    weight = random_rows(5, 9, 7, seed=3).transpose(1, 2)
    expected = forward(source, kernel_map, weight.contiguous())
    assert torch.equal(forward(source, kernel_map, weight), expected)
    assert torch.equal(forward(source, kernel_map, weight.flip(0), mirrored=True), expected)


def test_results_repeat_bit_for_bit_on_any_number_of_threads() -> None:
    kernel_map = BlockedKernelMap.of_table(random_table(targets=5000, sources=4000), 4000)
    source, target = random_rows(4000, 96, seed=2), random_rows(5000, 80, seed=3)
    weight = random_rows(5, 96, 80, seed=4)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 1, 2, 3, 8):
        torch.set_num_threads(threads)
        results.append((forward(source, kernel_map, weight), weight_gradient(source, target, kernel_map)))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


@pytest.mark.parametrize("rows", [1, 64, 65, 3000], ids=str)
def test_maps_of_a_table_are_sorted_by_block_and_tap(rows: int) -> None:
    table = random_table(targets=rows, taps=3)
    kernel_map = BlockedKernelMap.of_table(table, 300)
    found = []
    for index, (start, stop) in enumerate(
        zip(kernel_map.starts[:-1].tolist(), kernel_map.starts[1:].tolist(), strict=True)
    ):
        block, tap = divmod(index, 3)
        for pair in range(start, stop):
            found.append(
                (block * kernel_map.block_rows + int(kernel_map.places[pair]), tap, int(kernel_map.rows[pair]))
            )
    expected = [(row, tap, int(table[row, tap])) for row in range(rows) for tap in range(3) if table[row, tap] < 300]
    assert sorted(found) == expected


def test_a_library_that_computes_wrongly_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(kernels, "weight_gradient", lambda *arguments: weight_gradient(*arguments) + 1)
    with pytest.raises(kernels.BuildError, match="self-test"):
        kernels._check()


def test_shapes_that_do_not_fit_are_refused_before_memory_is_touched() -> None:
    kernel_map = BlockedKernelMap.of_table(random_table(), 300)
    weight = random_rows(5, 8, 4, seed=1)
    for rows, channels in ((299, 8), (300, 7)):
        with pytest.raises(ValueError, match="do not fit 300 rows and 5 taps"):
            forward(random_rows(rows, channels, seed=2), kernel_map, weight)
    with pytest.raises(ValueError, match="do not fit"):
        forward(random_rows(300, 8, seed=2), kernel_map, weight[:4])
    with pytest.raises(ValueError, match="map of 300 and 700 rows"):
        weight_gradient(random_rows(300, 8, seed=2), random_rows(699, 4, seed=3), kernel_map)
