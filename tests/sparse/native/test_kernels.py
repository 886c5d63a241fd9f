"""The compiled loops against the same sums in plain torch."""

import subprocess
import sys
from collections.abc import Iterator

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
WITH_TILES = [False, True] if not failure() and kernels.has_tiles() else [False]
LOOPS = [(kind, tiles) for kind in KINDS for tiles in (WITH_TILES if kind == torch.bfloat16 else [False])]
NAMES = [f"{str(kind).removeprefix('torch.')}{' in tiles' * tiles}" for kind, tiles in LOOPS]
CHANNELS = [(1, 1), (3, 32), (5, 100), (96, 96), (100, 3), (16, 256), (33, 48), (16, 16), (32, 96), (38, 83), (83, 38)]
CHANNELS += [(7, 8), (8, 7), (48, 16), (256, 130)]


@pytest.fixture(params=LOOPS, ids=NAMES)
def kind(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """The type of features, while its loops run in tiles or without."""
    kind, tiles = request.param
    before = kernels.want_tiles(tiles)
    yield kind
    kernels.want_tiles(before)


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


@pytest.mark.parametrize(("inner", "width"), CHANNELS)
def test_product_sums_over_taps(inner: int, width: int, kind: torch.dtype) -> None:
    table = random_table()
    source, weight = random_rows(300, inner, seed=2).to(kind), random_rows(5, inner, width, seed=3)
    used = weight.to(kind).double()
    out = product(source, PairLists.of_table(table, 300), weight)
    assert out.dtype == kind
    assert_near(out, torch.einsum("tka,kab->tb", gathered(source, table), used), kind)


@pytest.mark.parametrize(("inner", "width"), CHANNELS)
def test_outer_sums_over_pairs(inner: int, width: int, kind: torch.dtype) -> None:
    table = random_table()
    source, target = random_rows(300, inner, seed=2).to(kind), random_rows(700, width, seed=4).to(kind)
    total = outer(source, target, PairLists.of_table(table, 300))
    assert total.dtype == torch.float32
    assert_near(total, torch.einsum("tka,tb->kab", gathered(source, table), target.double()), kind)


@pytest.mark.parametrize("pairs_of_a_tap", [0, 1, 2, 15, 16, 17, 31, 32, 33, 64], ids=str)
def test_taps_of_few_pairs(pairs_of_a_tap: int, kind: torch.dtype) -> None:
    table = torch.full((70, 3), 40, dtype=torch.int32)
    table[3 : 3 + pairs_of_a_tap, 1] = torch.arange(pairs_of_a_tap, dtype=torch.int32) * 7 % 40
    table[50:60, 2] = 39
    pairs = PairLists.of_table(table, 40)
    source, target = random_rows(40, 45, seed=2).to(kind), random_rows(70, 50, seed=4).to(kind)
    weight = random_rows(3, 45, 50, seed=3)
    expected = torch.einsum("tka,kab->tb", gathered(source, table), weight.to(kind).double())
    assert_near(product(source, pairs, weight), expected, kind)
    expected = torch.einsum("tka,tb->kab", gathered(source, table), target.double())
    assert_near(outer(source, target, pairs), expected, kind)


def test_what_no_pair_names_is_not_read(kind: torch.dtype) -> None:
    table = torch.full((70, 2), 40, dtype=torch.int32)
    table[:35, 0] = torch.arange(35, dtype=torch.int32)
    pairs = PairLists.of_table(table, 40)
    source, target = random_rows(40, 45, seed=2).to(kind), random_rows(70, 50, seed=4).to(kind)
    source[35:], target[35:] = torch.nan, torch.nan
    assert product(source, pairs, random_rows(2, 45, 50, seed=3)).isfinite().all()
    assert outer(source, target, pairs).isfinite().all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("layout", ["rows", "columns", "neither"])
def test_product_packs_weights_of_any_layout(layout: str, mirrored: bool, kind: torch.dtype) -> None:
    pairs, source = PairLists.of_table(random_table(), 300), random_rows(300, 70, seed=2).to(kind)
    weight = random_rows(5, 70, 90, seed=3)
    laid = {
        "rows": weight,
        "columns": weight.transpose(1, 2).contiguous().transpose(1, 2),
        "neither": torch.stack((weight, weight), -1)[..., 0],
    }
    expected = product(source, pairs, weight.flip(0) if mirrored else weight)
    assert torch.equal(product(source, pairs, laid[layout], mirrored), expected)


@pytest.mark.skipif(not failure() and not kernels.has_bfloat16(), reason="no bfloat16")
def test_torch_and_the_loops_may_use_tiles_by_turns() -> None:
    pairs, weight = PairLists.of_table(random_table(), 300), random_rows(5, 96, 96, seed=3)
    source, target, square = (random_rows(rows, 96, seed=rows).bfloat16() for rows in (300, 700, 96))
    rounds = [(product(source, pairs, weight), source @ square, outer(source, target, pairs)) for _ in range(4)]
    for again in rounds[1:]:
        assert all(torch.equal(one, other) for one, other in zip(again, rounds[0], strict=True))
    assert_near(rounds[0][1], source.double() @ square.double(), torch.bfloat16)


@pytest.mark.skipif(not WITH_TILES[-1], reason="no tiles")
def test_a_process_that_gets_no_tiles_computes_without() -> None:
    program = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
room = ctypes.create_string_buffer(4096)  # for signals: too little to keep tiles in, so that Linux refuses them
assert not ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(ctypes.addressof(room), 0, 4096)), None)
from xmask3d.sparse.native import kernels
print(repr(kernels.failure()), kernels.has_bfloat16(), kernels.has_tiles())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["''", "True", "False"]


def test_product_takes_weights_of_any_layout_and_taps_in_reverse() -> None:
    pairs, source = PairLists.of_table(random_table(), 300), random_rows(300, 7, seed=2)
    weight = random_rows(5, 9, 7, seed=3).transpose(1, 2)
    expected = product(source, pairs, weight.contiguous())
    assert torch.equal(product(source, pairs, weight), expected)
    assert torch.equal(product(source, pairs, weight.flip(0), mirrored=True), expected)


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
