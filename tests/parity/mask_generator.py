"""Feature pyramid, pixel decoder, mask decoder, and CLIP's view of masks."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from tests.parity.compare import Case, Results
from tests.parity.filler import fill_module, random_normal
from xmask3d.models.clip import MaskClip
from xmask3d.models.mask_decoder import MaskDecoder
from xmask3d.models.pixel_decoder import PixelDecoder
from xmask3d.models.pyramid import FeaturePyramid

PYRAMID_PREFIX = "backbone.feature_projections."
STRIDES = (4, 8, 64, 32, 16, 8, 8, 4)
LEVELS = (2, 3, 4, 5)


@torch.no_grad()
def run_decoder(case: Case) -> Results:
    """c_decoder."""
    results = Results()
    seed = int(case.tensor("feature_seed"))
    pyramid = []
    for level in LEVELS:
        name = f"c_decoder.features.{seed}.s{level}"
        features = random_normal(name, case.sizes(f"features_s{level}_shape"))
        case.verify_drawn(f"features_s{level}", features)
        pyramid.append(torch.from_numpy(features))
    pixel_decoder, mask_decoder = PixelDecoder(pyramid[0].shape[1]), MaskDecoder()
    fill_module(pixel_decoder, "sem_seg_head.pixel_decoder.")
    fill_module(mask_decoder, "sem_seg_head.predictor.")
    pixels = pixel_decoder(pyramid)
    final, *auxiliary = mask_decoder(*pixels, auxiliary=True)
    results.forward("mask_features", pixels.mask_features)
    for level, memory in enumerate(pixels.memories):
        results.forward(f"ms{level}", memory)
    results.forward("pooled", final.pooled)
    results.forward("logit_scale", final.temperature)
    results.forward("pred_masks", final.mask_logits)
    results.forward("mask_embed", final.embeddings)
    for index, prediction in enumerate(auxiliary):
        results.forward(f"aux{index}_pred_masks", prediction.mask_logits)
        results.forward(f"aux{index}_mask_embed", prediction.embeddings)
        results.forward(f"aux{index}_mask_pooled_features", prediction.pooled)
    reason = "a constant placeholder of the published decoder; class logits come from the text embeddings"
    results.leave_out(r"(aux\d+_)?pred_logits(_.*)?", reason, case)
    return results


@torch.no_grad()
def run_projection(case: Case) -> Results:
    """d_projection, for every image size that it gives."""
    results = Results()
    shapes = [case.sizes(f"feature{index}_shape") for index in range(len(STRIDES))]
    drawn = [random_normal(f"d_projection.feature{i}", shape) for i, shape in enumerate(shapes)]
    for index, feature in enumerate(drawn):
        case.verify_drawn(f"feature{index}", feature)
    maps = [torch.from_numpy(feature) for feature in drawn]
    pyramid = FeaturePyramid([shape[1] for shape in shapes], case.sizes("feature_strides", STRIDES))
    fill_module(pyramid, PYRAMID_PREFIX, _published_projection)
    for name in (name for name in case.inputs if name.startswith("input_image_size_")):
        height, width = case.sizes(name)
        for level, x in zip(LEVELS, pyramid(maps, (height, width)), strict=True):
            results.forward(f"{name.removeprefix('input_image_size_')}_s{level}", x)
    return results


def _published_projection(name: str) -> str:
    _, index, rest = name.split(".", 2)
    return f"{index}.0.{rest}"


@torch.no_grad()
def run_mask_clip(case: Case) -> Results:
    """g_maskclip."""
    results = Results()
    images, mask_logits = case.tensor("image"), case.tensor("masks")
    (patch,), (width,) = case.sizes("patch_size", (14,)), case.sizes("width", (128,))
    visual = VisionTransformer(
        image_size=case.sizes("image_size", (4 * patch,))[0],
        patch_size=patch,
        width=width,
        layers=case.sizes("layers", (3,))[0],
        heads=case.sizes("heads", (width // 64,))[0],
        mlp_ratio=4,
        output_dim=case.sizes("output_dim", (64,))[0],
        act_layer=QuickGELU,
    )
    fill_module(visual, "criterion.clip.clip.visual.")
    mask_clip = MaskClip(SimpleNamespace(visual=visual))
    results.forward("mask_embed", mask_clip(images, mask_logits))
    results.forward("preprocessed_image", mask_clip.preprocess(images))
    visible = mask_clip.visible_patches(mask_logits)
    results.forward("patch_prob", mask_clip.patch_probabilities(mask_logits))
    size, queries, patches = visible.shape
    # Sequence: masks, class token, patches. Nothing sees masks; masks see the class token and their patches.
    blocked = torch.zeros(size, queries + 1 + patches, queries + 1 + patches, dtype=torch.bool)
    blocked[:, :, :queries] = True
    blocked[:, :queries, queries + 1 :] = ~visible
    results.exact("attn_mask_head0", blocked)
    return results
