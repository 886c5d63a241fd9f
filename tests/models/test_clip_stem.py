import json
from pathlib import Path

import pytest
import timm
import torch

from tools.pretraining.clip_training import make_tokenizer, model_config
from tools.pretraining.export import export_clip
from xmask3d.errors import UserError
from xmask3d.models.clip import ClipText, MaskClip
from xmask3d.models.clip_stem import ConvStem, imagenet_weights, take_stem
from xmask3d.models.loading.clip_weights import build_clip, load_clip


def test_stem_is_the_first_blocks_of_the_network() -> None:
    torch.manual_seed(0)
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(3,)).eval()
    stem = ConvStem(24).eval()
    stem.features.load_state_dict(whole.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(stem.describe(images), whole(images)[0])
        assert stem(images).shape == (1, 24, 4, 6)
        torch.testing.assert_close(stem(images), stem.project(stem.describe(images)))


def test_statistics_stay_in_training() -> None:
    stem = ConvStem(8).train()
    before = {name: value.clone() for name, value in stem.state_dict().items()}
    stem(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in stem.state_dict().items())


def test_only_the_known_stem_is_taken() -> None:
    assert take_stem({"width": 8}) == ({"width": 8}, False)
    assert take_stem({"width": 8, "stem": "efficientnet_lite0"}) == ({"width": 8}, True)
    with pytest.raises(ValueError, match="resnet"):
        take_stem({"stem": "resnet"})


def test_a_folder_with_a_stem_loads(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    clip = build_clip(model_config(tokenizer.vocab_size)).half().float().eval()
    # The blocks themselves are not in the folder: they come with their package.
    clip.visual.conv1.load_state_dict(imagenet_weights(clip.visual.conv1), strict=False)
    export_clip(tmp_path, clip, tokenizer)
    loaded = load_clip(tmp_path)
    images, masks = torch.rand(1, 3, 192, 192), torch.randn(1, 2, 24, 24)
    mask_clip = MaskClip(loaded.model)
    clip.visual.image_mean, clip.visual.image_std = loaded.model.visual.image_mean, loaded.model.visual.image_std
    torch.testing.assert_close(mask_clip(images, masks), MaskClip(clip)(images, masks))
    torch.testing.assert_close(ClipText(*loaded)(["a sofa"]), ClipText(clip, tokenizer)(["a sofa"]))


def test_an_unknown_stem_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    config = model_config(tokenizer.vocab_size)
    config["vision_cfg"]["stem"] = "resnet"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UserError, match="resnet"):
        load_clip(tmp_path)
