import gc
import json
import weakref
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.helpers.golden import assert_matches, load_case
from tests.parity.filler import fill_module
from xmask3d.errors import UserError
from xmask3d.models.clip import ClipText, MaskClip, TextClassifier, cosine_logits, load_clip
from xmask3d.models.loading.clip_weights import build_clip
from xmask3d.models.tokenizer import CompactTokenizer

VISION = {"image_size": 28, "patch_size": 7, "width": 128, "layers": 2}
TEXT = {"context_length": 8, "vocab_size": 30, "width": 64, "heads": 1, "layers": 2}
CONFIG = {"embed_dim": 12, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True}


def small_clip() -> nn.Module:
    torch.manual_seed(0)
    return build_clip(CONFIG).eval()


def whole_attention(clip: nn.Module, images: Tensor, mask_logits: Tensor) -> Tensor:
    """MaskCLIP by its definition: all tokens in one sequence, one attention mask for each head of each item."""
    visual = clip.visual
    mask_clip = MaskClip(clip)
    tokens = visual.conv1(mask_clip.preprocess(images)).flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.expand(len(tokens), 1, -1), tokens], 1) + visual.positional_embedding
    tokens = visual.ln_pre(tokens)
    count = mask_logits.shape[1]
    tokens = torch.cat([tokens[:, :1].expand(-1, count, -1), tokens], 1)
    probability = F.interpolate(mask_logits, visual.image_size, mode="bilinear").sigmoid()
    hidden = F.max_pool2d(probability, visual.patch_size).flatten(2) < 0.5
    blocked = torch.zeros(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    blocked[:, :, :count] = True
    blocked[:, :count, count + 1 :] = hidden
    heads = visual.transformer.resblocks[0].attn.num_heads
    blocked = torch.stack([item for item in blocked for _ in range(heads)])
    for block in visual.transformer.resblocks:
        x = block.ln_1(tokens)
        tokens = tokens + block.attn(x, x, x, attn_mask=blocked, need_weights=False)[0]
        tokens = tokens + block.mlp(block.ln_2(tokens))
    return visual.ln_post(tokens[:, :count]) @ visual.proj


def test_mask_clip_matches_recorded_embeddings() -> None:
    inputs, outputs = load_case("g_maskclip")
    visual = VisionTransformer(
        image_size=56, patch_size=14, width=128, layers=3, heads=2, mlp_ratio=4, output_dim=64, act_layer=QuickGELU
    )
    fill_module(visual, "criterion.clip.clip.visual.")
    mask_clip = MaskClip(SimpleNamespace(visual=visual))
    images, mask_logits = torch.from_numpy(inputs["image"]), torch.from_numpy(inputs["masks"])
    assert_matches(outputs, "mask_embed", mask_clip(images, mask_logits))
    assert_matches(outputs, "preprocessed_image", mask_clip.preprocess(images))
    visible = mask_clip.visible_patches(mask_logits)
    assert torch.equal(visible, torch.from_numpy(outputs["patch_prob"] >= 0.5).flatten(2))
    assert torch.equal(~visible, torch.from_numpy(outputs["attn_mask_head0"])[:, :7, 8:])


def test_every_item_of_a_batch_sees_its_own_masks() -> None:
    clip = small_clip().double()
    torch.manual_seed(1)
    images, mask_logits = torch.rand(3, 3, 40, 50).double(), 2 * torch.randn(3, 5, 6, 6).double() - 2
    mask_logits[0, 0] = -5
    mask_logits[1, 2] = 5
    with torch.no_grad():
        mask_clip = MaskClip(clip)
        mask_clip.double()
        visible = mask_clip.visible_patches(mask_logits)
        assert not torch.equal(visible[0], visible[1]) and not visible[0, 0].any() and visible[1, 2].all()
        expected = whole_attention(clip, images, mask_logits)
        actual = mask_clip(images, mask_logits)
        encoded = mask_clip.encode(images)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(mask_clip.embed(encoded, mask_logits[:, 2:]), expected[:, 2:])
    assert not torch.allclose(actual[0], actual[1])


def test_a_mask_that_sees_all_equals_plain_clip() -> None:
    clip = small_clip()
    images = torch.rand(2, 3, 28, 28)
    mask_clip = MaskClip(clip)
    embeddings = mask_clip(images, torch.full((2, 1, 4, 4), 9.0))
    with torch.no_grad():
        torch.testing.assert_close(embeddings[:, 0], clip.encode_image(mask_clip.preprocess(images)))


def test_mask_clip_is_frozen() -> None:
    mask_clip = MaskClip(small_clip())
    mask_logits = torch.randn(1, 2, 8, 8, requires_grad=True)
    assert not mask_clip(torch.rand(1, 3, 28, 28), mask_logits).requires_grad
    assert not list(mask_clip.parameters()) and not mask_clip.state_dict()


def test_nothing_keeps_an_image_tower_that_was_released() -> None:
    clip = small_clip()
    mask_clip, tower = MaskClip(clip), weakref.ref(clip.visual)
    mask_clip.release()
    del clip
    gc.collect()
    assert tower() is None


def test_convolutional_towers_are_refused() -> None:
    config = {"embed_dim": 12, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}, "text_cfg": TEXT}
    with pytest.raises(UserError, match="vision transformer"):
        MaskClip(build_clip(config))


class CountingTokenizer:
    """A tokenizer that keeps what it was asked for."""

    def __init__(self) -> None:
        self.tokenizer = CompactTokenizer.from_texts(["a chair", "table"], shared_rows=20, context_length=8)
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> Tensor:
        self.seen += texts
        return self.tokenizer(texts)


def test_texts_are_encoded_once() -> None:
    clip, tokenizer = small_clip(), CountingTokenizer()
    text = ClipText(clip, tokenizer, batch_size=2)
    first = text(["chair", "table", "chair", "lamp"])
    second = text(["lamp", "chair"])
    assert tokenizer.seen == ["chair", "table", "lamp"]
    assert torch.equal(first[0], first[2]) and torch.equal(second, first[[3, 0]])
    with torch.no_grad():
        expected = clip.encode_text(tokenizer.tokenizer(["chair", "table", "lamp"]))
    torch.testing.assert_close(first[[0, 1, 3]], expected)
    assert text([]).shape == (0, 12) and text.dim == 12
    assert text.double()(["chair"]).dtype == torch.float64
    assert not first.requires_grad and not text.state_dict()


def test_prompt_templates_average() -> None:
    text = ClipText(small_clip(), CountingTokenizer())
    names = ["chair", "table"]
    assert torch.equal(text.encode_classes(names), text(names))
    templates = ["a {}", "the {} there"]
    expected = [F.normalize(text([template.format(name) for name in names]), dim=-1) for template in templates]
    torch.testing.assert_close(text.encode_classes(names, templates), sum(expected) / 2)
    with pytest.raises(UserError, match="exactly one"):
        text.encode_classes(names, ["a thing"])


def test_classifier() -> None:
    torch.manual_seed(0)
    null, text, features = torch.randn(1, 6), torch.randn(3, 6), torch.randn(2, 4, 6, requires_grad=True)
    classifier = TextClassifier(null)
    assert set(classifier.state_dict()) == {"null_embed"}
    logits = classifier.logits(features, text, torch.tensor(20.0))
    expected = 20 * F.cosine_similarity(features[:, :, None], torch.cat([text, null])[None, None], dim=-1)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(cosine_logits(features, text, 20.0), expected[..., :3])
    logits.sum().backward()
    assert classifier.null_embed.grad.abs().max() > 0 and features.grad.isfinite().all()


def write_folder(folder: Path, clip: nn.Module) -> CompactTokenizer:
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    save_file(clip.state_dict(), folder / "model.safetensors")
    tokenizer = CompactTokenizer([0, 320, 321], vocabulary_size=30, context_length=8)
    tokenizer.save(folder)
    return tokenizer


def test_folder_round_trip(tmp_path: Path) -> None:
    clip = small_clip()
    tokenizer = write_folder(tmp_path, clip)
    loaded = load_clip(tmp_path)
    assert torch.equal(loaded.tokenizer(["a lamp"]), tokenizer(["a lamp"]))
    with torch.no_grad():
        expected = clip.encode_text(tokenizer(["a lamp"]))
    torch.testing.assert_close(ClipText(*loaded)(["a lamp"]), expected)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    torch.testing.assert_close(MaskClip(loaded.model).mean.flatten(), torch.tensor([0.5, 0.4, 0.3]))
    (tmp_path / "tokenizer_vocabulary.json").unlink()
    assert isinstance(load_clip(tmp_path).tokenizer, open_clip.SimpleTokenizer)


def activation(clip: nn.Module) -> type[nn.Module]:
    return type(clip.visual.transformer.resblocks[0].mlp.gelu)


def openai_state(clip: nn.Module) -> dict[str, Tensor]:
    sizes = {"input_resolution": torch.tensor(28), "context_length": torch.tensor(8), "vocab_size": torch.tensor(30)}
    return {name: tensor.half().clone() for name, tensor in clip.state_dict().items()} | sizes


class Archive(nn.Module):
    """Stands for the module inside OpenAI's TorchScript files."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.visual = nn.Module()
        for name, tensor in openai_state(clip).items():
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_buffer(leaf, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.parametrize("kind", ["archive", "state"])
def test_openai_file(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    clip, path = small_clip(), tmp_path / "ViT.pt"
    if kind == "archive":
        torch.jit.script(Archive(clip)).save(path)
    else:
        torch.save(openai_state(clip), path)
    loaded = load_clip(path)
    tokens = torch.tensor([[28, 3, 29, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.encode_text(tokens), clip.encode_text(tokens), rtol=0.02, atol=0.02)
    assert loaded.model.token_embedding.weight.dtype == torch.float32
    assert activation(loaded.model) is QuickGELU
    assert not caplog.messages


@pytest.mark.parametrize("name", ["clip.pt", "clip.safetensors"])
def test_a_file_that_does_not_tell_its_activation_is_named(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    clip, path = small_clip(), tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(clip.state_dict(), path)
    assert activation(load_clip(path).model) is QuickGELU
    (warning,) = caplog.messages
    assert warning.startswith(f"{path}: ") and "QuickGELU" in warning and "open_clip_config.json" in warning


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_a_name_with_a_file_takes_the_activation_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "small", {**CONFIG, "quick_gelu": False})
    monkeypatch.setitem(configs, "small-quickgelu", CONFIG)
    clip = small_clip()
    archive, state, plain = (tmp_path / name for name in ("archive.pt", "state.pt", "plain.pt"))
    torch.jit.script(Archive(clip)).save(archive)
    torch.save(openai_state(clip), state)
    torch.save(clip.state_dict(), plain)
    tokens = torch.tensor([[28, 3, 29, 0, 0, 0, 0, 0]])
    for file in (archive, state):
        loaded = load_clip("small", file).model
        assert activation(loaded) is QuickGELU
        with torch.no_grad():
            torch.testing.assert_close(loaded.encode_text(tokens), clip.encode_text(tokens), rtol=0.02, atol=0.02)
    assert activation(load_clip("small", plain).model) is nn.GELU
    assert activation(load_clip("small-quickgelu", plain).model) is QuickGELU


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    def refused(message: str, *arguments: object) -> None:
        with pytest.raises(UserError, match=message):
            load_clip(*arguments)

    refused("open_clip knows no model", "ViT-Z-99")
    refused("open_clip knows no model", "hf-hub:laion/CLIP-ViT-B-32")  # would be fetched, whoever asks
    refused("none of its pretrained tags", "ViT-L-14", "no-such-tag")
    refused(r"open_clip_config\.json", tmp_path)
    write_folder(tmp_path, small_clip())
    (tmp_path / "model.safetensors").unlink()
    refused("no CLIP weights", tmp_path)
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    refused("weights of another model", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    refused(r"model\.safetensors: not a readable", tmp_path)
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    refused("no CLIP vision transformer", tmp_path / "other.pt")
    torch.save({"a": Path}, tmp_path / "code.pt")
    refused("refused", tmp_path / "code.pt")
