"""Posed pictures beside a cloud or mesh: depth is rendered, and the frames are those of a recording with depth."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from tests.helpers.scenes import BoxRoom
from tests.scan.recordings import KINECT, walk, write_frames
from xmask3d.scan.options import ScanOptions
from xmask3d.scan.reconstructions import find_nerfstudio, geometry_beside
from xmask3d.scan.render import PointRenderer, RayRenderer, read_faces, renderer_of_faces
from xmask3d.scan.scan import open_scan
from xmask3d.visualize.cloud import colors_to_bytes, write_ply

SIZE = (120, 160)
MATRIX = KINECT.scaled((480, 640), SIZE)
K = np.array([[MATRIX.fx, 0, MATRIX.cx], [0, MATRIX.fy, MATRIX.cy], [0, 0, 1]])


@pytest.fixture(scope="module")
def room() -> BoxRoom:
    return BoxRoom(0, spacing=0.04)


def mesh_of(room: BoxRoom) -> trimesh.Trimesh:
    """The room's surfaces as rectangles of two triangles each."""
    vertices, faces = [], []
    for origin, u, v, *_ in room._surfaces():
        corner, u, v = (np.asarray(values, float) for values in (origin, u, v))
        start = len(vertices)
        vertices += [corner, corner + u, corner + u + v, corner + v]
        faces += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
    return trimesh.Trimesh(vertices, faces, process=False).subdivide_to_size(0.5)


def differences(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Relative errors where both know the depth; infinite where only the truth does."""
    known = truth > 0
    return np.where(found[known] > 0, np.abs(found[known] - truth[known]) / truth[known], np.inf)


def test_points_close_holes_and_hide_what_is_behind(room: BoxRoom) -> None:
    renderer = PointRenderer(room.points)
    for pose in walk(room)[:4]:
        truth = room.render(pose, MATRIX, SIZE)[1]
        off = differences(renderer.depth(pose, K, SIZE), truth)
        assert np.mean(off < 0.05) > 0.93 and np.mean(np.isinf(off)) < 0.01


def test_rays_see_the_faces(room: BoxRoom) -> None:
    pytest.importorskip("embreex")
    mesh = mesh_of(room)
    renderer = RayRenderer(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    for pose in walk(room)[:4]:
        truth = room.render(pose, MATRIX, SIZE)[1]
        assert np.mean(differences(renderer.depth(pose, K, SIZE), truth) < 0.01) > 0.985


def test_faces_without_embreex(room: BoxRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embreex", None)
    mesh, pose = mesh_of(room), walk(room)[0]
    renderer = renderer_of_faces(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    assert isinstance(renderer, PointRenderer)
    off = differences(renderer.depth(pose, K, SIZE), room.render(pose, MATRIX, SIZE)[1])
    assert np.mean(off < 0.05) > 0.93


def test_one_point_and_a_view_of_nothing() -> None:
    renderer = PointRenderer(np.array([[0.0, 0, 2], [0.1, 0, 2], [9, 9, 9]]))
    depth = renderer.depth(np.eye(4), K, SIZE)
    assert depth[60, 80] == pytest.approx(2) and depth[0, 0] == 0
    assert not renderer.depth(np.diag([1.0, -1, -1, 1]), K, SIZE).any()


def test_a_few_stray_faces_make_no_mesh(tmp_path: Path, room: BoxRoom) -> None:
    trimesh.Trimesh(room.points, [[0, 1, 2]], process=False).export(tmp_path / "a.ply")
    assert read_faces(tmp_path / "a.ply") is None and read_faces(tmp_path / "a.pcd") is None


def folder_of(room: BoxRoom, folder: Path, geometry: str, **how: bool) -> Path:
    """Posed pictures beside the room's cloud or mesh."""
    folder.mkdir()
    write_frames(folder, room, **how)
    for path in folder.glob("*.depth.png"):
        path.unlink()
    if geometry == "cloud":
        write_ply(folder / "cloud.ply", room.points, colors_to_bytes(room.colors))
    else:
        mesh_of(room).export(folder / "mesh.obj")
    return folder


@pytest.mark.parametrize("geometry", ["cloud", "mesh"])
@pytest.mark.parametrize("how", [{}, {"inverse": True}, {"y_up_camera": True}])
def test_the_frames_are_those_with_depth(tmp_path: Path, room: BoxRoom, geometry: str, how: dict) -> None:
    scan = open_scan(folder_of(room, tmp_path / "scan", geometry, **how))
    assert scan.frame_count == 8 and any("depth of every picture is rendered" in line for line in scan.lines)
    pose = walk(room)[0]
    view = scan.read_view("", scan.scene.view_names[0])
    truth = room.render(pose, KINECT.scaled((480, 640), (240, 320)), (240, 320))[1]
    assert np.mean(differences(view.depth, truth) < 0.05) > 0.93
    np.testing.assert_allclose(view.pose[:3, :3] @ [0, 0, 1], scan.rotation @ pose[:3, :3] @ [0, 0, 1], atol=0.02)


def test_a_cloud_of_another_place_is_warned_of(tmp_path: Path, room: BoxRoom) -> None:
    folder = folder_of(room, tmp_path / "scan", "cloud")
    write_ply(folder / "cloud.ply", room.points[:, [1, 2, 0]] * [1, 1.5, 0.5] + 0.4, colors_to_bytes(room.colors))
    lines = open_scan(folder).lines
    assert any("warning: the pictures hardly match cloud.ply" in line for line in lines), lines


def test_nerfstudio_and_colmap_with_a_cloud(tmp_path: Path, room: BoxRoom) -> None:
    plain = folder_of(room, tmp_path / "plain", "cloud")
    k = KINECT.scaled((480, 640), (240, 320))
    frames = [{"file_path": path.name, "transform_matrix": (pose @ np.diag([1.0, -1, -1, 1])).tolist()}
              for path, pose in zip(sorted(plain.glob("*.color.jpg")), walk(room), strict=False)]  # fmt: skip
    content = {"fl_x": k.fx, "fl_y": k.fy, "cx": k.cx, "cy": k.cy, "w": 320, "h": 240, "frames": frames}
    for path in plain.glob("*.txt"):
        path.unlink()
    (plain / "transforms.json").write_text(json.dumps(content))
    scan = open_scan(plain)
    assert (
        scan.frame_count == 8 and scan.kind == "nerfstudio's transforms.json" and len(scan.points) == len(room.points)
    )
    assert find_nerfstudio(plain) is not None
    for path in plain.glob("*.color.jpg"):
        path.rename(path.with_suffix(".away"))
    assert find_nerfstudio(plain) is None  # the cloud alone
    for path in plain.glob("*.away"):
        path.rename(path.with_suffix(".jpg"))
    (plain / "transforms.json").unlink()
    (plain / "sparse/0").mkdir(parents=True)
    (plain / "sparse/0/cameras.txt").write_text(f"1 PINHOLE 320 240 {k.fx} {k.fy} {k.cx} {k.cy}\n")
    lines = []
    for number, (path, pose) in enumerate(zip(sorted(plain.glob("*.color.jpg")), walk(room), strict=False)):
        from scipy.spatial.transform import Rotation

        inverse = np.linalg.inv(pose)
        x, y, z, w = Rotation.from_matrix(inverse[:3, :3]).as_quat()
        lines.append(" ".join(map(str, [number + 1, w, x, y, z, *inverse[:3, 3], 1, path.name])) + "\n\n")
    (plain / "sparse/0/images.txt").write_text("".join(lines))
    scan = open_scan(plain)
    assert scan.frame_count == 8 and scan.kind == "a COLMAP model"
    assert all("warning" not in line for line in scan.lines), scan.lines


def test_the_unit_of_the_cloud_is_that_of_the_poses(tmp_path: Path, room: BoxRoom) -> None:
    folder = folder_of(room, tmp_path / "scan", "cloud")
    write_ply(folder / "cloud.ply", room.points * 1000, colors_to_bytes(room.colors))
    for path in folder.glob("*.pose.txt"):
        pose = np.loadtxt(path)
        pose[:3, 3] *= 1000
        np.savetxt(path, pose)
    scan = open_scan(folder, ScanOptions(unit="mm", voxel_size=0.05))
    np.testing.assert_allclose(np.ptp(scan.points, axis=0), np.ptp(room.points, axis=0), atol=1e-3)
    truth = room.render(walk(room)[0], KINECT.scaled((480, 640), (240, 320)), (240, 320))[1]
    view = scan.read_view("", scan.scene.view_names[0])
    assert np.mean(differences(view.depth, truth) < 0.05) > 0.93
    assert "warning: --voxel-size has no effect on frames whose depth is rendered" in scan.lines


def test_the_cloud_of_a_result_below_is_no_geometry(tmp_path: Path) -> None:
    for name in ("model/room.ply", "result/fused.ply"):
        write_ply(tmp_path / name, np.zeros((3, 3), np.float32), np.zeros((3, 3), np.uint8))
    (tmp_path / "result/summary.json").write_text(json.dumps({"files": ["fused.ply"]}))
    assert geometry_beside(tmp_path) == tmp_path / "model/room.ply"
