from pathlib import Path

import numpy as np
import pytest

from xmask3d.geometry.voxels import axis_rotation, fnv_hash, quantise, random_rotation_scale, voxelise

GOLDEN = Path(__file__).parents[1] / "golden" / "b_voxelize"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "outputs.npz")


@pytest.mark.parametrize("case", ["noaug", "aug"])
def test_golden(golden, case):
    inputs, outputs = golden
    size = float(inputs["voxel_size"])
    rotation, scale = None, 1.0
    if case == "aug":
        rotation, scale = inputs["aug_M_r"][:3, :3], inputs["aug_M_v"][0, 0] * size
    voxels = voxelise(inputs["points"], size, rotation, scale, order="hash")
    np.testing.assert_array_equal(voxels.coords, outputs[f"{case}_coords"])
    np.testing.assert_array_equal(voxels.point_to_voxel, outputs[f"{case}_inverse"])
    np.testing.assert_array_equal(voxels.first_point, outputs[f"{case}_first_index"])
    np.testing.assert_array_equal(inputs["feats"][voxels.first_point], outputs[f"{case}_feats"])


def test_golden_quantise(golden):
    inputs, outputs = golden
    np.testing.assert_array_equal(fnv_hash(inputs["quant_coords"]), outputs["quant_hash"])
    hashed, grid = quantise(inputs["quant_coords"], "hash"), quantise(inputs["quant_coords"])
    np.testing.assert_array_equal(hashed.first_point, outputs["quant_fnv_index"])
    np.testing.assert_array_equal(hashed.point_to_voxel, outputs["quant_fnv_inverse"])
    np.testing.assert_array_equal(grid.first_point, outputs["quant_ravel_index"])
    np.testing.assert_array_equal(grid.point_to_voxel, outputs["quant_ravel_inverse"])


def test_golden_random_rotation(golden):
    inputs, outputs = golden
    rotation, scale = random_rotation_scale(np.random.RandomState(5))
    np.testing.assert_allclose(rotation, inputs["aug_M_r"][:3, :3], rtol=0, atol=1e-15)
    assert scale == outputs["aug_seed5_scale"]


def test_orders_agree():
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    grid, hashed = voxelise(points, 0.1), voxelise(points, 0.1, order="hash")
    assert set(map(tuple, grid.coords)) == set(map(tuple, hashed.coords))
    np.testing.assert_array_equal(grid.coords[grid.point_to_voxel], hashed.coords[hashed.point_to_voxel])


@pytest.mark.parametrize("reach", [1.0, 1e7])
def test_invariants(reach):
    """Also where cells and indices do not fit into one word, which takes another way to sort."""
    rng = np.random.default_rng(1)
    points = np.repeat(rng.uniform(-reach, reach, (300, 3)), 3, 0)[rng.permutation(900)]
    voxels = voxelise(points, 0.01)
    cells = np.floor(points / 0.01)
    cells -= cells.min(0)
    np.testing.assert_array_equal(voxels.coords[voxels.point_to_voxel], cells)
    assert len(np.unique(voxels.coords, axis=0)) == len(voxels.coords) <= 300
    assert (voxels.coords.min(0) == 0).all()
    np.testing.assert_array_equal(voxels.point_to_voxel[voxels.first_point], np.arange(len(voxels.coords)))
    for voxel in range(0, len(voxels.coords), 37):
        assert voxels.first_point[voxel] == np.flatnonzero(voxels.point_to_voxel == voxel)[0]


def test_no_points_and_one():
    assert voxelise(np.zeros((0, 3)), 0.02).coords.shape == (0, 3)
    one = voxelise(np.array([[-3.0, 7, 2]]), 0.02)
    assert one.coords.tolist() == [[0, 0, 0]] and one.point_to_voxel.tolist() == [0]


def test_axis_rotation_is_right_handed():
    x, y, z = np.eye(3)
    np.testing.assert_allclose(axis_rotation(2, np.pi / 2) @ x, y, atol=1e-15)
    np.testing.assert_allclose(axis_rotation(0, np.pi / 2) @ y, z, atol=1e-15)
    np.testing.assert_allclose(axis_rotation(1, np.pi / 2) @ z, x, atol=1e-15)


def test_random_rotation_stays_in_its_bounds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rotation, scale = random_rotation_scale(rng)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert 0.9 <= scale <= 1.1
        assert rotation[2, 2] >= np.cos(2 * np.pi / 64)  # the two small tilts at most add up
