import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command import run_command
from tests.helpers.scenes import write_scenes
from xmask3d.data.prepare.captions import ModelCaptioner, TemplateCaptioner, caption_views
from xmask3d.data.scannet import SCANNET
from xmask3d.data.scene import View
from xmask3d.errors import UserError
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS
from xmask3d.splits import load_benchmark

BENCHMARK = load_benchmark("scannet20/B15N4")


def view_of(*classes, share=0.1):
    labels = np.full(1000, BENCHMARK.num_classes)
    for place, name in enumerate(classes):
        size = int(1000 * share) - place
        labels[place * 150 : place * 150 + size] = BENCHMARK.class_names.index(name)
    image = np.zeros((20, 50, 3), np.uint8)
    return View("s", "0", image, np.ones((20, 50)), np.eye(4), PUBLISHED_INTRINSICS, labels.reshape(20, 50))


def test_template():
    say = TemplateCaptioner(BENCHMARK)
    assert say([view_of("chair", "wall")]) == ["a photo of a room with a chair and a wall"]
    assert say([view_of("table"), view_of()]) == ["a photo of a room with a table", "a photo of a room"]
    assert say([view_of("chair", share=0.005)]) == ["a photo of a room"]


def test_template_names_novel_classes_only_if_told():
    view = view_of("sofa", "table", "toilet")
    assert TemplateCaptioner(BENCHMARK)([view]) == ["a photo of a room with a table"]
    told = TemplateCaptioner(BENCHMARK, novel=True)([view])
    assert told == ["a photo of a room with a sofa, a table and a toilet"]


def test_template_needs_labels():
    view = view_of("chair")
    view.label_map = None
    with pytest.raises(UserError, match="no label picture"):
        TemplateCaptioner(BENCHMARK)([view])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scans"), views=3, spacing=0.2)


def test_goes_on_where_it_was(root, tmp_path):
    reader, out = SCANNET.open(root, "train", BENCHMARK), tmp_path / "c.json"
    out.write_text(json.dumps({"scene0000_00": {"0": "kept"}, "other": {"1": "kept too"}}))
    asked = []

    def captioner(views):
        asked.extend((view.scene, view.name) for view in views)
        return [f"{view.scene} {view.name}" for view in views]

    captioner.reads = "image"
    assert caption_views([reader], captioner, out, batch=2) == 5
    captions = json.loads(out.read_text())
    assert captions["scene0000_00"] == {"0": "kept", "20": "scene0000_00 20", "40": "scene0000_00 40"}
    assert captions["other"] == {"1": "kept too"} and len(captions["scene0001_00"]) == 3
    assert caption_views([reader], captioner, out) == 0 and len(asked) == 5


def test_tool(root, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("benchmark: scannet20/B15N4\n")
    out = tmp_path / "new.json"
    arguments = (tmp_path / "c.yaml", f"data.root={root}", f"data.captions={out}", "--model", "template")
    assert run_command("caption", *arguments) == 0
    captions = json.loads(out.read_text())
    assert sorted(captions) == ["scene0000_00", "scene0001_00", "scene0002_00"]
    assert all(text.startswith("a photo of a room") for views in captions.values() for text in views.values())
    assert "9 views captioned" in capsys.readouterr().out


def test_only_what_a_caption_needs_is_read(tmp_path, capsys):
    root, out = write_scenes(tmp_path / "scans", views=3, spacing=0.2), tmp_path / "c.json"
    frames = root / "scannet_2d" / "scene0000_00"
    (frames / "pose" / "0.txt").write_text("inf " * 16)
    (frames / "label" / "20.png").write_bytes(b"no picture")
    (tmp_path / "c.yaml").write_text("benchmark: scannet20/B15N4\n")
    arguments = (tmp_path / "c.yaml", f"data.root={root}", "--model", "template", "--out", out)
    assert run_command("caption", *arguments) == 1
    captured = capsys.readouterr()
    assert "8 views captioned, 1 left out" in captured.out
    assert f"view skipped: {frames / 'label' / '20.png'}: " in captured.err
    assert sorted(json.loads(out.read_text())["scene0000_00"]) == ["0", "40"]


def test_sentences_survive_a_refused_view(tmp_path):
    root, out = write_scenes(tmp_path / "scans", views=3, spacing=0.2), tmp_path / "c.json"
    (root / "scannet_2d" / "scene0000_00" / "color" / "40.jpg").write_bytes(b"no picture")
    reader = SCANNET.open(root, "train", BENCHMARK)

    def captioner(views):
        return ["said"] * len(views)

    captioner.reads = "image"
    with pytest.raises(UserError, match=r"40\.jpg"):
        caption_views([reader], captioner, out, batch=1, refuse=True)
    assert json.loads(out.read_text())["scene0000_00"] == {"0": "said", "20": "said"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--batch", "0", "--batch 0: is 1 or more"), ("--out", "{}", "is a folder"), ("--out", "{}/c.yaml/x", "written")],
)
def test_wrong_options_are_one_line(root, tmp_path, capsys, option, value, message):
    (tmp_path / "c.yaml").write_text("benchmark: scannet20/B15N4\n")
    arguments = (tmp_path / "c.yaml", f"data.root={root}", "--model", "template")
    assert run_command("caption", *arguments, option, value.format(tmp_path)) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    with pytest.raises(UserError, match="1 or more"):
        caption_views([], TemplateCaptioner(BENCHMARK), tmp_path / "c.json", batch=0)


def test_missing_package_and_model(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--model template"):
        ModelCaptioner(str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install"):
        ModelCaptioner("any")


def test_local_model(tmp_path):
    """A tiny image-to-text network with random weights, saved as the hub's are."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "a", "room", "with", "chair"])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    encoder = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16
    )
    decoder = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=len(words), n_positions=64, bos_token_id=1, eos_token_id=2
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    model = transformers.VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id, model.generation_config.pad_token_id = 1, 0
    for part in (tokenizer, model, transformers.ViTImageProcessor(size={"height": 32, "width": 32})):
        part.save_pretrained(tmp_path)
    captioner = ModelCaptioner(str(tmp_path), beams=2, max_length=8)
    view = view_of("chair")
    view.image = np.asarray(Image.effect_noise((50, 20), 90).convert("RGB"))
    first, second = captioner([view, view])
    assert first == second and set(first.split()) <= set(words) and len(first.split()) <= 8
