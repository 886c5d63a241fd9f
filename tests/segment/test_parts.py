"""The parts of reading and answering, one by one: fusion, coverage, up, words, regions, objects."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.helpers.scenes import BoxRoom
from tests.scan.recordings import KINECT, Y_UP, shoot, walk
from xmask3d.errors import UserError
from xmask3d.scan import formats
from xmask3d.scan.coverage import choose_views
from xmask3d.scan.fuse import VoxelFusion, measurement_weight
from xmask3d.scan.gravity import find_up
from xmask3d.scan.intrinsics import find_intrinsics, stated_units
from xmask3d.scan.layouts import _tum_list
from xmask3d.scan.phones import find_polycam, find_record3d
from xmask3d.scan.scan import open_scan
from xmask3d.segment.regions import best_regions
from xmask3d.segment.vocabulary import Reference, class_list, parse_queries
from xmask3d.splits import load_benchmark


def test_fusion_averages_by_weight_and_coarsens_within_its_limit() -> None:
    fusion = VoxelFusion(0.1)
    points = np.array([[0.02, 0.05, 0.05], [0.06, 0.05, 0.05], [-0.33, 0.21, 0.9]])
    fusion.add(points, np.array([[0, 0, 0], [1, 1, 1], [0.5, 0, 0]]), np.array([1.0, 3.0, 1.0]))
    fusion.add(points[2:], np.zeros((1, 3)), np.array([1.0]))
    cloud = fusion.result()
    order = np.argsort(cloud.points[:, 0])
    np.testing.assert_allclose(cloud.points[order], [[-0.33, 0.21, 0.9], [0.05, 0.05, 0.05]], atol=1e-6)
    np.testing.assert_allclose(cloud.colors[order], [[0.25, 0, 0], [0.75, 0.75, 0.75]], atol=1e-6)
    np.testing.assert_array_equal(cloud.frames[order], [2, 1])
    assert len(fusion.result(min_frames=2).points) == 1

    rng = np.random.default_rng(0)
    many = rng.uniform(0, 1, (5000, 3))
    small = VoxelFusion(0.02, max_voxels=600)
    small.add(many, np.zeros((5000, 3)), np.ones(5000))
    result = small.result()
    assert len(result.points) <= 600 and result.voxel_size == 0.16
    np.testing.assert_allclose(  # coarsening keeps the mean of everything
        (result.points * result.weight[:, None]).sum(0) / result.weight.sum(), many.mean(0), atol=1e-4
    )


def test_edges_of_depth_count_for_nothing() -> None:
    depth = np.full((6, 6), 2.0)
    depth[:, 3:] = 4.0
    depth[0, 0] = 0
    weight = measurement_weight(depth)
    assert (weight[:, 2:4] == 0).all() and weight[0, 0] == 0 and weight[0, 1] == 0
    assert weight[3, 1] == 0.25 and weight[3, 5] == pytest.approx(1 / 16)


def test_views_cover_first_what_is_new() -> None:
    cells = [np.arange(0, 10), np.arange(0, 9), np.arange(20, 25), np.arange(5, 12), np.array([99])]
    np.testing.assert_array_equal(choose_views(5, lambda i: cells[i], 2), [0, 2])
    np.testing.assert_array_equal(choose_views(5, lambda i: cells[i], 4), [0, 1, 2, 3])
    np.testing.assert_array_equal(choose_views(3, lambda i: cells[i], 9), [0, 1, 2])


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (np.eye(3), (0, 0, 1)),
        (Y_UP[:3, :3], (0, 1, 0)),
        (Rotation.from_euler("x", 9, degrees=True).as_matrix(), None),
        (Rotation.from_euler("z", 33, degrees=True).as_matrix(), (0, 0, 1)),
    ],
)
def test_up_is_found_without_cameras(turn: np.ndarray, expected: tuple | None) -> None:
    room = BoxRoom(4)
    truth = turn @ (0, 0, 1)
    up = find_up(room.points @ turn.T)
    np.testing.assert_allclose(up.up, truth if expected is None else expected, atol=0.03)
    np.testing.assert_allclose(up.rotation @ up.up, (0, 0, 1), atol=1e-9)
    # Cameras that all look down in the same direction, straight or on their side.
    rotations = np.stack([turn @ pose[:3, :3] for pose in walk(room)[:4]])
    np.testing.assert_allclose(find_up(room.points @ turn.T, rotations).up, truth, atol=0.03)
    aside = rotations @ Rotation.from_euler("z", 90, degrees=True).as_matrix()
    up = find_up(room.points @ turn.T, aside).up
    assert abs(up @ truth) > 0.999


@pytest.mark.parametrize("pitch", [0, 25])
def test_up_of_a_world_that_begins_with_the_first_camera(pitch: float) -> None:
    """As trackers write it: x right, y down, z ahead of the first picture, whatever way that looked."""
    room, tilt = BoxRoom(4), Rotation.from_euler("x", -pitch, degrees=True).as_matrix()
    ahead = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # a camera that looks along y, level
    world = (ahead @ tilt).T
    rotations = np.stack([world @ pose[:3, :3] for pose in walk(room)])
    up = find_up(room.points @ world.T, rotations).up
    np.testing.assert_allclose(up, world @ (0, 0, 1), atol=0.03)


def test_words() -> None:
    reference = Reference.of(load_benchmark("scannet20/B15N4"))
    words = parse_queries(["Chairs|seat", "sofa", "potted plant"], reference, background=["wall|ceiling"])
    assert words.names == ("Chairs", "sofa", "potted plant", "background") and words.has_background
    assert words.texts == ("Chairs", "seat", "sofa", "potted plant", "wall", "ceiling")
    assert words.is_base == (True, False, False, False, True, False)  # sofa is novel in this split
    np.testing.assert_array_equal(words.merge(np.array([[1, 4, 2, 3, 0, 9.0]])), [[4, 2, 3, 9]])
    assert len(class_list("scannet20")) >= 19
    for queries, background in (
        (["sofa", "bed|sofa"], []),
        (["sofa|couch", "sofa|settee"], []),
        (["chair", "Chair"], []),
        (["chair", "chair"], []),
        (["background"], ["background"]),
    ):
        with pytest.raises(UserError, match="given twice"):
            parse_queries(queries, reference, background)


def test_regions_are_connected_and_ordered() -> None:
    rng = np.random.default_rng(0)
    crowd = rng.uniform(0, 4, (4000, 3))
    blobs = [rng.normal(center, 0.05, (300, 3)) for center in ([1, 1, 1], [3, 3, 1])]
    points = np.concatenate([crowd, *blobs])
    similarity = np.concatenate([rng.normal(0.1, 0.02, 4000), np.full(300, 0.3), np.full(300, 0.4)])
    regions = best_regions(points, similarity, 0.1)
    assert len(regions) == 2
    np.testing.assert_allclose(regions[0].center, [3, 3, 1], atol=0.05)
    np.testing.assert_allclose(regions[1].center, [1, 1, 1], atol=0.05)
    assert regions[0].score == pytest.approx(0.4) and (regions[0].index >= 4300).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "500 0 160\n0 510 120\n0 0 1\n"),
        ("a.txt", "500 0 160 0\n0 510 120 0\n0 0 1 0\n0 0 0 1\n"),
        ("a.txt", "500 510 160 120"),
        ("a.txt", "320 240 500 510 160 120"),
        ("a.json", json.dumps({"width": 320, "height": 240, "intrinsic_matrix": [500, 0, 0, 0, 510, 0, 160, 120, 1]})),
        ("a.json", json.dumps({"camera": {"fx": 500, "fy": 510, "cx": 160, "cy": 120, "w": 320, "h": 240}})),
        ("a.json", json.dumps({"K": [[500, 0, 160], [0, 510, 120], [0, 0, 1]]})),
        ("a.json", json.dumps({"fx": 500, "fy": 510, "ppx": 160, "ppy": 120, "width": 320, "height": 240})),
    ],
)
def test_intrinsics_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    matrix, size = formats.read_intrinsics(tmp_path / name)
    np.testing.assert_allclose(matrix, [[500, 0, 160], [0, 510, 120], [0, 0, 1]])
    assert size in (None, (240, 320))


def test_intrinsics_that_are_none_are_refused(tmp_path: Path) -> None:
    odd = ("{}", "{", "5", '{"fx": 500}', '{"fx": null, "cx": 1, "cy": 2}', '{"K": [[1, 0], [1]]}')
    for name, text in (("a.txt", "1 2 3"), ("a.txt", "0 0 0 0 0 0 0 0 1"), *(("a.json", text) for text in odd)):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=rf"{name}"):
            formats.read_intrinsics(tmp_path / name)


def test_polycam_raw_data(tmp_path: Path) -> None:
    room, base = BoxRoom(3), tmp_path / "keyframes"
    for name in ("images", "depth", "cameras", "confidence"):
        (base / name).mkdir(parents=True)
    k = KINECT.scaled((480, 640), (240, 320))
    for i, pose in enumerate(walk(room)[:6]):
        color, _ = shoot(room, pose, (240, 320), (240, 320))
        _, depth = shoot(room, pose, (240, 320), (120, 160))
        Image.fromarray(color).save(base / "images" / f"{1000 + i}.jpg")
        Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(base / "depth" / f"{1000 + i}.png")
        Image.fromarray(np.full((120, 160), 255, np.uint8)).save(base / "confidence" / f"{1000 + i}.png")
        stored = Y_UP @ pose @ np.diag([1.0, -1, -1, 1])
        camera = {f"t_{r}{c}": stored[r, c] for r in range(3) for c in range(4)}
        camera |= {"fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy, "width": 320, "height": 240}
        (base / "cameras" / f"{1000 + i}.json").write_text(json.dumps(camera))
    scan = open_scan(tmp_path)
    assert scan.kind == "Polycam raw data" and scan.frame_count == 6
    assert any("ARKit" in line for line in scan.lines) and any("up is y" in line for line in scan.lines)
    assert not any(line.startswith("warning") for line in scan.lines)
    assert abs(np.percentile(scan.scene.points[:, 2], 1)) < 0.1  # the floor lies at 0 after turning


def test_record3d_export(tmp_path: Path) -> None:
    room, base = BoxRoom(3), tmp_path / "EXR_RGBD"
    for name in ("rgb", "depth"):
        (base / name).mkdir(parents=True)
    k, poses = KINECT.scaled((480, 640), (240, 320)), []
    for i, pose in enumerate(walk(room)[:6]):
        color, depth = shoot(room, pose, (240, 320), (120, 160))
        Image.fromarray(color).save(base / "rgb" / f"{i}.jpg")
        np.save(base / "depth" / f"{i}.npy", depth.astype(np.float32))
        stored = Y_UP @ pose @ np.diag([1.0, -1, -1, 1])
        poses.append([*Rotation.from_matrix(stored[:3, :3]).as_quat(), *stored[:3, 3]])
    content = {"w": 320, "h": 240, "K": [k.fx, 0, 0, 0, k.fy, 0, k.cx, k.cy, 1], "poses": poses}
    (base / "metadata.json").write_text(json.dumps(content))
    scan = open_scan(tmp_path)
    assert scan.kind == "a Record3D export" and scan.frame_count == 6
    assert any("depth read as 1 units" in line for line in scan.lines)
    assert not any(line.startswith("warning") for line in scan.lines)
    assert abs(np.percentile(scan.scene.points[:, 2], 1)) < 0.1


def test_intrinsics_that_are_not_understood_are_named(tmp_path: Path) -> None:
    (tmp_path / "intrinsics.txt").write_text("262.5 262.5 159.5 119.5 0.1 -0.2 0 0")
    color, depth, notes = find_intrinsics(tmp_path, (240, 320), (240, 320))
    assert len(notes) == 1 and "not used" in notes[0] and "intrinsics.txt" in notes[0] and "8 numbers" in notes[0]
    assert color[0][0] == depth[0][0] == "no file, assumed Kinect, 525 pixels at 640 x 480"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[1]"])
def test_phone_files_that_are_no_json(tmp_path: Path, content: bytes) -> None:
    for name in ("cameras", "depth", "rgb"):
        (tmp_path / name).mkdir()
    for find, file in ((find_polycam, tmp_path / "cameras" / "1.json"), (find_record3d, tmp_path / "metadata.json")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=rf"{file}: .*JSON"):
            find(tmp_path)


def test_info_files_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "info.txt").write_bytes(b"\xff\xfe\nm_depthShift = 4000\n")
    assert stated_units(tmp_path)[0] == 4000
    assert find_intrinsics(tmp_path, (480, 640), (480, 640))


def test_lists_of_times_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "rgb.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="expected lines of 'time file'"):
        _tum_list(tmp_path / "rgb.txt")
