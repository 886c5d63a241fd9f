from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from xmask3d.benchmark import load_benchmark
from xmask3d.config import load_config
from xmask3d.engine.labeller import Labeller
from xmask3d.errors import UserError
from xmask3d.models.build import build_model


def text_of(config: Path, *overrides: str) -> torch.Tensor:
    settings = load_config(config, list(overrides))
    assembly = build_model(settings)
    benchmark = load_benchmark(settings.benchmark)
    return Labeller(assembly.model, assembly.clip_text, benchmark, settings.evaluate, Accelerator(cpu=True)).text


def test_several_prompts_of_a_class_are_averaged(tiny: Path) -> None:
    plain = text_of(tiny)
    assert plain.shape == (19, 32)
    parts = [text_of(tiny, f"evaluate.templates=['{t}']") for t in ("{}", "a photo of a {} in a room")]
    assert torch.equal(parts[0], plain) and not torch.equal(parts[1], plain)
    both = text_of(tiny, "evaluate.templates=['{}', 'a photo of a {} in a room']")
    torch.testing.assert_close(both, torch.stack([F.normalize(part, dim=-1) for part in parts]).mean(0))


def test_the_other_published_sentences(tiny: Path) -> None:
    plain, other = text_of(tiny), text_of(tiny, "evaluate.prompts=sentences")
    changed = (plain != other).any(1)
    names = load_benchmark("scannet20/B10N9").class_names
    assert not changed[names.index("curtain")] and not changed[names.index("wall")]
    assert changed[names.index("toilet")] and changed[names.index("picture")]


def test_templates_need_one_place_for_the_name(tiny: Path) -> None:
    with pytest.raises(UserError, match="needs exactly one"):
        text_of(tiny, "evaluate.templates=['a photo']")
