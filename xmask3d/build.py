"""Composition root: makes networks, losses and data from a configuration; the only place that turns keys into sizes."""

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from xmask3d.config import BUILT_IN_PARTS, Config, LossConfig, ModelConfig, UNetConfig
from xmask3d.data.dataset_spec import DatasetSpec
from xmask3d.data.datasets import TrainingViews, ValidationViews
from xmask3d.data.regions import MOST_REGIONS, SceneRegions
from xmask3d.data.scannet import LAYOUTS
from xmask3d.data.scene import SceneReader
from xmask3d.data.view_settings import Augmentation, ViewFilter, ViewSettings
from xmask3d.dotted import import_dotted, is_dotted
from xmask3d.errors import UserError
from xmask3d.inference.gate_weights import FIXED, FIXED_ASKED, clip_alone
from xmask3d.inference.labeller import Labeller
from xmask3d.inference.settings import EvaluationSettings, LabelSettings
from xmask3d.losses.criterion import Criterion
from xmask3d.losses.loss import Loss
from xmask3d.losses.point_losses import NovelSupervision
from xmask3d.losses.regions import RegionLoss, RegionSetLoss
from xmask3d.losses.terms import BinaryLoss, CaptionLoss, MaskRegularisation, PointLoss, SetLoss
from xmask3d.models.clip import ClipText, MaskClip, TextClassifier
from xmask3d.models.conditioner import ConditionedDiffusion, EmptyConditioner, ImageConditioner, ImplicitConditioner
from xmask3d.models.contracts import ImageFeatures, PointNetwork, misfit
from xmask3d.models.diffusion import DiffusionFeatures
from xmask3d.models.fusion import Fuser
from xmask3d.models.loading.clip_weights import LoadedClip, load_clip
from xmask3d.models.loading.diffusion_weights import diffusion_path, diffusion_shapes, load_diffusion
from xmask3d.models.mask_decoder import MaskDecoder
from xmask3d.models.mink_unet import BinaryHead, MinkUNet, PointEncoder
from xmask3d.models.pixel_decoder import PixelDecoder
from xmask3d.models.pyramid import FeaturePyramid
from xmask3d.models.xmask3d import XMask3D
from xmask3d.resources import find_file
from xmask3d.splits import Benchmark
from xmask3d.weights import clip_folder, diffusion_folder

POINT_NETWORKS = ("point_encoder.", "binary_head.")  # parts with a learning rate of their own


@dataclass
class Assembly:
    """Model and the text encoder that makes its classifier.

    Attributes:
        model: the network, with loaded frozen parts.
        clip_text: encodes class names and captions; shares CLIP with the model.
    """

    model: XMask3D
    clip_text: ClipText


def build_model(config: Config, points_only: bool = False) -> Assembly:
    """Build the network of `config.model` around the frozen CLIP and diffusion networks that it names.

    Args:
        points_only: leave out the networks that look at pictures, for a model of which `encode_points` alone is used.

    Raises:
        UserError: weights are missing or do not fit; the message names the file and where to get it.
    """
    sizes = config.model
    clip, tokenizer = open_clip_model(sizes.clip)
    diffusion = None
    if sizes.image_features is None:
        named = diffusion_path(sizes.diffusion, fetch=not points_only)
        source = diffusion_folder() if sizes.diffusion == "shipped" else named
        diffusion = (
            diffusion_shapes(source)
            if points_only
            else load_diffusion(
                source,
                checkpointing=sizes.checkpointing is True,  # "auto" is decided where it matters, in training
                dtype=getattr(torch, sizes.diffusion_precision),
                channels_last=sizes.diffusion_channels_last,
            )
        )
    clip_text = ClipText(clip, tokenizer)
    model = assemble(
        sizes,
        diffusion=diffusion,
        mask_clip=MaskClip(clip, getattr(torch, sizes.clip_precision)),
        null_embedding=clip_text([""]),
        frame_size=config.data.frame_size,
        backend=config.sparse.backend,
    )
    if points_only:
        model.mask_clip.release()
        del clip.visual
        if isinstance(model.image_features, ConditionedDiffusion):
            model.image_features.diffusion.release()
    return Assembly(model, clip_text)


def assemble(
    sizes: ModelConfig,
    *,
    diffusion: tuple[DiffusionFeatures, Tensor] | None,
    mask_clip: MaskClip,
    null_embedding: Tensor,
    frame_size: tuple[int, int] = (240, 320),
    backend: str = "auto",
) -> XMask3D:
    """Assemble trainable parts of the given sizes around frozen networks.

    Args:
        sizes: sizes of the trainable parts.
        diffusion: features, and the embedding of the empty prompt, 1 x T x context_dim; None if the configuration names
            other image features.
        mask_clip: network that embeds masks.
        null_embedding: 1 x D, embedding of "" and initial value of the null class; D is the size of embeddings.
        frame_size: height and width of the grid that the points' pixels are on.
        backend: back end of sparse convolution.
    """
    width = null_embedding.shape[-1]
    # The order matters, since it determines the random weights of each part for a given seed.
    point_encoder = _point_network(sizes, width)
    binary_head = BinaryHead(_mink_unet(sizes.binary_unet), sizes.binary_unet.out_channels)
    image_features, conditioner = _image_features(sizes, width, diffusion)
    return XMask3D(
        point_encoder=point_encoder,
        binary_head=binary_head,
        image_features=image_features,
        conditioner=conditioner,
        pyramid=FeaturePyramid(
            image_features.channels,
            image_features.strides,
            channels=sizes.pyramid_channels,
            mid_channels=sizes.pyramid_mid_channels,
            checkpointing=sizes.checkpointing is True,
        ),
        pixel_decoder=PixelDecoder(
            sizes.pyramid_channels,
            dim=sizes.hidden,
            mask_dim=sizes.hidden,
            ffn_dim=sizes.pixel_ffn,
            layers=sizes.pixel_layers,
            heads=sizes.heads,
        ),
        mask_decoder=MaskDecoder(
            dim=sizes.hidden,
            mask_dim=sizes.hidden,
            queries=sizes.queries,
            heads=sizes.heads,
            ffn_dim=sizes.mask_ffn,
            layers=sizes.mask_layers,
            projection_dim=width,
        ),
        classifier=TextClassifier(null_embedding),
        mask_clip=mask_clip,
        fuser=Fuser(width, frame_size),
        sparse_backend=backend,
        condition=sizes.condition,
    )


def make_optimizer(model: nn.Module, lr_3d: float, lr_others: float, weight_decay: float) -> torch.optim.AdamW:
    """Make AdamW with two groups: the two 3D networks, and everything else that trains (paper section 4.1).

    Weight decay acts on all parameters, including biases and norms, as published.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    point = [parameter for name, parameter in named if name.startswith(POINT_NETWORKS)]
    others = [parameter for name, parameter in named if not name.startswith(POINT_NETWORKS)]
    groups = [
        {"params": point, "lr": lr_3d, "initial_lr": lr_3d},
        {"params": others, "lr": lr_others, "initial_lr": lr_others},
    ]
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def build_criterion(config: Config, benchmark: Benchmark) -> Criterion:
    """Build the losses of `config.loss` for a benchmark's C base classes."""
    labelled = config.train.supervision == "base"
    supervision: NovelSupervision = config.train.novel_supervision if labelled else "none"
    return Criterion(
        make_losses(config.loss, supervision, labelled),
        num_classes=benchmark.num_base,
        frame_size=config.data.frame_size,
        novel_supervision=supervision,
        reference=config.protocol == "reference",
        num_labels=None if labelled else MOST_REGIONS,
    )


def make_losses(loss: LossConfig, supervision: NovelSupervision = "reference", labelled: bool = True) -> list[Loss]:
    """Make the paper's losses with the weights of a configuration, then the losses it names by dotted path.

    Without labels, losses on regions replace those on labels, with the same weights.
    """
    masks = (SetLoss if labelled else RegionSetLoss)(
        loss.mask_class, loss.mask, loss.dice, loss.no_object, loss.num_points
    )
    points: list[Loss] = [
        PointLoss("point_fused", loss.point_fused, "fused", loss.point_balance),
        PointLoss("point_3d", loss.point_3d, "3d", loss.point_balance),
    ]
    binary: list[Loss] = [BinaryLoss(loss.binary, loss.binary_positive_weight, supervision)]
    if not labelled:
        points = [RegionLoss("point_fused", loss.point_fused, "fused"), RegionLoss("point_3d", loss.point_3d, "3d")]
        binary = []
    return [
        *masks.parts(),
        *points,
        CaptionLoss("caption_fused", loss.caption_fused, "fused"),
        CaptionLoss("caption_3d", loss.caption_3d, "3d"),
        CaptionLoss("caption_2d", loss.caption_2d, "2d"),
        *binary,
        MaskRegularisation(loss.mask_regularisation, loss.mask_regularisation_start),
        *(import_dotted(path, "loss.extra")(weight=weight) for path, weight in loss.extra.items()),
    ]


def dataset_spec(config: Config) -> DatasetSpec:
    """Return the specification of the data set `data.layout`: a built-in one, or that of a dotted path."""
    layout = config.data.layout
    if layout in LAYOUTS:
        return LAYOUTS[layout]
    if not is_dotted(layout):
        known = ", ".join(LAYOUTS)
        raise UserError(f"data.layout: '{layout}' is unknown; known: {known}, or the dotted path of a DatasetSpec")
    spec = import_dotted(layout, "data.layout")
    if not isinstance(spec, DatasetSpec):
        raise UserError(f"data.layout: {layout} is no DatasetSpec; docs/extending.md shows one")
    return spec


def build_reader(config: Config, benchmark: Benchmark, split: str) -> SceneReader:
    """Build the reader of a split folder. Raises `UserError` if the data is missing."""
    data, spec = config.data, dataset_spec(config)
    return spec.open(
        find_file(data.root),
        split,
        benchmark,
        captions=find_file(data.captions) if data.captions else None,
        frame_size=data.frame_size,
        published_intrinsics=config.protocol == "reference" and spec.one_camera,
        cache=data.cache,
    )


def training_view_settings(config: Config, benchmark: Benchmark) -> ViewSettings:
    """Return settings of training samples. Published bounds are exclusive; novel labels only count with supervision."""
    data = config.data
    counted = benchmark.base if config.train.novel_supervision == "none" else None
    augmentation = Augmentation(
        rotate=data.rotate,
        shape=data.augment_shape,
        color=data.augment_color,
        shift=0,  # the training step shifts the complete batch
    )
    return _view_settings(config, filter=_exclusive_filter(config, counted), augmentation=augmentation)


def validation_view_settings(config: Config) -> ViewSettings:
    """Return settings of validation samples; the published ones are rotated at random."""
    return _view_settings(
        config,
        filter=_exclusive_filter(config),
        augmentation=_reference_augmentation(config),
        angle=config.evaluate.angle,
    )


def scene_view_settings(config: Config) -> ViewSettings:
    """Return settings of evaluation: those of a user's scan, unless the published protocol is requested."""
    labelled = config.data.min_labelled if config.protocol == "reference" else 0
    scan = scan_view_settings(config)
    return replace(
        scan,
        filter=replace(scan.filter, min_labelled=labelled),
        augmentation=_reference_augmentation(config),
        bad_views=config.data.bad_views,
    )


def scan_view_settings(config: Config) -> ViewSettings:
    """Return settings for a user's own scan, whose damaged views are left out."""
    return _view_settings(
        config,
        filter=ViewFilter(config.data.min_points, config.evaluate.max_points),
        angle=config.evaluate.angle,
        bad_views="skip",
    )


def _view_settings(config: Config, **changes: Any) -> ViewSettings:
    data = config.data
    shared: dict[str, Any] = {
        "image_size": data.image_size,
        "voxel_size": data.voxel_size,
        "border": data.border,
        "depth_tolerance": data.depth_tolerance,
        "bad_views": data.bad_views,
        "cache": data.cache,
    }
    return ViewSettings(**shared | changes)


def _exclusive_filter(config: Config, counted: tuple[int, ...] | None = None) -> ViewFilter:
    data = config.data
    return ViewFilter(data.min_points + 1, data.max_points - 1, data.min_labelled + 1, counted)


def _reference_augmentation(config: Config) -> Augmentation | None:
    return Augmentation(shift=0) if config.protocol == "reference" else None


def build_training_views(config: Config, benchmark: Benchmark) -> TrainingViews:
    """Build random views of the training scenes."""
    return TrainingViews(
        build_reader(config, benchmark, config.data.train_split),
        benchmark,
        training_view_settings(config, benchmark),
        views_per_scene=config.data.views_per_scene,
        seed=config.seed,
        regions=SceneRegions(config.data.cache) if config.train.supervision == "none" else None,
    )


def build_validation_views(config: Config, benchmark: Benchmark) -> ValidationViews:
    """Build some views of each validation scene, for scores during training."""
    return ValidationViews(
        build_reader(config, benchmark, config.data.val_split),
        benchmark,
        validation_view_settings(config),
        step=2 if config.protocol == "reference" else 1,
        views_per_scene=config.train.evaluate_views,
        seed=config.seed,
    )


def evaluation_settings(config: Config) -> EvaluationSettings:
    """Return the settings for turning the views of a scene into votes."""
    evaluate = config.evaluate
    return EvaluationSettings(
        scene_view_settings(config),
        max_views=evaluate.max_views,
        rotations=evaluate.rotations,
        batch_size=evaluate.batch_size,
        workers=evaluate.workers,
        seed=config.seed,
        instances=evaluate.instances,
    )


def label_settings(config: Config, names: tuple[int, int] | None = None) -> LabelSettings:
    """Return the settings for labels and votes of views; `names` are the numbers of novel and base classes."""
    evaluate = config.evaluate
    regions = "none" if config.protocol == "reference" else evaluate.regions
    head = evaluate.gate in ("hard", "soft") or (evaluate.gate == "none" and regions == "gate")
    if config.train.supervision == "none" and head:
        raise UserError(
            "train.supervision=none trains no binary head to choose between base and novel classes; set "
            "evaluate.gate=clip, or evaluate.gate=none with evaluate.regions=votes"
        )
    region_clip = evaluate.region_clip if regions != "none" else 0.0
    weights = FIXED_ASKED if region_clip else FIXED
    if evaluate.gate == "clip" and names and all(names):
        weights = clip_alone(*names)
    return LabelSettings(
        evaluate.base_ratio, evaluate.novel_ratio, evaluate.gate, evaluate.votes, regions, weights, region_clip
    )


def build_labeller(config: Config, assembly: Assembly, benchmark: Benchmark, accelerator: Accelerator) -> Labeller:
    """Build a labeller for all classes of a benchmark, whose names (or sentences) are encoded with each template."""
    evaluate = config.evaluate
    clip_text = assembly.clip_text.to(accelerator.device)
    text = clip_text.encode_classes(benchmark.test_prompts(evaluate.prompts), evaluate.templates)
    novel = torch.from_numpy(benchmark.novel_mask)
    names = benchmark.num_classes - benchmark.num_base, benchmark.num_base
    captions = clip_text if config.model.condition == "text" and evaluate.condition_text == "captions" else None
    model = assembly.model.to(accelerator.device)
    return Labeller(model, text, novel, label_settings(config, names), accelerator, captions)


def open_clip_model(source: str) -> LoadedClip:
    """Load CLIP and its tokenizer by `model.clip`: "shipped", a local file or folder, or open_clip's "name/tag"."""
    if source == "shipped":
        return load_clip(clip_folder())
    path = find_file(Path(source))
    if path.exists():
        return load_clip(path)
    name, _, tag = source.partition("/")
    if name in ("", ".", ".."):
        raise UserError(f"model.clip {source}: no such file or folder")
    return load_clip(name, tag or "openai")


def _mink_unet(sizes: UNetConfig) -> MinkUNet:
    return MinkUNet(3, sizes.out_channels, sizes.planes, sizes.layers, sizes.stem)


def _point_network(sizes: ModelConfig, width: int) -> PointNetwork:
    if path := sizes.point_network:
        return _own_part("model.point_network", path, sizes.point_network_options, PointNetwork, width)
    return PointEncoder(_mink_unet(sizes.point_unet), sizes.point_unet.out_channels, width)


def _image_features(
    sizes: ModelConfig, width: int, diffusion: tuple[DiffusionFeatures, Tensor] | None
) -> tuple[ImageFeatures, nn.Module | None]:
    """Build the image features, and the conditioner, which has a separate path in checkpoints."""
    if path := sizes.image_features:
        return _own_part("model.image_features", path, sizes.image_features_options, ImageFeatures, width), None
    assert diffusion is not None, "the built-in features need a diffusion model"
    features, empty_prompt = diffusion
    conditioner: ImplicitConditioner | EmptyConditioner
    if sizes.condition == "none":
        conditioner = EmptyConditioner(empty_prompt, features.time_dim)
    else:
        make = ImageConditioner if sizes.condition == "image" else ImplicitConditioner
        conditioner = make(width, empty_prompt, features.time_dim)
    return ConditionedDiffusion(features, conditioner), conditioner


def _own_part(key: str, path: str, options: dict[str, Any], contract: type, width: int) -> Any:
    """Make a network named in the configuration, by a short name or by dotted path.

    Raises:
        UserError: it cannot be imported, does not accept the options, or does not fulfil its contract.
    """
    make = import_dotted(BUILT_IN_PARTS[key.partition(".")[2]].get(path, path), key)
    try:
        inspect.signature(make).bind(dim=width, **options)
    except TypeError as error:
        raise UserError(f"{key}: {path} does not take dim and {key}_options={options} ({error})") from error
    part = make(dim=width, **options)
    if problem := misfit(part, contract):
        raise UserError(
            f"{key}: {path} is no {contract.__name__}: {problem}; xmask3d/models/contracts.py says what it needs"
        )
    return part
