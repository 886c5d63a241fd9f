"""Voxel coordinates of a batch, their coarser levels, and the kernel maps between neighbours.

A level is named by its tensor stride s = 1, 2, 4 ...: coordinates are multiples of s in units of the finest grid.
The rows of every level are in Morton order, so that rows near each other in memory are near each other in space and the
children of a coarse voxel are consecutive.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from xmask3d.errors import UserError

# Margin around the coordinates, so that a neighbour's coordinate never leaves the range of a key.
_MARGIN = 1024
_KEY_BITS = 62
# With more cells per voxel than this, binary search in sorted keys replaces a dense grid of row numbers.
_GRID_CELLS_A_VOXEL = 512
_TABLE_ROWS_AT_ONCE = 16384
# Coarser levels counted together, those of a UNet, since the host would wait for a GPU at each separate count.
_COUNTED_LEVELS = 4
# Source rows between the positions at which a stride map is cut into blocks.
CUT_ROWS = 512


@dataclass(frozen=True)
class KernelMap:
    """Source rows that each target row reads, one per tap.

    Attributes:
        table: T x K int32 source rows; `source_rows` for a tap without a voxel.
        source_rows: number of rows of the source.
    """

    table: Tensor
    source_rows: int


@dataclass(frozen=True)
class StrideMap:
    """Link between a level and the next coarser one.

    Attributes:
        children: T x 8 int32 fine rows of each coarse row (tap = x + 2y + 4z); the number of fine rows stands for no
            child.
        slot: F int64, 8 * coarse row + tap for each fine row, ascending.
    """

    children: Tensor
    slot: Tensor

    @cached_property
    def cuts(self) -> list[int]:
        """First slot of every 512th coarse row, and the number of slots, which are read from the device once."""
        starts = torch.arange(0, self.children.shape[0] + CUT_ROWS, CUT_ROWS, device=self.slot.device)
        return torch.searchsorted(self.slot, starts * 8).tolist()

    @property
    def down(self) -> KernelMap:
        """Map of a strided convolution."""
        return KernelMap(self.children, self.slot.shape[0])


@dataclass(frozen=True)
class _Level:
    coordinates: Tensor  # V x 4 int32
    keys: Tensor  # V int64, ascending: batch, then interleaved bits of (coordinate - origin) / stride


class CoordinateMaps:
    """Coordinates of every level and the kernel maps between them, each built once, at its first use.

    Args:
        coordinates: V x 4 integer rows (batch, x, y, z), no row twice; any sign, batch index from 0.

    Attributes:
        order: V int64, input row of each row of the finest level.
        rank: V int64, row of the finest level for each input row.
        batch_size: the largest batch index plus one.

    Raises:
        UserError: rows are duplicated, a batch index is negative, shape or dtype is wrong, or the extent exceeds 62
            bits.
    """

    def __init__(self, coordinates: Tensor) -> None:
        _check(coordinates)
        wide = coordinates.long()
        lowest, highest = (
            torch.stack([wide.amin(0), wide.amax(0)]).tolist() if wide.shape[0] else ([0] * 4, [-1] + [0] * 3)
        )
        if lowest[0] < 0:
            raise UserError("voxel coordinates: a batch index (column 0) is negative; it counts from 0")
        self.batch_size = highest[0] + 1
        origin = [low // _MARGIN * _MARGIN - _MARGIN for low in lowest[1:]]
        # Coordinates of the finest level, from the origin; those of coarser levels follow by division.
        self._lowest = [low - start for low, start in zip(lowest[1:], origin, strict=True)]
        self._highest = [high - start for high, start in zip(highest[1:], origin, strict=True)]
        self._bits = _bits_an_axis(max(self._highest) + _MARGIN + 1, self.batch_size) if wide.shape[0] else 1
        self._origin = wide.new_tensor(origin)
        keys, self.order = torch.sort(self._keys(wide[:, 0], wide[:, 1:] - self._origin, 1))
        distinct, *self._counts = _count_distinct(keys, _COUNTED_LEVELS)
        if distinct < keys.shape[0]:
            raise UserError("voxel coordinates: the same (batch, x, y, z) row occurs twice; remove duplicates first")
        self.rank = torch.empty_like(self.order)
        self.rank[self.order] = torch.arange(self.order.shape[0], device=self.order.device)
        self._levels = {1: _Level(coordinates[self.order].int(), keys)}
        self._neighbours: dict[tuple[int, int], KernelMap] = {}
        self._strides: dict[int, StrideMap] = {}

    def coordinates(self, stride: int) -> Tensor:
        """Return v x 4 int32 rows (batch, x, y, z) of a level, in units of the finest grid."""
        return self._level(stride).coordinates

    def neighbours(self, stride: int, kernel_size: int) -> KernelMap:
        """Return the map of a submanifold convolution: offsets -r..r per axis in units of the stride, x fastest."""
        key = (stride, kernel_size)
        if key not in self._neighbours:
            self._neighbours[key] = self._find_neighbours(stride, kernel_size)
        return self._neighbours[key]

    def stride_map(self, stride: int) -> StrideMap:
        """Return the link between the levels `stride` and `2 * stride`."""
        self._level(2 * stride)
        return self._strides[stride]

    def _level(self, stride: int) -> _Level:
        if stride not in self._levels:
            if stride < 1 or stride & (stride - 1) or stride > _MARGIN:
                raise ValueError(f"tensor stride {stride} is not a power of two up to {_MARGIN}")
            self._coarsen(stride // 2)
        return self._levels[stride]

    def _coarsen(self, stride: int) -> None:
        """Make the level `2 * stride`. The origin is a multiple of it, so a parent's key is the key without 3 bits."""
        fine = self._level(stride)
        of_parent, fine_rows = fine.keys >> 3, fine.keys.shape[0]
        parent = _is_first(of_parent).cumsum(0) - 1
        level = stride.bit_length()
        rows = self._counts[level - 1] if level <= _COUNTED_LEVELS else _count_distinct(of_parent, 0)[0]
        keys = of_parent.new_empty(rows)
        keys[parent] = of_parent
        slot = parent * 8 + (fine.keys & 7)
        children = torch.full((keys.shape[0] * 8,), fine_rows, dtype=torch.int32, device=keys.device)
        children[slot] = torch.arange(fine_rows, dtype=torch.int32, device=keys.device)
        coordinates = torch.empty((keys.shape[0], 4), dtype=torch.int32, device=keys.device)
        halved = torch.div(fine.coordinates[:, 1:], 2 * stride, rounding_mode="floor") * (2 * stride)
        coordinates[parent] = torch.cat([fine.coordinates[:, :1], halved], 1)
        self._strides[stride] = StrideMap(children.view(-1, 8), slot)
        self._levels[2 * stride] = _Level(coordinates, keys)

    def _find_neighbours(self, stride: int, kernel_size: int) -> KernelMap:
        if kernel_size % 2 == 0 or (kernel_size // 2) * stride > _MARGIN:
            raise ValueError(f"kernel size {kernel_size} at stride {stride} is not odd or too large")
        level = self._level(stride)
        rows = level.keys.shape[0]
        cells = (level.coordinates[:, 1:].long() - self._origin) // stride
        if not rows:
            return KernelMap(level.keys.new_empty((0, kernel_size**3), dtype=torch.int32), 0)
        lowest = [low // stride for low in self._lowest]
        highest = [high // stride for high in self._highest]
        padded = [high - low + kernel_size for low, high in zip(lowest, highest, strict=True)]
        if self.batch_size * padded[0] * padded[1] * padded[2] <= _GRID_CELLS_A_VOXEL * rows:
            radius = kernel_size // 2
            batch = level.coordinates[:, 0].long()
            table = _neighbours_in_grid(
                batch, cells - cells.new_tensor(lowest) + radius, padded, self.batch_size, kernel_size
            )
        else:
            table = self._neighbours_by_search(level, cells, stride, kernel_size)
        return KernelMap(table, rows)

    def _neighbours_by_search(self, level: _Level, cells: Tensor, stride: int, kernel_size: int) -> Tensor:
        rows = level.keys.shape[0]
        table = torch.empty((rows, kernel_size**3), dtype=torch.int32, device=cells.device)
        batch = level.coordinates[:, 0].long()
        centre = kernel_size**3 // 2
        here = torch.arange(rows, dtype=torch.int32, device=cells.device)
        table[:, centre] = here
        for tap, offset in enumerate(kernel_offsets(kernel_size)[:centre].to(cells.device)):
            wanted = self._keys(batch, cells + offset, stride)
            found = torch.searchsorted(level.keys, wanted).clamp_(max=rows - 1)
            hit = level.keys[found] == wanted
            table[:, tap] = torch.where(hit, found, rows).int()
            # Neighbourhood is mutual: seen from the voxel found, this voxel lies at the opposite tap.
            opposite = torch.full((rows,), rows, dtype=torch.int32, device=cells.device)
            opposite[found[hit]] = here[hit]
            table[:, kernel_size**3 - 1 - tap] = opposite
        return table

    def _bits_at(self, stride: int) -> int:
        return self._bits - (stride.bit_length() - 1)

    def _keys(self, batch: Tensor, cells: Tensor, stride: int) -> Tensor:
        x, y, z = (_spread_bits(cells[:, axis]) for axis in range(3))
        return (batch << 3 * self._bits_at(stride)) | x | (y << 1) | (z << 2)


def kernel_offsets(kernel_size: int) -> Tensor:
    """Return K^3 x 3 int64 offsets of a kernel's taps, x fastest: centred for odd sizes, from 0 for even ones."""
    start = -(kernel_size // 2) if kernel_size % 2 else 0
    line = torch.arange(start, start + kernel_size)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack([x, y, z], -1).reshape(-1, 3)


def _neighbours_in_grid(batch: Tensor, cells: Tensor, extent: list[int], batch_size: int, kernel_size: int) -> Tensor:
    """Look up every tap in a dense grid of row numbers; `cells` keep the kernel's radius away from the border."""
    rows = cells.shape[0]
    places = ((batch * extent[0] + cells[:, 0]) * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    cell_count = batch_size * extent[0] * extent[1] * extent[2]
    grid = torch.full((cell_count,), rows, dtype=torch.int32, device=cells.device)
    grid[places] = torch.arange(rows, dtype=torch.int32, device=cells.device)
    offsets = kernel_offsets(kernel_size).to(cells.device)
    steps = (offsets[:, 0] * extent[1] + offsets[:, 1]) * extent[2] + offsets[:, 2]
    table = torch.empty((rows, kernel_size**3), dtype=torch.int32, device=cells.device)
    for start in range(0, rows, _TABLE_ROWS_AT_ONCE):
        block = places[start : start + _TABLE_ROWS_AT_ONCE, None] + steps
        table[start : start + _TABLE_ROWS_AT_ONCE] = grid.index_select(0, block.view(-1)).view(block.shape)
    return table


def _spread_bits(values: Tensor) -> Tensor:
    """Insert two zero bits between the bits of non-negative integers below 2^21."""
    values = (values | values << 32) & 0x1F00000000FFFF
    values = (values | values << 16) & 0x1F0000FF0000FF
    values = (values | values << 8) & 0x100F00F00F00F00F
    values = (values | values << 4) & 0x10C30C30C30C30C3
    return (values | values << 2) & 0x1249249249249249


def _check(coordinates: Tensor) -> None:
    if coordinates.ndim != 2 or coordinates.shape[1] != 4:
        raise UserError(f"voxel coordinates: expected V x 4 rows (batch, x, y, z), got {tuple(coordinates.shape)}")
    if coordinates.dtype not in (torch.int32, torch.int64):
        raise UserError(f"voxel coordinates: expected int32 or int64, got {coordinates.dtype}; round them first")


def _bits_an_axis(extent: int, samples: int) -> int:
    """Return the number of bits per axis for coordinates and their neighbours; the batch index has the other bits."""
    bits = extent.bit_length()
    if bits > 20 or 3 * bits + (samples - 1).bit_length() > _KEY_BITS:
        raise UserError(
            f"voxel coordinates: an extent of {extent} voxels with {samples} samples is too "
            "large; use larger voxels, fewer samples or drop stray points"
        )
    return bits


def _is_first(keys: Tensor) -> Tensor:
    """Mark the first of each run of equal keys: V bool."""
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    return first


def _count_distinct(keys: Tensor, levels: int) -> list[int]:
    """Count distinct ascending keys of a level and its coarser levels, in a single transfer from the device."""
    return torch.stack([_is_first(keys >> 3 * level).sum() for level in range(levels + 1)]).tolist()
