import pytest
import torch
from torch.nn import functional

from tests.sparse.clouds import at_voxels, dense_kernel, random_cloud, to_dense
from xmask3d.sparse import (
    Convolution,
    TransposedConvolution,
    coordinate_manager,
    gather,
    sparse_tensor,
    tensor,
)
from xmask3d.sparse.native.kernels import failure

LOWEST, EXTENT = -8, 16  # multiples of every stride, around all clouds


@pytest.fixture(autouse=True, params=["torch, one block", "torch, many blocks", "native"])
def backend(request, monkeypatch) -> None:
    """Run every test on each back end. The native one leaves float64 to torch."""
    name, _, blocks = request.param.partition(", ")
    if name == "native" and failure():
        pytest.skip(failure())
    monkeypatch.setattr(gather, "_ROWS_CPU", 512 if blocks == "one block" else 32)
    monkeypatch.setattr(tensor, "coordinate_manager", lambda coordinates, *_: coordinate_manager(coordinates, name))


def random_rows(count: int, channels: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both_gradients(output: torch.Tensor, inputs: list[torch.Tensor], seed: int = 5) -> list[torch.Tensor]:
    weights = random_rows(*output.shape, output.dtype, seed)
    return list(torch.autograd.grad((output * weights).sum(), inputs))


def assert_same(actual: list[torch.Tensor], expected: list[torch.Tensor], dtype: torch.dtype) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kernel_size", "channels"), [(3, (8, 12)), (3, (16, 4)), (5, (3, 8)), (1, (8, 12)), (3, (100, 1)), (3, (5, 96))]
)
def test_submanifold_equals_dense(kernel_size: int, channels: tuple[int, int], dtype: torch.dtype) -> None:
    cloud = random_cloud()
    features = random_rows(cloud.shape[0], channels[0], dtype, 1).requires_grad_()
    layer = Convolution(*channels, kernel_size=kernel_size).to(dtype)
    output = layer(sparse_tensor(cloud, features)).features_as_given()

    kernel = layer.kernel if kernel_size > 1 else layer.kernel[None]
    dense = functional.conv3d(to_dense(cloud, features, LOWEST, EXTENT), dense_kernel(kernel), padding=kernel_size // 2)
    expected = at_voxels(dense, cloud, LOWEST)
    inputs = [features, layer.kernel]
    assert_same([output, *both_gradients(output, inputs)], [expected, *both_gradients(expected, inputs)], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strided_equals_dense(dtype: torch.dtype) -> None:
    cloud = random_cloud()
    features = random_rows(cloud.shape[0], 6, dtype, 1).requires_grad_()
    layer = Convolution(6, 10, kernel_size=2, stride=2).to(dtype)
    result = layer(sparse_tensor(cloud, features))
    assert result.stride == 2

    dense = functional.conv3d(to_dense(cloud, features, LOWEST, EXTENT), dense_kernel(layer.kernel), stride=2)
    expected = at_voxels(dense, result.coordinates, LOWEST, stride=2)
    inputs = [features, layer.kernel]
    output = result.features
    assert_same([output, *both_gradients(output, inputs)], [expected, *both_gradients(expected, inputs)], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transposed_equals_dense(dtype: torch.dtype) -> None:
    cloud = random_cloud()
    start = sparse_tensor(cloud, random_rows(cloud.shape[0], 1, dtype, 1))
    coarse = Convolution(1, 6, kernel_size=2, stride=2).to(dtype)(start)
    coarse = coarse.with_features(coarse.features.detach().requires_grad_())
    layer = TransposedConvolution(6, 10).to(dtype)
    result = layer(coarse)
    assert result.stride == 1

    spread = to_dense(coarse.coordinates, coarse.features, LOWEST, EXTENT // 2, stride=2)
    kernel = dense_kernel(layer.kernel).transpose(0, 1)
    expected = at_voxels(functional.conv_transpose3d(spread, kernel, stride=2), cloud, LOWEST)
    inputs = [coarse.features, layer.kernel]
    output = result.features_as_given()
    assert_same([output, *both_gradients(output, inputs)], [expected, *both_gradients(expected, inputs)], dtype)


def test_two_levels_down_and_up_equal_dense() -> None:
    cloud = random_cloud(count=60, extent=12, lowest=-7)
    features = random_rows(cloud.shape[0], 3, torch.float64, 1)
    down = [Convolution(3, 3, kernel_size=2, stride=2).double() for _ in range(2)]
    result = down[1](down[0](sparse_tensor(cloud, features)))
    dense = to_dense(cloud, features, LOWEST, EXTENT)
    for layer in down:
        dense = functional.conv3d(dense, dense_kernel(layer.kernel), stride=2)
    torch.testing.assert_close(result.features, at_voxels(dense, result.coordinates, LOWEST, stride=4))


@pytest.mark.parametrize("missing", ["features", "kernel"])
@pytest.mark.parametrize("make", [lambda: Convolution(4, 3), lambda: Convolution(4, 3, kernel_size=2, stride=2)])
def test_a_gradient_nobody_needs_changes_nothing_of_the_other(make, missing: str) -> None:
    cloud = random_cloud(count=40)
    layer = make().double()
    features = random_rows(40, 4, torch.float64, 1).requires_grad_()
    output = layer(sparse_tensor(cloud, features)).features
    wanted = {"features": layer.kernel, "kernel": features}[missing]
    expected = both_gradients(output, [wanted])
    (features if missing == "features" else layer.kernel).requires_grad_(False)
    assert_same(both_gradients(layer(sparse_tensor(cloud, features)).features, [wanted]), expected, torch.float64)


def test_gradcheck() -> None:
    cloud = random_cloud(count=8, extent=3)
    features = random_rows(8, 2, torch.float64, 1).requires_grad_()
    layers = torch.nn.Sequential(
        Convolution(2, 3), Convolution(3, 2, kernel_size=2, stride=2), TransposedConvolution(2, 1)
    ).double()

    def run(rows: torch.Tensor, *kernels: torch.Tensor) -> torch.Tensor:
        names = dict(zip((name for name, _ in layers.named_parameters()), kernels, strict=True))
        return torch.func.functional_call(layers, names, sparse_tensor(cloud, rows)).features

    kernels = [kernel.detach().clone().requires_grad_() for kernel in layers.parameters()]
    assert torch.autograd.gradcheck(run, (features, *kernels))


@pytest.mark.parametrize(("size", "tap", "offset"), [(3, 0, (-1, -1, -1)), (3, 1, (0, -1, -1)), (5, 64, (2, 0, 0))])
def test_an_impulse_meets_the_weight_of_its_offset(size: int, tap: int, offset: tuple[int, int, int]) -> None:
    centre = torch.tensor([0, 3, -2, 5])
    cloud = torch.stack([centre, centre + torch.tensor([0, *offset])]).int()
    features = torch.tensor([[0.0], [1.0]])
    layer = Convolution(1, 1, kernel_size=size)
    output = layer(sparse_tensor(cloud, features)).features_as_given()
    torch.testing.assert_close(output[0, 0], layer.kernel[tap, 0, 0])


@pytest.mark.parametrize(("tap", "offset"), [(1, (1, 0, 0)), (2, (0, 1, 0)), (4, (0, 0, 1)), (7, (1, 1, 1))])
def test_an_impulse_goes_down_and_up_by_its_place_in_the_cube(tap: int, offset: tuple[int, int, int]) -> None:
    cloud = (torch.tensor([[0, -4, 6, -2]]) + torch.tensor([[0, *offset]])).int()
    down, up = Convolution(1, 1, kernel_size=2, stride=2), TransposedConvolution(1, 1)
    coarse = down(sparse_tensor(cloud, torch.ones(1, 1)))
    assert coarse.coordinates.tolist() == [[0, -4, 6, -2]]
    torch.testing.assert_close(coarse.features, down.kernel[tap])
    torch.testing.assert_close(up(coarse).features, down.kernel[tap] * up.kernel[tap])


def test_order_of_rows_does_not_matter_and_results_repeat() -> None:
    cloud = random_cloud()
    features = random_rows(cloud.shape[0], 4, torch.float32, 1)
    layer = Convolution(4, 8)
    order = torch.randperm(cloud.shape[0], generator=torch.Generator().manual_seed(2))
    output = layer(sparse_tensor(cloud, features)).features_as_given()
    assert torch.equal(layer(sparse_tensor(cloud[order], features[order])).features_as_given(), output[order])
    assert torch.equal(layer(sparse_tensor(cloud, features)).features_as_given(), output)


@pytest.mark.parametrize(
    "layer", [Convolution(16, 16), Convolution(16, 16, kernel_size=2, stride=2)], ids=["submanifold", "strided"]
)
def test_autocast_computes_in_bfloat16_near_float32(layer: Convolution) -> None:
    cloud = random_cloud()
    features = random_rows(cloud.shape[0], 16, torch.float32, 1).requires_grad_()
    exact = layer(sparse_tensor(cloud, features)).features
    exact_gradients = both_gradients(exact, [features, layer.kernel])
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(sparse_tensor(cloud, features)).features
    assert output.dtype == torch.bfloat16
    gradients = both_gradients(output.float(), [features, layer.kernel])
    assert gradients[1].dtype == torch.float32
    for one, other in zip([output.float(), *gradients], [exact, *exact_gradients], strict=True):
        assert 0 < (one - other).norm() / other.norm() < 0.01


@pytest.mark.parametrize("arguments", [(4, 2, 1), (3, 3, 2)])
def test_other_kernels_are_refused(arguments: tuple[int, int, int]) -> None:
    size, _, stride = arguments
    with pytest.raises(ValueError, match="no convolution"):
        Convolution(2, 2, kernel_size=size, stride=stride)
