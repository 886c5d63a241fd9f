"""The compiled loops, called on tensors."""

import functools
from collections.abc import Callable
from ctypes import c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from xmask3d.native.compiler import BuildError
from xmask3d.native.library import address, failure_of, library, threads

# Target rows a block: its sums and the rows they read fit the second-level cache. Few rows are cut finer, so that all
# threads have work.
_BLOCK_ROWS = 256
_BLOCK_ROWS_FEW = 64
_FEW = 2048


@dataclass(frozen=True)
class PairLists:
    """The pairs of a kernel map, sorted by block of target rows, then by tap.

    Attributes:
        starts: blocks * K + 1 int64, where the pairs of each block and tap begin.
        rows: P int32 source rows.
        places: P int16 target rows, counted from the block's first.
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
    def of_table(cls, table: Tensor, source_rows: int) -> "PairLists":
        """From a T x K int32 table of source rows, `source_rows` for none."""
        table = table.contiguous()
        targets, taps = table.shape
        shape = c_int64(targets), c_int(taps)
        start = partial(library().xm_pairs_of_table, address(table), *shape, c_int32(source_rows))
        return cls._found(start, source_rows, targets, taps)

    @classmethod
    def of_neighbours(cls, keys: Tensor, kernel_size: int, axis_bits: int) -> "PairLists":
        """The map of a submanifold convolution.

        Args:
            keys: V int64, ascending: the batch index, then `axis_bits` interleaved bits of each coordinate, at least 3.
            kernel_size: odd, at most 17.

        Raises:
            ValueError: another kernel size, or fewer bits.
        """
        if kernel_size % 2 == 0 or kernel_size > 17 or axis_bits < 3:
            raise ValueError(
                f"kernel_size={kernel_size}, axis_bits={axis_bits}: odd up to 17, and at least 3, are needed"
            )
        rows = keys.shape[0]
        start = partial(
            library().xm_pairs_of_neighbours, address(keys), c_int64(rows), c_int(kernel_size // 2), c_int(axis_bits)
        )
        return cls._found(start, rows, rows, kernel_size**3)

    @classmethod
    def identity(cls, rows: int) -> "PairLists":
        """Every row with itself, one tap."""
        return cls.of_table(torch.arange(rows, dtype=torch.int32)[:, None], rows)

    @classmethod
    def _found(cls, start: Callable[..., int], sources: int, targets: int, taps: int) -> "PairLists":
        """Let the library find the pairs, then take them over."""
        block_rows = _BLOCK_ROWS if targets > _FEW else _BLOCK_ROWS_FEW
        blocks = -(-targets // block_rows)
        counts = torch.empty(blocks * taps, dtype=torch.int64)
        handle = c_void_p(start(c_int(block_rows), address(counts), threads()))
        starts = functional.pad(torch.cumsum(counts, 0), (1, 0))
        rows = torch.empty(int(starts[-1]), dtype=torch.int32)
        places = torch.empty(rows.shape, dtype=torch.int16)
        pointers = address(starts), address(rows), address(places)
        library().xm_take_pairs(handle, c_int64(blocks), c_int(taps), *pointers, threads())
        return cls(starts, rows, places, sources, targets, taps, block_rows)

    @property
    def arguments(self) -> tuple[c_void_p | c_int64 | c_int, ...]:
        """As all loops take them."""
        pointers = address(self.starts), address(self.rows), address(self.places)
        return *pointers, c_int64(self.targets), c_int(self.taps), c_int(self.block_rows)


@functools.cache
def failure() -> str:
    """Why the library cannot be used on this machine; empty if it can."""
    return failure_of("sparse convolution", _check)


@functools.cache
def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16."""
    return bool(library().xm_has_bf16())


@functools.cache
def has_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16, and the system lets it."""
    return bool(library().xm_has_tiles())


def want_tiles(wanted: bool) -> bool:
    """Multiply bfloat16 in tiles where they are to be had (the default), or never; not while a loop runs.

    Returns:
        What was wanted before.
    """
    return bool(library().xm_want_tiles(c_int(wanted)))


def product(source: Tensor, pairs: PairLists, weight: Tensor, mirrored: bool = False) -> Tensor:
    """Sum over the pairs (t, s) of every tap k of `source[s] @ weight[k]`, summed in float32.

    Args:
        source: S x A float32 or bfloat16.
        pairs: T targets, K taps.
        weight: K x A x B float32, with any strides.
        mirrored: take the taps of `weight` in descending order.

    Returns:
        T x B of the source's type.

    Raises:
        ValueError: shapes that do not fit the pairs; the loops themselves check nothing.
    """
    taps, inner, width = weight.shape
    if taps != pairs.taps or source.shape != (pairs.sources, inner):
        raise ValueError(
            f"features {tuple(source.shape)} and weight {tuple(weight.shape)} "
            f"do not fit {pairs.sources} rows and {pairs.taps} taps"
        )
    weight = weight.detach().float()
    if source.dtype == torch.bfloat16 and inner % 2:  # channels are multiplied by twos
        source, weight, inner = functional.pad(source, (0, 1)), functional.pad(weight, (0, 0, 0, 1)), inner + 1
    if 1 not in weight.stride()[1:]:  # rows or columns must lie together
        weight = weight.contiguous()
    source, name = source.contiguous(), kind_of(source)
    lanes = library().xm_lanes()
    channels = library().xm_packed_channels_bf16(inner) if source.dtype == torch.bfloat16 else inner
    packed = torch.empty(taps * channels * -(-width // lanes) * lanes, dtype=source.dtype)
    step = weight.stride(0)
    first = address(weight, 4 * step * (taps - 1) if mirrored else 0)
    steps = c_int64(-step if mirrored else step), c_int64(weight.stride(1)), c_int64(weight.stride(2))
    shape = c_int(taps), c_int(inner), c_int(width)
    getattr(library(), f"xm_pack_{name}")(first, *steps, *shape, address(packed), threads())
    out = source.new_empty((pairs.targets, width))
    call = getattr(library(), f"xm_product_{name}")
    call(address(source), c_int(inner), *pairs.arguments, address(packed), c_int(width), address(out), threads())
    return out


def outer(source: Tensor, target: Tensor, pairs: PairLists) -> Tensor:
    """For every tap the sum over its pairs (t, s) of the outer product of `source[s]` and `target[t]`.

    Args:
        source: S x A float32 or bfloat16.
        target: T x B of the same type.
        pairs: T targets, K taps.

    Returns:
        K x A x B float32.

    Raises:
        ValueError: shapes that do not fit the pairs, or two types.
    """
    if len(source) != pairs.sources or len(target) != pairs.targets or source.dtype != target.dtype:
        raise ValueError(
            f"{source.dtype} {tuple(source.shape)} and {target.dtype} {tuple(target.shape)} "
            f"do not fit pairs of {pairs.sources} and {pairs.targets} rows"
        )
    lanes = library().xm_lanes()
    width, missing = target.shape[1], -target.shape[1] % lanes
    target = functional.pad(target, (0, missing)) if missing else target.contiguous()
    total = torch.zeros((pairs.taps, source.shape[1], width + missing))
    source = source.contiguous()
    call = getattr(library(), f"xm_outer_{kind_of(source)}")
    shape = c_int(source.shape[1]), address(target), c_int(target.shape[1])
    call(address(source), *shape, *pairs.arguments, address(total), threads())
    return total[:, :, :width]


def kind_of(tensor: Tensor) -> str:
    """The end of the names of the loops for a tensor's type."""
    return {torch.float32: "float", torch.bfloat16: "bf16"}[tensor.dtype]


def _check() -> None:
    """Compare the loops with plain torch on a small map of odd sizes.

    Raises:
        BuildError: they differ, so that the compiler or its flags are at fault.
    """
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(0, 101, (100, 3), generator=generator, dtype=torch.int32)
    pairs = PairLists.of_table(table, 100)
    inner, width = 38, 77
    source, target = (torch.randn(100, count, generator=generator) for count in (inner, width))
    weight = torch.randn(3, inner, width, generator=generator)
    bfloat16 = [(torch.bfloat16, tiles) for tiles in (False, True)[: 1 + has_tiles()]] if has_bfloat16() else []
    for kind, tiles in [(torch.float32, False), *bfloat16]:
        rows, other, factor = source.to(kind).float(), target.to(kind).float(), weight.to(kind).float()
        gathered = functional.pad(rows, (0, 0, 0, 1))[table.long()]
        expected = torch.einsum("tka,kab->tb", gathered, factor), torch.einsum("tka,tb->kab", gathered, other)
        before = want_tiles(tiles)
        try:
            actual = product(source.to(kind), pairs, weight), outer(source.to(kind), target.to(kind), pairs)
        finally:
            want_tiles(before)
        tolerance = 1e-5 if kind == torch.float32 else 1e-2
        for one, true in zip(actual, expected, strict=True):
            if not (one.float() - true).norm() <= tolerance * true.norm():  # nor if it is NaN
                raise BuildError(f"the compiled library fails its self-test in {kind}{', tiles' * tiles}")
