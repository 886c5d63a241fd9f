import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip.model import QuickGELU
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.helpers.diffusion import (
    SMALL_UNET_1,
    SMALL_UNET_2,
    SMALL_VAE,
    UNET_PREFIX,
    VAE_PREFIX,
    compvis_state,
    rename_unet,
    rename_vae,
)
from tests.helpers.stored_diffusion import save_diffusion
from tests.parity.filler import fill_module
from xmask3d.errors import UserError
from xmask3d.models.diffusion import DiffusionFeatures
from xmask3d.models.loading import diffusion_weights
from xmask3d.models.loading.diffusion_weights import check_diffusion, diffusion_path, diffusion_shapes, load_diffusion
from xmask3d.models.loading.empty_prompt import folder_empty_prompt

PROMPTS = {64: 1, 128: 2}


def networks(unet_config: dict) -> tuple[AutoencoderKL, UNet2DConditionModel]:
    vae, unet = AutoencoderKL.from_config(SMALL_VAE), UNet2DConditionModel.from_config(unet_config)
    fill_module(vae, VAE_PREFIX, rename_vae)
    fill_module(unet, UNET_PREFIX, rename_unet)
    return vae.eval(), unet.eval()


def text_tower(width: int, quick_gelu: bool, layers: int = 3) -> TextTransformer:
    torch.manual_seed(width)
    act = QuickGELU if quick_gelu else nn.GELU
    tower = TextTransformer(
        context_length=9,
        vocab_size=40,
        width=width,
        heads=width // 64,
        layers=layers,
        output_dim=8,
        act_layer=act,
        output_tokens=True,
    )
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    return tower.eval()


def as_transformers_names(tower: TextTransformer) -> dict[str, Tensor]:
    """What transformers' CLIPTextModel calls the tensors of an open_clip text tower."""
    names = {"token_embedding.weight": "embeddings.token_embedding.weight"}
    names |= {"positional_embedding": "embeddings.position_embedding.weight"}
    names |= {f"ln_final.{leaf}": f"final_layer_norm.{leaf}" for leaf in ("weight", "bias")}
    state = tower.state_dict()
    renamed = {"text_model." + new: state[old] for old, new in names.items()}
    inner = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    inner |= {"attn.out_proj": "self_attn.out_proj"}
    for layer in range(len(tower.transformer.resblocks)):
        old, new = f"transformer.resblocks.{layer}.", f"text_model.encoder.layers.{layer}."
        for leaf in ("weight", "bias"):
            renamed |= {f"{new}{theirs}.{leaf}": state[f"{old}{ours}.{leaf}"] for ours, theirs in inner.items()}
            parts = state[f"{old}attn.in_proj_{leaf}"].chunk(3)
            renamed |= {f"{new}self_attn.{p}_proj.{leaf}": x for p, x in zip("qkv", parts, strict=True)}
    return {name: tensor.clone() for name, tensor in renamed.items()}


def expected_prompt(tower: TextTransformer, padding: int) -> Tensor:
    with torch.no_grad():
        return tower(torch.tensor([[38, 39] + [padding] * 7]))[1]


def same_maps(first: DiffusionFeatures, second: DiffusionFeatures) -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 64, 64)
    text, time = torch.randn(1, 4, first.context_dim), torch.randn(1, first.time_dim)
    with torch.no_grad():
        pairs = zip(*(model(model.encode(images), text, time) for model in (first, second)), strict=True)
    for x, y in pairs:
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def same_sizes(path: Path, features: DiffusionFeatures, prompt: Tensor) -> None:
    sizes, shape = diffusion_shapes(path)
    assert (sizes.channels, sizes.strides, sizes.time_dim) == (features.channels, features.strides, features.time_dim)
    assert shape.shape == prompt.shape and all(x.is_meta for part in sizes.frozen_networks() for x in part.parameters())


def test_sizes_of_version_1_need_no_file() -> None:
    sizes, prompt = diffusion_shapes("missing.ckpt")
    assert (sizes.context_dim, prompt.shape) == (768, (1, 77, 768))


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_compvis_version_1(tmp_path: Path, suffix: str) -> None:
    vae, unet = networks(SMALL_UNET_1)
    tower = text_tower(64, quick_gelu=True)
    state = compvis_state(vae, unet)
    state |= {"cond_stage_model.transformer." + name: tensor for name, tensor in as_transformers_names(tower).items()}
    state["model_ema.decay"] = torch.zeros(())
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    path = tmp_path / f"sd{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": state, "global_step": 5}, path)
    else:
        save_file(state, path)
    features, prompt = load_diffusion(path)
    torch.testing.assert_close(prompt, expected_prompt(tower, padding=39))
    same_sizes(path, features, prompt)
    same_maps(features, DiffusionFeatures(vae, unet))


def test_compvis_version_2(tmp_path: Path) -> None:
    vae, unet = networks(SMALL_UNET_2)
    tower = text_tower(128, quick_gelu=False)
    longer = text_tower(128, quick_gelu=False, layers=4).state_dict() | tower.state_dict()
    state = compvis_state(vae, unet) | {"cond_stage_model.model." + name: x.clone() for name, x in longer.items()}
    save_file(state, tmp_path / "sd.safetensors")
    features, prompt = load_diffusion(tmp_path / "sd.safetensors", checkpointing=True)
    # The last of the four layers is not used; padding is token 0.
    torch.testing.assert_close(prompt, expected_prompt(tower, padding=0))
    assert features.checkpointing
    same_sizes(tmp_path / "sd.safetensors", features, prompt)
    same_maps(features, DiffusionFeatures(vae, unet))


@pytest.mark.parametrize("padding", ["<|endoftext|>", "!"])
def test_diffusers_folder(tmp_path: Path, padding: str) -> None:
    vae, unet = networks(SMALL_UNET_1)
    vae.save_pretrained(tmp_path / "vae")
    unet.save_pretrained(tmp_path / "unet")
    tower = text_tower(64, quick_gelu=True)
    for folder in ("text_encoder", "tokenizer"):
        (tmp_path / folder).mkdir()
    save_file(as_transformers_names(tower), tmp_path / "text_encoder" / "model.safetensors")
    length = len(tower.positional_embedding)
    config = {"num_attention_heads": 1, "hidden_act": "quick_gelu", "max_position_embeddings": length}
    (tmp_path / "text_encoder" / "config.json").write_text(json.dumps(config))
    special = {"pad_token": {"content": padding}}
    (tmp_path / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(special))
    features, prompt = load_diffusion(tmp_path)
    torch.testing.assert_close(prompt, expected_prompt(tower, padding=39 if padding != "!" else 0))
    same_sizes(tmp_path, features, prompt)
    same_maps(features, DiffusionFeatures(vae, unet))


def write_version_2(folder: Path) -> tuple[UNet2DConditionModel, TextTransformer]:
    """A small Stable Diffusion 2.1 as diffusers lays it out: linear projections, heads by level, OpenCLIP's text."""
    vae, unet = networks(SMALL_UNET_2 | {"upcast_attention": True, "sample_size": 96})
    vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    tower = text_tower(128, quick_gelu=False)  # diffusers leaves the last of OpenCLIP's layers away
    contents = {
        "text_encoder/config.json": {"num_attention_heads": 2, "hidden_act": "gelu", "hidden_size": 128},
        "tokenizer/special_tokens_map.json": {"pad_token": "!"},
        "scheduler/scheduler_config.json": {"prediction_type": "v_prediction"},  # of the sampler: no feature needs it
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir()
        (folder / name).write_text(json.dumps(content))
    save_file(as_transformers_names(tower), folder / "text_encoder" / "model.safetensors")
    return unet, tower


@torch.no_grad()
def test_diffusers_folder_version_2(tmp_path: Path) -> None:
    unet, tower = write_version_2(tmp_path)
    expected: list[Tensor] = []
    for block in unet.up_blocks:
        block.resnets[-1].register_forward_pre_hook(lambda _, inputs: expected.append(inputs[0]))
    latent, text = torch.randn(2, 4, 8, 8), torch.randn(2, 9, 128)
    unet(latent, 0, encoder_hidden_states=text)
    features, prompt = load_diffusion(diffusion_path(str(tmp_path)))
    torch.testing.assert_close(prompt, expected_prompt(tower, padding=0))
    assert features.context_dim == 128 and features.unet.config.use_linear_projection
    maps = features.unet_maps(latent, text, torch.zeros(2, features.time_dim))
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((name, local_files_only))
        assert {"unet/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/*.json"} < set(allow_patterns)
        if "lost" in name:
            raise OSError("no connection")
        return str(tmp_path)

    monkeypatch.setattr(diffusion_weights, "snapshot_download", download)
    assert diffusion_path("somebody/stable-diffusion-2-1") == tmp_path
    assert diffusion_path(str(tmp_path)) == tmp_path and not diffusion_path("docs/missing").exists()
    assert asked == [("somebody/stable-diffusion-2-1", False)]
    with pytest.raises(UserError, match=r"model.diffusion somebody/lost: .* hub does not give it \(no connection\)"):
        diffusion_path("somebody/lost")
    assert not diffusion_path("somebody/lost", fetch=False).exists() and asked[-1] == ("somebody/lost", True)


@pytest.mark.parametrize(
    "config, message",
    [({}, "num_attention_heads"), ({"num_attention_heads": 7}, "divisible"), ([], "JSON list in place of")],
)
def test_a_text_encoder_that_is_described_wrongly_is_one_line(tmp_path: Path, config: object, message: str) -> None:
    for folder, name, content in (
        ("text_encoder", "config.json", config),
        ("tokenizer", "special_tokens_map.json", {"pad_token": "!"}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(json.dumps(content))
    tensors = as_transformers_names(text_tower(64, quick_gelu=True))
    save_file(tensors, tmp_path / "text_encoder" / "model.safetensors")
    with pytest.raises(UserError, match=message):
        folder_empty_prompt(tmp_path)


def test_folder_with_older_names_of_the_attention(tmp_path: Path) -> None:
    features, prompt = DiffusionFeatures(*networks(SMALL_UNET_1)), torch.ones(1, 5, 64)
    save_diffusion(tmp_path, features, prompt, torch.float32)
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    stored = load_file(path)
    for new, old in older.items():
        for side in ("encoder", "decoder"):
            for leaf in ("weight", "bias"):
                attention = f"{side}.mid_block.attentions.0."
                stored[f"{attention}{old}.{leaf}"] = stored.pop(f"{attention}{new}.{leaf}")
    save_file(stored, path)
    assert check_diffusion(tmp_path).startswith("diffusers folder, AutoencoderKL of")
    again, _ = load_diffusion(tmp_path)
    for name, tensor in features.vae.state_dict().items():
        assert torch.equal(again.vae.state_dict()[name], tensor), name


def test_own_folder_round_trip(tmp_path: Path) -> None:
    features = DiffusionFeatures(*networks(SMALL_UNET_1))
    prompt = torch.randn(1, 5, 64)
    save_diffusion(tmp_path, features, prompt, torch.float32)
    again, read = load_diffusion(tmp_path)
    assert torch.equal(read, prompt)
    same_maps(again, features)
    stored = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert "conv_out.weight" not in stored and "conv_in.weight" in stored


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    features = DiffusionFeatures(*networks(SMALL_UNET_1))
    save_diffusion(tmp_path, features, torch.randn(1, 5, 64), torch.float16)
    again, prompt = load_diffusion(tmp_path)
    assert again.unet.dtype == again.vae.dtype == prompt.dtype == torch.float32
    torch.testing.assert_close(again.unet.conv_in.weight, features.unet.conv_in.weight, rtol=1e-3, atol=1e-3)


def test_lightning_classes_in_a_checkpoint_are_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published checkpoints use such a class as a dictionary key; other classes are refused."""
    state = compvis_state(*networks(SMALL_UNET_1))
    save_file({"empty_prompt": torch.ones(1, 3, 64)}, tmp_path / "empty_prompt.safetensors")
    for module, accepted in (("pytorch_lightning.callbacks.model_checkpoint", True), ("builders", False)):
        fake = types.ModuleType(module)
        callback = type("ModelCheckpoint", (), {"__module__": module})
        fake.ModelCheckpoint = callback
        with monkeypatch.context() as patch:
            for length in range(module.count(".") + 1):
                package = module.rsplit(".", length)[0]
                patch.setitem(sys.modules, package, fake if length == 0 else types.ModuleType(package))
            trainer = {"callbacks": {callback: {"best": np.float32(1)}}, "lr_schedulers": [np.float64(1e-4)]}
            torch.save({"state_dict": state, **trainer}, tmp_path / "sd.ckpt")
        if accepted:
            _, prompt = load_diffusion(tmp_path / "sd.ckpt")
            assert torch.equal(prompt, torch.ones(1, 3, 64))
        else:
            with pytest.raises(UserError, match="more than tensors"):
                load_diffusion(tmp_path / "sd.ckpt")


def test_errors_name_what_is_missing(tmp_path: Path) -> None:
    state = compvis_state(*networks(SMALL_UNET_1))
    path = tmp_path / "sd.safetensors"

    def refused(tensors: dict[str, Tensor], message: str) -> None:
        save_file(tensors, path)
        with pytest.raises(UserError, match=message):
            load_diffusion(path)

    refused(state, "no text encoder")
    save_file({"empty_prompt": torch.ones(1, 3, 32)}, tmp_path / "empty_prompt.safetensors")
    refused(state, "32 channels, but the UNet expects 64")
    refused({k: v for k, v in state.items() if "first_stage" not in k}, r"no tensors first_stage_model\.")
    first = "model.diffusion_model.input_blocks.0.0.weight"
    refused({k: v for k, v in state.items() if k != first}, first.replace(".", r"\."))
    inner = "model.diffusion_model.output_blocks.4.0.in_layers.2.weight"
    refused({k: v for k, v in state.items() if k != inner}, "tensors of UNet2DConditionModel are missing: up_blocks")
    refused(state | {inner: torch.zeros(2, 2, 3, 3)}, "other shapes in up_blocks")
    with pytest.raises(UserError, match="no such file or folder"):
        load_diffusion(tmp_path / "nothing.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(pickle.dumps("no checkpoint"))
    with pytest.raises(UserError, match="broken"):
        load_diffusion(tmp_path / "broken.ckpt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"vae/config\.json"):
        load_diffusion(tmp_path / "empty")
