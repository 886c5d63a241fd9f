import pytest
import torch

from tests.helpers.golden import assert_matches, load_case
from tests.parity.filler import fill_module, random_normal
from xmask3d.models.pyramid import FeaturePyramid

CHANNELS = [512, 512, 2560, 1920, 960, 640, 512, 512]
STRIDES = [4, 8, 64, 32, 16, 8, 8, 4]


def published_name(name: str) -> str:
    """`projections.{i}.x` is published as `{i}.0.x` after `backbone.feature_projections.`."""
    _, index, rest = name.split(".", 2)
    return f"{index}.0.{rest}"


@pytest.mark.parametrize("case", ["sq", "rect"])
def test_matches_recorded_levels(case: str) -> None:
    inputs, outputs = load_case("d_projection")
    names = [f"feature{index}" for index in range(8)]
    maps = [torch.from_numpy(random_normal(f"d_projection.{name}", tuple(inputs[f"{name}_shape"]))) for name in names]
    pyramid = FeaturePyramid(CHANNELS, STRIDES)
    fill_module(pyramid, "backbone.feature_projections.", published_name)
    height, width = (int(size) for size in inputs[f"input_image_size_{case}"])
    for level, x in zip((2, 3, 4, 5), pyramid(maps, (height, width)), strict=True):
        assert_matches(outputs, f"{case}_s{level}", x)


def test_shortcut_only_where_channels_change() -> None:
    names = {name.split(".")[1] for name in FeaturePyramid(CHANNELS, STRIDES).state_dict() if "shortcut" in name}
    assert names == {"2", "3", "4", "5"}


def test_checkpointing_changes_nothing() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(1, 8, 4, 4, requires_grad=True), torch.randn(1, 6, 2, 2, requires_grad=True)]
    pyramid = FeaturePyramid([8, 6], [4, 64], channels=8, mid_channels=4, groups=2).double()
    gradients = []
    for checkpointing in (False, True):
        pyramid.checkpointing = checkpointing
        levels = pyramid([x.double() for x in maps], (16, 16))
        assert [tuple(level.shape) for level in levels] == [(1, 8, 4, 4), (1, 8, 1, 1)]
        gradients.append(torch.autograd.grad(sum(level.square().sum() for level in levels), maps))
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)
        assert plain.abs().max() > 0
