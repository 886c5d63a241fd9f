import numpy as np
import pytest
import torch

from tests.helpers.golden import load_case
from tests.parity.filler import fill_module
from tests.sparse.clouds import random_cloud
from xmask3d.models.mink_unet import BinaryHead, MinkUNet, PointEncoder
from xmask3d.sparse import SparseTensor, Voxels, sparse_tensor

NETWORKS = {"MinkUNet34C": MinkUNet.unet34c, "MinkUNet18A": MinkUNet.unet18a}
# Single parameters' gradients in training mode differ between correct float32 programs (ReLU and batch norm).
OUTPUT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
GRADIENT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}


def relative_error(actual: torch.Tensor, expected: np.ndarray) -> float:
    difference = actual.detach().double().numpy() - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def batch(inputs: dict[str, np.ndarray], dtype: torch.dtype) -> tuple[SparseTensor, torch.Tensor]:
    features = torch.from_numpy(inputs["feats"]).to(dtype).requires_grad_()
    return sparse_tensor(torch.from_numpy(inputs["coords"]), features), features


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_published_networks_give_the_recorded_numbers(name: str, mode: str, dtype: torch.dtype) -> None:
    inputs, outputs = load_case(f"a_{name}")
    recorded = {key.removeprefix(f"{mode}/"): value for key, value in outputs.items() if key.startswith(f"{mode}/")}
    network = NETWORKS[name]()
    fill_module(network, f"{name}.")
    network.to(dtype).train(mode == "train")
    x, features = batch(inputs, dtype)
    bottleneck, out = network(x)
    loss = 0.5 * (out**2).mean() + (out @ torch.from_numpy(inputs["loss_w"]).to(dtype)).mean()
    loss.backward()

    rows = {tuple(row): index for index, row in enumerate(bottleneck.coordinates.tolist())}
    recorded_rows = [rows[tuple(row)] for row in recorded["bottleneck_coords"].tolist()]
    tolerance = OUTPUT_TOLERANCE[dtype]
    assert loss.item() == pytest.approx(recorded["loss"].item(), rel=tolerance)
    assert bottleneck.stride == 16
    assert relative_error(bottleneck.features[recorded_rows], recorded["bottleneck"]) < tolerance
    assert relative_error(out[recorded["out_rows"]], recorded["out_sub"]) < tolerance
    assert relative_error(out.sum(1), recorded["out_rowsum"]) < tolerance
    assert relative_error(out.norm(dim=1), recorded["out_rownorm"]) < tolerance
    assert relative_error(out.mean(0), recorded["out_colmean"]) < tolerance

    assert relative_error(features.grad, recorded["grad_feats"]) < GRADIENT_TOLERANCE[dtype]
    kernels = [key for key in recorded if key.startswith("grad_") and "_every" in key]
    assert len(kernels) == 3
    for key in kernels:
        parameter, _, step = key.removeprefix("grad_").partition("_every")
        gradient = network.get_parameter(parameter).grad
        assert relative_error(gradient.reshape(-1)[:: int(step)], recorded[key]) < GRADIENT_TOLERANCE[dtype]
        norm = recorded[f"grad_{parameter}_stats"][2]
        assert float(gradient.double().norm()) == pytest.approx(norm, rel=GRADIENT_TOLERANCE[dtype])
    for buffer in ["bn0.bn", "block8.1.norm2.bn"] if mode == "train" else []:
        for statistic in ("running_mean", "running_var"):
            value = network.get_buffer(f"{buffer}.{statistic}")
            assert relative_error(value, recorded[f"{buffer}.{statistic}"]) < tolerance


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_point_encoder_and_binary_head_give_the_recorded_numbers(mode: str) -> None:
    inputs, outputs = load_case("a_pc_processors")
    encoder, head = PointEncoder(MinkUNet.unet34c()), BinaryHead(MinkUNet.unet18a())
    fill_module(encoder, "pc_decoder.")
    fill_module(head, "pc_binary_head.")
    x = Voxels(torch.from_numpy(inputs["coords"]), torch.from_numpy(inputs["feats"]), 2)
    with torch.no_grad():
        pooled, voxels = encoder.train(mode == "train")(x)
        logits = head.train(mode == "train")(x)
    assert relative_error(pooled, outputs[f"{mode}/pooled_condition"]) < 1e-4
    assert relative_error(voxels[outputs[f"{mode}/pred3d_rows"]], outputs[f"{mode}/pred3d_sub"]) < 1e-4
    assert relative_error(voxels.sum(1), outputs[f"{mode}/pred3d_rowsum"]) < 1e-4
    assert relative_error(voxels.norm(dim=1), outputs[f"{mode}/pred3d_rownorm"]) < 1e-4
    assert relative_error(logits, outputs[f"{mode}/binary_score"][:, 0]) < 1e-4


def small_network(**changes: object) -> MinkUNet:
    sizes = {"planes": (8, 8, 16, 16, 16, 16, 8, 8), "layers": (1, 1, 1, 2, 1, 1, 1, 1), "stem": 8}
    return MinkUNet(3, 12, **{**sizes, **changes})


def test_names_and_sizes_follow_the_published_checkpoints() -> None:
    names = MinkUNet.unet34c().state_dict()
    assert names["conv0p1s1.kernel"].shape == (125, 3, 32)
    assert names["block3.0.downsample.0.kernel"].shape == (64, 128)
    assert names["convtr4p16s2.kernel"].shape == (8, 256, 256)
    assert names["final.kernel"].shape == (96, 256)
    assert "block1.0.downsample.0.kernel" not in names
    assert "block4.5.norm2.bn.running_var" in names
    head = BinaryHead(small_network(), 12).state_dict()
    assert {"batch_norm.weight", "fc.weight", "encoder.final.kernel"} <= set(head)


def test_results_follow_their_voxels_and_repeat() -> None:
    torch.manual_seed(0)
    network = small_network().double()
    cloud, features = random_cloud(), torch.randn(150, 3, dtype=torch.float64)
    order = torch.randperm(150)
    _, out = network(sparse_tensor(cloud, features))
    _, permuted = network(sparse_tensor(cloud[order], features[order]))
    torch.testing.assert_close(permuted, out[order])
    assert torch.equal(network(sparse_tensor(cloud, features))[1], out)


def test_samples_do_not_influence_each_other_in_evaluation() -> None:
    torch.manual_seed(0)
    encoder = PointEncoder(small_network(), 12, 20).double().eval()
    cloud, features = random_cloud(), torch.randn(150, 3, dtype=torch.float64)
    pooled, voxels = encoder(Voxels(cloud, features, 2))
    for sample in (0, 1):
        rows = cloud[:, 0] == sample
        alone = cloud[rows] * torch.tensor([0, 1, 1, 1], dtype=torch.int32)
        one_pooled, one_voxels = encoder(Voxels(alone, features[rows], 1))
        torch.testing.assert_close(one_pooled[0], pooled[sample])
        torch.testing.assert_close(one_voxels, voxels[rows])


def test_both_networks_share_the_maps_of_one_batch() -> None:
    x = Voxels(random_cloud(), torch.randn(150, 3), 2)
    encoder, head = PointEncoder(small_network(), 12, 20), BinaryHead(small_network(), 12)
    encoder(x)
    built = dict(x.sparse.manager._maps._neighbours)
    assert head(x).shape == (150,)
    assert {key: id(value) for key, value in x.sparse.manager._maps._neighbours.items()} == {
        key: id(value) for key, value in built.items()
    }


def test_wrong_number_of_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="8 stages"):
        small_network(planes=(8, 8))


def test_autocast_runs_forward_and_backward() -> None:
    torch.manual_seed(0)
    encoder = PointEncoder(small_network(), 12, 20)
    x = Voxels(random_cloud(), torch.randn(150, 3), 2)
    exact = encoder(x)[1]
    with torch.autocast("cpu", torch.bfloat16):
        pooled, voxels = encoder(x)
    (pooled.float().sum() + voxels.float().sum()).backward()
    assert 0 < (voxels.float() - exact).norm() / exact.norm() < 0.1
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())
