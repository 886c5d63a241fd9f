"""Model card of a trained model for the Hugging Face hub: data, protocol, scores, use and licence."""

from xmask3d.config import Config
from xmask3d.guarded import parse_json, reading

FRONT = """---
library_name: xmask3d
license: mit
tags: [point-cloud, 3d-segmentation, open-vocabulary]
---
"""
BRANCHES = {"fused": "fused", "2d": "2D alone", "3d": "3D alone"}


def model_card(config: Config, about: dict[str, str], numbers: int) -> str:
    """Write the card as Markdown, with front matter for the hub.

    Args:
        config: configuration of the model, without paths of the machine that trained.
        about: training facts, as in the metadata of the weights: benchmark, step, metrics.
        numbers: number of trained values.
    """
    data, train, model = config.data, config.train, config.model
    steps = f"{about['step']} steps of {train.batch_size} views" if "step" in about else "not recorded"
    lines = [
        FRONT,
        f"# {config.output.name}: open-vocabulary 3D segmentation\n",
        "A model of [xmask3d](https://arxiv.org/abs/2411.13243): labels indoor scans by any words.\n",
        '```python\nfrom xmask3d import Segmenter\n\nsegmenter = Segmenter.from_pretrained("org/name")\n```\n',
        "| | |\n|---|---|",
        f"| benchmark | {config.benchmark} |",
        f"| data | `{data.root}`, split `{data.train_split}`, {data.views_per_scene} views a scene, voxels of "
        f"{100 * data.voxel_size:g} cm |",
        f"| training | {steps}, at {train.precision} |",
        f"| protocol | {config.protocol}; scores on the split `{data.val_split}`, "
        f"{train.evaluate_views} views a scene |",
        f"| size | {numbers / 1e6:.2f} M trained values |",
        f"| frozen networks | CLIP: {model.clip}; diffusion: {model.diffusion} |",
        "",
        "## Scores\n",
        *_scores(about),
        "## Limits\n",
        "It knows scenes like those it was trained on. Words far from its classes, and rooms unlike its data, are "
        "labelled with less success than the scores say.\n",
        "## Licence\n",
        "The trained weights: MIT. " + _frozen_licence(config),
    ]
    return "\n".join(lines) + "\n"


def _scores(about: dict[str, str]) -> list[str]:
    lines = []
    source, expected = "metadata of the model", "scores of a run"
    with reading(source, expected):  # the file may be anybody's
        evaluation, metrics = (parse_json(about.get(key, "{}"), source, expected) for key in ("evaluation", "metrics"))
        if evaluation:
            extent = f"{evaluation['scenes']} scenes, {evaluation['views']} views, protocol {evaluation['protocol']}"
            lines += [f"Evaluation of {extent}:\n", *_table({f"fused_{k}": v for k, v in evaluation["scores"].items()})]
        if metrics:
            lines += ["Validation at the end of training, few views:\n", *_table(metrics)]
    return lines or ["None were recorded.\n"]


def _table(scores: dict[str, float]) -> list[str]:
    return ["| score | |\n|---|---|", *(f"| {_title(name)} | {100 * scores[name]:.1f} % |" for name in scores), ""]


def _title(name: str) -> str:
    branch, _, score = name.partition("_")
    score = score.replace("_", " ").replace("hiou", "hIoU").replace("miou", "mIoU")
    return f"{BRANCHES[branch]}, {score}" if branch in BRANCHES else name.replace("_", " ")


def _frozen_licence(config: Config) -> str:
    if (config.model.clip, config.model.diffusion) == ("shipped", "shipped"):
        return "CLIP and the diffusion model are the small stand-ins that come with xmask3d, under MIT as well."
    return (
        "CLIP and Stable Diffusion are not contained and have licences of their own; that of Stable Diffusion, "
        "CreativeML OpenRAIL-M, restricts uses."
    )
