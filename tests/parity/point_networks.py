"""The sparse 3D networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.parity.compare import Case, Results
from tests.parity.filler import fill_module
from xmask3d.models.mink_unet import BinaryHead, MinkUNet, PointEncoder
from xmask3d.sparse import SparseTensor, Voxels, sparse_tensor

NETWORKS = {"a_MinkUNet34C": MinkUNet.unet34c, "a_MinkUNet18A": MinkUNet.unet18a}
MODES = ("eval", "train")


def run_unet(case: Case) -> Results:
    """a_MinkUNet34C, a_MinkUNet18A: outputs in float32, gradients in float64."""
    results = Results()
    modes = [mode for mode in MODES if case.records(f"{mode}/")]
    for mode, dtype in ((mode, dtype) for mode in modes for dtype in (torch.float32, torch.float64)):
        network = NETWORKS[case.name]()
        fill_module(network, case.name.removeprefix("a_") + ".")
        network.to(dtype).train(mode == "train")
        x, features = _input(case, dtype)
        bottleneck, out = network(x)
        loss = 0.5 * out.square().mean() + (out @ case.tensor("loss_w", dtype)).mean()
        if dtype == torch.float32:
            _add_forward(results, case, mode, network, bottleneck, out)
            results.forward(f"{mode}/loss", loss)
        else:
            loss.backward()
            results.gradient(f"{mode}/grad_feats", features.grad)
            parameters = dict(network.named_parameters())
            for name in case.recorded_parts(f"{mode}/grad_"):
                if name in parameters:
                    results.gradient(f"{mode}/grad_{name}", parameters[name].grad)
    return results


@torch.no_grad()
def run_parts(case: Case) -> Results:
    """a_pc_processors: point encoder and binary head."""
    results = Results()
    for mode in (mode for mode in MODES if case.records(f"{mode}/")):
        encoder, head = PointEncoder(MinkUNet.unet34c()), BinaryHead(MinkUNet.unet18a())
        fill_module(encoder, "pc_decoder.")
        fill_module(head, "pc_binary_head.")
        encoder.train(mode == "train"), head.train(mode == "train")
        coordinates = case.tensor("coords").int()
        x = Voxels(coordinates, case.tensor("feats", torch.float32), int(coordinates[:, 0].max()) + 1)
        pooled, voxels = encoder(x)
        results.forward(f"{mode}/pooled_condition", pooled)
        results.forward(f"{mode}/pred3d", voxels)
        _add_rows(results, case, f"{mode}/pred3d", voxels)
        results.forward(f"{mode}/binary_score", head(x)[:, None])
        # Bottleneck voxels have no order of their own: their samples are compared in that of the recording.
        batch = encoder.encoder(x.sparse)[0].coordinates[:, 0].sort().values.cpu().numpy()
        recorded = case.outputs.get(f"{mode}/bottleneck_batch_idx", batch)
        same = np.array_equal(batch, np.sort(recorded))
        results.exact(f"{mode}/bottleneck_batch_idx", recorded if same else batch)
    return results


def _input(case: Case, dtype: torch.dtype) -> tuple[SparseTensor, Tensor]:
    features = case.tensor("feats", dtype).requires_grad_()
    return sparse_tensor(case.tensor("coords").int(), features), features


def _add_forward(
    results: Results, case: Case, mode: str, network: nn.Module, bottleneck: SparseTensor, out: Tensor
) -> None:
    ours = {tuple(row): index for index, row in enumerate(bottleneck.coordinates.tolist())}
    recorded = case.outputs.get(f"{mode}/bottleneck_coords")
    wanted = list(ours) if recorded is None else [tuple(row) for row in recorded.tolist()]
    matched = set(ours) == set(wanted)
    order = [ours[row] for row in wanted] if matched else list(ours.values())
    results.exact(f"{mode}/bottleneck_coords", bottleneck.coordinates[order])
    results.forward(f"{mode}/bottleneck", bottleneck.features[order])
    results.forward(f"{mode}/out", out)
    results.forward(f"{mode}/out_colmean", out.mean(0))
    _add_rows(results, case, f"{mode}/out", out)
    buffers = dict(network.named_buffers())
    for name in case.recorded_parts(f"{mode}/"):
        if name in buffers:
            results.forward(f"{mode}/{name}", buffers[name])


def _add_rows(results: Results, case: Case, name: str, values: Tensor) -> None:
    """Rows that the recording lists."""
    rows = case.outputs.get(f"{name}_rows", np.zeros(0, np.int64))
    results.exact(f"{name}_rows", rows)
    results.forward(f"{name}_sub", values[torch.from_numpy(rows.astype(np.int64))])
