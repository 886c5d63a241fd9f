"""Initial weights of the published network: distribution, spread and bias of every one of its tensors."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from xmask3d.build import assemble
from xmask3d.checkpoints.names import CONSTANTS, published_name
from xmask3d.checkpoints.published import Layout
from xmask3d.config import Config
from xmask3d.models.clip import MaskClip
from xmask3d.models.loading.clip_weights import build_clip
from xmask3d.models.loading.diffusion_weights import build_diffusion

# Distribution and its standard deviation, or the largest value of a uniform one, or the value of a constant.
Rule = tuple[str, float]
SIZES = {"embed_dim": 768, "vision_cfg": {"width": 64, "layers": 1}, "text_cfg": {"width": 64, "heads": 1, "layers": 1}}


def zeros(shape: tuple[int, ...]) -> Rule:
    return "constant", 0.0


def ones(shape: tuple[int, ...]) -> Rule:
    return "constant", 1.0


def normal(shape: tuple[int, ...]) -> Rule:
    return "normal", 1.0


def xavier(shape: tuple[int, ...]) -> Rule:
    return "uniform", math.sqrt(6 / (shape[0] + shape[1]))


def lecun(shape: tuple[int, ...]) -> Rule:
    """Uniform with a variance of one over the inputs."""
    return "uniform", math.sqrt(3 / math.prod(shape[1:]))


def default(shape: tuple[int, ...]) -> Rule:
    """The uniform weights of torch's linear layers."""
    return "uniform", 1 / math.sqrt(math.prod(shape[1:]))


def bias_of(inputs: int) -> Callable[[tuple[int, ...]], Rule]:
    """The biases of torch's linear layers."""
    return lambda shape: ("uniform", 1 / math.sqrt(inputs))


def sparse(shape: tuple[int, ...]) -> Rule:
    """A kernel taps x in x out; in x out where there is one tap, whose fan counts the inputs."""
    return "normal", math.sqrt(2 / (shape[0] if len(shape) == 2 else shape[0] * shape[2]))


def transposed(shape: tuple[int, ...]) -> Rule:
    return "uniform", 1 / math.sqrt(8 * shape[2])


def kaiming(shape: tuple[int, ...]) -> Rule:
    return "normal", math.sqrt(2 / (shape[0] * math.prod(shape[2:])))


# The first expression that is found in a published name decides.
RULES: list[tuple[str, Callable[[tuple[int, ...]], Rule]]] = [
    (r"num_batches_tracked$|running_mean$", zeros),
    (r"running_var$", ones),
    (r"^pc_.*(bn|batch_norm)\.weight$", ones),
    (r"^pc_.*(bn|batch_norm)\.bias$", zeros),
    (r"encoder\.convtr.*kernel$", transposed),
    (r"kernel$", sparse),
    (r"^pc_.*weight$", default),
    (r"^pc_.*bias$", bias_of(256)),
    (r"norm\d?\.weight$|input_proj\.\d\.1\.weight$", ones),
    (r"norm\d?\.bias$|input_proj\.\d\.1\.bias$", zeros),
    (r"feature_projections.*weight$", kaiming),
    (r"alpha_cond", zeros),
    (r"positional_embedding$", lambda shape: ("truncated", 0.02)),
    (r"(clip|time_embed)_project\.linear\.weight$", default),
    (r"(clip|time_embed)_project\.linear\.bias$", bias_of(768)),
    (r"(adapter_1|layer_1|mask_features)\.weight$", lecun),
    (r"pixel_decoder.*input_proj.*weight$", xavier),
    (r"(value_proj|output_proj)\.weight$", xavier),
    (r"(mask_features|input_proj\.\d\.0|value_proj|output_proj|attention_weights)\.bias$", zeros),
    (r"(sampling_offsets|attention_weights)\.weight$", zeros),
    (r"pixel_decoder.*linear\d\.weight$", default),
    (r"pixel_decoder.*linear1\.bias$", bias_of(256)),
    (r"pixel_decoder.*linear2\.bias$", bias_of(1024)),
    (r"level_embed|query_feat|query_embed", normal),
    (r"pool_proj\.0\.weight$|mask_embed\.0\.weight$", ones),
    (r"pool_proj\.0\.bias$|mask_embed\.0\.bias$", zeros),
    (r"predictor.*(in_proj_weight|weight)$", xavier),
    (r"predictor.*(in_proj_bias|out_proj\.bias)$", zeros),
    (r"predictor.*linear2\.bias$", bias_of(2048)),
    (r"predictor.*bias$", bias_of(256)),
    (r"logit_scale$", lambda shape: ("constant", math.log(1 / 0.07))),
    (r"fuser\.linear\.weight$", default),
    (r"fuser\.linear\.bias$", bias_of(1536)),
]


def rule_of(name: str, shape: tuple[int, ...]) -> Rule:
    return next(rule for pattern, rule in RULES if re.search(pattern, name))(shape)


def problem(tensor: Tensor, rule: Rule) -> str | None:
    """Say how a tensor differs from a distribution, by moments and extremes."""
    kind, spread = rule
    values, count = tensor.detach().double().flatten(), tensor.numel()
    if kind == "constant":
        return None if bool(((values - spread).abs() < 1e-6).all()) else f"is not {spread}"
    sigma = spread / math.sqrt(3) if kind == "uniform" else spread
    sigma *= 0.99 if kind == "truncated" else 1.0
    within = 6 * sigma / math.sqrt(count)
    if abs(float(values.mean())) > within:
        return f"has a mean of {float(values.mean()):.3g}"
    if abs(float(values.square().mean().sqrt()) / sigma - 1) > 0.015 + 6 / math.sqrt(count):
        return f"has a spread of {float(values.square().mean().sqrt()):.4g}, not {sigma:.4g}"
    largest = float(values.abs().max())
    if kind == "uniform" and largest > spread * (1 + 1e-6):
        return f"reaches {largest:.4g}, not {spread:.4g}"
    if kind == "normal" and count > 500 and largest < 2.5 * sigma:
        return f"reaches {largest:.4g} only: no normal distribution"
    return None


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """The published network with its initial weights, around frozen ones of which there are only shapes."""
    torch.manual_seed(0)
    with torch.device("meta"):
        clip = build_clip(SIZES)
        diffusion = build_diffusion(noise=torch.randn(1, 4, 64, 64))
    null, prompt = torch.randn(1, 768), torch.randn(1, 77, 768)
    model = assemble(Config().model, diffusion=(diffusion, prompt), mask_clip=MaskClip(clip), null_embedding=null)
    assert len(Layout.of(model).shapes) == 1073
    state = {published_name(name): tensor for name, tensor in model.state_dict().items()}
    assert torch.equal(state.pop("category_head.null_embed"), null)
    return state


def test_every_tensor_starts_as_published(tensors: dict[str, Tensor]) -> None:
    assert len(tensors) == 1073 - 1 - len(CONSTANTS)
    offsets = [name for name in tensors if name.endswith("sampling_offsets.bias")]
    problems = {
        name: found
        for name, tensor in tensors.items()
        if name not in offsets and (found := problem(tensor, rule_of(name, tuple(tensor.shape))))
    }
    assert not problems
    assert len(offsets) == 6


def test_sampling_starts_on_a_ring(tensors: dict[str, Tensor]) -> None:
    """Each of the 8 heads looks along a direction of its own, its 4 points 1 to 4 cells away, alike on 3 levels."""
    for name in (name for name in tensors if name.endswith("sampling_offsets.bias")):
        places = tensors[name].view(8, 3, 4, 2)
        assert (places == places[:, :1]).all()
        torch.testing.assert_close(places.abs().amax(-1), torch.arange(1.0, 5).expand(8, 3, 4))
        angles = torch.atan2(places[:, 0, 0, 1], places[:, 0, 0, 0]) % (2 * math.pi)
        torch.testing.assert_close(angles, torch.arange(8) * math.pi / 4)


@pytest.mark.parametrize(
    "values, rule, expected",
    [
        (torch.full((1000,), 0.1), ("normal", 0.1), "mean"),
        (0.2 * torch.randn(1000), ("normal", 0.1), "spread"),
        (0.1 * torch.randn(1000), ("uniform", 0.1 * math.sqrt(3)), "reaches"),
        (0.1 * math.sqrt(3) * (2 * torch.rand(1000) - 1), ("normal", 0.1), "no normal"),
        (torch.ones(3), ("constant", 0.0), "is not 0"),
    ],
)
def test_other_distributions_are_noticed(values: Tensor, rule: Rule, expected: str) -> None:
    assert expected in (problem(values, rule) or "")
