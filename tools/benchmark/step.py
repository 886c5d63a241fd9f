"""Training step of the Rooms networks on a synthetic room, beside a step with the costs that were published."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from tools.benchmark import plain
from tools.benchmark.case import Case, Job, Request
from tools.benchmark.features import whole_maps
from tools.benchmark.sample import write_scene
from tools.benchmark.sparse import multiply_adds
from xmask3d.build import build_criterion, build_model, build_reader, evaluation_settings, make_optimizer
from xmask3d.config import Config, load_config
from xmask3d.data.batch import Batch, collate
from xmask3d.engine.feature_cache import FeatureCache
from xmask3d.engine.training_step import TrainingStep
from xmask3d.errors import UserError
from xmask3d.models.diffusion import DiffusionFeatures
from xmask3d.models.fusion import sample_at_points, training_scores
from xmask3d.models.outputs import Fused, Outputs
from xmask3d.models.similarity import at_least_float32, cosine_logits
from xmask3d.models.xmask3d import XMask3D
from xmask3d.sparse import Voxels, coordinate_manager
from xmask3d.sparse.coordinates import CoordinateMaps
from xmask3d.sparse.native.manager import NativeCoordinateManager
from xmask3d.splits import load_benchmark

CONTENDERS = ("plain",)
ROOMS = Path(__file__).parents[2] / "config" / "rooms" / "B15N4.yaml"

Maps = Callable[[Tensor, Tensor, Tensor], list[Tensor]]


def cases(request: Request) -> list[Case]:
    """List a step for each number of views; `xmask3d-encoding` runs the frozen encoders in every step."""
    found = []
    for points in request.points:
        for views in request.views or (4,):
            for contender in ("xmask3d", "xmask3d-encoding", *request.against):
                options: dict[str, str | int | float] = {"views": views, "points": points, "kind": "float32"}
                name = f"training step, {views} views of {points // 1000}k points"
                found.append(Case("step", name, contender, options, request.device, request.threads, request.repeats))
    return found


def prepare(case: Case, config: Path = ROOMS) -> Job:
    """Prepare the networks that `config` describes, on views of one room; a run returns the losses."""
    if case.contender == "plain" and case.device != "cpu":
        raise UserError("the plain step is written for the CPU; leave out --against plain or --device")
    with tempfile.TemporaryDirectory() as folder:
        views = int(case.options["views"])
        write_scene(Path(folder), int(case.options["points"]), views, split="train")
        overrides = [f"data.root={folder}", "data.train_split=train"]
        training = Training(load_config(config, overrides), case.device, views)
    run = {"xmask3d": training.kept, "xmask3d-encoding": training.encoding, "plain": training.plain}[case.contender]
    maps, sparse = CoordinateMaps(training.batch.voxel_coords), 0
    # torch's counter sees its own products: all of them without compiled ones, and always those of size 1.
    if isinstance(coordinate_manager(training.batch.voxel_coords), NativeCoordinateManager):
        for network in (training.model.point_encoder.encoder, training.model.binary_head.encoder):
            sparse += multiply_adds(network, maps, pointwise=False)
    return Job(run, 3 * sparse, count=True)


class Training:
    """Networks, one batch and an optimiser; each method takes one step and returns its losses."""

    def __init__(self, config: Config, device: str, views: int) -> None:
        torch.manual_seed(0)
        self.device = device
        benchmark = load_benchmark(config.benchmark)
        assembly = build_model(config)
        self.model, self.clip_text = assembly.model.to(device), assembly.clip_text.to(device)
        reader = build_reader(config, benchmark, config.data.train_split)
        seen = evaluation_settings(config).open_views(reader, benchmark, reader.scene_names[0], with_label_map=True)
        samples = [sample for index in range(len(seen)) if (sample := seen[index]) is not None]
        self.batch = collate(samples[:views]).to(device)
        self.batch.captions[:] = [f"view {view} of a room" for view in self.batch.views]
        self.text = self.clip_text(benchmark.base_names)
        self.step = TrainingStep(self.model, build_criterion(config, benchmark)).train()
        self.slow_criterion = build_criterion(config, benchmark)
        self.slow_criterion.losses[0].shared.match = plain.match  # of the set loss
        self.epoch = config.loss.mask_regularisation_start  # all losses take part
        self.whole: Maps | None = None
        self.optimizer = make_optimizer(self.model, 0.0, 0.0, 0.0)  # no progress: every run does the same
        self.slow_optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=0.0)
        self.feature_cache = FeatureCache(self.model.image_features, self.model.mask_clip, self.clip_text)
        self.clip_norm = config.train.clip_grad or float("inf")

    def kept(self) -> dict[str, Tensor]:
        """Take a step as `xmask3d train` does with its feature cache."""
        losses = self.step(
            self.batch,
            self.text,
            self.feature_cache.captions(self.batch),
            self.epoch,
            generator(self.device),
            self.feature_cache.images(self.batch),
            self.feature_cache.tokens(self.batch),
        )
        return self.finish(losses, self.optimizer)

    def encoding(self) -> dict[str, Tensor]:
        """Take a step without the feature cache."""
        captions = self.clip_text(self.batch.captions)
        losses = self.step(self.batch, self.text, captions, self.epoch, generator(self.device))
        return self.finish(losses, self.optimizer)

    def plain(self) -> dict[str, Tensor]:
        """Take a step at the published costs.

        These are kernel maps per network, the diffusion graph with gradients of its weights, CLIP and captions in
        every step, masks pooled twice, loops over classes, queries, images and layers, and scores of all points.
        """
        if self.whole is None:
            self.whole = whole_diffusion(self.model.image_features.diffusion, trained=True)
        model, batch = self.model, self.batch
        outputs = plain_outputs(model, self.whole, batch, self.text)
        fused = plain_fusion(model, outputs, batch, *training_scores(outputs.class_logits[0]))
        outputs = replace(outputs, fused=fused)
        captions = torch.cat([self.clip_text._encode([caption]) for caption in batch.captions])
        points = generator(self.device)
        losses = self.slow_criterion(outputs, batch, captions, epoch=self.epoch, generator=points)
        for features in (fused.points_fused, fused.points_2d, outputs.points_3d):
            cosine_logits(features, self.text, outputs.temperature).argmax(-1).cpu().bincount()
        return self.finish(losses, self.slow_optimizer)

    def finish(self, losses: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Run the backward pass and the optimiser."""
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {name: value.detach() for name, value in losses.items()}


def generator(device: str) -> torch.Generator:
    """Make a generator of the same random points in every run, on the device of the losses."""
    return torch.Generator(device).manual_seed(0)


def whole_diffusion(diffusion: DiffusionFeatures, trained: bool) -> Maps:
    """Compute the maps by complete networks with the same weights; the parts cut off here get random ones.

    Args:
        trained: whether gradients of the UNet's weights are computed, as the published system had it.
    """
    vae = AutoencoderKL.from_config(diffusion.vae.config).eval().requires_grad_(False)
    unet = UNet2DConditionModel.from_config(diffusion.unet.config).eval().requires_grad_(trained)
    vae.load_state_dict(diffusion.vae.state_dict(), strict=False)
    unet.load_state_dict(diffusion.unet.state_dict(), strict=False)
    for network in (vae, unet):
        nn.Module.to(network, dtype=diffusion.unet.dtype)  # diffusers' own warns
    return whole_maps(vae, unet)


def plain_outputs(model: XMask3D, maps: Maps, batch: Batch, text: Tensor) -> Outputs:
    """Run a forward with everything that the published one computed."""
    global_feature, voxels_3d = model.point_encoder(_voxels(batch))
    binary = model.binary_head(_voxels(batch))
    pyramid = model.pyramid(maps(batch.images, *model.conditioner(global_feature)), batch.images.shape[-2:])
    pixels = model.pixel_decoder(pyramid)
    masks = plain.decode_masks(model.mask_decoder, pixels.mask_features, pixels.memories)
    embeddings = model.classifier.embeddings(text)
    return Outputs(
        masks=masks,
        class_logits=[plain.class_logits(prediction, embeddings) for prediction in masks],
        class_embeddings=embeddings,
        temperature=masks[0].temperature,
        global_feature=global_feature,
        voxels_3d=voxels_3d,
        point_to_voxel=batch.point_to_voxel,
        binary_logits=binary.index_select(0, batch.point_to_voxel),
        clip_embeddings=model.mask_clip(batch.images, masks[0].mask_logits.detach()),
    )


def plain_fusion(model: XMask3D, outputs: Outputs, batch: Batch, scores: Tensor, keep: Tensor) -> Fused:
    """Fuse every point on its own, its owner found query by query."""
    frame = model.fuser.frame_size
    owner = plain.own_points(outputs.mask_logits, scores, keep, batch.pixels, batch.point_batch, frame)
    points = torch.arange(len(owner))
    fused = model.fuser(outputs.points_3d, outputs.mask_embeddings, owner, batch.point_batch)
    at_points = sample_at_points(outputs.mask_logits.detach(), batch.pixels, batch.point_batch, frame)
    return Fused(owner, batch.point_batch, at_least_float32(at_points), outputs.mask_embeddings, fused, points, points)


def _voxels(batch: Batch) -> Voxels:
    return Voxels(batch.voxel_coords, batch.voxel_features, batch.size)
