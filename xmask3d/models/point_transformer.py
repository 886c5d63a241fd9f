"""Point transformer: attention among neighbours on space-filling curves, another `PointNetwork` than the MinkUNet.

Written from Point Transformer V3: Simpler, Faster, Stronger (Wu et al., CVPR 2024, arXiv 2312.10035). Tensors have the
names and the sizes of its published weights, which `loading/pointcept_weights.py` reads.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from xmask3d.errors import UserError
from xmask3d.models.serialisation import CURVES, DEPTH, Windows, coarser_keys, curve_keys, cut_windows
from xmask3d.sparse import Convolution, SparseTensor, Voxels, max_pool_samples


class PositionConvolution(Convolution):
    """Submanifold convolution of 3x3x3 with a bias: the conditional position encoding."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        y = super().forward(x)
        return y.with_features(y.features + self.bias)


class WindowAttention(nn.Module):
    """Self-attention within windows of voxels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Map V x C to V x C."""
        packed = self.qkv(x).index_select(0, windows.rows.flatten()).unflatten(0, windows.rows.shape)
        query, key, value = packed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # W x heads x L x C/heads
        mask = None if windows.valid is None else windows.valid[:, None, None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(attended.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, windows.place))


class TransformerBlock(nn.Module):
    """Position encoding, attention within windows and a perceptron, each beside a shortcut."""

    def __init__(self, channels: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.cpe = nn.ModuleList([PositionConvolution(channels), nn.Linear(channels, channels), nn.LayerNorm(channels)])
        self.norm1 = nn.Sequential(nn.LayerNorm(channels))
        self.attn = WindowAttention(channels, heads)
        self.norm2 = nn.Sequential(nn.LayerNorm(channels))
        layers = OrderedDict(
            fc1=nn.Linear(channels, 4 * channels), act=nn.GELU(), fc2=nn.Linear(4 * channels, channels)
        )
        self.mlp = nn.Sequential(nn.Sequential(layers))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: SparseTensor, windows: Windows) -> SparseTensor:
        convolve, project, norm = self.cpe
        features = x.features + norm(project(convolve(x).features))
        features = features + self.drop_path(self.attn(self.norm1(features), windows))
        return x.with_features(features + self.drop_path(self.mlp(self.norm2(features))))


class GridPooling(nn.Module):
    """Largest value of every projected channel over the voxels of a cell of twice the size."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, channels)
        self.norm = nn.Sequential(_batch_norm(channels), nn.GELU())

    def forward(self, x: Tensor, parent: Tensor, cells: int) -> Tensor:
        """Map V x in to cells x out; `parent`: V int64, the cell of each voxel."""
        return self.norm(max_pool_samples(self.proj(x), parent, cells))


class GridUnpooling(nn.Module):
    """Sum of a voxel's own projected features and those of its cell."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(in_channels, channels), _batch_norm(channels), nn.GELU())
        self.proj_skip = nn.Sequential(nn.Linear(skip_channels, channels), _batch_norm(channels), nn.GELU())

    def forward(self, x: Tensor, skip: Tensor, parent: Tensor) -> Tensor:
        """Map cells x in, and V x skip of the finer level, to V x out; `parent`: V int64."""
        return self.proj(x).index_select(0, parent) + self.proj_skip(skip)


class Level:
    """Voxels of one size on the curves.

    Attributes:
        x: features of the voxels.
        keys: curves x V int64, place of each voxel along each curve.
    """

    def __init__(self, x: SparseTensor, keys: Tensor, length: int) -> None:
        self.x, self.keys, self._length = x, keys, length
        self._windows: dict[int, Windows] = {}

    def windows(self, curve: int) -> Windows:
        """Return the windows along a curve, made once."""
        if curve not in self._windows:
            self._windows[curve] = cut_windows(self.keys[curve], self._length)
        return self._windows[curve]


class PointTransformer(nn.Module):
    """Point transformer of five levels, tensor strides 1 to 16; the sizes by default are those of the paper.

    A `PointNetwork`: its global feature is the largest value of each projected channel over a sample's coarsest
    voxels. The blocks of a level take the curves in turn; in training they begin at random, at each level anew.

    Args:
        dim: D, width of text embeddings.
        in_channels: channels of the voxels, colours.
        channels, depths, heads: channels, blocks and attention heads of each level, finest first.
        decoder_channels, decoder_depths, decoder_heads: the same of the way up, finest first; all but the coarsest.
        window: voxels of a window.
        curves: names of `serialisation.CURVES`.
        drop_path: probability that the last block of the way down drops a voxel's update in training; linear from 0.
        weights: published checkpoint (.pth) or safetensors file to begin with; null for random numbers. A trained
            checkpoint replaces them, but the file is read whenever the network is built.
    """

    def __init__(
        self,
        dim: int,
        *,
        in_channels: int = 3,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 8, 16, 32),
        decoder_channels: Sequence[int] = (64, 64, 128, 256),
        decoder_depths: Sequence[int] = (2, 2, 2, 2),
        decoder_heads: Sequence[int] = (4, 4, 8, 16),
        window: int = 1024,
        curves: Sequence[str] = CURVES,
        drop_path: float = 0.3,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(channels, depths, heads, decoder_channels, decoder_depths, decoder_heads, curves)
        self.window, self.curves = window, tuple(curves)
        self.deepest = 2 ** (len(channels) - 1)
        stem = {"conv": Convolution(in_channels, channels[0], kernel_size=5), "norm": _batch_norm(channels[0])}
        self.embedding = nn.ModuleDict({"stem": nn.ModuleDict(stem)})
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        for level, width in enumerate(channels):
            stage = nn.ModuleDict()
            if level:
                stage["down"] = GridPooling(channels[level - 1], width)
            first = sum(depths[:level])
            self.enc[f"enc{level}"] = _add_blocks(stage, width, heads[level], rates[first : first + depths[level]])
        rates = torch.linspace(0, drop_path, sum(decoder_depths), device="cpu").tolist()
        wide = [*decoder_channels, channels[-1]]
        for level in reversed(range(len(decoder_channels))):
            stage = nn.ModuleDict({"up": GridUnpooling(wide[level + 1], channels[level], wide[level])})
            first = sum(decoder_depths[:level])
            some = rates[first : first + decoder_depths[level]][::-1]
            self.dec[f"dec{level}"] = _add_blocks(stage, wide[level], decoder_heads[level], some)
        self.global_projection = nn.Linear(channels[-1], dim)
        self.point_projection = nn.Linear(wide[0], dim)
        if weights is not None:
            from xmask3d.models.loading.pointcept_weights import load_point_transformer

            load_point_transformer(self, weights)

    def forward(self, voxels: Voxels) -> tuple[Tensor, Tensor]:
        """Encode a batch, as a `PointNetwork` does: B x D global features, V x D voxel features."""
        level = self._finest(voxels.sparse)
        levels, parents = [], []
        for number, stage in enumerate(self.enc.values()):
            blocks = cast(nn.ModuleDict, stage)
            if number:
                parent, level = self._coarsen(level, cast(GridPooling, blocks["down"]))
                parents.append(parent)
            self._run(level, blocks)
            levels.append(level)
        coarse = levels.pop().x
        conditions = self.global_projection(coarse.features)
        pooled = max_pool_samples(conditions, coarse.coordinates[:, 0], voxels.batch_size)
        x = coarse.features
        for stage in self.dec.values():
            blocks, level = cast(nn.ModuleDict, stage), levels.pop()
            x = cast(GridUnpooling, blocks["up"])(x, level.x.features, parents.pop())
            level.x = level.x.with_features(x)
            self._run(level, blocks)
            x = level.x.features
        return pooled, self.point_projection(level.x.features_as_given())

    def _finest(self, x: SparseTensor) -> Level:
        """Embed the voxels, and find their places on the curves."""
        stem = cast(nn.ModuleDict, self.embedding["stem"])
        x = stem["conv"](x)
        x = x.with_features(F.gelu(stem["norm"](x.features)))
        cells = self._cells(x.coordinates, 1, x.batch_size)
        if len(cells) and int(cells[:, 1:].max()) >> DEPTH:
            raise UserError(
                f"point transformer: a view spans more than {1 << DEPTH} voxels; use larger voxels or drop stray points"
            )
        return Level(x, torch.stack([curve_keys(cells, curve) for curve in self.curves]), self.window)

    def _cells(self, coordinates: Tensor, stride: int, samples: int) -> Tensor:
        """Count a level's cells from a corner of each sample at which whole cells of every level begin: V x 4."""
        sample, places = coordinates[:, :1].long(), coordinates[:, 1:].long()
        corner = places.new_zeros(samples, 3)
        corner = corner.scatter_reduce(0, sample.expand_as(places), places, "amin", include_self=False)
        corner = corner.div(self.deepest, rounding_mode="floor") * self.deepest
        return torch.cat([sample, (places - corner[sample[:, 0]]) // stride], 1)

    def _coarsen(self, fine: Level, pooling: GridPooling) -> tuple[Tensor, Level]:
        """Return the cell of each voxel, V int64, and the level of the cells."""
        x, stride = fine.x, 2 * fine.x.stride
        coordinates = x.manager.coordinates(stride)
        keys, order = curve_keys(self._cells(coordinates, stride, x.batch_size), "z").sort()
        below = curve_keys(self._cells(x.coordinates, x.stride, x.batch_size), "z")
        parent = order[torch.searchsorted(keys, coarser_keys(below))]
        along = fine.keys.new_empty(len(self.curves), len(keys))
        along[:, parent] = coarser_keys(fine.keys)
        features = pooling(x.features, parent, len(keys))
        return parent, Level(SparseTensor(features, stride, x.manager), along, self.window)

    def _run(self, level: Level, stage: nn.ModuleDict) -> None:
        """Run the blocks of a level, each along another curve."""
        count = len(self.curves)
        turn = torch.randperm(count, device="cpu").tolist() if self.training else range(count)
        blocks = [block for name, block in stage.items() if name.startswith("block")]
        for number, block in enumerate(blocks):
            level.x = block(level.x, level.windows(turn[number % count]))


def _add_blocks(stage: nn.ModuleDict, channels: int, heads: int, drop_path: Sequence[float]) -> nn.ModuleDict:
    for number, rate in enumerate(drop_path):
        stage[f"block{number}"] = TransformerBlock(channels, heads, rate)
    return stage


def _batch_norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)


def _check_sizes(
    channels: Sequence[int], depths: Sequence[int], heads: Sequence[int], up_channels: Sequence[int],
    up_depths: Sequence[int], up_heads: Sequence[int], curves: Sequence[str],
) -> None:  # fmt: skip
    """Raise `UserError` unless the sizes of `PointTransformer` fit each other."""
    levels = len(channels)
    if {len(depths), len(heads)} != {levels} or {len(up_channels), len(up_depths), len(up_heads)} != {levels - 1}:
        raise UserError(f"point transformer: sizes of {levels} levels down and {levels - 1} up are needed")
    pairs = [*zip(channels, heads, strict=True), *zip(up_channels, up_heads, strict=True)]
    if odd := next((pair for pair in pairs if pair[0] % pair[1]), None):
        raise UserError(f"point transformer: {odd[0]} channels do not divide by {odd[1]} heads")
    if not curves or set(curves) - set(CURVES):
        raise UserError(f"point transformer: curves {list(curves)}; known: {', '.join(CURVES)}")
