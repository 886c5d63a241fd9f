"""Voxels in the order of space-filling curves, and windows of neighbours on them (arXiv 2312.10035, section 4.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

# Bits of a coordinate on a curve. The other bits of a key number the sample.
DEPTH = 16
CURVES = ("z", "z-trans", "hilbert", "hilbert-trans")
"""Names of the curves; one along "trans" has x and y exchanged."""


class Windows(NamedTuple):
    """Windows of L consecutive voxels of one sample along a curve.

    Attributes:
        rows: W x L int64, the voxels of each window; a short window repeats its last one.
        valid: W x L bool, false for those repetitions; None where there are none.
        place: V int64, each voxel's place among the W * L.
    """

    rows: Tensor
    valid: Tensor | None
    place: Tensor


def z_key(cells: Tensor) -> Tensor:
    """Interleave the bits of V x 3 coordinates, x leading: V int64."""
    x, y, z = (_spread_bits(cells[:, axis]) for axis in range(3))
    return x << 2 | y << 1 | z


def hilbert_key(cells: Tensor) -> Tensor:
    """Return the distance of V x 3 coordinates along a Hilbert curve of `DEPTH` levels: V int64.

    By the transposition of Skilling (Programming the Hilbert curve, 2004): from the coarsest bit to the finest, every
    cell undoes the reflection and the exchange of axes of the cube that it lies in.
    """
    axes = [cells[:, axis].clone() for axis in range(3)]
    for level in reversed(range(1, DEPTH)):
        lower = (1 << level) - 1
        for axis in range(3):
            reflect = (axes[axis] >> level & 1).bool()
            exchange = torch.where(reflect, 0, (axes[0] ^ axes[axis]) & lower)
            axes[0] = axes[0] ^ torch.where(reflect, lower, exchange)
            axes[axis] = axes[axis] ^ exchange
    axes[1] = axes[1] ^ axes[0]
    axes[2] = axes[2] ^ axes[1]
    parity = torch.zeros_like(axes[0])
    for level in reversed(range(1, DEPTH)):
        parity = parity ^ (-(axes[2] >> level & 1) & (1 << level) - 1)
    return z_key(torch.stack([axis ^ parity for axis in axes], 1))


def curve_keys(coordinates: Tensor, curve: str) -> Tensor:
    """Return the place of voxels along a curve, sample after sample.

    Args:
        coordinates: V x 4 integer rows (sample, x, y, z), coordinates from 0 and below 2^16.
        curve: one of `CURVES`.

    Returns:
        V int64; `coarser_keys` gives those of the cells of twice the size.
    """
    sample, cells = coordinates[:, 0].long(), coordinates[:, 1:].long()
    kind, _, transposed = curve.partition("-")
    if transposed:
        cells = cells[:, [1, 0, 2]]
    return sample << 3 * DEPTH | (z_key if kind == "z" else hilbert_key)(cells)


def coarser_keys(keys: Tensor) -> Tensor:
    """Return the keys of the cells of twice the size that voxels lie in; of the sample nothing is lost."""
    place = (1 << 3 * DEPTH) - 1
    return (keys & ~place) | (keys & place) >> 3


def cut_windows(keys: Tensor, length: int) -> Windows:
    """Cut the voxels of every sample into windows along a curve.

    The last window of a sample overlaps the one before, so that it is full too; only samples that are smaller than a
    window make short ones.

    Args:
        keys: V int64 of `curve_keys`.
        length: voxels of a window.
    """
    _, order = keys.sort()
    counts = (keys >> 3 * DEPTH).bincount()
    counts = counts[counts > 0]
    starts = counts.cumsum(0) - counts
    windows = (counts + length - 1) // length
    first_window = windows.cumsum(0) - windows
    sample = torch.repeat_interleave(windows)  # of each window
    number = torch.arange(len(sample), device=keys.device) - first_window[sample]
    first = starts[sample] + torch.minimum(number * length, (counts[sample] - length).clamp(min=0))
    size = int(counts.max().clamp(max=length)) if len(counts) else 1
    step = torch.arange(size, device=keys.device)
    ranks = first[:, None] + torch.minimum(step, counts[sample, None] - 1)
    of_rank = torch.repeat_interleave(counts)  # sample of each voxel in order
    rank = torch.arange(len(keys), device=keys.device)
    window = first_window[of_rank] + (rank - starts[of_rank]) // length
    place = torch.empty_like(order)
    place[order] = window * size + rank - first[window]
    valid = step < counts[sample, None]
    return Windows(order[ranks], None if valid.all() else valid, place)


def _spread_bits(values: Tensor) -> Tensor:
    """Put two zero bits between the bits of non-negative integers below 2^16."""
    values = (values | values << 16) & 0x0000FF0000FF
    values = (values | values << 8) & 0x00F00F00F00F
    values = (values | values << 4) & 0x0C30C30C30C3
    return (values | values << 2) & 0x249249249249
