"""Digests inside files: every change of a byte is noticed, and what was written is read as before."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import load_file, save_file

from xmask3d.config import load_config, save_config
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.seal import (
    UNSEALED,
    Checked,
    beside,
    check_archive,
    check_beside,
    check_seal,
    is_sound,
    is_whole_cache,
    read_sealed_json,
    sealed,
    sealed_json,
    write_beside,
)
from xmask3d.visualize.cloud import write_ply


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_every_byte_counts(tmp_path: Path, kind: str) -> None:
    path, values = tmp_path / f"a.{kind}", torch.arange(12.0)
    if kind == "npy":
        atomic_write(path, sealed(lambda part: np.save(part, values.numpy())))
        assert np.array_equal(np.load(path), values) and np.array_equal(np.load(path, mmap_mode="r"), values)
    else:
        atomic_write(path, sealed(lambda part: save_file({"a": values}, part, UNSEALED)))
        assert torch.equal(load_file(path)["a"], values)
    assert is_sound(path) and is_whole_cache(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert is_sound(path) is False  # in the mark too, which leaves a scar
        assert not is_whole_cache(path)
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert not is_sound(path)
    path.write_bytes(content)
    check_seal(path)
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(UserError, match=r"damaged, its SHA-256"):
        check_seal(path)


def test_large_files_are_sealed_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    atomic_write(path, sealed(lambda part: np.save(part, np.arange(500_000.0))))
    assert is_sound(path)
    with open(path, "r+b") as file:
        file.seek(2_000_000)
        file.write(b"\x01")
    assert is_sound(path) is False


def test_files_without_a_digest_pass(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    assert is_sound(tmp_path / "a.safetensors") is None
    check_seal(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        check_seal(tmp_path / "none")


def test_archives_are_compared_with_their_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(1000.0)}, path)
    check_archive(path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 80] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["a"][20] != 20  # torch does not look
    with pytest.raises(UserError, match="damaged in a/data/0"):
        check_archive(path)
    path.write_bytes(bytes(content[:2000]))
    check_archive(path)  # no archive any more, which its reader says


def test_a_digest_beside(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text("{}")
    check_beside(path)
    write_beside(path)
    check_beside(path)
    assert beside(path).read_text().endswith("  captions.json\n")
    path.write_text("{ }")
    with pytest.raises(UserError, match=r"on purpose, delete captions\.json\.sha256"):
        check_beside(path)


def test_only_files_at_rest_are_remembered(tmp_path: Path) -> None:
    path, checked = tmp_path / "a", Checked()
    path.write_text("a")
    checked.add(path)
    assert not checked.holds(path)  # another change might bear the same time
    old = time.time_ns() - 10_000_000_000
    os.utime(path, ns=(old, old))
    checked.add(path)
    assert not checked.holds(path)  # the system notes when that was done


def test_json_is_sealed_and_says_how_to_change_it(tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", {"names": ["bed", "größer"], "score": 0.5}
    atomic_write(path, sealed_json(content, indent=1, ensure_ascii=False))
    assert read_sealed_json(path) == content
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(UserError, match=r"a\.json: damaged, .*delete its entries 'sealed' and 'seal' .*on purpose"):
        read_sealed_json(path)
    changed = json.loads(path.read_text())
    del changed["seal"]
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="damaged, its SHA-256"):
        read_sealed_json(path)
    del changed["sealed"]
    path.write_text(json.dumps(changed))
    assert read_sealed_json(path) == content | {"score": 0.6}
    path.write_text("[1]")
    with pytest.raises(UserError, match="a JSON list in place of names and values"):
        read_sealed_json(path)


def test_a_saved_configuration_says_how_to_change_it(tmp_path: Path) -> None:
    path, config = tmp_path / "config.yaml", load_config("rooms/B15N4")
    save_config(config, path)
    assert load_config(path) == config
    path.write_text(path.read_text().replace(f"seed: {config.seed}", "seed: 7"))
    with pytest.raises(UserError, match=r"config\.yaml: damaged, .*delete its first and its last line"):
        load_config(path)
    path.write_text("\n".join(path.read_text().splitlines()[1:-1]))
    assert load_config(path).seed == 7


def test_a_sealed_cloud_is_read_by_others(tmp_path: Path) -> None:
    path, points = tmp_path / "a.ply", np.arange(30.0).reshape(10, 3)
    write_ply(path, points, np.full((10, 3), 7, np.uint8), np.arange(10))
    assert is_sound(path)
    assert np.array_equal(trimesh.load(path).vertices, points)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged, its SHA-256"):
        check_seal(path)
