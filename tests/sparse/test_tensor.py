import pytest
import torch

from tests.sparse.clouds import random_cloud
from xmask3d.errors import UserError
from xmask3d.sparse import BatchNorm, Convolution, concatenate, max_pool_samples, sparse_tensor


def test_features_come_back_in_the_order_given() -> None:
    cloud = random_cloud()
    features = torch.arange(cloud.shape[0], dtype=torch.float32)[:, None]
    x = sparse_tensor(cloud, features)
    assert torch.equal(x.features_as_given(), features)
    assert torch.equal(x.coordinates, cloud[x.features[:, 0].long()])
    assert x.batch_size == 2


def test_only_the_finest_level_has_an_order_given() -> None:
    cloud = random_cloud()
    coarse = Convolution(1, 1, kernel_size=2, stride=2)(sparse_tensor(cloud, torch.ones(cloud.shape[0], 1)))
    with pytest.raises(ValueError, match="stride 2"):
        coarse.features_as_given()


def test_features_must_fit_coordinates() -> None:
    with pytest.raises(UserError, match="do not fit"):
        sparse_tensor(random_cloud(), torch.ones(3, 1))


def test_unknown_back_end_is_refused() -> None:
    with pytest.raises(UserError, match="unknown"):
        sparse_tensor(random_cloud(), torch.ones(150, 1), backend="torchsparse")


def test_concatenate_joins_channels_of_the_same_voxels() -> None:
    x = sparse_tensor(random_cloud(), torch.randn(150, 2))
    other = x.with_features(torch.randn(150, 3))
    joined = concatenate(x, other)
    assert torch.equal(joined.features[:, :2], x.features)
    assert torch.equal(joined.features[:, 2:], other.features)
    with pytest.raises(ValueError, match="different voxels"):
        concatenate(x, sparse_tensor(random_cloud(), torch.randn(150, 2)))


def test_max_pool_takes_each_sample_alone() -> None:
    features = torch.tensor([[-1.0, 5.0], [-3.0, 7.0], [-2.0, -8.0]], requires_grad=True)
    pooled = max_pool_samples(features, torch.tensor([0, 0, 2], dtype=torch.int32), 4)
    assert pooled.tolist() == [[-1.0, 7.0], [0.0, 0.0], [-2.0, -8.0], [0.0, 0.0]]
    pooled.sum().backward()
    assert features.grad.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def test_batch_norm_acts_on_all_voxels() -> None:
    x = sparse_tensor(random_cloud(), torch.randn(150, 4) * 3 + 1)
    norm = BatchNorm(4)
    normed = norm(x).features
    torch.testing.assert_close(normed.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm.bn.running_mean, 0.1 * x.features.mean(0))
    torch.testing.assert_close(norm.bn.running_var, 0.9 + 0.1 * x.features.var(0))
