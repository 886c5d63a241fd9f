"""The compiled loops, called on tensors."""

import functools
import logging
from ctypes import CDLL, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from xmask3d.sparse.native.build import BuildError, load_library

log = logging.getLogger(__name__)

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
        targets: T, number of target rows.
        taps: K.
        block_rows: target rows of a block.
    """

    starts: Tensor
    rows: Tensor
    places: Tensor
    targets: int
    taps: int
    block_rows: int

    @classmethod
    def of_table(cls, table: Tensor, source_rows: int) -> "PairLists":
        """From a T x K int32 table of source rows, `source_rows` for none."""
        targets, taps = table.shape
        block_rows = _BLOCK_ROWS if targets > _FEW else _BLOCK_ROWS_FEW
        blocks = -(-targets // block_rows)
        starts = torch.zeros(blocks * taps + 1, dtype=torch.int64)
        shape = c_int64(targets), c_int(taps), c_int32(source_rows), c_int(block_rows)
        table = table.contiguous()
        library().xm_count_pairs(_at(table), *shape, _at(starts, 8), _threads())
        starts = torch.cumsum(starts, 0)
        rows = torch.empty(int(starts[-1]), dtype=torch.int32)
        places = torch.empty(rows.shape, dtype=torch.int16)
        library().xm_list_pairs(_at(table), *shape, _at(starts), _at(rows), _at(places), _threads())
        return cls(starts, rows, places, targets, taps, block_rows)

    @classmethod
    def identity(cls, rows: int) -> "PairLists":
        """Every row with itself, one tap."""
        return cls.of_table(torch.arange(rows, dtype=torch.int32)[:, None], rows)

    @property
    def arguments(self) -> tuple[c_void_p | c_int64 | c_int, ...]:
        """As all loops take them."""
        pointers = _at(self.starts), _at(self.rows), _at(self.places)
        return *pointers, c_int64(self.targets), c_int(self.taps), c_int(self.block_rows)


@functools.cache
def library() -> CDLL:
    """The compiled library.

    Raises:
        BuildError: it cannot be had here.
    """
    return load_library()


@functools.cache
def failure() -> str:
    """Why the library cannot be used on this machine; empty if it can."""
    try:
        library()
        _check()
    except BuildError as error:
        log.info("sparse convolutions run in plain torch: %s", error)
        return str(error)
    return ""


@functools.cache
def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16."""
    return bool(library().xm_has_bf16())


def product(source: Tensor, pairs: PairLists, weight: Tensor) -> Tensor:
    """Sum over the pairs (t, s) of every tap k of `source[s] @ weight[k]`, summed in float32.

    Args:
        source: S x A float32 or bfloat16.
        pairs: T targets, K taps.
        weight: K x A x B float32, with any strides.

    Returns:
        T x B of the source's type.
    """
    taps, inner, width = weight.shape
    weight = weight.detach().float()
    if source.dtype == torch.bfloat16 and inner % 2:  # channels are multiplied by twos
        source, weight, inner = functional.pad(source, (0, 1)), functional.pad(weight, (0, 0, 0, 1)), inner + 1
    source, name = source.contiguous(), _name(source)
    lanes = library().xm_lanes()
    packed = torch.empty(taps * inner * -(-width // lanes) * lanes, dtype=source.dtype)
    steps = (c_int64(step) for step in weight.stride())
    shape = c_int(taps), c_int(inner), c_int(width)
    getattr(library(), f"xm_pack_{name}")(_at(weight), *steps, *shape, _at(packed), _threads())
    out = source.new_empty((pairs.targets, width))
    call = getattr(library(), f"xm_product_{name}")
    call(_at(source), c_int(inner), *pairs.arguments, _at(packed), c_int(width), _at(out), _threads())
    return out


def outer(source: Tensor, target: Tensor, pairs: PairLists) -> Tensor:
    """For every tap the sum over its pairs (t, s) of the outer product of `source[s]` and `target[t]`.

    Args:
        source: S x A float32 or bfloat16.
        target: T x B of the same type.
        pairs: T targets, K taps.

    Returns:
        K x A x B float32.
    """
    lanes = library().xm_lanes()
    width, missing = target.shape[1], -target.shape[1] % lanes
    target = functional.pad(target, (0, missing)) if missing else target.contiguous()
    total = torch.zeros((pairs.taps, source.shape[1], width + missing))
    source = source.contiguous()
    call = getattr(library(), f"xm_outer_{_name(source)}")
    shape = c_int(source.shape[1]), _at(target), c_int(target.shape[1])
    call(_at(source), *shape, *pairs.arguments, _at(total), _threads())
    return total[:, :, :width]


def _name(tensor: Tensor) -> str:
    return {torch.float32: "float", torch.bfloat16: "bf16"}[tensor.dtype]


def _at(tensor: Tensor, offset: int = 0) -> c_void_p:
    return c_void_p(tensor.data_ptr() + offset)


def _threads() -> c_int:
    return c_int(torch.get_num_threads())


def _check() -> None:
    """Compare the loops with plain torch on a small map of odd sizes.

    Raises:
        BuildError: they differ, so that the compiler or its flags are at fault.
    """
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(0, 101, (100, 3), generator=generator, dtype=torch.int32)
    pairs = PairLists.of_table(table, 100)
    inner, width = 38, 83
    source, target = (torch.randn(100, count, generator=generator) for count in (inner, width))
    weight = torch.randn(3, inner, width, generator=generator)
    for kind in (torch.float32, torch.bfloat16)[: 1 + has_bfloat16()]:
        rows, other, factor = source.to(kind).float(), target.to(kind).float(), weight.to(kind).float()
        gathered = functional.pad(rows, (0, 0, 0, 1))[table.long()]
        expected = torch.einsum("tka,kab->tb", gathered, factor), torch.einsum("tka,tb->kab", gathered, other)
        actual = product(source.to(kind), pairs, weight), outer(source.to(kind), target.to(kind), pairs)
        tolerance = 1e-5 if kind == torch.float32 else 1e-2
        for one, true in zip(actual, expected, strict=True):
            if not (one.float() - true).norm() <= tolerance * true.norm():
                raise BuildError(f"the compiled library fails its self-test in {kind}")
