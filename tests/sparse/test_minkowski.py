"""The optional back end gives the default's numbers where it is installed, and a clear word where it is not."""

import importlib.util

import pytest
import torch

from tests.sparse.clouds import random_cloud
from xmask3d.errors import UserError
from xmask3d.models.mink_unet import MinkUNet
from xmask3d.sparse import sparse_tensor

installed = importlib.util.find_spec("MinkowskiEngine") is not None


@pytest.mark.skipif(installed, reason="MinkowskiEngine is installed")
def test_missing_engine_names_the_way_to_get_it() -> None:
    with pytest.raises(UserError, match=r"scripts/install_minkowski\.sh"):
        sparse_tensor(random_cloud(), torch.ones(150, 1), backend="minkowski")


@pytest.mark.skipif(not installed, reason="MinkowskiEngine is not installed (scripts/install_minkowski.sh)")
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_engine_and_default_agree(mode: bool) -> None:
    torch.manual_seed(0)
    cloud = random_cloud(count=2000, extent=24, lowest=-11)
    network = MinkUNet(3, 8, planes=(8,) * 8, layers=(1,) * 8, stem=8).double().train(mode)
    features = torch.randn(cloud.shape[0], 3, dtype=torch.float64)
    results = []
    for backend in ("torch", "minkowski"):
        rows = features.clone().requires_grad_()
        network.zero_grad()
        bottleneck, output = network(sparse_tensor(cloud, rows, backend))
        (output**2).sum().backward()
        order = {tuple(row): index for index, row in enumerate(bottleneck.coordinates.tolist())}
        rows_of = [order[key] for key in sorted(order)]
        gradients = [parameter.grad.clone() for parameter in network.parameters()]
        results.append([output, bottleneck.features[rows_of], rows.grad, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))
