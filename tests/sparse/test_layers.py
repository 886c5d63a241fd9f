"""A convolution with norm, shortcut and ReLU, by every way that computes it."""

import copy

import pytest
import torch
from torch import Tensor

from tests.sparse.clouds import random_cloud
from xmask3d.sparse import (
    BatchNorm,
    Convolution,
    SparseTensor,
    TransposedConvolution,
    normed_convolution,
    sparse_tensor,
)
from xmask3d.sparse.native import kernels

compiled = pytest.mark.skipif(bool(kernels.failure()), reason=kernels.failure())


def layers() -> torch.nn.ModuleList:
    torch.manual_seed(0)
    return torch.nn.ModuleList(
        [Convolution(6, 20), BatchNorm(20), Convolution(20, 20), BatchNorm(20), Convolution(6, 20, 1), BatchNorm(20)]
    )


def block(parts: torch.nn.ModuleList, x: SparseTensor) -> SparseTensor:
    out = normed_convolution(parts[0], parts[1], x)
    shortcut = normed_convolution(parts[4], parts[5], x, relu=False)
    return normed_convolution(parts[2], parts[3], out, shortcut=shortcut)


def plainly(parts: torch.nn.ModuleList, x: SparseTensor) -> Tensor:
    out = parts[1](parts[0](x))
    out = parts[3](parts[2](out.with_features(out.features.relu()))).features
    return (out + parts[5](parts[4](x)).features).relu()


def run(backend: str, training: bool, fused: bool = True) -> list[Tensor]:
    parts = layers().train(training)
    cloud = random_cloud(400, extent=8)
    features = torch.randn(400, 6, generator=torch.Generator().manual_seed(1)).requires_grad_(training)
    x = sparse_tensor(cloud, features, backend)
    with torch.set_grad_enabled(training):
        out = block(parts, x).features if fused else plainly(parts, x)
    assert out.dtype == torch.float32
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    leaves = [features, *parts.parameters()]
    gradients = torch.autograd.grad((out * weights).sum(), leaves) if training else ()
    return [out, *gradients, *(buffer.float() for buffer in parts.buffers())]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=compiled)])
def test_a_block_is_its_layers_one_after_the_other(backend: str, training: bool) -> None:
    for ours, expected in zip(run(backend, training), run("torch", training, fused=False), strict=True):
        assert (ours - expected).norm() <= 1e-5 * expected.norm()


def test_a_frozen_norm_passes_gradients() -> None:
    parts = layers().eval()
    features = torch.randn(400, 6, requires_grad=True)
    x = sparse_tensor(random_cloud(400, extent=8), features)
    ours = torch.autograd.grad(block(parts, x).features.square().sum(), features)[0]
    expected = torch.autograd.grad(plainly(parts, x).square().sum(), features)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
    assert ours.abs().sum() > 0


def test_norms_without_running_statistics_take_the_plain_way() -> None:
    parts = layers()
    for index in (1, 3, 5):
        parts[index].bn = torch.nn.BatchNorm1d(20, track_running_stats=False)
    x = sparse_tensor(random_cloud(400, extent=8), torch.randn(400, 6))
    torch.testing.assert_close(block(parts, x).features, plainly(copy.deepcopy(parts), x), rtol=1e-4, atol=1e-4)


def test_levels_change_on_the_way() -> None:
    torch.manual_seed(0)
    x = sparse_tensor(random_cloud(400, extent=8), torch.randn(400, 6))
    down, up = Convolution(6, 9, 2, 2), TransposedConvolution(9, 5)
    coarse = normed_convolution(down, BatchNorm(9), x)
    fine = normed_convolution(up, BatchNorm(5), coarse)
    assert (coarse.stride, fine.stride) == (2, 1)
    expected = BatchNorm(9)(down(x)).features.relu()
    torch.testing.assert_close(coarse.features, expected, rtol=1e-4, atol=1e-4)
    assert fine.features.shape == (400, 5)
