"""Files that are no checkpoints are refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from xmask3d.checkpoints.checkpoint import load_weights
from xmask3d.errors import UserError
from xmask3d.models.loading import tensor_files
from xmask3d.models.loading.clip_weights import load_clip
from xmask3d.models.loading.tensor_files import check_numbers, open_tensors


def read(path: Path) -> list[str]:
    with open_tensors(path) as tensors:
        return tensors.names


def test_random_bytes(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.ckpt", np.random.default_rng(0)
    for _ in range(200):
        path.write_bytes(rng.bytes(300))
        with pytest.raises(UserError, match=r"a\.ckpt") as refused:
            read(path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("\n<!DOCTYPE html><html>", "a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of git LFS"),
    ],
)
def test_failed_downloads(tmp_path: Path, name: str, text: str, kind: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    for reader in (read, load_weights, load_clip):
        with pytest.raises(UserError, match=f"not a checkpoint .it begins like {kind}: download the file itself"):
            reader(path)


def test_numbers_of_numpy_beside_the_tensors_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    state = {"_last_lr": [np.float64(1e-4)], "best": np.arange(3), "kind": np.dtype("f4")}
    torch.save({"state_dict": {"x": torch.arange(2.0)}, "lr_schedulers": [state]}, path)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    assert {name.rpartition(".")[2] for name in names} >= {"scalar", "_reconstruct", "ndarray", "dtype"}
    with open_tensors(path) as tensors:
        assert tensors.names == ["x"]
        assert tensors.get("x").tolist() == [0, 1]
    # No code of NumPy's ran: something harmless stood in for every name of it.
    assert sorted(tensor_files._stand_ins(path), key=str) == sorted(
        ((tensor_files._Ignored, n) for n in names), key=str
    )


def test_keys_that_are_no_names(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {5: torch.ones(1), "x": torch.ones(1)}}, path)
    assert read(path) == ["x"]
    with pytest.raises(UserError, match="its state_dict has the key 5, no name"):
        load_weights(path)
    torch.save([1], path)
    with pytest.raises(UserError, match="not a state dict"):
        load_clip(path)


def test_counters_may_be_floats_of_whole_numbers() -> None:
    wanted = {"norm.num_batches_tracked": torch.tensor(0)}
    check_numbers({"norm.num_batches_tracked": torch.tensor(7.0, dtype=torch.float16)}, wanted, "weights")
    for value in (0.5, float("nan")):
        with pytest.raises(UserError, match="num_batches_tracked holds numbers of another kind"):
            check_numbers({"norm.num_batches_tracked": torch.tensor(value)}, wanted, "weights")
