"""The three loops behind all sparse convolutions.

All loops are output-stationary: the source rows for a block of target rows are gathered into one buffer (with zeros for
missing ones), and one dense product with all taps completes the block. A V x K x C tensor is never made.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from xmask3d.sparse.coordinates import CUT_ROWS, StrideMap

# Target rows per block: enough for a product at full speed, yet few enough to keep the gathered rows in the cache.
_ROWS_CPU = 512
_ROWS_CPU_16_BIT = 1024
_ROWS_A_THREAD = 128
_BUFFER_ELEMENTS_CUDA = 1 << 26


def gather_product(source: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    """Sum over taps of `source[table[:, k]] @ weight[k]`.

    Args:
        source: S x A.
        table: T x K int32 rows of the source; S for a missing row.
        weight: K x A x B.

    Returns:
        T x B.
    """
    taps, inner, width = weight.shape
    blocks = _Blocks(source, table)
    matrix = weight.reshape(taps * inner, width)
    out = source.new_empty((table.shape[0], width))
    for start, stop, gathered in blocks:
        out[start:stop] = (gathered @ matrix)[: stop - start]
    return out


def gather_gradients(
    source: Tensor, table: Tensor, weight: Tensor | None, left: Tensor
) -> tuple[Tensor | None, Tensor]:
    """Compute the gradients of features and weights of a convolution in one pass over its kernel map.

    The gradient of features is `gather_product`; that of weights sums the outer products of target rows and gathered
    rows.

    Args:
        source: S x A.
        table: T x K int32 rows of the source, S for none.
        weight: K x A x B, or None if only the weight gradient is wanted.
        left: T x L.

    Returns:
        T x B (or None), and K x A x L, the sum over target rows t of the outer products of `source[table[t, k]]` and
        `left[t]`, summed over blocks in float32 or wider.
    """
    taps, inner = table.shape[1], source.shape[1]
    blocks = _Blocks(source, table)
    matrix = out = None
    if weight is not None:
        matrix = weight.reshape(taps * inner, -1)
        out = source.new_empty((table.shape[0], weight.shape[2]))
    wide = torch.promote_types(source.dtype, torch.float32)
    total = torch.zeros((left.shape[1], taps * inner), dtype=wide, device=source.device)
    for start, stop, gathered in blocks:
        if matrix is not None and out is not None:
            out[start:stop] = (gathered @ matrix)[: stop - start]
        total += _filled(left[start:stop], blocks.rows).t() @ gathered
    return out, total.view(-1, taps, inner).permute(1, 2, 0)


def product_select(source: Tensor, stride_map: StrideMap, weight: Tensor) -> Tensor:
    """Compute `source[slot // K] @ weight[slot % K]` for every slot of a stride map.

    Args:
        source: S x A, one row per coarse row.
        stride_map: T slots, ascending.
        weight: K x A x B.

    Returns:
        T x B.
    """
    taps, inner, width = weight.shape
    slot = stride_map.slot
    rows = _block_rows(source, taps * width, source.shape[0])
    matrix = weight.permute(1, 0, 2).reshape(inner, taps * width)
    out = source.new_empty((slot.shape[0], width))
    if rows >= source.shape[0]:
        bounds = [0, slot.shape[0]]
    else:
        step = rows // CUT_ROWS
        rows = step * CUT_ROWS
        bounds = [*stride_map.cuts[: -(-source.shape[0] // CUT_ROWS) : step], slot.shape[0]]
    for block, (first, last) in enumerate(pairwise(bounds)):
        part = _filled(source[block * rows : (block + 1) * rows], rows)
        every = (part @ matrix).view(rows * taps, width)
        torch.index_select(every, 0, slot[first:last] - block * rows * taps, out=out[first:last])
    return out


class _Blocks:
    """Iterator over blocks of target rows, (start, stop, gathered rows x K*A). All blocks share one buffer.

    Every block has the same number of rows (the last one is padded with zeros), because oneDNN prepares each shape
    once.
    """

    def __init__(self, source: Tensor, table: Tensor) -> None:
        self._source = torch.cat([source, source.new_zeros((1, source.shape[1]))])
        self._table = table
        self.rows = _block_rows(source, table.shape[1] * source.shape[1], table.shape[0])

    def __iter__(self) -> Iterator[tuple[int, int, Tensor]]:
        count, taps = self._table.shape
        missing = self._source.shape[0] - 1
        buffer = self._source.new_empty((self.rows * taps, self._source.shape[1]))
        for start in range(0, count, self.rows):
            rows = self._table[start : start + self.rows]
            torch.index_select(self._source, 0, _filled(rows, self.rows, missing).reshape(-1), out=buffer)
            yield start, start + rows.shape[0], buffer.view(self.rows, -1)


def _filled(rows: Tensor, count: int, value: int = 0) -> Tensor:
    """Pad with rows of one value up to `count` rows."""
    if rows.shape[0] == count:
        return rows
    return functional.pad(rows, (0, 0, 0, count - rows.shape[0]), value=value)


def _block_rows(source: Tensor, width: int, targets: int) -> int:
    """Return the rows per block, if each row gathers or makes `width` values, so that a block is fast but small."""
    if source.is_cpu:
        rows = _ROWS_CPU if source.element_size() > 2 else _ROWS_CPU_16_BIT
        rows = max(rows, _ROWS_A_THREAD * torch.get_num_threads())
    else:
        rows = max(_ROWS_CPU, _BUFFER_ELEMENTS_CUDA // max(width, 1))
    return min(rows, 1 << max(targets - 1, 31).bit_length())
