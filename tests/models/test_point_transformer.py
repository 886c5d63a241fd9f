"""The point transformer: its contract, and the names of its published weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from xmask3d.build_untrained import trainable_values
from xmask3d.errors import UserError
from xmask3d.models.contracts import PointNetwork, misfit
from xmask3d.models.point_transformer import PointTransformer
from xmask3d.models.serialisation import coarser_keys
from xmask3d.sparse import Voxels, sparse_tensor

SMALL = {
    "channels": (8, 16, 24), "depths": (1, 2, 3), "heads": (2, 2, 4), "decoder_channels": (8, 16),
    "decoder_depths": (1, 1), "decoder_heads": (2, 2), "window": 32, "drop_path": 0.1,
}  # fmt: skip


def small(**changes: object) -> PointTransformer:
    torch.manual_seed(0)
    return PointTransformer(dim=12, **{**SMALL, **changes})


def voxels(seed: int = 1, counts: tuple[int, ...] = (300, 20)) -> Voxels:
    """Samples of `counts` voxels, with negative coordinates, and a last sample without any."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for sample, count in enumerate(counts):
        places = torch.randint(-9, 12, (4 * count, 3), generator=generator).unique(dim=0)
        places = places[torch.randperm(len(places), generator=generator)[:count]]
        rows.append(torch.cat([torch.full((len(places), 1), sample), places], 1))
    coordinates = torch.cat(rows)
    return Voxels(coordinates, torch.randn(len(coordinates), 3, generator=generator), len(counts) + 1, "torch")


def test_the_contract() -> None:
    network, batch = small(), voxels()
    assert misfit(network, PointNetwork) is None
    pooled, features = network(batch)
    assert pooled.shape == (3, 12) and features.shape == (320, 12)
    assert pooled[:2].ne(0).all() and pooled[2].eq(0).all()
    (features.square().mean() + pooled.square().mean()).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert gradients["enc.enc2.block2.attn.qkv.weight"].abs().max() > 0


@torch.no_grad()
def test_order_companions_and_place_change_nothing() -> None:
    network, batch = small().eval(), voxels()
    pooled, features = network(batch)
    order = torch.randperm(320)
    again = network(Voxels(batch.coordinates[order], batch.features[order], 3, "torch"))
    torch.testing.assert_close(again[1], features[order])
    torch.testing.assert_close(again[0], pooled)
    alone = network(Voxels(batch.coordinates[:300], batch.features[:300], 1, "torch"))
    torch.testing.assert_close(alone[1], features[:300])
    torch.testing.assert_close(alone[0], pooled[:1])
    moved = batch.coordinates + torch.tensor([0, 8, -16, 4])  # by whole cells of the coarsest level
    torch.testing.assert_close(network(Voxels(moved, batch.features, 3, "torch"))[1], features)


@torch.no_grad()
def test_attention_is_within_windows_of_a_curve() -> None:
    network, batch = small(depths=(1, 1, 1), window=16, curves=("hilbert",)).eval(), voxels()
    level = network._finest(batch.sparse)
    windows, attention = level.windows(0), network.enc["enc0"]["block0"].attn
    x = torch.randn(320, 8)
    expected = torch.empty(320, 8)
    own = windows.place // windows.rows.shape[1]
    for window, rows in enumerate(windows.rows):
        inside = rows.unique()
        query, key, value = attention.qkv(x[inside]).view(-1, 3, 2, 4).unbind(1)
        weights = (torch.einsum("qhc,khc->hqk", query, key) / 2).softmax(-1)
        y = attention.proj(torch.einsum("hqk,khc->qhc", weights, value).flatten(1))
        mine = own[inside] == window
        expected[inside[mine]] = y[mine]
    torch.testing.assert_close(attention(x, windows), expected)


@torch.no_grad()
def test_grid_pooling_takes_the_largest_of_a_cell() -> None:
    network, batch = small().eval(), voxels()
    level = network._finest(batch.sparse)
    pooling = network.enc["enc1"]["down"]
    parent, coarse = network._coarsen(level, pooling)
    cells = level.x.coordinates.clone()
    cells[:, 1:] = cells[:, 1:] // 2 * 2
    assert torch.equal(coarse.x.coordinates[parent], cells)
    row = 7
    largest = pooling.proj(level.x.features)[parent == parent[row]].amax(0)
    torch.testing.assert_close(coarse.x.features[parent[row]], pooling.norm(largest[None])[0])
    assert torch.equal(coarse.keys[:, parent], coarser_keys(level.keys))


def test_training_shuffles_the_curves_by_the_seed() -> None:
    network, batch = small(drop_path=0.0), voxels()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(network(batch)[1].detach())
    assert torch.equal(results[0], results[1]) and not torch.allclose(results[0], results[2])


def published_state(in_channels: int = 6) -> dict[str, Tensor]:
    """Random tensors in the names and the shapes of the published ScanNet checkpoint, at the sizes of `SMALL`."""
    generator, state = torch.Generator().manual_seed(3), {}

    def add(name: str, *shape: int) -> None:
        state[f"module.backbone.{name}"] = torch.randn(shape, generator=generator)

    def add_layer(name: str, *shape: int) -> None:
        add(f"{name}.weight", *shape)
        add(f"{name}.bias", shape[0])

    def add_norm(name: str, width: int) -> None:
        add_layer(name, width)
        add(f"{name}.running_mean", width)
        state[f"module.backbone.{name}.running_var"] = torch.rand(width, generator=generator) + 0.5
        state[f"module.backbone.{name}.num_batches_tracked"] = torch.tensor(7)

    def add_block(name: str, width: int) -> None:
        add(f"{name}.cpe.0.weight", width, 3, 3, 3, width)
        add(f"{name}.cpe.0.bias", width)
        add_layer(f"{name}.cpe.1", width, width)
        for norm in ("cpe.2", "norm1.0", "norm2.0"):
            add_layer(f"{name}.{norm}", width)
        add_layer(f"{name}.attn.qkv", 3 * width, width)
        add_layer(f"{name}.attn.proj", width, width)
        add_layer(f"{name}.mlp.0.fc1", 4 * width, width)
        add_layer(f"{name}.mlp.0.fc2", width, 4 * width)

    add("embedding.stem.conv.weight", 8, 5, 5, 5, in_channels)
    add_norm("embedding.stem.norm", 8)
    for level, (width, depth) in enumerate(((8, 1), (16, 2), (24, 3))):
        if level:
            add_layer(f"enc.enc{level}.down.proj", width, width - 8)
            add_norm(f"enc.enc{level}.down.norm.0", width)
        for block in range(depth):
            add_block(f"enc.enc{level}.block{block}", width)
    for level, (above, skip, width) in ((1, (24, 16, 16)), (0, (16, 8, 8))):
        for part, entering in (("proj", above), ("proj_skip", skip)):
            add_layer(f"dec.dec{level}.up.{part}.0", width, entering)
            add_norm(f"dec.dec{level}.up.{part}.1", width)
        add_block(f"dec.dec{level}.block0", width)
    state["module.seg_head.weight"], state["module.seg_head.bias"] = torch.zeros(20, 8), torch.zeros(20)
    return state


def test_published_weights(tmp_path: Path) -> None:
    state, path = published_state(), tmp_path / "model_best.pth"
    torch.save({"state_dict": state, "epoch": 3}, path)
    network, fresh = small(weights=str(path)).eval(), small()
    loaded = network.state_dict()
    for name in ("enc.enc2.block1.attn.qkv.weight", "dec.dec0.up.proj_skip.1.running_var", "enc.enc1.down.proj.bias"):
        assert torch.equal(loaded[name], state[f"module.backbone.{name}"]), name
    assert torch.equal(loaded["global_projection.weight"], fresh.state_dict()["global_projection.weight"])
    # As a convolution of a dense grid, whose taps lie as the published ones do.
    batch, published = voxels(), state["module.backbone.embedding.stem.conv.weight"]
    rows = batch.coordinates + torch.tensor([0, 12, 12, 12])
    dense = torch.zeros(2, 3, 26, 26, 26)
    dense[rows[:, 0], :, rows[:, 1], rows[:, 2], rows[:, 3]] = batch.features
    expected = torch.conv3d(dense, published[..., :3].permute(0, 4, 1, 2, 3), padding=2)
    found = network.embedding["stem"]["conv"](batch.sparse).features_as_given()
    torch.testing.assert_close(found, expected[rows[:, 0], :, rows[:, 1], rows[:, 2], rows[:, 3]], rtol=1e-4, atol=1e-4)
    assert all(x.isfinite().all() for x in network(batch))

    save_file({name.removeprefix("module."): x for name, x in state.items()}, tmp_path / "same.safetensors")
    same = small(weights=str(tmp_path / "same.safetensors")).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in same.items() if "projection" not in name)


def test_weights_of_another_network_are_one_line(tmp_path: Path) -> None:
    path, state = tmp_path / "weights.safetensors", published_state()

    def refused(message: str, **changes: object) -> None:
        with pytest.raises(UserError, match=message):
            small(weights=str(path), **changes)

    refused("no such file")
    save_file(state, path)
    refused("lacks enc.enc0.block1", depths=(2, 2, 3))
    refused("has enc.enc2.block2.* too", depths=(1, 2, 2))
    refused(r"\(24, 8\), not \(48, 16\)|is \(.*, not \(", channels=(16, 16, 24))
    with pytest.raises(UserError, match="sizes of 3 levels down and 2 up"):
        small(depths=(1, 2))
    with pytest.raises(UserError, match="16 channels do not divide by 3"):
        small(heads=(2, 3, 4))
    with pytest.raises(UserError, match="curves"):
        small(curves=("peano",))
    far = torch.tensor([[0, 0, 0, 0], [0, 70000, 0, 0]])
    with pytest.raises(UserError, match="more than 65536 voxels"):
        small().eval()(Voxels(far, torch.zeros(2, 3), 1, "torch"))
    assert sparse_tensor(far, torch.zeros(2, 3), "torch").features.shape == (2, 3)  # which the convolutions can do


def test_the_paper_s_sizes() -> None:
    with torch.device("meta"):
        network = PointTransformer(dim=768)
    shapes = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    assert shapes["enc.enc4.block1.cpe.0.kernel"] == (27, 512, 512)
    assert shapes["enc.enc3.block5.mlp.0.fc1.weight"] == (1024, 256)
    assert shapes["dec.dec0.up.proj_skip.0.weight"] == (64, 32)
    assert 46.0e6 < trainable_values(network) < 47.0e6  # 46.2 million of the paper, and two projections
