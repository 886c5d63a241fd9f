"""The compiled back end gives the results of the plain torch one, layer by layer and for a whole network."""

import pytest
import torch

from tests.sparse.clouds import random_cloud
from xmask3d.errors import UserError
from xmask3d.models.mink_unet import MinkUNet
from xmask3d.sparse import Convolution, TransposedConvolution, coordinate_manager, sparse_tensor
from xmask3d.sparse.backend import TorchCoordinateManager
from xmask3d.sparse.native import kernels
from xmask3d.sparse.native.manager import NativeCoordinateManager

compiled = pytest.mark.skipif(bool(kernels.failure()), reason=kernels.failure())


def outputs_and_gradients(layers: torch.nn.Module, cloud: torch.Tensor, backend: str, low: bool) -> list[torch.Tensor]:
    features = torch.randn(cloud.shape[0], 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        output = layers(sparse_tensor(cloud, features, backend)).features
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output.dtype)
    gradients = torch.autograd.grad((output * weights).sum(), [features, *layers.parameters()])
    return [output, *gradients]


@compiled
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("count", [0, 1, 150, 5000])
def test_every_kind_of_layer_agrees_with_torch(count: int, low: bool) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        Convolution(6, 20, kernel_size=5),
        Convolution(20, 5),
        Convolution(5, 33, kernel_size=1),
        Convolution(33, 17, kernel_size=2, stride=2),
        TransposedConvolution(17, 4),
    )
    cloud = random_cloud(count, extent=8 if count < 1000 else 16)
    results = [outputs_and_gradients(layers, cloud, backend, low) for backend in ("native", "torch")]
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert (one - other).norm() <= (0.02 if low else 2e-6) * other.norm()


@compiled
def test_a_network_agrees_with_double_precision() -> None:
    torch.manual_seed(0)
    cloud = random_cloud(count=2000, extent=24, lowest=-11)
    network = MinkUNet(3, 8, planes=(8,) * 8, layers=(1,) * 8, stem=8)
    features = torch.randn(cloud.shape[0], 3)
    output = network(sparse_tensor(cloud, features, "native"))[1]
    expected = network.double()(sparse_tensor(cloud, features.double(), "native"))[1]
    assert (output - expected).norm() < 1e-5 * expected.norm()


def test_auto_is_native_where_that_works_and_else_torch(monkeypatch) -> None:
    expected = TorchCoordinateManager if kernels.failure() else NativeCoordinateManager
    assert type(coordinate_manager(random_cloud())) is expected
    monkeypatch.setattr(kernels, "failure", lambda: "no C++ compiler found")
    assert type(coordinate_manager(random_cloud())) is TorchCoordinateManager
    with pytest.raises(UserError, match=r"'native' cannot be used here: no C\+\+ compiler found"):
        coordinate_manager(random_cloud(), "native")
