"""The back end spconv: equal to the default by what spconv's functions are documented to do, and by spconv itself."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.sparse.clouds import random_cloud
from xmask3d.errors import UserError
from xmask3d.models.mink_unet import MinkUNet
from xmask3d.sparse import sparse_tensor

installed = importlib.util.find_spec("spconv") is not None


def documented_pairs(
    rows: Tensor, batch_size: int, extent: list[int], algorithm: Any, size: list[int], stride: list[int],
    padding: list[int], dilation: list[int], out_padding: list[int], subm: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`spconv.pytorch.ops.get_indice_pairs`: pairs (input, output) of each tap, the last axis of the kernel fastest."""
    cells = {tuple(row): number for number, row in enumerate(rows.tolist())}
    taps = list(product(*(range(length) for length in size)))
    targets = dict(cells) if subm else {}
    found: list[list[tuple[int, int]]] = [[] for _ in taps]
    for (batch, *place), source in cells.items():
        for number, tap in enumerate(taps):
            # input = output * stride - padding + tap
            steps = [place[i] + padding[i] - tap[i] for i in range(3)]
            if any(steps[i] % stride[i] for i in range(3)):
                continue
            target = (batch, *(steps[i] // stride[i] for i in range(3)))
            if not subm:
                targets.setdefault(target, len(targets))
            if target in targets:
                found[number].append((source, targets[target]))
    pairs = torch.full((2, len(taps), len(rows)), -1)
    for number, those in enumerate(found):
        pairs[:, number, : len(those)] = torch.tensor(those, dtype=torch.int64).view(-1, 2).T
    return torch.tensor(list(targets), dtype=torch.int32), pairs, torch.tensor([len(those) for those in found])


def documented_product(turned: bool):
    """`indice_conv` and `indice_subm_conv`, or `indice_inverse_conv`: weights are B x K x K x K x A."""

    def apply(features: Tensor, filters: Tensor, pairs: Tensor, counts: Tensor, rows: int, _: Any) -> Tensor:
        result = features.new_zeros(rows, filters.shape[0])
        for number, weight in enumerate(filters.flatten(1, 3).unbind(1)):
            source, target = (
                pairs[:, number, : counts[number]].flip(0) if turned else pairs[:, number, : counts[number]]
            )
            result = result.index_add(0, target, features[source] @ weight.T)
        return result

    return apply


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `spconv` that does what the functions of spconv that are used are documented to do."""
    modules = {name: types.ModuleType(name) for name in ("spconv", "spconv.core", "spconv.pytorch")}
    modules["spconv.core"].ConvAlgo = types.SimpleNamespace(Native=0)
    straight = documented_product(turned=False)
    modules["spconv.pytorch"].ops = types.SimpleNamespace(get_indice_pairs=documented_pairs)
    modules["spconv.pytorch"].functional = types.SimpleNamespace(
        indice_subm_conv=straight, indice_conv=straight, indice_inverse_conv=documented_product(turned=True)
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_both(cloud: Tensor, backward: bool) -> list[list[Tensor]]:
    """Outputs of a MinkUNet, and the gradients where they are asked for, by both back ends."""
    torch.manual_seed(0)
    network = MinkUNet(3, 8, planes=(8,) * 8, layers=(1,) * 8, stem=8).train(backward)
    features = torch.randn(len(cloud), 3)
    results = []
    for backend in ("torch", "spconv"):
        rows = features.clone().requires_grad_(backward)
        network.zero_grad()
        with torch.set_grad_enabled(backward):
            output = network(sparse_tensor(cloud, rows, backend))[1]
        if backward:
            (output**2).sum().backward()
        found = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        results.append([output, *([rows.grad] if backward else []), *found])
    return results


def assert_equal(results: list[list[Tensor]], tolerance: float) -> None:
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= tolerance * ours.norm()


def test_weights_and_maps_as_documented(documented: None, one_thread: None) -> None:
    results = run_both(random_cloud(count=400, extent=10, lowest=-7), backward=True)
    assert len(results[0]) > 20
    assert_equal(results, 1e-3)  # gradients of single numbers nearly cancel under batch norm


def test_coordinates_and_types(documented: None, one_thread: None) -> None:
    cloud = random_cloud(lowest=-7)
    ours, theirs = (sparse_tensor(cloud, torch.randn(150, 4), name).manager for name in ("torch", "spconv"))
    assert ours.batch_size == theirs.batch_size == 2
    for stride in (1, 2, 4, 8, 16):
        assert sorted(ours.coordinates(stride).tolist()) == sorted(theirs.coordinates(stride).tolist())
    half = torch.randn(150, 4, dtype=torch.bfloat16)
    result = theirs.convolve(half, torch.randn(27, 4, 5), 1, 3)
    assert result.dtype == torch.bfloat16 and result.shape == (150, 5)


@pytest.mark.skipif(not installed, reason="spconv is not installed (pip install spconv)")
def test_spconv_equals_the_default(one_thread: None) -> None:
    assert_equal(run_both(random_cloud(count=2000, extent=24, lowest=-11), backward=False), 1e-5)


def test_threads_on_a_cpu_are_refused(documented: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(UserError, match="one thread only on a CPU"):
        sparse_tensor(random_cloud(), torch.ones(150, 1), "spconv")


def test_missing_spconv_names_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("spconv", "spconv.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="pip install spconv-cu126"):
        sparse_tensor(random_cloud(), torch.ones(150, 1), "spconv")
