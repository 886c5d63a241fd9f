"""Encodings of views are made once, the same in memory and on disk, and their size is told before."""

import dataclasses
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.outputs import random_batch
from tests.helpers.tiny import write_clip, write_diffusion
from xmask3d.data.batch import Batch
from xmask3d.engine import feature_cache
from xmask3d.engine.feature_cache import FeatureCache
from xmask3d.errors import UserError
from xmask3d.models.clip import ClipText, MaskClip, load_clip
from xmask3d.models.loading.diffusion_weights import load_diffusion


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("networks")
    clip, tokenizer = load_clip(write_clip(folder / "clip"))
    diffusion, _ = load_diffusion(write_diffusion(folder / "diffusion"))
    return diffusion, MaskClip(clip), ClipText(clip, tokenizer)


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(3)
    return dataclasses.replace(random_batch(), images=torch.rand(2, 3, 64, 64, generator=generator))


def tensors(cache: FeatureCache, batch: Batch) -> list[Tensor]:
    images, tokens = cache.images(batch), cache.tokens(batch)
    parts = [images.latent, *images.encoder_maps, *images.decoder_maps]
    return [*parts, tokens.class_token, *tokens.keys, *tokens.values, cache.captions(batch)]


def test_what_is_kept_is_what_the_networks_give(networks: tuple, batch: Batch) -> None:
    diffusion, mask_clip, clip_text = networks
    cache = FeatureCache(*networks)
    masks = torch.randn(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    embeddings = mask_clip.embed(cache.tokens(batch), masks)
    torch.testing.assert_close(embeddings, mask_clip(batch.images, masks), rtol=1e-2, atol=1e-2)
    expected = diffusion.encode(batch.images)
    torch.testing.assert_close(cache.images(batch).latent, expected.latent, rtol=1e-3, atol=1e-3)
    assert torch.equal(cache.captions(batch), clip_text(batch.captions))


def test_the_size_is_told_as_it_will_be(networks: tuple, batch: Batch, tmp_path: Path) -> None:
    cache = FeatureCache(*networks)
    views = list(zip(batch.scenes, batch.views, strict=True))
    line = cache.announce(views, (64, 64), tokens=True)
    assert line.startswith("encodings of 2 views: up to ") and line.endswith("in memory")
    tensors(cache, batch)
    captions = 2 * 4 * networks[2].dim
    assert cache.bytes + captions == 2 * cache.bytes_per_view((64, 64), tokens=True)
    assert cache.bytes_per_view((64, 64), tokens=False) < cache.bytes_per_view((64, 64), tokens=True)
    line = FeatureCache(*networks, tmp_path / "cache").announce(views, (64, 64), tokens=True)
    assert f"still to write to {tmp_path / 'cache'}" in line and not (tmp_path / "cache").exists()


def test_disk_and_memory_agree_and_nothing_is_made_twice(
    networks: tuple, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks[2]._known.clear()
    first = tensors(FeatureCache(*networks, tmp_path), batch)
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 6
    assert "0.0 MB still" in FeatureCache(*networks, tmp_path).announce([("scene", "0")], (64, 64), tokens=True)
    memory = tensors(FeatureCache(*networks), batch)
    networks[2]._known.clear()
    for kind in (type(networks[0]), MaskClip):
        monkeypatch.setattr(kind, "encode", None)
    monkeypatch.setattr(ClipText, "_encode", None)
    again = tensors(FeatureCache(*networks, tmp_path), batch)
    for x, y, z in zip(first, memory, again, strict=True):
        assert torch.equal(x, y) and torch.equal(x, z)


def test_another_picture_of_the_same_name_is_not_taken_for_it(networks: tuple, batch: Batch, tmp_path: Path) -> None:
    FeatureCache(*networks, tmp_path).images(batch)
    other = replace(batch, images=1 - batch.images)
    expected = FeatureCache(*networks).images(other)
    assert torch.equal(FeatureCache(*networks, tmp_path).images(other).latent, expected.latent)


def test_a_damaged_file_is_made_anew(networks: tuple, batch: Batch, tmp_path: Path) -> None:
    first = FeatureCache(*networks, tmp_path).images(batch)
    path = next(tmp_path.glob("encodings-*/*/*.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(FeatureCache(*networks, tmp_path).images(batch).latent, first.latent)
    assert path.stat().st_size > 100


def test_a_disk_too_small_is_refused_before_anything_is_written(
    networks: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"data\.cache=.*0\.0 MB are free; use another disk"):
        FeatureCache(*networks, tmp_path / "new").announce([("scene", "0")], (512, 512), tokens=True)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match=r"cannot be written .*use another data.cache"):
        feature_cache._write(tmp_path / "cache" / "scene" / "0.safetensors", [torch.zeros(2)])


def test_kept_tensors_are_for_everybody_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "scene" / "0.safetensors"
    feature_cache._write(path, [torch.arange(3.0)])
    assert path.stat().st_mode & 0o777 == 0o644 and list(path.parent.iterdir()) == [path]
    assert feature_cache._read(path)[0].tolist() == [0, 1, 2]
