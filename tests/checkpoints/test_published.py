import csv
import json
import logging
import os
import subprocess
from argparse import Namespace
from collections import OrderedDict, defaultdict, deque
from pathlib import Path, PosixPath

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers.golden import GOLDEN
from tests.helpers.published import write_released
from xmask3d.build import build_model
from xmask3d.build_untrained import build_untrained, trainable_values
from xmask3d.checkpoints.checkpoint import load_weights
from xmask3d.checkpoints.names import CONSTANTS, package_name
from xmask3d.checkpoints.published import Layout, read_native, read_published, write_native, write_published
from xmask3d.config import Config, load_config
from xmask3d.errors import UserError
from xmask3d.open_model import open_model


@pytest.fixture(scope="module")
def layout(tiny: Path) -> Layout:
    return Layout.of(build_model(load_config(tiny)).model)


def same_tree(a: object, b: object) -> bool:
    """Equal in types, keys, their order, and bits."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same_tree(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same_tree, a, b))
    return type(a) is type(b) and a == b


def changed(path: Path, **changes: object) -> Path:
    """The file at `path` with keys of its container replaced, or removed where None."""
    payload = torch.load(path, weights_only=True) | changes
    torch.save({key: value for key, value in payload.items() if value is not None}, path)
    return path


def state_of(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, weights_only=True)["state_dict"])


def test_the_published_network_has_the_tensors_of_the_manifest() -> None:
    model = build_untrained(Config())
    layout = Layout.of(model)
    with open(GOLDEN / "manifest_B15N4.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(layout.shapes) == [row["name"] for row in rows] and len(rows) == 1073
    for row in rows:
        shape = () if row["shape"] == "scalar" else tuple(map(int, row["shape"].split("x")))
        assert layout.shapes[row["name"]] in (shape, None), row["name"]
    assert [name for name, shape in layout.shapes.items() if shape is None] == list(CONSTANTS)
    groups = [[row["name"] for row in rows if row["optimiser_group"] == group] for group in ("3d", "others")]
    assert list(layout.groups) == groups and [len(group) for group in groups] == [340, 398]
    assert trainable_values(model) == 82_946_562
    order = GOLDEN / "optimiser_order_B15N4.json"
    assert list(json.loads(order.read_text()).values()) == groups


@pytest.mark.parametrize("whole_steps", [False, True])
def test_there_and_back_without_loss(layout: Layout, tmp_path: Path, whole_steps: bool) -> None:
    released = write_released(tmp_path / "b15n4.pth.tar", layout, whole_steps=whole_steps)
    write_native(read_published(released, layout, with_optimizer=True), tmp_path / "native.safetensors")
    write_published(read_native(tmp_path / "native.safetensors", layout), tmp_path / "back.pth.tar", layout)
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("b15n4.pth.tar", "back.pth.tar"))
    assert same_tree(first, second)
    assert first["state_dict"]._metadata == second["state_dict"]._metadata
    # Parameters that never had a gradient have no state.
    assert len(second["optimizer"]["state"]) == sum(map(len, layout.groups)) - 1


def test_a_weight_file_gives_the_network_its_weights_only(layout: Layout, tmp_path: Path) -> None:
    released = write_released(tmp_path / "b15n4.pth.tar", layout)
    write_native(read_published(released, layout, with_optimizer=True), tmp_path / "native.safetensors")
    native, direct = load_weights(tmp_path / "native.safetensors"), load_weights(released)
    assert set(native) == set(direct) == {package_name(name) for name in layout.shapes if name not in CONSTANTS}
    assert all(torch.equal(native[name], direct[name]) for name in direct)


def test_the_optimizer_stays_behind_unless_asked_for(layout: Layout, tmp_path: Path) -> None:
    released = write_released(tmp_path / "b15n4.pth.tar", layout)
    write_native(read_published(released, layout), tmp_path / "native.safetensors")
    write_published(read_native(tmp_path / "native.safetensors", layout), tmp_path / "back.pth.tar", layout)
    payload = torch.load(tmp_path / "back.pth.tar", weights_only=True)
    assert list(payload) == ["epoch", "state_dict", "best_iou"] and payload["epoch"] == 150


def test_modules_of_a_file_without_versions_get_the_present_one(layout: Layout, tmp_path: Path) -> None:
    released = write_released(tmp_path / "b15n4.pth.tar", layout)
    changed(released, state_dict=state_of(released))
    write_published(read_published(released, layout), tmp_path / "back.pth.tar", layout)
    versions = torch.load(tmp_path / "back.pth.tar", weights_only=True)["state_dict"]._metadata
    assert versions["module.sem_seg_head"] == {"version": 2} and versions[""] == {"version": 2}


def test_every_tensor_that_does_not_fit_is_named(layout: Layout, tmp_path: Path) -> None:
    path = write_released(tmp_path / "b15n4.pth.tar", layout)
    state = state_of(path)
    for name in ("criterion.fuser.linear.bias", "binary_loss_func.pos_weight"):
        del state[f"module.{name}"]
    state |= {"module.criterion.clip.a": torch.zeros(1), "module.extra": torch.zeros(1)}
    state["module.category_head.null_embed"] = torch.zeros(1, 3)
    state["module.criterion.empty_weight"] = torch.zeros(2, 2)
    changed(path, state_dict=state)
    with pytest.raises(UserError) as caught:
        read_published(path, layout, strict=True)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert "2 missing: binary_loss_func.pos_weight, criterion.fuser.linear.bias;" in message
    assert "2 unexpected: criterion.clip.a, extra;" in message
    assert "2 of another shape: criterion.empty_weight ((2, 2), expected one axis), " in message
    assert "category_head.null_embed ((1, 3), expected (1, 32))" in message


def test_what_is_no_checkpoint_is_refused(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "b15n4.pth.tar"
    with pytest.raises(UserError, match="no such checkpoint"):
        read_published(path, layout)
    path.write_bytes(b"no archive at all")
    with pytest.raises(UserError, match="damaged or foreign"):
        read_published(path, layout)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="not a checkpoint"):
        read_published(path, layout)
    torch.save({"epoch": 1, "state_dict": 3, "best_iou": 0.0}, path)
    with pytest.raises(UserError, match="no state_dict with tensors"):
        read_published(path, layout)
    torch.save({"epoch": 1, "state_dict": {5: torch.ones(1)}, "best_iou": 0.0}, path)
    with pytest.raises(UserError, match="the key 5, no name"):
        read_published(path, layout)
    torch.save({"state_dict": OrderedDict()}, path)
    with pytest.raises(UserError, match=r"not a published checkpoint.*epoch, best_iou is missing"):
        read_published(path, layout, strict=True)
    write_released(path, layout)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged or foreign"):
        read_published(path, layout)


def test_optimizers_that_do_not_fit_are_refused(layout: Layout, tmp_path: Path) -> None:
    path = write_released(tmp_path / "b15n4.pth.tar", layout)
    optimizer = torch.load(path, weights_only=True)["optimizer"]
    with pytest.raises(UserError, match="optimizer is missing"):
        read_published(changed(path, optimizer=None), layout, with_optimizer=True)
    with pytest.raises(UserError, match="not the state of an AdamW"):
        read_published(changed(path, optimizer={"state": {}}), layout, with_optimizer=True)
    groups = optimizer["param_groups"]
    with pytest.raises(UserError, match=r"groups of \[\d+\] parameters, expected"):
        read_published(changed(path, optimizer=optimizer | {"param_groups": groups[:1]}), layout, with_optimizer=True)
    optimizer["state"][1]["exp_avg"] = torch.zeros(7, 7)
    optimizer["state"][99_999] = {"step": torch.tensor(1.0)}
    with pytest.raises(UserError, match=r"does not fit this network: .*exp_avg of pc_decoder\.encoder\.bn0"):
        read_published(changed(path, optimizer=optimizer), layout, with_optimizer=True)


def test_weight_files_that_do_not_fit_are_refused(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "native.safetensors"
    with pytest.raises(UserError, match="no such file"):
        read_native(path, layout)
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged"):
        read_native(path, layout)
    checkpoint = read_published(write_released(tmp_path / "b15n4.pth.tar", layout), layout)
    write_native(checkpoint, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="damaged"):
        read_native(path, layout)
    path.write_bytes(whole)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    for published in ("[]", "{}", "3", '{"values": 1}', "["):  # written by somebody else, without a digest
        save_file(load_file(path), tmp_path / "other.safetensors", {"format": about["format"], "published": published})
        with pytest.raises(UserError, match=r"other\.safetensors: damaged, or not a file of xmask3d convert"):
            read_native(tmp_path / "other.safetensors", layout)
    del checkpoint.tensors["category_head.null_embed"]
    write_native(checkpoint, path)
    with pytest.raises(UserError, match=r"1 missing: category_head\.null_embed"):
        read_native(path, layout)
    checkpoint.values["best_iou"] = torch.zeros(1)
    with pytest.raises(UserError, match="not plain"):
        write_native(checkpoint, path)


class EasyDict(dict):
    """Options as a popular package keeps them."""


class Callback:
    """Any class that is not there where the file is read."""

    def __init__(self) -> None:
        self.best = np.float32(0.5)


CONTAINERS = {
    "namespace": lambda whole: whole | {"args": Namespace(lr=1e-3, save_path=PosixPath("runs"))},
    "numpy": lambda whole: whole | {"epoch": np.int64(150), "best_iou": np.float64(0.5), "ious": np.arange(3.0)},
    "tensor": lambda whole: whole | {"best_iou": torch.tensor(0.5)},
    "options": lambda whole: whole | {"cfg": EasyDict(lr=1), "log": defaultdict(list, {"loss": [1.0]})},
    "classes": lambda whole: whole | {"callback": Callback(), "recent": deque([1]), "rng": np.random.get_state()},
    "model": lambda whole: {"model": whole["state_dict"], "epoch": 150},
    "nested": lambda whole: {"state_dict": {"model": whole["state_dict"]}, "epoch": 150},
    "alone": lambda whole: whole["state_dict"],
    "plain names": lambda whole: {"state_dict": {k.removeprefix("module."): v for k, v in whole["state_dict"].items()}},
    "parameters": lambda whole: {
        "state_dict": {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in whole["state_dict"].items()}
    },
    "unknown tensors": lambda whole: {
        "state_dict": whole["state_dict"] | {f"module.criterion.clip.{i}": torch.zeros(1) for i in range(9)}
    },
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_plausible_containers_are_read(layout: Layout, tmp_path: Path, kind: str) -> None:
    path = write_released(tmp_path / "b15n4.pth.tar", layout, optimizer=False)
    expected = state_of(path)
    torch.save(CONTAINERS[kind](torch.load(path, weights_only=True)), path)
    checkpoint = read_published(path, layout)
    assert all(torch.equal(checkpoint.tensors[name], expected[f"module.{name}"]) for name in layout.shapes)
    weights = load_weights(path)
    named = {name: weights[name] for name in weights if not name.startswith("module.criterion.clip")}
    assert set(named) == {package_name(name) for name in layout.shapes if name not in CONSTANTS}
    if kind in ("numpy", "tensor"):
        assert checkpoint.values == {"epoch": 150, "best_iou": 0.5}
        assert [type(checkpoint.values[key]) for key in ("epoch", "best_iou")] == [int, float]
    write_native(checkpoint, tmp_path / "native.safetensors")
    assert read_native(tmp_path / "native.safetensors", layout).values == checkpoint.values
    if kind != "tensor":  # which torch reads by itself
        with pytest.raises(UserError):
            read_published(path, layout, strict=True)


def test_what_is_left_out_is_named(
    layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture, tiny: Path
) -> None:
    path = write_released(tmp_path / "b15n4.pth.tar", layout, optimizer=False)
    state = state_of(path) | {f"module.criterion.clip.{i}": torch.zeros(1) for i in range(9)}
    torch.save({"state_dict": state, "args": Namespace(lr=1), "epoch": 3}, path)
    read_published(path, layout)
    names = ", ".join(f"criterion.clip.{i}" for i in range(4))
    assert caplog.messages == [
        f"{path}: left out 9 unknown tensors: {names}, ...",
        f"{path}: left out what is no plain value: args",
    ]
    caplog.clear()
    open_model(load_config(tiny), path)
    assert [line for line in caplog.messages if "9 unknown tensors: module.criterion.clip.0, " in line]
    del state["module.category_head.null_embed"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError, match=r"1 missing: category_head\.null_embed"):
        read_published(path, layout)
    with pytest.raises(UserError, match=r"1 tensors missing.*first: classifier\.null_embed"):
        open_model(load_config(tiny), path)


def test_nothing_in_a_container_is_executed(layout: Layout, tmp_path: Path) -> None:
    class Evil:
        def __init__(self, function: object, argument: str) -> None:
            self.function, self.argument = function, argument

        def __reduce__(self) -> tuple:
            return self.function, (self.argument,)

    path = write_released(tmp_path / "b15n4.pth.tar", layout, optimizer=False)
    for function in (os.system, eval, subprocess.check_output):
        extra = Evil(function, f"touch {tmp_path / 'executed'}")
        torch.save(torch.load(path, weights_only=True) | {"extra": extra}, tmp_path / "evil.pth.tar")
        with pytest.raises(UserError, match="damaged or foreign"):
            read_published(tmp_path / "evil.pth.tar", layout)
    extra = Evil(logging.FileHandler, str(tmp_path / "executed"))
    torch.save(torch.load(path, weights_only=True) | {"extra": extra}, tmp_path / "evil.pth.tar")
    assert "extra" not in read_published(tmp_path / "evil.pth.tar", layout).values
    assert not (tmp_path / "executed").exists()
