"""Configuration: one typed schema, YAML files with `include`, and `key=value` overrides."""

import difflib
import logging
import string
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from xmask3d.config_files import assign, read_with_includes, where
from xmask3d.dotted import is_dotted
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.guarded import parse_yaml
from xmask3d.resources import find_configuration
from xmask3d.seal import sealed_yaml
from xmask3d.trust import foreign_names

log = logging.getLogger(__name__)

RENAMED = {"train.keep_encodings": "train.feature_cache"}
"""Keys of earlier versions, and their present names."""

BUILT_IN_PARTS = {
    "point_network": {"point_transformer": "xmask3d.models.point_transformer.PointTransformer"},
    "image_features": {"timm": "xmask3d.models.timm_features.timm_features"},
}
"""Classes of this program that keys of `model` choose by a short name."""

Side = Annotated[int, Field(gt=0, le=1 << 14)]
"""Height or width of a picture in pixels."""


class Section(BaseModel):
    """Group of keys; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class DataConfig(Section):
    """Data: folders of scans, and the steps from one view to a sample."""

    root: Path = Field(Path("data/scannet"), description="folder with scannet_3d, scannet_2d (and scannet_3d_200)")
    layout: str = Field(
        "scannet",
        description="data set: scannet, scannet200, s3dis, scannetpp, matterport, arkitscenes, replica, or the dotted "
        "path of a DatasetSpec of your own",
    )
    captions: Path | None = Field(None, description="JSON {scene: {view: sentence}}; default <root>/captions.json")
    train_split: str = Field("train", description="split folder to train on")
    val_split: str = Field("val", description="split folder to evaluate on")
    frame_size: tuple[Side, Side] = Field(
        (240, 320), description="height and width of the frame grid that points index"
    )
    image_size: tuple[Side, Side] = Field((512, 512), description="height and width that images are resized to")
    voxel_size: float = Field(0.02, gt=0, description="edge of a voxel in metres")
    border: int = Field(10, ge=0, description="pixels at the frame's edge that see nothing")
    depth_tolerance: float = Field(0.25, gt=0, description="share of the depth by which a visible point may differ")
    min_points: int = Field(400, ge=0, description="a training view needs more visible points than this")
    max_points: int = Field(65000, gt=0, description="and fewer than this")
    min_labelled: int = Field(10, ge=0, description="and more base or novel points than this")
    views_per_scene: int = Field(16, ge=1, description="samples drawn from each scene per epoch")
    rotate: bool = Field(True, description="random rotation and scale in training")
    augment_color: bool = Field(False, description="chromatic contrast, translation and jitter in training")
    augment_shape: bool = Field(False, description="elastic distortion and flips in training")
    bad_views: Literal["skip", "refuse"] = Field("skip", description="damaged views: report and skip, or stop")
    cache: Path | None = Field(None, description="folder for decoded scenes, visibility and encodings")
    workers: int = Field(4, ge=0, description="loader processes per training process")


Stages = Annotated[tuple[PositiveInt, ...], Field(min_length=8, max_length=8)]


class UNetConfig(Section):
    """Sizes of a MinkUNet."""

    stem: PositiveInt = Field(32, description="channels of the first convolution")
    layers: Stages = Field((2, 3, 4, 6, 2, 2, 2, 2), description="residual blocks of the eight stages")
    planes: Stages = Field((32, 64, 128, 256, 256, 128, 96, 96), description="channels of the eight stages")
    out_channels: PositiveInt = Field(256, description="output channels")


# Numbers of channels that are normalised in 32 groups.
Grouped = Annotated[PositiveInt, Field(multiple_of=32)]


class ModelConfig(Section):
    """Sizes of the networks and sources of the frozen ones."""

    clip: str = Field("ViT-L-14/openai", description="'shipped', an open_clip name/tag, or a local file or folder")
    clip_precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="type of the weights and products of CLIP's image tower"
    )
    diffusion: str = Field(
        "pretrained/sd_model/sd-v1-3.ckpt",
        description="'shipped', a diffusers folder, a CompVis file, or org/name of the Hugging Face hub",
    )
    diffusion_precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="type of numbers in which the frozen diffusion model computes"
    )
    diffusion_channels_last: bool = Field(False, description="memory layout of the frozen diffusion model")
    condition: Literal["point", "image", "text", "none"] = Field(
        "point",
        description="feature that conditions the diffusion UNet: of the points, as published, CLIP's of the image, "
        "that of the view's caption (at test time see evaluate.condition_text), or none",
    )
    image_features: str | None = Field(
        None,
        description="timm, for a backbone of it in place of diffusion, or the dotted path of an ImageFeatures of your "
        "own; null for the diffusion model",
    )
    image_features_options: dict[str, Any] = Field({}, description="keyword arguments of model.image_features")
    point_network: str | None = Field(
        None,
        description="point_transformer, or the dotted path of a PointNetwork of your own; null for the MinkUNet of "
        "model.point_unet",
    )
    point_network_options: dict[str, Any] = Field({}, description="keyword arguments of model.point_network")
    point_unet: UNetConfig = UNetConfig()
    binary_unet: UNetConfig = UNetConfig(layers=(2, 2, 2, 2, 2, 2, 2, 2), planes=(32, 64, 128, 256, 128, 128, 96, 96))
    pyramid_channels: Grouped = Field(512, description="channels of the projected feature maps")
    pyramid_mid_channels: Grouped = Field(128, description="channels inside a projection block")
    hidden: Grouped = Field(256, description="channels of pixel and mask decoder")
    heads: PositiveInt = Field(8, description="attention heads of pixel and mask decoder")
    pixel_layers: PositiveInt = Field(6, description="layers of the deformable encoder")
    pixel_ffn: PositiveInt = Field(1024, description="inner channels of its feed-forward blocks")
    mask_layers: PositiveInt = Field(9, description="layers of the mask decoder")
    mask_ffn: PositiveInt = Field(2048, description="inner channels of its feed-forward blocks")
    queries: int = Field(50, ge=1, description="mask queries")
    checkpointing: bool | Literal["auto"] = Field(
        False,
        description="trade time for memory in diffusion UNet and projections; auto where a training would not fit into "
        "the GPU without",
    )

    @field_validator("image_features", "point_network")
    @classmethod
    def _names_a_class(cls, path: str | None, key: ValidationInfo) -> str | None:
        known = BUILT_IN_PARTS.get(key.field_name or "", {})
        if path is not None and path not in known and not is_dotted(path):
            names = "".join(f"not {name}, and " for name in known)
            raise ValueError(f"{names}no dotted path, such as package.module.class")
        return path

    @field_validator("heads")
    @classmethod
    def _heads_share_the_channels(cls, heads: int, others: ValidationInfo) -> int:
        hidden = others.data.get("hidden", heads)
        if hidden % heads:
            raise ValueError(f"the {hidden} channels of model.hidden do not divide by it")
        return heads


class LossConfig(Section):
    """Weights of the losses (paper Eq. 9-14)."""

    mask_class: float = Field(2.0, ge=0, description="class cross entropy of the set loss")
    mask: float = Field(5.0, ge=0, description="binary cross entropy of the masks")
    dice: float = Field(5.0, ge=0, description="dice of the masks")
    no_object: float = Field(0.1, ge=0, description="weight of the null class in the class cross entropy")
    num_points: int = Field(12544, ge=1, le=1 << 24, description="points per mask of matcher and mask losses")
    point_fused: float = Field(4.0, ge=0, description="point cross entropy of the fused feature")
    point_3d: float = Field(4.0, ge=0, description="point cross entropy of the 3D feature")
    point_balance: float = Field(
        0.0, ge=0, le=1, description="0 counts every point alike in both, 1 every class that a batch has"
    )
    caption_fused: float = Field(1.5, ge=0, description="view caption against mean fused feature")
    caption_3d: float = Field(1.0, ge=0, description="view caption against mean 3D feature")
    caption_2d: float = Field(4.0, ge=0, description="view caption against mean 2D feature")
    binary: float = Field(16.0, ge=0, description="base-or-novel cross entropy")
    binary_positive_weight: float = Field(0.267, ge=0, description="weight of base points in it")
    mask_regularisation: float = Field(0.5, ge=0, description="3D feature of a mask against its CLIP embedding")
    mask_regularisation_start: int = Field(50, ge=0, description="first epoch (from 0) of the mask regularisation")
    extra: dict[str, float] = Field({}, description="losses of your own: {dotted path of its class: weight}")

    @field_validator("extra")
    @classmethod
    def _are_dotted(cls, extra: dict[str, float]) -> dict[str, float]:
        for path, weight in extra.items():
            if not is_dotted(path) or weight < 0:
                raise ValueError("expected dotted paths of classes with weights of 0 or more")
        return extra


class TrainConfig(Section):
    """Optimisation."""

    epochs: int = Field(150, ge=1, description="epochs")
    start_from: Path | None = Field(
        None, description="weights to fine-tune: a model folder, checkpoint or weight file; null for random ones"
    )
    batch_size: int = Field(64, ge=1, description="samples per step over all processes")
    lr_3d: float = Field(1e-3, gt=0, description="learning rate of the 3D networks")
    lr_others: float = Field(1e-4, gt=0, description="learning rate of everything else")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up before the cosine")
    clip_grad: float | None = Field(None, gt=0, description="largest gradient norm; null for no limit")
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="autocast type")
    samples_per_process: int | None = Field(
        None, ge=1, description="samples of a micro-batch, which batch norm sees at once; null for no limit"
    )
    batch_norm: Literal["local", "sync"] = Field(
        "local", description="batch norm sees the samples of its own process, or of all (GPUs only)"
    )
    accumulate: int = Field(1, ge=1, description="micro-batches per step, where samples_per_process sets no number")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the averaged weights; null for none")
    feature_cache: bool = Field(
        False, description="encode each view by the frozen VAE once; kept in data.cache if set, else in memory"
    )
    supervision: Literal["base", "none"] = Field(
        "base",
        description="labels that train: those of base classes, or none: regions of the geometry, named by CLIP's "
        "view of each, take their place; the binary head then rests, so evaluate.gate must be clip or none",
    )
    novel_supervision: Literal["reference", "none"] = Field(
        "reference", description="whether labels of novel classes train the binary head and choose masks"
    )
    fit_gate: bool = Field(
        False,
        description="end with fitting the weights of evaluate.regions=gate to regions of training scenes; needs "
        "evaluate.region_clip and labels of novel classes. The fixed weights were better on Rooms",
    )
    log_every: int = Field(10, ge=1, description="steps between log lines")
    save_every: int = Field(1, ge=1, description="epochs between checkpoints")
    save_minutes: float | None = Field(
        10.0, ge=0, description="minutes between checkpoints inside an epoch; null for none"
    )
    keep: int = Field(2, ge=1, description="checkpoints kept beside the best")
    evaluate_every: int = Field(1, ge=0, description="epochs between validations; 0 for never")
    evaluate_views: int = Field(1, ge=1, description="views of each scene that a validation looks at")
    picture_every: int = Field(1, ge=0, description="epochs between pictures in TensorBoard; 0 for never")
    checkpoints: list[PositiveInt] = Field([], description="epochs whose checkpoint is kept for good")

    @model_validator(mode="after")
    def _one_number_of_micro_batches(self) -> "TrainConfig":
        if self.samples_per_process and self.accumulate > 1:
            raise ValueError("samples_per_process decides it; leave train.accumulate at 1")
        return self


class EvaluateConfig(Section):
    """Evaluation of complete scenes (paper section 3.5)."""

    gate: Literal["hard", "soft", "none", "clip"] = Field(
        "hard",
        description="how the binary head chooses between base and novel classes; 'hard' is published; 'clip' leaves it "
        "to CLIP's class names, which needs no label of a novel class",
    )
    votes: Literal["hard", "soft"] = Field(
        "hard", description="what views vote with on a point: their best class, as published, or all probabilities"
    )
    regions: Literal["none", "votes", "gate"] = Field(
        "none",
        description="votes are summed over regions of the cloud, not of the paper; gate also decides between base and "
        "novel classes region by region, by head and CLIP, or by CLIP alone where evaluate.gate is clip; needs votes: "
        "soft, none under protocol: reference",
    )
    region_clip: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of CLIP's own view of a region in its class; the gate hears it too; needs evaluate.regions",
    )
    condition_text: Literal["names", "captions"] = Field(
        "names",
        description="text of model.condition=text at test time: the mean of all class names, or the view's caption, as "
        "in the paper's table; captions that were written from labels, such as those of Rooms, contain the answer",
    )
    base_ratio: float = Field(0.65, ge=0, le=1, description="exponent of the model's probability for base classes")
    novel_ratio: float = Field(0.35, ge=0, le=1, description="the same for novel classes")
    instances: bool = Field(
        False,
        description="separate objects too, write labels and objects as ScanNet's benchmarks take them, and score them "
        "against the data's instance_gt; not of the paper",
    )
    max_points: int = Field(10_000_000, description="views with more visible points are left out")
    max_views: int | None = Field(
        None, ge=1, description="at most this many views a scene, evenly spaced; null for all"
    )
    angle: float = Field(
        0.5,
        description="radians about z that scans are turned by: voxels in line with walls are rare in training",
    )
    rotations: int = Field(1, ge=1, description="test-time rotations averaged; 1 is none")
    batch_size: int = Field(8, ge=1, description="views per forward")
    workers: int = Field(2, ge=0, description="loader processes")
    prompts: str | None = Field(None, description="named prompt list of the benchmark; null for the class names")
    headlines: list[str] = Field(
        ["hiou"],
        min_length=1,
        description="scores to report: hiou, hacc, f_miou, f_macc, miou_<class group>, macc_<class group>, or the "
        "dotted path of a function of your own; the best checkpoint of a training is that with most of the first",
    )
    templates: list[str] = Field(
        ["{}"], min_length=1, description="sentences around a class name, {} in its place; embeddings are averaged"
    )
    confidence_temperature: float = Field(
        1.0,
        gt=0,
        description="calibrates the confidence of own scans' labels; fitted by python -m tools.studies.reliability",
    )

    @model_validator(mode="after")
    def _regions_sum_probabilities(self) -> "EvaluateConfig":
        if self.regions != "none" and self.votes != "soft":
            raise ValueError("regions sum probabilities; set evaluate.votes=soft, or evaluate.regions=none")
        return self

    @field_validator("templates")
    @classmethod
    def _have_a_place_for_the_name(cls, templates: list[str]) -> list[str]:
        for template in templates:
            places = [place for _, place, *_ in string.Formatter().parse(template) if place is not None]
            if places != [""]:
                raise ValueError(f"'{template[:40]}' needs one {{}}, the place of the class name, and no other braces")
        return templates

    @field_validator("gate", mode="before")
    @classmethod
    def _of_earlier_versions(cls, value: Any) -> Any:
        """Convert values of earlier versions, which were true or false."""
        return {True: "hard", False: "none"}[value] if isinstance(value, bool) else value


class SparseConfig(Section):
    """Sparse convolution."""

    backend: Literal["auto", "native", "torch", "spconv", "minkowski"] = Field(
        "auto",
        description="implementation; auto is native (compiled here) on a CPU where that works, on CUDA the fastest of "
        "torch and what is installed of spconv and minkowski (timed once), else torch",
    )


class Config(Section):
    """Configuration of a run."""

    benchmark: str = Field(
        "scannet20/B15N4", description="class list and split: dataset/<list>.yaml, or a list of your own by its path"
    )
    protocol: Literal["default", "reference"] = Field("default", description="'reference' restores published quirks")
    output: Path = Field(Path("runs/default"), description="folder of checkpoints, logs and results")
    seed: int = Field(5557, ge=0, lt=2**31, description="seed of every random generator")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    sparse: SparseConfig = SparseConfig()


def load_config(path: Path | str, overrides: list[str] | None = None, trusted: bool = True) -> Config:
    """Load a YAML file, follow its `include`s, apply `a.b=value` overrides and check everything.

    Args:
        path: a file, or the name of a shipped configuration, such as "rooms/B15N4".
        overrides: `key=value` each, the value in YAML.
        trusted: allow what leads out of this program (`foreign_names`): code that is imported, and downloads; false for
            a configuration found beside weights, which may be somebody else's.

    Raises:
        UserError: the file is missing, the YAML is invalid, a key is unknown (with the nearest known one and its line),
            a type is wrong, or a configuration that is not trusted leads out of this program.
    """
    path = find_configuration(path)
    content, lines = read_with_includes(path, ())
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"override '{override}': write key=value, such as train.epochs=10")
        value = parse_yaml(text, f"override '{override[:80]}'")[0]
        assign(content, key.split("."), value, override)
        lines[tuple(key.split("."))] = f"override '{override}'"
    _drop_keys_of_earlier_versions(content)
    _check_keys(content, Config, (), lines)
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        keys = tuple(str(part) for part in first["loc"])
        place = where(keys, lines, str(path))
        raise UserError(f"{place}: {'.'.join(keys)}: {first['msg'].lower()}, got {first['input']!r}") from error
    for key, name, kind in () if trusted else foreign_names(config):
        raise UserError(
            f"{where(tuple(key.split('.')), lines, str(path))}: {key} names {kind} ({name}); "
            "if you know whose it is, allow it with --trust-code"
        )
    return config


def _drop_keys_of_earlier_versions(content: dict) -> None:
    for old, new in RENAMED.items():
        section, key = old.split(".")
        values = content.get(section)
        if isinstance(values, dict) and key in values:
            values[new.partition(".")[2]] = values.pop(key)
            log.warning(f"{old} is now named {new}")
    model, sparse = content.get("model"), content.get("sparse")
    if isinstance(model, dict) and model.get("diffusion_size", 0) is None:
        del model["diffusion_size"]  # written without effect
    if isinstance(sparse, dict) and sparse.pop("products", "float32") != "float32":
        log.warning("sparse.products is of earlier versions and has no effect: convolutions compute in float32")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration, every key with its value, sealed, so that `load_config` reads it back equal."""
    atomic_write(path, sealed_yaml(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)))


def _check_keys(content: dict, model: type[BaseModel], keys: tuple[str, ...], lines: dict) -> None:
    known = model.model_fields
    for key, value in content.items():
        inner = (*keys, str(key))
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise UserError(f"{where(inner, lines, 'configuration')}: unknown key '{'.'.join(inner)}'; {hint}")
        annotation = known[key].annotation
        choices = [annotation, *get_args(annotation)]
        if isinstance(value, bool) and bool not in choices and {int, float} & set(choices):
            at = where(inner, lines, "configuration")
            raise UserError(f"{at}: {'.'.join(inner)}: expected a number, got {str(value).lower()}")
        section = next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if section and isinstance(value, dict):
            _check_keys(value, section, inner, lines)
