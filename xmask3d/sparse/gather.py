"""The three loops that all sparse convolutions are made of.

Everything is output-stationary: a block of target rows gathers what it reads into one buffer (a zero row stands for the
missing), and one dense product with all taps finishes the block. No tensor of V x K x C is ever made.
"""

import torch
from torch import Tensor

from xmask3d.sparse.products import Weight, outer

_ROWS_CPU = 512
_BUFFER_ELEMENTS_CUDA = 1 << 26


def gather_product(source: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    """Sum over taps of `source[table[:, k]] @ weight[k]`.

    Args:
        source: S x A.
        table: T x K int32 rows of the source, S for none.
        weight: K x A x B.

    Returns:
        T x B.
    """
    taps, inner, width = weight.shape
    blocks = _Blocks(source, table)
    prepared = Weight(weight.reshape(taps * inner, width), blocks.rows)
    out = source.new_empty((table.shape[0], width))
    for start, stop, gathered in blocks:
        out[start:stop] = prepared.product(gathered)[: stop - start]
    return out


def gather_product_outer(source: Tensor, table: Tensor, weight: Tensor | None, left: Tensor) -> tuple[Tensor | None, Tensor]:
    """`gather_product`, and in the same pass the outer product of the target rows with what they gather.

    Args:
        source: S x A.
        table: T x K int32 rows of the source, S for none.
        weight: K x A x B, or None if only the outer product is wanted.
        left: T x L.

    Returns:
        T x B (or None), and K x A x L: sum over target rows t of `source[table[t, k]] (x) left[t]`, summed in float32 or wider.
    """
    taps, inner = table.shape[1], source.shape[1]
    blocks = _Blocks(source, table)
    prepared = out = None
    if weight is not None:
        prepared = Weight(weight.reshape(taps * inner, -1), blocks.rows)
        out = source.new_empty((table.shape[0], weight.shape[2]))
    wide = torch.promote_types(source.dtype, torch.float32)
    total = torch.zeros((left.shape[1], taps * inner), dtype=wide, device=source.device)
    for start, stop, gathered in blocks:
        if prepared is not None and out is not None:
            out[start:stop] = prepared.product(gathered)[: stop - start]
        part = left[start:stop]
        if stop - start < blocks.rows:
            part = torch.nn.functional.pad(part, (0, 0, 0, blocks.rows - (stop - start)))
        total += outer(part, gathered)
    return out, total.view(-1, taps, inner).permute(1, 2, 0)


def product_select(source: Tensor, slot: Tensor, weight: Tensor) -> Tensor:
    """`source[slot // K] @ weight[slot % K]` for every slot.

    Args:
        source: S x A.
        slot: T int64, ascending.
        weight: K x A x B.

    Returns:
        T x B.
    """
    taps, inner, width = weight.shape
    rows = _block_rows(source, taps * width)
    prepared = Weight(weight.permute(1, 0, 2).reshape(inner, taps * width), rows)
    out = source.new_empty((slot.shape[0], width))
    starts = torch.arange(0, source.shape[0] + rows, rows, device=slot.device)
    bounds = torch.searchsorted(slot, starts * taps).tolist()
    for block, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        part = source[block * rows : (block + 1) * rows]
        if part.shape[0] < rows:
            part = torch.nn.functional.pad(part, (0, 0, 0, rows - part.shape[0]))
        every = prepared.product(part).view(rows * taps, width)
        torch.index_select(every, 0, slot[first:last] - block * rows * taps, out=out[first:last])
    return out


class _Blocks:
    """Iterate over blocks of target rows: (start, stop, rows x K*A gathered). The buffer is used again for the next block.

    Every block has the same number of rows (the last one is filled with zeros), since oneDNN prepares once per shape.
    """

    def __init__(self, source: Tensor, table: Tensor) -> None:
        self._source = torch.cat([source, source.new_zeros((1, source.shape[1]))])
        self._table = table
        self.rows = min(_block_rows(source, table.shape[1] * source.shape[1]), _next_power_of_two(table.shape[0]))

    def __iter__(self):
        count, taps = self._table.shape
        buffer = self._source.new_empty((self.rows * taps, self._source.shape[1]))
        for start in range(0, count, self.rows):
            rows = self._table[start : start + self.rows]
            stop = start + rows.shape[0]
            if stop - start < self.rows:
                rows = torch.nn.functional.pad(rows, (0, 0, 0, start + self.rows - stop), value=self._source.shape[0] - 1)
            torch.index_select(self._source, 0, rows.reshape(-1), out=buffer)
            yield start, stop, buffer.view(self.rows, -1)


def _block_rows(source: Tensor, width: int) -> int:
    if source.is_cpu:
        return _ROWS_CPU
    return max(_ROWS_CPU, _next_power_of_two(_BUFFER_ELEMENTS_CUDA // max(width, 1)) // 2)


def _next_power_of_two(count: int) -> int:
    return 1 << max(count - 1, 31).bit_length()
