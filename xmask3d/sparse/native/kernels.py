"""Compiled loops, called on tensors."""

import functools
from ctypes import c_int, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from xmask3d.native.compiler import BuildError
from xmask3d.native.library import address, failure_of, library, threads

# Target rows per block, powers of two: the sums of a block and the rows they read fit into the second-level cache.
# A map of few rows is cut into smaller blocks, so that all threads have work.
_BLOCK_ROWS = 256
_BLOCK_ROWS_FEW = 64
_FEW = 2048


@dataclass(frozen=True)
class BlockedKernelMap:
    """Kernel map as lists of (source row, target row), sorted by block of target rows, then by tap.

    Attributes:
        starts: blocks * K + 1 int64, start of the pairs of each block and tap.
        rows: P int32 source rows.
        places: P int16 target rows, counted from the first row of their block.
        sources, targets: S and T, number of source and target rows.
        taps: K.
        block_rows: target rows of a block.
    """

    starts: Tensor
    rows: Tensor
    places: Tensor
    sources: int
    targets: int
    taps: int
    block_rows: int

    @classmethod
    def of_table(cls, table: Tensor, source_rows: int) -> "BlockedKernelMap":
        """Sort a T x K int32 table of source rows, in which `source_rows` stands for no row."""
        targets, taps = table.shape
        block_rows = _BLOCK_ROWS if targets > _FEW else _BLOCK_ROWS_FEW
        whole = functional.pad(table, (0, 0, 0, -targets % block_rows), value=source_rows)
        by_tap = whole.view(-1, block_rows, taps).transpose(1, 2).contiguous()  # blocks x K x (rows per block)
        found = by_tap != source_rows
        counts = found.view(torch.uint8).sum(2, dtype=torch.int32)
        starts = functional.pad(torch.cumsum(counts.flatten(), 0), (1, 0))
        # One flat index serves both lists; numpy finds it six times as fast as torch.
        pairs = torch.from_numpy(found.flatten().numpy().nonzero()[0])
        places = (pairs & (block_rows - 1)).to(torch.int16)
        rows = by_tap.flatten().index_select(0, pairs)
        return cls(starts, rows, places, source_rows, targets, taps, block_rows)

    @classmethod
    def identity(cls, rows: int) -> "BlockedKernelMap":
        """Return the map of one tap that joins every row with itself."""
        return cls.of_table(torch.arange(rows, dtype=torch.int32)[:, None], rows)

    @property
    def arguments(self) -> tuple[c_void_p | c_int64 | c_int, ...]:
        """Arguments in the order that all loops expect."""
        pointers = address(self.starts), address(self.rows), address(self.places)
        return *pointers, c_int64(self.targets), c_int(self.taps), c_int(self.block_rows)


@functools.cache
def failure() -> str:
    """Return the reason why the library cannot be used on this machine, or an empty string if it can."""
    return failure_of("sparse convolution", _check)


def forward(source: Tensor, kernel_map: BlockedKernelMap, weight: Tensor, mirrored: bool = False) -> Tensor:
    """Sum `source[s] @ weight[k]` over the pairs (t, s) of every tap k.

    Args:
        source: S x A float32.
        kernel_map: T targets, K taps.
        weight: K x A x B float32, with any strides.
        mirrored: take the taps of `weight` in descending order.

    Returns:
        T x B.

    Raises:
        ValueError: shapes do not fit the map; they are checked here because the loops check nothing.
    """
    taps, inner, width = weight.shape
    if taps != kernel_map.taps or source.shape != (kernel_map.sources, inner):
        raise ValueError(
            f"features {tuple(source.shape)} and weight {tuple(weight.shape)} "
            f"do not fit {kernel_map.sources} rows and {kernel_map.taps} taps"
        )
    weight, source = weight.detach().float(), source.contiguous()
    lanes = library().xm_lanes()
    packed = torch.empty(taps * inner * -(-width // lanes) * lanes)
    step = weight.stride(0)
    first = address(weight, 4 * step * (taps - 1) if mirrored else 0)
    steps = c_int64(-step if mirrored else step), c_int64(weight.stride(1)), c_int64(weight.stride(2))
    library().xm_pack_weight(first, *steps, c_int(taps), c_int(inner), c_int(width), address(packed), threads())
    out = source.new_empty((kernel_map.targets, width))
    result = address(packed), c_int(width), address(out)
    library().xm_forward(address(source), c_int(inner), *kernel_map.arguments, *result, threads())
    return out


def weight_gradient(source: Tensor, target: Tensor, kernel_map: BlockedKernelMap) -> Tensor:
    """Sum the outer products of `source[s]` and `target[t]` over the pairs (t, s) of every tap.

    Args:
        source: S x A float32.
        target: T x B float32.
        kernel_map: T targets, K taps.

    Returns:
        K x A x B.

    Raises:
        ValueError: shapes do not fit the map.
    """
    if len(source) != kernel_map.sources or len(target) != kernel_map.targets:
        raise ValueError(
            f"{tuple(source.shape)} and {tuple(target.shape)} "
            f"do not fit a map of {kernel_map.sources} and {kernel_map.targets} rows"
        )
    lanes = library().xm_lanes()
    width, missing = target.shape[1], -target.shape[1] % lanes
    source, target = source.contiguous(), functional.pad(target, (0, missing)) if missing else target.contiguous()
    total = torch.zeros((kernel_map.taps, source.shape[1], width + missing))
    shape = c_int(source.shape[1]), address(target), c_int(width + missing)
    library().xm_weight_gradient(address(source), *shape, *kernel_map.arguments, address(total), threads())
    return total[:, :, :width]


def _check() -> None:
    """Compare the loops with plain torch on a small map of odd sizes.

    Raises:
        BuildError: the results differ, so the compiler or its flags are at fault.
    """
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(0, 101, (100, 3), generator=generator, dtype=torch.int32)
    kernel_map = BlockedKernelMap.of_table(table, 100)
    source, target = (torch.randn(100, count, generator=generator) for count in (38, 77))
    weight = torch.randn(3, 38, 77, generator=generator)
    gathered = functional.pad(source, (0, 0, 0, 1))[table.long()]
    expected = torch.einsum("tka,kab->tb", gathered, weight), torch.einsum("tka,tb->kab", gathered, target)
    actual = forward(source, kernel_map, weight), weight_gradient(source, target, kernel_map)
    for one, true in zip(actual, expected, strict=True):
        if not (one - true).norm() <= 1e-5 * true.norm():  # also false for NaN
            raise BuildError("the compiled library fails its self-test")
