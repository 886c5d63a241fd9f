"""Recorded cases with other inputs: sizes, counts, thresholds, categories. Nobody recorded their outputs."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

Arrays = dict[str, np.ndarray]


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def unet(inputs: Arrays) -> Arrays:
    """Three samples of few points far from the origin."""
    coords = np.unique(_rng().integers(-40, 40, (400, 3)), axis=0).astype(np.int32) + np.int32(1000)
    batch = np.arange(len(coords), dtype=np.int32) % 3
    feats = _rng().standard_normal((len(coords), 3)).astype(np.float32)
    return inputs | {"coords": np.column_stack([batch, coords]), "feats": feats}


def mapping(inputs: Arrays) -> Arrays:
    """A smaller frame, a wider border, a tighter depth test."""
    depth = inputs["depth_mm"][::2, ::2].copy()
    points = {name: inputs[name][::3] for name in ("points_world", "points_camera")}
    intrinsics = inputs["intrinsics"].copy()
    intrinsics[:2] /= 2
    sizes = {"image_dim_wh": np.array(depth.shape[::-1]), "cut_bound": np.array(3)}
    return (
        inputs | points | sizes | {"depth_mm": depth, "intrinsics": intrinsics, "visibility_threshold": np.array(0.1)}
    )


def voxels(inputs: Arrays) -> Arrays:
    """Fewer points, larger voxels, another scale."""
    few = {name: inputs[name][:200] for name in ("points", "feats", "labels")}
    changed = {"voxel_size": np.array(0.05), "aug_M_v": np.diag([31.0, 31.0, 31.0, 1.0])}
    return inputs | few | changed | {"quant_coords": inputs["quant_coords"][:50]}


def decoder(inputs: Arrays) -> Arrays:
    """Another seed, one image of other proportions."""
    shapes = {2: (16, 32), 3: (8, 16), 4: (4, 8), 5: (2, 4)}
    sizes = {f"features_s{level}_shape": np.array([1, 512, *shape]) for level, shape in shapes.items()}
    return {"feature_seed": np.array(5)} | sizes


def projection(inputs: Arrays) -> Arrays:
    """One image, only one output size."""
    shapes = {name: array * [0, 1, 1, 1] + [1, 0, 0, 0] for name, array in inputs.items() if name.endswith("_shape")}
    return shapes | {"input_image_size_wide": np.array([64, 160])}


def diffusion(inputs: Arrays) -> Arrays:
    """One square image, a wider UNet, another empty prompt and another noise."""
    dims = np.array([128, 128, 512, 384, 192, 128, 128, 128])
    noise = _rng().standard_normal((1, 4, 16, 16)).astype(np.float32)
    prompt = _rng().standard_normal((1, 77, 96)).astype(np.float32)
    given = {"feature_dims": dims, "shared_noise": noise, "uncond_inputs": prompt}
    return given | {"image": inputs["image"][:1, :, :64, :64], "cond": inputs["cond"][:1]}


def losses(inputs: Arrays) -> Arrays:
    """One scene, fewer queries and points, one prediction less, twelve classes."""
    rows = inputs["batch_index"] == 0
    inverse = inputs["inds_reconstruct"][rows]
    voxels = int(inverse.max()) + 1
    changed = {name: inputs[name][rows] for name in ("row", "col", "batch_index", "binary_label_3d")}
    labels = inputs["labels_3d"][rows]
    changed |= {"labels_3d": np.where(labels < 12, labels, 12), "inds_reconstruct": inverse}
    text = inputs["voxel_text_class"][:voxels]
    changed |= {"voxel_text_class": np.where(text < 12, text, -1), "binary_logit": inputs["binary_logit"][:voxels]}
    label_2d = inputs["label_2d"][:1]
    changed |= {"label_2d": np.where(label_2d < 12, label_2d, 12), "text_embed": inputs["text_embed"][:12]}
    changed |= {name: inputs[name][:1, :11] for name in inputs if name.startswith(("pred_masks", "mask_embed"))}
    changed |= {"caption_embed": inputs["caption_embed"][:1], "num_points": np.array(50)}
    changed |= {"mask_shape": np.array([240, 320]), "logit_scale": inputs["logit_scale"][:2]}
    return {name: array for name, array in (inputs | changed).items() if name not in ("pred_masks2", "mask_embed2")}


def mask_clip(inputs: Arrays) -> Arrays:
    """Three images with four masks of other sizes."""
    image = _rng().random((3, 3, 40, 70), np.float32)
    return {"image": image, "masks": _rng().standard_normal((3, 4, 11, 9)).astype(np.float32) * 4}


def scene(inputs: Arrays) -> Arrays:
    """Two views, twelve queries, ten classes of which two are novel, other exponents."""
    kept = {name: array for name, array in inputs.items() if not name.startswith("view2/")}
    for name in kept:
        if name.endswith(("mask_logits", "mask_embed", "mask_embed_clip")):
            kept[name] = kept[name][:12]
    kept |= {"text_embed": inputs["text_embed"][:10], "base_category": np.array([0, 1, 2, 3, 4, 6, 7, 9])}
    kept |= {"novel_category": np.array([5, 8]), "base_ratio": np.array(0.5), "novel_ratio": np.array(0.1)}
    return kept | {"scene_labels": np.where(inputs["scene_labels"] < 10, inputs["scene_labels"], 19)}


def whole(inputs: Arrays) -> Arrays:
    """Another division of the classes, blocks that do not divide the frame, captions of its own."""
    changed = {"novel_category": np.array([3, 4, 6]), "captions": np.array(["a chair", "a bed beside a wall"])}
    blocks = _rng().integers(0, 20, (2, 7, 5))
    return inputs | changed | {"label_2d_blocks": blocks, "img_small": inputs["img_small"][:, ::2]}


def loader(inputs: Arrays) -> Arrays:
    """Three views, of which the second sees nothing, fewer points, 16-bit labels."""
    few = {name: inputs[name][::2] for name in ("points", "colors", "labels")}
    views = {f"view{new}/{name}": inputs[f"view{old}/{name}"] for new, old in enumerate((1, 0, 0))
             for name in ("pose", "depth", "label", "jpg")}  # fmt: skip
    views["view1/pose"] = np.full((4, 4), np.inf)
    views["view2/label"] = views["view2/label"].astype(np.uint16)
    picture = io.BytesIO()
    Image.fromarray(_rng().integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(picture, "JPEG")
    return few | views | {"view2/jpg": np.frombuffer(picture.getvalue(), np.uint8)}


VARIATIONS: dict[str, Callable[[Arrays], Arrays]] = {
    "a_MinkUNet18A": unet,
    "a_MinkUNet34C": unet,
    "a_pc_processors": unet,
    "b_mapping": mapping,
    "b_voxelize": voxels,
    "c_decoder": decoder,
    "d_projection": projection,
    "e_ldm_small": diffusion,
    "e_ldm_small_grad": diffusion,
    "f_criterion": losses,
    "g_maskclip": mask_clip,
    "h_inference": scene,
    "k_end2end": whole,
    "l_loader": loader,
}
