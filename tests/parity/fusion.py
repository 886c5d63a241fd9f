"""Fusion and losses of a training step whose network outputs are given."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.losses import REGULARISED, criterion_of
from tests.parity.compare import Case, Results
from tests.parity.filler import fill_module, random_normal, random_uniform
from xmask3d.config import LossConfig, load_config
from xmask3d.data.batch import Batch
from xmask3d.losses.criterion import Criterion
from xmask3d.losses.matcher import Matching, match
from xmask3d.losses.regularisation import choose_masks, covered_points, eligible_masks, mask_confidence
from xmask3d.losses.sampling import present_labels
from xmask3d.models.fusion import Fuser, fuse_training, own_pixels, training_scores
from xmask3d.models.mask_decoder import MaskPrediction
from xmask3d.models.outputs import Outputs
from xmask3d.models.similarity import cosine_logits
from xmask3d.resources import REPOSITORY
from xmask3d.splits import load_benchmark

POINT_NAMES = {
    "loss_3d": "point_fused",
    "loss_3d_pure": "point_3d",
    "loss_explicit_contra": "caption_fused",
    "loss_explicit_contra_3d": "caption_3d",
    "loss_explicit_contra_2d_pre": "caption_2d",
    "loss_binary": "binary",
    "loss_3d_contra": "mask_regularisation",
}
SET_NAMES = {"loss_ce": "mask_class", "loss_mask": "mask", "loss_dice": "dice"}


FRAME = (240, 320)


def published_weights(num_base: int) -> dict[str, float]:
    """Weights of the losses in the published configuration of so many base classes; ScanNet's B15/N4 if there is none.

    The recorded case of the losses tells its classes, not its configuration.
    """
    folders = ("scannet", "scannet200")
    configs = [load_config(path) for name in folders for path in sorted((REPOSITORY / "config" / name).glob("*.yaml"))]
    loss = next((c.loss for c in configs if load_benchmark(c.benchmark).num_base == num_base), LossConfig())
    return loss.model_dump(exclude={"mask_regularisation_start", "num_points"})


class SetNumbers:
    """Recorded random numbers in the order in which `Criterion` asks for them.

    They were recorded prediction by prediction: one call for every image's matcher, then two for its mask losses. Here
    all matchers are called first, at once.
    """

    def __init__(self, name: str, layers: int, images: int, dtype: torch.dtype) -> None:
        self.name, self.layers, self.images, self.dtype = name, layers, images, dtype
        self.calls = 0

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        per_layer = self.images + 2
        if len(shape) == 4:
            numbers = [
                self._draw(layer * per_layer + image, (1, *shape[2:]))
                for layer in range(self.layers)
                for image in range(self.images)
            ]
            return torch.cat(numbers).view(shape)
        layer, which = divmod(self.calls, 2)
        self.calls += 1
        return self._draw(layer * per_layer + self.images + which, shape)

    def _draw(self, index: int, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(random_uniform(f"{self.name}.{index}", shape)).to(self.dtype)


def merged_masks(
    mask_logits: Tensor, scores: Tensor, keep: Tensor, frame_size: tuple[int, int]
) -> tuple[Tensor, list[Tensor]]:
    """Owner of every pixel of the frames, B x h x w, and the queries that own any, ascending, of each sample."""
    maps = own_pixels(mask_logits, scores, keep, frame_size)
    return maps, [one[one >= 0].unique() for one in maps]


def rank_among(queries: Tensor, owner: Tensor) -> Tensor:
    """Position of each owner in the ascending list of queries, -1 where there is none."""
    return torch.where(owner >= 0, torch.searchsorted(queries, owner), -1)


class _Step:
    """The given outputs as leaves, in one dtype, through fusion and losses."""

    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        count = sum(name.startswith("pred_masks") for name in case.inputs)

        def leaf(value: Tensor) -> Tensor:
            return value.to(dtype).requires_grad_()

        scales = case.tensor("logit_scale", dtype)
        self.masks = [leaf(case.tensor(f"pred_masks{i}")) for i in range(count)]
        self.embeddings = [leaf(case.tensor(f"mask_embed{i}")) for i in range(count)]
        self.scales = [leaf(scales[i].clone()) for i in range(count)]
        self.voxels, self.binary = leaf(_voxel_features(case)), leaf(case.tensor("binary_logit"))
        self.null = leaf(case.tensor("null_embed"))
        frame = case.sizes("mask_shape", FRAME)
        self.frame_size = (frame[0], frame[1])
        self.fuser = Fuser(self.voxels.shape[1], self.frame_size)
        fill_module(self.fuser, "criterion.fuser.")
        self.fuser.to(dtype)
        self.batch = _batch(case)
        classes = torch.cat([case.tensor("text_embed", dtype), self.null])
        predictions = [
            MaskPrediction(mask, embedding, scale, embedding)
            for mask, embedding, scale in zip(self.masks, self.embeddings, self.scales, strict=True)
        ]
        inverse = case.tensor("inds_reconstruct")
        self.outputs = Outputs(
            masks=predictions,
            class_logits=[cosine_logits(p.embeddings, classes, p.temperature) for p in predictions],
            class_embeddings=classes,
            temperature=self.scales[0],
            global_feature=self.voxels[:0],
            voxels_3d=self.voxels,
            point_to_voxel=inverse,
            binary_logits=self.binary[inverse, 0],
            clip_embeddings=case.tensor("mask_embed_clip", dtype),
        )
        self.fused = fuse_training(self.fuser, self.outputs, self.batch, force_first=True)
        self.outputs.fused = self.fused
        self.captions = case.tensor("caption_embed", dtype)
        weights = published_weights(len(classes) - 1)
        self.num_points = int(case.number("num_points"))
        self.criterion = criterion_of(
            **weights | {"num_points": self.num_points},
            num_classes=len(classes) - 1,
            frame_size=self.frame_size,
            reference=True,
        )

    def numbers(self) -> SetNumbers:
        return SetNumbers("f_rand", len(self.masks), self.batch.size, self.captions.dtype)

    def losses(self, regularise: bool) -> dict[str, Tensor]:
        epoch = REGULARISED if regularise else 0
        return self.criterion(self.outputs, self.batch, self.captions, epoch=epoch, uniform=self.numbers())

    def matching(self) -> Matching:
        weights = weights_of(self.criterion)
        return match(
            [mask.detach() for mask in self.masks],
            [logits.detach() for logits in self.outputs.class_logits],
            self.batch.label_maps,
            class_weight=weights["mask_class"],
            mask_weight=weights["mask"],
            dice_weight=weights["dice"],
            num_points=self.num_points,
            uniform=self.numbers(),
        )


def run(case: Case) -> Results:
    """f_criterion: values in float32, gradients in float64."""
    results = Results()
    step = _Step(case, torch.float32)
    _add_targets(results, step)
    _add_fusion(results, step)
    for mode, regularise in (("plain", False), ("contra", True)):
        add_losses(results, mode, step.criterion, step.outputs, step.batch, step.losses(regularise), step.numbers())
        _add_matching(results, mode, step)
        _add_gradients(results, mode, _Step(case, torch.float64), regularise)
    _add_chosen_masks(results, step)
    return results


def add_losses(
    results: Results,
    mode: str,
    criterion: Criterion,
    outputs: Outputs,
    batch: Batch,
    losses: dict[str, Tensor],
    numbers: SetNumbers,
) -> None:
    """Published names of the losses, weighted and not; those of the set loss once a prediction."""
    weights = weights_of(criterion)
    values = {published: (losses[name], weights[name]) for published, name in POINT_NAMES.items() if name in losses}
    with torch.no_grad():
        step = criterion.make_step(outputs, batch, outputs.global_feature, uniform=numbers)
        per_layer = {loss.name: loss.compute(step) for loss in criterion.losses if loss.group == "masks"}
    for published, name in SET_NAMES.items():
        weight, layers = weights[name], per_layer[name]
        for index, value in enumerate(layers):
            values[published if index == 0 else f"{published}_{index - 1}"] = (weight * value, weight)
    for published, (value, weight) in values.items():
        results.forward(f"{mode}/weighted/{published}", value)
        results.forward(f"{mode}/raw/{published}", value / weight)
    results.forward(f"{mode}/total", losses["total"])


def weights_of(criterion: Criterion) -> dict[str, float]:
    """Weights of the losses by name."""
    return {loss.name: loss.weight for loss in criterion.losses}


def _voxel_features(case: Case) -> Tensor:
    text, classes = (case.tensor(name).cpu().numpy() for name in ("text_embed", "voxel_text_class"))
    noise = random_normal("f_criterion.pred3d", (len(classes), text.shape[1]))
    named = np.where((classes >= 0)[:, None], text[classes.clip(0)], np.float32(0))
    return torch.from_numpy(np.float32(0.5) * noise + np.float32(0.3) * named)


def _batch(case: Case) -> Batch:
    labels_3d = case.tensor("labels_3d")
    binary = case.tensor("binary_label_3d").long()
    size = len(case.inputs["label_2d"])
    nothing = torch.zeros(0)
    return Batch(
        scenes=[""] * size,
        views=[""] * size,
        captions=["given"] * size,
        images=nothing,
        voxel_coords=nothing,
        voxel_features=nothing,
        point_to_voxel=case.tensor("inds_reconstruct"),
        point_batch=case.tensor("batch_index"),
        points=nothing,
        point_index=nothing,
        pixels=torch.stack([case.tensor("row"), case.tensor("col")], 1),
        labels=labels_3d,
        binary_labels=torch.where(binary <= 1, binary, -1),
        label_maps=case.tensor("label_2d"),
    )


def _add_targets(results: Results, step: _Step) -> None:
    label_maps = step.batch.label_maps
    assert label_maps is not None
    present = present_labels(label_maps, step.criterion.num_classes + 1)
    for b, labels in enumerate(label_maps):
        results.exact(f"targets_labels_b{b}", present[b].nonzero().squeeze(1))
        results.exact(f"targets_masks_area_b{b}", labels.unique(return_counts=True)[1])
    results.exact("null_embed_used", torch.tensor([int(step.null.shape[0])]))
    results.exact("binary_pred", (step.outputs.binary_logits.sigmoid() > 0.5).long()[:, None])
    results.forward("pred_logits_main", step.outputs.class_logits[0])


def _add_fusion(results: Results, step: _Step) -> None:
    maps, queries = merged_masks(step.masks[0], *training_scores(step.outputs.class_logits[0]), step.frame_size)
    for b in range(step.batch.size):
        rows = step.batch.point_batch == b
        ranks = rank_among(queries[b], maps[b])
        results.exact(f"merged_mask_id_map_b{b}", ranks)
        results.exact(f"merged_mask_area_b{b}", ranks[ranks >= 0].bincount())
        results.forward(f"fused_b{b}", step.fused.points_fused[rows])
        results.forward(f"feat2d_b{b}", step.fused.points_2d[rows])
        results.forward(f"feat2d_pre_b{b}", step.fused.points_2d[rows & step.fused.covered])
        results.forward(f"feat3d_b{b}", step.outputs.points_3d[rows])


def _add_matching(results: Results, mode: str, step: _Step) -> None:
    matching = step.matching()
    present = present_labels(step.batch.label_maps, step.criterion.num_classes + 1)
    names = ["main", *(f"aux{i}" for i in range(len(step.masks) - 1))]
    for layer, name in enumerate(names):
        for b in range(step.batch.size):
            rows = matching.image[layer] == b
            rank = rank_among(present[b].nonzero().squeeze(1), matching.label[layer, rows])
            results.exact(f"{mode}/match_{name}_b{b}", torch.stack([matching.query[layer, rows], rank]))


def _add_gradients(results: Results, mode: str, step: _Step, regularise: bool) -> None:
    step.losses(regularise)["total"].backward()
    results.gradient(f"{mode}/grad_pred3d", step.voxels.grad)
    results.gradient(f"{mode}/grad_binary_logit", step.binary.grad)
    results.gradient(f"{mode}/grad_null_embed", step.null.grad)
    for i, (mask, embedding, scale) in enumerate(zip(step.masks, step.embeddings, step.scales, strict=True)):
        results.gradient(f"{mode}/grad_pred_masks{i}", mask.grad)
        results.gradient(f"{mode}/grad_mask_embed{i}", embedding.grad)
        results.gradient(f"{mode}/grad_logit_scale{i}", scale.grad)
    for name, parameter in step.fuser.linear.named_parameters():
        results.gradient(f"{mode}/grad_fuser_{name}", parameter.grad)


def _add_chosen_masks(results: Results, step: _Step) -> None:
    batch, logits = step.batch, step.masks[0].detach()
    resized = F.interpolate(logits.double(), step.frame_size, mode="bilinear", align_corners=False)
    assert batch.binary_labels is not None
    inside = covered_points(step.fused.mask_logits, batch.point_batch, batch.size)
    is_novel, is_base = eligible_masks(inside, batch.binary_labels, batch.point_batch, batch.size)
    confidence = mask_confidence(logits, step.frame_size, torch.ones_like(is_novel))
    chosen, valid = choose_masks(is_novel, is_base, confidence)
    for b in range(batch.size):
        selected = resized[b, chosen[b, valid[b]]].flatten(1)
        stats = torch.stack(
            [
                selected.mean(1),
                selected.std(1, correction=0),
                selected.norm(dim=1),
                selected.amin(1),
                selected.amax(1),
            ],
            1,
        )
        results.forward(f"contra/selected_mask_logit_stats_b{b}", stats)
