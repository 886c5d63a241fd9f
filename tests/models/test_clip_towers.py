"""Masks in image towers of timm: attention pooling as in SigLIP, and EVA's class token."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import Eva, VisionTransformer
from timm.models._registry import _model_entrypoints
from torch import Tensor, nn

from tests.models.test_clip import TEXT, CountingTokenizer
from xmask3d.errors import UserError
from xmask3d.models.clip import ClipText, MaskClip, load_clip
from xmask3d.models.clip_towers import EvaTower, PooledTower
from xmask3d.models.loading import clip_weights
from xmask3d.models.loading.clip_weights import build_clip
from xmask3d.models.tokenizer import CompactTokenizer

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
EVA = {"use_rot_pos_emb": True, "qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True}
SIGLIP2_TEXT = {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
TOWERS: dict[str, Any] = {
    "tiny_siglip": partial(VisionTransformer, class_token=False, **SIZES),
    "tiny_eva02": partial(Eva, ref_feat_shape=(4, 4), **EVA, **SIZES),
    "tiny_eva01": partial(Eva, init_values=0.3, **SIZES),
    "tiny_eva02_enormous": partial(Eva, use_post_norm=True, **SIZES),
}


@pytest.fixture
def towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks of the classes of SigLIP 2 and EVA, under names that timm knows for the time of a test."""

    def entry(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        for foreign in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            options.pop(foreign, None)
        return TOWERS[name](**options)

    for name in TOWERS:
        monkeypatch.setitem(_model_entrypoints, name, partial(entry, name))


def config(name: str) -> dict[str, Any]:
    siglip = name == "tiny_siglip"
    vision = {"image_size": 32, "timm_model_name": name, "timm_pool": "map" if siglip else "token"}
    vision["timm_proj"] = "none" if siglip else None
    text = SIGLIP2_TEXT if siglip else TEXT
    bias = {"init_logit_bias": -10} if siglip else {}
    width = 32 if siglip else 12
    return {"embed_dim": width, "custom_text": True, "vision_cfg": vision, "text_cfg": text, **bias}


def random_clip(name: str) -> nn.Module:
    torch.manual_seed(0)
    clip = build_clip(config(name)).eval()
    for parameter in clip.visual.parameters():  # also norms and biases, which are made as ones and zeros
        nn.init.normal_(parameter, std=0.3)
    return clip


def half(logit: float = 9.0) -> Tensor:
    """Logits of one mask over the upper half of an image."""
    return torch.cat([torch.full((2, 1, 2, 4), logit), torch.full((2, 1, 2, 4), -logit)], 2)


@pytest.mark.parametrize("name", TOWERS)
def test_a_full_mask_is_the_plain_embedding(towers: None, name: str) -> None:
    clip, images = random_clip(name), torch.rand(2, 3, 40, 50)
    mask_clip = MaskClip(clip)
    assert isinstance(mask_clip.tower, PooledTower if name == "tiny_siglip" else EvaTower)
    with torch.no_grad():
        expected = clip.encode_image(mask_clip.preprocess(images))
    assert mask_clip.dim == expected.shape[1] and mask_clip.patch_grid == (4, 4)
    found = mask_clip(images, torch.full((2, 3, 4, 4), 9.0))
    torch.testing.assert_close(found, expected[:, None].expand(-1, 3, -1), rtol=1e-5, atol=1e-5)
    encoded = mask_clip.encode(images)
    torch.testing.assert_close(mask_clip.embed_whole(encoded), expected, rtol=1e-5, atol=1e-5)
    packed = mask_clip.pack(encoded)
    assert sum(tensor[0].numel() for tensor in packed) == mask_clip.numbers_per_image((40, 50))
    upper = mask_clip.embed(mask_clip.unpack(packed), half())
    assert (upper[:, 0] - expected).abs().max() > 1e-3 and not upper.requires_grad
    assert not list(mask_clip.parameters()) and not mask_clip.state_dict()


@pytest.mark.parametrize("name", TOWERS)
def test_hidden_patches_have_no_weight(towers: None, name: str) -> None:
    mask_clip = MaskClip(random_clip(name))
    encoded = mask_clip.encode(torch.rand(2, 3, 32, 32))
    hidden = encoded.keys[0].shape[2] - 8  # the lower half comes last
    before = mask_clip.embed(encoded, half())
    for tensor in (*encoded.keys, *encoded.values):
        tensor[:, :, hidden:] = torch.randn_like(tensor[:, :, hidden:])
    torch.testing.assert_close(mask_clip.embed(encoded, half()), before)
    assert not torch.allclose(mask_clip.embed(encoded, -half()), before)


def test_a_mask_without_patches_sees_all_where_there_is_no_class_token(towers: None) -> None:
    mask_clip, images = MaskClip(random_clip("tiny_siglip")), torch.rand(1, 3, 32, 32)
    found = mask_clip(images, torch.stack([torch.full((4, 4), value) for value in (-9.0, 9.0)])[None])
    torch.testing.assert_close(found[:, 0], found[:, 1])


def test_other_towers_of_timm_are_refused(towers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOWERS, "tiny_siglip", partial(VisionTransformer, **SIZES))  # with a class token too
    with pytest.raises(UserError, match="ViT-L-16-SigLIP2-256"):
        MaskClip(build_clip(config("tiny_siglip")))
    assert timm.is_model("vit_base_patch16_siglip_256")


@pytest.mark.parametrize("name", ["tiny_siglip", "tiny_eva02"])
def test_a_folder_with_a_text_tower_of_its_own(
    towers: None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = random_clip(name)
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    described = {"model_cfg": config(name), "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, tmp_path / "model.safetensors")
    CompactTokenizer([0, 320, 321], vocabulary_size=30, context_length=8).save(tmp_path)
    loaded = load_clip(tmp_path)
    text = ClipText(loaded.model, CountingTokenizer())
    assert text.dim == MaskClip(loaded.model).dim == config(name)["embed_dim"]
    with torch.no_grad():
        expected = clip.encode_text(CountingTokenizer()(["a chair"]))
    torch.testing.assert_close(text(["a chair"]), expected)
    assert text([]).shape == (0, text.dim)

    described["model_cfg"]["text_cfg"] = {**TEXT, "hf_tokenizer_name": "timm/no-such-tokenizer"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    save_file({name: x.contiguous() for name, x in build_clip(described["model_cfg"]).state_dict().items()},
              tmp_path / "model.safetensors")  # fmt: skip

    def absent(*_: Any, **__: Any) -> None:
        raise ImportError("transformers")

    monkeypatch.setattr(clip_weights, "HFTokenizer", absent)
    with pytest.raises(UserError, match="timm/no-such-tokenizer: its tokenizer needs transformers"):
        load_clip(tmp_path)
