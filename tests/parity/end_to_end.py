"""The whole model: evaluation of one view, and one training step with every gradient."""

from __future__ import annotations

import dataclasses

import numpy as np
import open_clip
import torch
from torch import Tensor

from tests.helpers.losses import REGULARISED, criterion_of
from tests.parity.compare import GRADIENT_TOLERANCE, Case, Results, Value
from tests.parity.diffusion import SMALL_UNET, SMALL_VAE, empty_prompt, filled_networks
from tests.parity.filler import fill_module
from tests.parity.fusion import FRAME, SetNumbers, add_losses, published_weights
from tests.parity.inference import add_view
from xmask3d.checkpoints.names import published_name
from xmask3d.data.batch import Batch, collate
from xmask3d.data.sample import Sample
from xmask3d.errors import UserError
from xmask3d.models.clip import ClipText, MaskClip, TextClassifier
from xmask3d.models.conditioner import ConditionedDiffusion, ImplicitConditioner
from xmask3d.models.diffusion import DiffusionFeatures
from xmask3d.models.fusion import Fuser
from xmask3d.models.loading.clip_weights import build_clip
from xmask3d.models.mask_decoder import MaskDecoder
from xmask3d.models.mink_unet import BinaryHead, MinkUNet, PointEncoder
from xmask3d.models.pixel_decoder import PixelDecoder
from xmask3d.models.pyramid import FeaturePyramid
from xmask3d.models.xmask3d import XMask3D
from xmask3d.splits import Benchmark, load_benchmark

BENCHMARK = "scannet20/B15N4"
CAPTIONS = ("a room with a chair and a table", "a bathroom with a toilet")
# Pixels of the image, along either axis, per pixel of the small one that is given.
ENLARGED = 4
CLIP = {
    "embed_dim": 768,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 56, "layers": 2, "width": 128, "patch_size": 14, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def build_model(fill: bool = True) -> tuple[XMask3D, ClipText]:
    """The published networks around a small diffusion model and a small CLIP, with stand-in weights.

    Args:
        fill: also the trainable parts; else they keep their random weights.
    """
    clip = build_clip(CLIP)
    fill_module(clip, "criterion.clip.clip.")
    diffusion = DiffusionFeatures(*filled_networks(SMALL_VAE, SMALL_UNET))
    width = CLIP["embed_dim"]
    conditioner = ImplicitConditioner(width, empty_prompt(diffusion.context_dim), diffusion.time_dim)
    model = XMask3D(
        point_encoder=PointEncoder(MinkUNet.unet34c(), 256, width),
        binary_head=BinaryHead(MinkUNet.unet18a(), 256),
        image_features=ConditionedDiffusion(diffusion, conditioner),
        conditioner=conditioner,
        pyramid=FeaturePyramid(diffusion.channels, diffusion.strides),
        pixel_decoder=PixelDecoder(),
        mask_decoder=MaskDecoder(),
        classifier=TextClassifier(torch.zeros(1, width)),
        mask_clip=MaskClip(clip),
        fuser=Fuser(width, FRAME),
    )
    if fill:
        fill_module(model, rename=published_name)
    return model, ClipText(clip, open_clip.SimpleTokenizer(context_length=CLIP["text_cfg"]["context_length"]))


def run(case: Case) -> Results:
    """k_end2end: evaluation in float32; training in float64, since its recorded numbers are."""
    model, clip_text = build_model()
    results = evaluate(case, model, clip_text)
    benchmark = case_benchmark(case)
    samples = [_sample(case, b, benchmark) for b in range(len(case.inputs["img_small"]))]
    model, clip_text, batch = model.double(), clip_text.double(), collate(samples)
    _train(results, case, model, clip_text, benchmark, batch.to(batch.images.device, torch.float64))
    return results


@torch.no_grad()
def evaluate(case: Case, model: XMask3D, clip_text: ClipText) -> Results:
    """What was recorded of the first scene at test time."""
    results, benchmark = Results(), case_benchmark(case)
    batch = collate([_sample(case, 0, benchmark)])
    text = clip_text(benchmark.class_names)
    novel = torch.from_numpy(benchmark.novel_mask)
    outputs = model.eval()(batch, text, mask_clip=True, auxiliary=True, novel=novel)
    view = Results()
    masks = add_view(view, "", 0, outputs, novel, FRAME)
    results.exact("eval/final_mask_3d", np.packbits(masks.cpu().numpy(), axis=1))
    results.exact("eval/final_mask_3d_shape", np.array(masks.shape))
    results.values["eval/binary_pred"] = view.values["binary_pred"]
    results.values["eval/fused_pred_feature"] = view.values["fused"]
    results.values["eval/2d_pred_feature"] = view.values["feat2d"]
    for index, prediction in enumerate(outputs.masks[1:]):
        results.forward(f"eval/aux{index}_pred_masks", prediction.mask_logits)
    assert outputs.clip_embeddings is not None
    for name, value in {
        "pred_masks": outputs.mask_logits,
        "mask_embed": outputs.mask_embeddings,
        "pred_3d": outputs.points_3d,
        "mask_embed_clip": outputs.clip_embeddings,
        "text_embed": text,
        "null_embed": model.classifier.null_embed,
        "pred_logits": outputs.class_logits[0],
        "logit_scale": outputs.temperature,
        "images": batch.images,
    }.items():
        results.forward(f"eval/{name}", value)
    return results


def _train(
    results: Results, case: Case, model: XMask3D, clip_text: ClipText, benchmark: Benchmark, batch: Batch
) -> None:
    weights = published_weights(benchmark.num_base)
    criterion = criterion_of(num_classes=benchmark.num_base, frame_size=FRAME, reference=True, **weights)
    text = clip_text(benchmark.base_names)
    outputs = model.train()(batch, text, mask_clip=True, auxiliary=True, force_first=True)

    def numbers() -> SetNumbers:
        return SetNumbers("k_rand", len(outputs.masks), batch.size, torch.float64)

    captions = clip_text(batch.captions)
    losses = criterion(outputs, batch, captions, epoch=REGULARISED, uniform=numbers())
    named = Results()
    add_losses(named, "", criterion, outputs, batch, losses, numbers())
    for name, value in named.values.items():
        if name.startswith("/weighted/"):
            results.values["train/loss/" + name.removeprefix("/weighted/")] = value
    results.values["train/total"] = named.values["/total"]
    losses["total"].backward()
    _add_gradients(results, case, model)
    _add_statistics(results, case, model)


def _add_gradients(results: Results, case: Case, model: XMask3D) -> None:
    """Norm and sum of every gradient."""
    gradients = {published_name(name): parameter.grad for name, parameter in model.named_parameters()}
    names = case.outputs["train/grad_names"].tolist()
    results.exact("train/grad_names", np.array(sorted(name for name, g in gradients.items() if g is not None)))
    results.exact("train/no_grad_names", np.array(sorted(name for name, g in gradients.items() if g is None)))
    found = [gradients.get(name) for name in names]
    norms = np.array([0.0 if g is None else float(g.norm()) for g in found])
    sums = np.array([0.0 if g is None else float(g.sum()) for g in found])
    counts = np.array([1 if g is None else g.numel() for g in found])
    # The recording computed position encodings in float32 throughout, and deformable sampling has kinks: where that
    # makes a gradient uncertain, the recording says by how much.
    slack = np.maximum(10 * case.outputs["train/grad_rel_diff_f32_f64"] / GRADIENT_TOLERANCE, 1)
    scale = case.outputs["train/grad_l2"] * slack
    results.values["train/grad_l2"] = Value(norms, GRADIENT_TOLERANCE, scale=scale)
    # An error of some norm changes a sum of n numbers by at most that times the root of n.
    results.values["train/grad_sum"] = Value(sums, GRADIENT_TOLERANCE, scale=scale * np.sqrt(counts))
    results.leave_out("train/grad_rel_diff_f32_f64", "noise of the recording, not a result", case)


def _add_statistics(results: Results, case: Case, model: XMask3D) -> None:
    """Norms of the batch-norm statistics after the step."""
    statistics = {
        published_name(name): buffer.double()
        for name, buffer in model.named_buffers()
        if name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    names = case.outputs["train/bn_names"].tolist()
    results.exact("train/bn_names", np.array([name for name in names if name in statistics]))
    results.forward("train/bn_l2", torch.stack([statistics[name].norm() for name in names if name in statistics]))


def _captions(case: Case) -> list[str]:
    """The given captions, else those of the recorded case."""
    captions = [str(caption) for caption in case.inputs["captions"]] if "captions" in case.inputs else list(CAPTIONS)
    if len(captions) < len(case.inputs["img_small"]):
        raise UserError(
            f"case {case.name}: inputs.npz gives no captions for its {len(case.inputs['img_small'])} scenes"
        )
    return captions


def case_benchmark(case: Case) -> Benchmark:
    """ScanNet's B15/N4, or its classes in the division that the case gives."""
    benchmark = load_benchmark(BENCHMARK)
    if "novel_category" not in case.inputs:
        return benchmark
    novel = set(case.tensor("novel_category").tolist())
    base = tuple(index for index in range(benchmark.num_classes) if index not in novel)
    return dataclasses.replace(benchmark, base=base, novel=tuple(sorted(novel)))


def _sample(case: Case, index: int, benchmark: Benchmark) -> Sample:
    """One scene as a sample."""

    def array(name: str) -> Tensor:
        return case.tensor(f"scene{index}/{name}")

    small = case.tensor("img_small")[index]
    image = small.repeat_interleave(ENLARGED, 0).repeat_interleave(ENLARGED, 1).permute(2, 0, 1).float() / 255
    blocks = case.inputs["label_2d_blocks"][index].astype(np.int64)
    # From pixel of the image to pixel of the frame to block.
    rows, columns = (
        np.arange(size) * length // size * count // length
        for size, length, count in zip(image.shape[-2:], FRAME, blocks.shape, strict=True)
    )
    frame = blocks[rows[:, None], columns]
    classes = array("cl").clamp(max=benchmark.num_classes).cpu().numpy()
    return Sample(
        scene=str(index),
        view="0",
        image=image,
        voxel_coords=array("vox").int(),
        voxel_features=array("feat"),
        point_to_voxel=array("inv"),
        points=array("xyz"),
        point_index=torch.arange(len(classes)),
        pixels=torch.stack([array("row"), array("col")], 1),
        classes=torch.from_numpy(classes),
        labels=torch.from_numpy(benchmark.training_labels(classes)),
        binary_labels=torch.from_numpy(benchmark.binary_labels(classes)),
        label_map=torch.from_numpy(benchmark.training_labels(frame.clip(max=benchmark.num_classes))),
        caption=_captions(case)[index],
    )
