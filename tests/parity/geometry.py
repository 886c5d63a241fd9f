"""Projection of points into frames, and voxels."""

from __future__ import annotations

import re

import numpy as np

from tests.helpers.projection import project_points
from tests.parity.compare import Case, Results
from xmask3d.errors import UserError
from xmask3d.geometry.camera import Intrinsics
from xmask3d.geometry.voxels import axis_rotation, fnv_hash, quantise, random_rotation_scale, voxelise


def run_mapping(case: Case) -> Results:
    """b_mapping: with depth, without, and with the identity as pose."""
    results = Results()
    matrix = case.inputs["intrinsics"]
    camera = Intrinsics(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    width, height = case.sizes("image_dim_wh")
    # Name: which points, whether with the pose, whether with depth. What is not recorded needs no inputs.
    variants = {
        "mapping": ("points_world", True, True),
        "mapping_no_depth": ("points_world", True, False),
        "mapping_identity_pose": ("points_camera", False, True),
    }
    for name, (cloud, posed, with_depth) in variants.items():
        if name not in case.outputs:
            continue
        pixels, visible = project_points(
            case.inputs[cloud],
            case.inputs["pose_camera_to_world"] if posed else np.eye(4),
            camera,
            (height, width),
            case.inputs["depth_mm"] / 1000 if with_depth else None,
            border=int(case.number("cut_bound")),
            tolerance=case.number("visibility_threshold"),
        )
        results.exact(name, np.column_stack([pixels, visible]))
    return results


def run_voxelize(case: Case) -> Results:
    """b_voxelize: without and with a given transform, and the plain quantisation."""
    results = Results()
    size = case.number("voxel_size")
    # Name, rotation, and edge of a voxel after it: the given scales include it.
    transforms: list[tuple[str, np.ndarray | None, float, float]] = [("noaug", None, 1.0, size)]
    for name in (name.removesuffix("_M_v") for name in case.inputs if name.endswith("_M_v")):
        scales = np.diag(case.inputs[f"{name}_M_v"])[:3]
        if not (scales == scales[0]).all():
            raise UserError(f"case {case.name}: {name}_M_v has several scales, but space is scaled by one")
        transforms.append((name, case.inputs[f"{name}_M_r"][:3, :3], float(scales[0]), 1.0))
    for name, rotation, scale, edge in transforms:
        voxels = voxelise(case.inputs["points"], edge, rotation, scale, order="hash")
        results.exact(f"{name}_coords", voxels.coords)
        results.exact(f"{name}_inverse", voxels.point_to_voxel)
        results.exact(f"{name}_first_index", voxels.first_point)
        results.exact(f"{name}_feats", case.inputs["feats"][voxels.first_point])
        results.exact(f"{name}_labels", case.inputs["labels"][voxels.first_point])
    if any(name.startswith("quant_") for name in case.outputs):
        _add_quantisation(results, case.inputs["quant_coords"])
    _add_random_transform(results, case)
    return results


def _add_quantisation(results: Results, coords: np.ndarray) -> None:
    """Distinct rows of given coordinates: in the order of their hashes, and in that of the coordinates."""
    results.exact("quant_hash", fnv_hash(coords))
    voxels = quantise(coords)
    results.exact("quant_ravel_index", voxels.first_point)
    results.exact("quant_ravel_inverse", voxels.point_to_voxel)
    # Of the coordinates as they are, where scans are shifted to begin at 0 before: negative ones may share a hash.
    _, first, inverse = np.unique(fnv_hash(coords), return_index=True, return_inverse=True)
    results.exact("quant_fnv_index", first)
    results.exact("quant_fnv_inverse", inverse.reshape(-1))


def _add_random_transform(results: Results, case: Case) -> None:
    """The random rotation and scale, from the same seed."""
    matches = [re.match(r"aug_seed(\d+)_", name) for name in case.outputs]
    for prefix, seed in {(match[0], int(match[1])) for match in matches if match}:
        rotation, scale = random_rotation_scale(np.random.RandomState(seed))
        angles, order = case.outputs[f"{prefix}angles_xyz"], case.outputs[f"{prefix}order"]
        expected = np.eye(3)
        for axis in order:
            expected = expected @ axis_rotation(int(axis), angles[axis])
        # Angles and their order are not handed on, but their product is.
        same = np.allclose(rotation, expected, rtol=0, atol=1e-12)
        results.forward(f"{prefix}angles_xyz", angles if same else np.full_like(angles, np.nan))
        results.exact(f"{prefix}order", order if same else -1 - order)
        results.forward(f"{prefix}scale", scale, tolerance=1e-12)
