"""Meshes: their colours, damaged and missing parts, and points beside them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from xmask3d.errors import UserError
from xmask3d.geometry.ply import write_elements
from xmask3d.scan.cloud_mesh import FOLDS, SPACING
from xmask3d.scan.cloud_obj import read_obj
from xmask3d.scan.clouds import read_cloud
from xmask3d.scan.render import read_faces
from xmask3d.scan.writing.plain import load_mesh

CORNERS = np.array([[0, 0, 0], [4, 0, 0], [4, 3, 0], [0, 3, 0]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
OBJ = "".join(f"v {x:g} {y:g} {z:g}\n" for x, y, z in CORNERS)
UV = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def half_and_half(path: Path) -> None:
    """Write a texture whose left half is red, its right one blue."""
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, :20, 0], picture[:, 20:, 2] = 250, 250
    Image.fromarray(picture).save(path)


def write_ply(path: Path, colors: np.ndarray | None = None, texture: str = "", extra: int = 0) -> None:
    fields = [(axis, "f4") for axis in "xyz"] + [
        (name, "u1") for name in ("red", "green", "blue") if colors is not None
    ]
    vertex = np.zeros(len(CORNERS) + extra, fields)
    for i, axis in enumerate("xyz"):
        vertex[axis] = np.r_[CORNERS[:, i], np.linspace(0, 3, extra)]
    for i, name in enumerate(("red", "green", "blue") if colors is not None else ()):
        vertex[name] = colors[:, i]
    face = np.zeros(2, [("vertex_indices", "i4", (3,)), *([("texcoord", "f4", (6,))] if texture else [])])
    face["vertex_indices"] = FACES
    if texture:
        face["texcoord"] = (CORNERS[FACES][:, :, :2] / [4, 3]).reshape(2, 6)
    write_elements(path, {"vertex": vertex, "face": face})
    header = (
        f"comment Erstellt f\xfcr uns\n{f'comment TextureFile {texture}' if texture else 'comment'}\nelement vertex"
    )
    path.write_bytes(path.read_bytes().replace(b"element vertex", header.encode("latin-1"), 1))


def assert_halves(cloud) -> None:
    left, right = cloud.points[:, 0] < 1.8, cloud.points[:, 0] > 2.2
    assert (cloud.colors[left] == (250, 0, 0)).all() and (cloud.colors[right] == (0, 0, 250)).all() and len(left) > 1000


@pytest.mark.parametrize("name", ["tex.png", r".\tex.png", r"C:\scans\tex.png", "textures/tex.png"])
@pytest.mark.parametrize("kind", ["obj", "ply"])
def test_textures_by_any_path(tmp_path: Path, kind: str, name: str) -> None:
    half_and_half(tmp_path / "tex.png")
    if kind == "ply":
        write_ply(tmp_path / "a.ply", texture=name)
    else:
        (tmp_path / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
        (tmp_path / "a.obj").write_text("mtllib a.mtl\nusemtl m\n" + OBJ + UV + "f 1/1 2/2 3/3 4/4\n")
    assert_halves(read_cloud(tmp_path / f"a.{kind}"))


def test_a_texture_of_a_dense_mesh(tmp_path: Path) -> None:
    half_and_half(tmp_path / "tex.png")
    rows, columns = np.mgrid[0:101, 0:101]
    vertices = np.stack([columns.ravel(), rows.ravel(), 0 * rows.ravel()], 1) / 50
    first = (rows[:-1, :-1] * 101 + columns[:-1, :-1]).ravel()
    faces = np.concatenate(
        [np.stack([first, first + 1, first + 102], 1), np.stack([first, first + 102, first + 101], 1)]
    )
    vertex = np.zeros(len(vertices), [(axis, "f4") for axis in "xyz"])
    for i, axis in enumerate("xyz"):
        vertex[axis] = vertices[:, i]
    face = np.zeros(len(faces), [("vertex_indices", "i4", (3,)), ("texcoord", "f4", (6,))])
    face["vertex_indices"], face["texcoord"] = faces, vertices[faces][:, :, :2].reshape(-1, 6) / 2
    write_elements(tmp_path / "a.ply", {"vertex": vertex, "face": face})
    content = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(
        content.replace(b"element vertex", b"comment TextureFile tex.png\nelement vertex", 1)
    )
    cloud = read_cloud(tmp_path / "a.ply")
    left, right = cloud.points[:, 0] < 0.9, cloud.points[:, 0] > 1.1
    assert (cloud.colors[left] == (250, 0, 0)).all() and (cloud.colors[right] == (0, 0, 250)).all()


@pytest.mark.parametrize(
    ("material", "missing"),
    [
        ("newmtl m\nmap_Kd nothere.png\n", "nothere.png"),
        (None, "a.mtl"),
        ("newmtl m\nKd 0.5 0.5 0.5\nmap_Kd no.png", "no.png"),
    ],
)
@pytest.mark.parametrize("places", ["", UV])
def test_missing_files_of_a_mesh_are_named(tmp_path: Path, material: str | None, missing: str, places: str) -> None:
    if material:
        (tmp_path / "a.mtl").write_text(material)
    face = "f 1/1 2/2 3/3 4/4\n" if places else "f 1 2 3 4\n"
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nusemtl m\n" + OBJ + places + face)
    cloud = read_cloud(tmp_path / "a.obj")
    assert cloud.colors is None and np.ptp(cloud.points, axis=0)[:2] == pytest.approx([4, 3], abs=0.1)
    assert any(f"{missing}, which the file names for its colours, is missing" in note for note in cloud.notes)


def test_a_missing_texture_of_a_ply_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_ply(tmp_path / "a.ply", texture="nothere.png")
    cloud = read_cloud(tmp_path / "a.ply")
    assert cloud.colors is None and any("nothere.png, which" in note for note in cloud.notes)
    assert "Traceback" not in capfd.readouterr().err


def test_a_texture_without_places_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (250, 10, 10)).save(tmp_path / "tex.png")
    (tmp_path / "a.mtl").write_text("newmtl a\nmap_Kd tex.png\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nusemtl a\nv 0 0 0\nv 4 0 0\nv 4 3 0\nf 1 2 3\n")
    cloud = read_cloud(tmp_path / "a.obj")
    assert cloud.colors is None and any("no texture coordinates" in note for note in cloud.notes)


def test_a_missing_texture_of_places_by_face_gives_no_colour(tmp_path: Path) -> None:
    rows = "".join(f"3 {a} {b} {c} 6 0 0 1 0 1 1\n" for a, b, c in ((0, 1, 2), (0, 2, 3)))
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\ncomment TextureFile tex.png\nelement vertex 4\nproperty float x\nproperty float y\n"
        "property float z\nelement face 2\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\n"
        f"end_header\n0 0 0\n4 0 0\n4 3 0\n0 3 0\n{rows}"
    )
    notes = read_cloud(tmp_path / "a.ply").notes
    assert any("tex.png, which" in note for note in notes) and not any("same colour" in note for note in notes)


def test_plain_colours_of_materials(tmp_path: Path) -> None:
    (tmp_path / "a.mtl").write_text("newmtl a\nKd 0.8 0.1 0.1\nnewmtl b\nKd 0 1 0\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\n" + OBJ + "usemtl a\nf 1 2 3\nusemtl b\nf 1 3 4\n")
    cloud = read_cloud(tmp_path / "a.obj")
    above = cloud.points[:, 1] > cloud.points[:, 0] * 0.75
    assert (cloud.colors[above] == (0, 255, 0)).mean() > 0.99 and (cloud.colors[~above] == (204, 26, 26)).mean() > 0.99
    mesh = trimesh.creation.box((4, 3, 2.5))
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[200, 40, 20, 255])
    mesh.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    mesh.export(tmp_path / "a.glb")
    np.testing.assert_array_equal(np.unique(read_cloud(tmp_path / "a.glb").colors, axis=0), [[200, 40, 20]])


def test_negative_indices_count_from_where_they_stand(tmp_path: Path) -> None:
    parts = [f"v {x} 0 0\nv {x + 1} 0 0\nv {x + 1} 3 0\nvt 0 0\nf -3/-1 -2/-1 -1/-1\n" for x in range(4)]
    (tmp_path / "a.obj").write_text("".join(parts))
    points = read_cloud(tmp_path / "a.obj").points
    assert np.ptp(points[:, 0]) == pytest.approx(4, abs=0.1)
    assert len(points) == pytest.approx(4 * 1.5 / 0.02**2, rel=0.01)
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nf -3 -2 -1\nv 1 1 0\n")
    with pytest.raises(UserError, match="counts back 3 of 2"):
        read_cloud(tmp_path / "a.obj")


@pytest.mark.parametrize("header", ["COFF\n4 2 0", "OFF 4 2 0"])
def test_colours_in_off(tmp_path: Path, header: str) -> None:
    rows = "".join(f"{x:g} {y:g} {z:g} {i * 60} 0 100 255\n" for i, (x, y, z) in enumerate(CORNERS))
    (tmp_path / "a.off").write_text(f"{header}\n# corners\n{rows}3 0 1 2\n3 0 2 3\n")
    cloud = read_cloud(tmp_path / "a.off")
    corner = np.linalg.norm(cloud.points[:, None] - CORNERS, axis=2).argmin(0)
    np.testing.assert_allclose(cloud.colors[corner], [[i * 60, 0, 100] for i in range(4)], atol=6)


def test_vertex_colours_are_interpolated(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", np.array([[0, 10, 0], [200, 10, 0], [200, 10, 0], [0, 10, 0]]))
    cloud = read_cloud(tmp_path / "a.ply")
    np.testing.assert_allclose(cloud.colors[:, 0], cloud.points[:, 0] * 50, atol=1)
    assert (cloud.colors[:, 1] == 10).all()


def test_stray_faces_beside_points(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 255, (1004, 3))
    write_ply(tmp_path / "a.ply", colors, extra=1000)
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.ply").colors, colors)
    points = "".join(f"v {x} 1 2\n" for x in range(50))
    (tmp_path / "a.obj").write_text(OBJ + points + "f 1 2 3\n")
    assert len(read_cloud(tmp_path / "a.obj").points) == 54


def test_points_beside_drawn_cameras(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    points, colors = generator.uniform(0, 3, (500, 3)), generator.integers(0, 255, (500, 3), np.uint8)
    scene = trimesh.Scene(
        [trimesh.PointCloud(points, np.c_[colors, np.full(500, 255)]), trimesh.creation.cone(0.1, 0.2)]
    )
    scene.export(tmp_path / "a.glb")
    cloud = read_cloud(tmp_path / "a.glb")
    np.testing.assert_allclose(cloud.points, points, atol=1e-6)
    np.testing.assert_array_equal(cloud.colors, colors)
    assert any("1 meshes beside the points" in note for note in cloud.notes)


@pytest.mark.parametrize(
    ("extension", "way"),
    [("EXT_meshopt_compression", "export it without"), ("KHR_draco_mesh_compression", "pip install DracoPy")],
)
def test_compressed_geometry_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str, way: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)
    head = json.dumps({"asset": {"version": "2.0"}, "extensionsUsed": [extension]}).encode()
    head += b" " * (-len(head) % 4)
    content = b"glTF" + struct.pack("<III", 2, 20 + len(head), len(head)) + b"JSON" + head
    (tmp_path / "a.glb").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.glb: .*{extension}.*{way}"):
        read_cloud(tmp_path / "a.glb")


@pytest.mark.parametrize("name", ["a.glb", "a.off", "a.stl", "a.obj", "a.ply"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 50,
        b"glTF\2\0\0\0",
        b"OFF\n9 9 9\n1 2\n",
        b"COFF",
        b"v 0 0 0\nf 1 2 3\n",
        b"f 1 2 3\n",
        b"v 0 0 0\nv 4 0 0\nv 0 3 0\nf 0 1 2\n",
        b"v 0 0 0\nv 4 0 0\nv 0 3 0\nvt 0 0\nf 1/1 2/1 0/1\n",
        b"v a b c\n",
    ],
)
def test_damaged_meshes_are_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        read_cloud(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_faces, load_mesh])
def test_every_way_to_a_mesh_is_guarded_and_counts_back_rightly(tmp_path: Path, read: Callable) -> None:
    path = tmp_path / "a.obj"
    path.write_text(OBJ + "f -4 -3 -2\nf -4 -2 -1\n" + "v 9 9 9\n" * 4)
    found = read(path)
    vertices, faces = found if isinstance(found, tuple) else (found.vertices, found.faces)
    assert sorted(map(tuple, np.asarray(vertices)[np.unique(faces)].tolist())) == sorted(map(tuple, CORNERS.tolist()))
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd a.png\n")
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    path.write_text(f"mtllib a.mtl\n{OBJ}{UV}usemtl m\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n")
    with pytest.raises(UserError, match=r"a\.png"):
        read(path)


def test_faces_that_overlap_without_end_are_sampled_within_bounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vertices = "".join("v {:.3f} {:.3f} {:.3f}\n".format(*row) for row in rng.random((200, 3)))
    corners = " ".join(map(str, rng.integers(1, 201, 3000)))
    (tmp_path / "a.obj").write_text(f"{vertices}f {corners}\n")
    points = len(read_obj(tmp_path / "a.obj", 1.0).points)  # 600 m2 of faces in a box of 6 m2
    assert 140_000 < points <= 2 * FOLDS * 3 / SPACING**2
