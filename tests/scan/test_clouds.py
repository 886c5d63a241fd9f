"""Point clouds in every format and condition."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from xmask3d.errors import UserError
from xmask3d.geometry.ply import write_elements
from xmask3d.scan.cloud_raw import to_bytes
from xmask3d.scan.clouds import read_cloud
from xmask3d.scan.scan import open_scan

POINTS = np.random.default_rng(0).uniform(0, 3, (200, 3)).astype(np.float32)
COLORS = np.random.default_rng(1).integers(0, 256, (200, 3)).astype(np.uint8)


@pytest.mark.parametrize("text", [False, True])
def test_ply_with_float_colours_and_nan(tmp_path: Path, text: bool) -> None:
    names = ["x", "y", "z", "red", "green", "blue"]
    vertices = np.empty(200, dtype=[(name, "f4") for name in names])
    for i, name in enumerate(names):
        vertices[name] = POINTS[:, i] if i < 3 else COLORS[:, i - 3] / 255
    vertices["y"][7] = np.nan
    write_elements(tmp_path / "a.ply", {"vertex": vertices})
    if text:
        header = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[0].replace(b"binary_little_endian", b"ascii")
        rows = "".join(" ".join(map(repr, row)) + "\n" for row in vertices.tolist())
        (tmp_path / "a.ply").write_bytes(header + b"end_header\n" + rows.encode())
    cloud = read_cloud(tmp_path / "a.ply")
    keep = np.arange(200) != 7
    np.testing.assert_allclose(cloud.points, POINTS[keep], atol=1e-6)
    np.testing.assert_array_equal(cloud.colors, COLORS[keep])
    assert any("1 of 200 points are NaN" in note for note in cloud.notes)


@pytest.mark.parametrize(("factor", "units", "word"), [(1000, 1000.0, "millimetres"), (100, 100.0, "centimetres")])
def test_units_are_guessed_and_can_be_refused(tmp_path: Path, factor: int, units: float, word: str) -> None:
    np.savetxt(tmp_path / "a.xyz", POINTS * factor)
    cloud = read_cloud(tmp_path / "a.xyz")
    assert cloud.units_per_metre == units and any(word in note for note in cloud.notes)
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-5)
    refused = read_cloud(tmp_path / "a.xyz", 1.0)
    np.testing.assert_allclose(refused.points + refused.origin, POINTS * factor, rtol=1e-5, atol=1e-3)


def test_map_coordinates_keep_their_millimetres(tmp_path: Path) -> None:
    shift = np.array([455_123.0, 5_712_456.0, 80.0])
    np.savetxt(tmp_path / "a.xyz", np.concatenate([POINTS + shift, COLORS], 1), fmt="%.4f")
    cloud = read_cloud(tmp_path / "a.xyz", 1.0)
    np.testing.assert_allclose(cloud.points + cloud.origin, POINTS + shift, atol=2e-4)
    np.testing.assert_array_equal(cloud.colors, COLORS)


def test_points_that_are_all_nan_or_all_one(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.xyz", np.full((20, 3), np.nan))
    with pytest.raises(UserError, match="has no points"):
        read_cloud(tmp_path / "a.xyz")
    np.savetxt(tmp_path / "b.xyz", np.ones((20, 3)))
    assert any("lie in one place" in note for note in read_cloud(tmp_path / "b.xyz").notes)


def test_meshes_of_few_vertices_are_sampled(tmp_path: Path) -> None:
    box = trimesh.creation.box((2, 1, 0.5))
    box.export(tmp_path / "box.obj")
    cloud = read_cloud(tmp_path / "box.obj")
    assert len(cloud.points) == pytest.approx(box.area / 0.02**2, rel=0.01)
    off = np.abs(np.abs(cloud.points) - np.array([1, 0.5, 0.25])).min(1)
    assert off.max() < 1e-5  # on a face


@pytest.mark.parametrize("name", ["box.stl", "box.ply", "box.obj"])
@pytest.mark.parametrize("told", [None, 1000.0])
def test_meshes_in_millimetres_are_sampled_alike(tmp_path: Path, name: str, told: float | None) -> None:
    box = trimesh.creation.box((4000, 3000, 2500))
    box.export(tmp_path / name)
    cloud = read_cloud(tmp_path / name, told)
    assert cloud.units_per_metre == 1000
    assert len(cloud.points) == pytest.approx(box.area / 1000**2 / 0.02**2, rel=0.01)
    np.testing.assert_allclose(np.abs(cloud.points).max(0), [2, 1.5, 1.25], atol=1e-5)


@pytest.mark.parametrize("colored", [True, False])
def test_obj_of_points_alone(tmp_path: Path, colored: bool) -> None:
    rows = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in POINTS]
    if colored:
        rows = [f"{row} {r / 255:.6f} {g / 255:.6f} {b / 255:.6f}" for row, (r, g, b) in zip(rows, COLORS, strict=True)]
    (tmp_path / "a.obj").write_text("# points\nvn 0 0 1\n" + "\n".join(rows))
    cloud = read_cloud(tmp_path / "a.obj")
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-6)
    if colored:
        np.testing.assert_array_equal(cloud.colors, COLORS)
    else:
        assert cloud.colors is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"ply\nformat ascii 1.0\n", "damaged, or not a PLY"),
        ("a.ply", b"", "damaged, or not a PLY"),
        ("a.xyz", b"1 2\n3 4\n", "expected x y z"),
        ("a.xyz", b"", "has no points"),
        ("a.xyz", b"one two three\n", "not lines of x y z"),
        ("a.obj", b"# nothing\n", "no points|cannot be read"),
        ("a.doc", b"", "not a point cloud"),
        ("a.las", b"", "reading LAS: needs a package|cannot be read as LAS"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_cloud(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("outlier", [1.0000001, 1.02, 300.0])
def test_one_colour_above_the_range_is_clipped(tmp_path: Path, outlier: float) -> None:
    colors = COLORS / 255
    colors[7] = outlier
    expected = COLORS.copy()
    expected[7] = 255
    rows = "".join(f"v {' '.join(map(str, row))}\n" for row in np.concatenate([POINTS, colors], 1).tolist())
    (tmp_path / "a.obj").write_text(rows)
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.obj").colors, expected)
    np.testing.assert_array_equal(to_bytes(np.float32(colors)), expected)
    colors[8] = np.nan
    np.testing.assert_array_equal(to_bytes(colors)[8], 0)


def test_ranges_of_whole_numbers() -> None:
    wide = COLORS.astype(np.uint16)
    np.testing.assert_array_equal(to_bytes(wide * 256 + 255), COLORS)
    wide[3] = 65535  # a white point among bytes
    np.testing.assert_array_equal(to_bytes(wide), np.where(wide > 255, 255, COLORS))
    np.testing.assert_array_equal(to_bytes(COLORS.astype(np.float64)), COLORS)


@pytest.mark.parametrize("color", [0, 1, 128, 255])
def test_one_colour_for_all_points_is_none(tmp_path: Path, color: int) -> None:
    np.savetxt(tmp_path / "a.xyz", np.concatenate([POINTS, np.full((200, 3), color)], 1))
    cloud = read_cloud(tmp_path / "a.xyz")
    assert cloud.colors is None and any("every point has the same colour" in note for note in cloud.notes)


@pytest.mark.parametrize("how", ["capitals", "packed", "signed", "scalar fields"])
def test_colours_of_ply_files_by_other_names_and_ranges(tmp_path: Path, how: str) -> None:
    names = {"capitals": "Red Green Blue", "scalar fields": "scalar_R scalar_G scalar_B"}.get(how, "red green blue")
    fields = [(axis.upper() if how == "capitals" else axis, "f4") for axis in "xyz"]
    fields += [("rgb", "u4")] if how == "packed" else [(name, "f4") for name in names.split()]
    vertices = np.empty(200, dtype=fields)
    for column, (name, _) in enumerate(fields[:3]):
        vertices[name] = POINTS[:, column]
    if how == "packed":
        vertices["rgb"] = COLORS.astype(np.uint32) @ [1 << 16, 1 << 8, 1]
    else:
        for column, name in enumerate(names.split()):
            vertices[name] = COLORS[:, column] / 127.5 - 1 if how == "signed" else COLORS[:, column]
    write_elements(tmp_path / "a.ply", {"vertex": vertices})
    cloud = read_cloud(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.points, POINTS)
    np.testing.assert_array_equal(cloud.colors, COLORS)


def test_stray_points_far_away_are_left_out(tmp_path: Path) -> None:
    room = np.random.default_rng(0).random((5000, 3)) * (4, 3, 2.5)
    room[3] = 1e9
    np.savetxt(tmp_path / "a.xyz", room)
    scan = open_scan(tmp_path / "a.xyz")
    assert len(scan.points) == 4999
    assert "1 of 5000 points are more than 100 km away and are left out" in scan.lines
    room[3] = 5e4  # near enough to be kept, and much too far for a plan of the room
    np.savetxt(tmp_path / "a.xyz", room)
    assert len(open_scan(tmp_path / "a.xyz").points) == 5000
    np.savetxt(tmp_path / "a.xyz", room * 1e37)
    with pytest.raises(UserError, match=r"a\.xyz: its points are .* m apart, which no scan measures"):
        open_scan(tmp_path / "a.xyz")
