"""The scan's own file with labels: fields, faces and textures as they were, read by other libraries."""

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from xmask3d.geometry.ply import read_elements, write_elements
from xmask3d.scan.clouds import read_cloud
from xmask3d.scan.writing import glb, pcd, ply
from xmask3d.scan.writing.added import Added
from xmask3d.scan.writing.back import suffix_back, write_back, write_cloud, write_parts
from xmask3d.scan.writing.plain import load_mesh
from xmask3d.seal import is_sound

NAMES = ["wall", "sofa, or couch"]
PALETTE = np.array([[255, 0, 0], [0, 255, 0], [90, 90, 90]], np.uint8)
POINTS = np.random.default_rng(0).random((40, 3)).round(3)


def labels_at(places: np.ndarray) -> Added:
    """Labels by place: left of the middle wall, right of it sofa, unlabelled where high."""
    labels = np.where(places[:, 2] > 0.9, -1, places[:, 0] > 0.5).astype(np.int64)
    return Added(labels, places[:, 1].astype(np.float32), NAMES, PALETTE, np.where(labels >= 0, labels, -1))


def box(texture: bool) -> trimesh.Trimesh:
    mesh = trimesh.creation.box((1, 1, 1)).subdivide()
    mesh.apply_translation((0.5, 0.5, 0.5))
    if texture:
        picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (8, 8, 3), dtype=np.uint8))
        material = trimesh.visual.material.SimpleMaterial(image=picture)
        mesh.visual = trimesh.visual.TextureVisuals(uv=mesh.vertices[:, :2], material=material)
    return mesh


def splat(path: Path) -> np.ndarray:
    names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(9)),
             "opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]  # fmt: skip
    vertex = np.empty(len(POINTS), [(name, "f4") for name in names])
    for i, name in enumerate(names):
        vertex[name] = POINTS[:, i] if i < 3 else np.random.default_rng(i).random(len(POINTS))
    write_elements(path, {"vertex": vertex})
    return vertex


def test_a_splat_keeps_all_fields(tmp_path: Path) -> None:
    vertex = splat(tmp_path / "a.ply")
    assert write_back(tmp_path / "a.ply", tmp_path / "b.ply", labels_at) is None
    found = trimesh.load(tmp_path / "b.ply", process=False).metadata["_ply_raw"]["vertex"]["data"]
    assert found.dtype.names == (*vertex.dtype.names, "label", "confidence", "object")
    for name in vertex.dtype.names:
        np.testing.assert_array_equal(found[name], vertex[name])
    np.testing.assert_array_equal(found["label"], labels_at(POINTS).labels)
    assert is_sound(tmp_path / "b.ply")
    assert b"comment label 1 sofa, or couch" in (tmp_path / "b.ply").read_bytes()
    parts = write_parts(tmp_path / "a.ply", tmp_path, labels_at, lambda number: f"part{number}")
    assert [path.name for path in parts] == ["part0.ply", "part1.ply"]
    kept = labels_at(POINTS).labels == 1
    part = read_elements(parts[1])["vertex"]
    for name in vertex.dtype.names:
        np.testing.assert_array_equal(part[name], vertex[name][kept])


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_faces_of_a_ply_stay_byte_for_byte(tmp_path: Path, form: str) -> None:
    order, source = ">" if form.endswith("big_endian") else "<", tmp_path / "a.ply"
    header = (
        f"ply\nformat {form} 1.0\ncomment TextureFile a.png\nelement camera 1\nproperty float f\n"
        "element vertex 5\nproperty double x\nproperty double y\nproperty double z\nproperty int label\n"
        "element face 2\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\nend_header\n"
    )
    points, faces = POINTS[:5], [((0, 1, 2), (0.5,) * 6), ((0, 1, 3, 4), (0.25,) * 8)]
    if form == "ascii":
        lines = ["1.5", *(f"{x} {y} {z} 7" for x, y, z in points)]
        tail = "\n".join(f"{len(c)} {' '.join(map(str, c))} {len(t)} {' '.join(map(str, t))}" for c, t in faces) + "\n"
        source.write_bytes((header + "\n".join(lines) + "\n" + tail).encode())
        end = tail.encode()
    else:
        end = b"".join(struct.pack(f"{order}B{len(c)}iB{len(t)}f", len(c), *c, len(t), *t) for c, t in faces)
        rows = b"".join(struct.pack(f"{order}3di", *point, 7) for point in points)
        source.write_bytes(header.encode() + struct.pack(f"{order}f", 1.5) + rows + end)
    write_back(source, tmp_path / "b.ply", labels_at)
    data = (tmp_path / "b.ply").read_bytes()
    assert data.endswith(end) and b"comment TextureFile a.png" in data
    vertex = read_elements(tmp_path / "b.ply")["vertex"]
    assert vertex.dtype.names == ("x", "y", "z", "label", "xmask3d_label", "confidence", "object")
    assert (vertex["label"] == 7).all()
    np.testing.assert_array_equal(vertex["xmask3d_label"], labels_at(points).labels)
    np.testing.assert_allclose(vertex["confidence"], points[:, 1], rtol=1e-5)
    np.testing.assert_array_equal(np.stack([vertex[a] for a in "xyz"], 1), points)


def test_a_mesh_of_trimesh_keeps_its_faces_and_gets_colours(tmp_path: Path) -> None:
    mesh = box(texture=False)
    mesh.export(tmp_path / "a.ply")
    write_back(tmp_path / "a.ply", tmp_path / "b.ply", labels_at)
    found = trimesh.load(tmp_path / "b.ply", process=False)
    np.testing.assert_array_equal(found.faces, mesh.faces)
    np.testing.assert_allclose(found.vertices, mesh.vertices)
    np.testing.assert_array_equal(found.visual.vertex_colors[:, :3], labels_at(mesh.vertices).colors)
    raw = found.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(np.ravel(raw["label"]), labels_at(mesh.vertices).labels)
    part = trimesh.load(write_parts(tmp_path / "a.ply", tmp_path, labels_at, str)[0], process=False)
    kept = labels_at(mesh.vertices).labels == 0
    assert len(part.faces) == kept[mesh.faces].all(1).sum() > 0
    np.testing.assert_allclose(part.area, mesh.submesh([np.flatnonzero(kept[mesh.faces].all(1))], append=True).area)


@pytest.mark.parametrize("form", ["ascii", "binary"])
def test_own_colours_stay_unless_painted(tmp_path: Path, form: str) -> None:
    mesh = box(texture=False)
    mesh.visual.vertex_colors = np.tile(np.array([1, 2, 3, 255], np.uint8), (len(mesh.vertices), 1))
    mesh.export(tmp_path / "a.ply", encoding=form)
    write_back(tmp_path / "a.ply", tmp_path / "b.ply", labels_at)
    assert (trimesh.load(tmp_path / "b.ply", process=False).visual.vertex_colors == [1, 2, 3, 255]).all()

    def painted(places: np.ndarray) -> Added:
        added = labels_at(places)
        added.paint = True
        return added

    write_back(tmp_path / "a.ply", tmp_path / "b.ply", painted)
    colors = trimesh.load(tmp_path / "b.ply", process=False).visual.vertex_colors
    np.testing.assert_array_equal(colors[:, :3], labels_at(mesh.vertices).colors)


def test_an_obj_keeps_lines_and_textures_and_groups_faces_by_class(tmp_path: Path) -> None:
    mesh, folder = box(texture=True), tmp_path / "out"
    mesh.export(tmp_path / "a.obj", mtl_name="a.mtl")
    folder.mkdir()
    write_back(tmp_path / "a.obj", folder / "b.obj", labels_at)
    before, after = (trimesh.load(p, process=False) for p in (tmp_path / "a.obj", folder / "b.obj"))
    np.testing.assert_array_equal(after.vertices, before.vertices)
    np.testing.assert_array_equal(after.visual.uv, before.visual.uv)
    np.testing.assert_array_equal(np.asarray(after.visual.material.image), np.asarray(before.visual.material.image))
    assert len(after.faces) == len(before.faces)
    lines = (folder / "b.obj").read_text().splitlines()
    own = (tmp_path / "a.obj").read_text().splitlines()
    assert [line for line in lines if line in set(own)] == own
    assert {line for line in lines if line.startswith("g ")} >= {"g wall", "g sofa_or_couch"}
    rows = list(csv.DictReader((folder / "b.labels.csv").open(newline="")))
    assert {row["class"] for row in rows} <= {*NAMES, "unlabelled"} and len(rows) == len(mesh.vertices)
    parts = write_parts(tmp_path / "a.obj", folder, labels_at, lambda number: f"{number}_part")
    assert np.shape(trimesh.load(parts[0], process=False).visual.uv)[1] == 2


def test_textures_go_along_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    scan, out = tmp_path / "scan", tmp_path / "out"
    (scan / "sub").mkdir(parents=True)
    box(texture=True).export(scan / "a.obj", mtl_name="a.mtl")
    for name in ("wood.png", "sub/iron.png"):
        Image.new("RGB", (4, 4)).save(scan / name)
    named = ("../scan/wood.png", "sub\\iron.png", str(scan / "a.obj"), "a.mtl", 5000 * "x")
    text = "".join(f"map_Kd {name}\n" for name in named)
    (scan / "a.mtl").write_text(f"newmtl m\n{text}")
    write_back(scan / "a.obj", out / "b.obj", labels_at)
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_relative_to(out)}
    assert there == {"out/b.obj", "out/b.labels.csv", "out/a.mtl", "out/wood.png", "out/sub/iron.png", "out/a.obj"}
    mesh = box(texture=False)
    mesh.export(scan / "a.ply")
    data = (scan / "a.ply").read_bytes().replace(b"element", b"comment TextureFile wood.png\nelement", 1)
    (scan / "a.ply").write_bytes(data)
    write_back(scan / "a.ply", tmp_path / "other/b.ply", labels_at)
    parts = write_parts(scan / "a.ply", tmp_path / "parts", labels_at, str)
    assert (tmp_path / "other/wood.png").is_file() and (tmp_path / "parts/wood.png").is_file()
    assert all(b"comment TextureFile wood.png" in path.read_bytes() for path in parts)


def test_copies_in_one_folder_have_materials_of_their_own(tmp_path: Path) -> None:
    for name, color in (("red", (250, 0, 0)), ("blue", (0, 0, 250))):
        mesh = box(texture=True)
        mesh.visual.material.image = Image.new("RGB", (8, 8), color)
        mesh.export(tmp_path / f"{name}.glb")
        write_back(tmp_path / f"{name}.glb", tmp_path / f"my {name}.obj", labels_at)
    for name, color in (("red", (250, 0, 0)), ("blue", (0, 0, 250))):
        found = trimesh.load(tmp_path / f"my {name}.obj", process=False)
        assert found.visual.material.image.convert("RGB").getpixel((0, 0)) == color


def test_a_plain_obj_is_painted_by_class(tmp_path: Path) -> None:
    vertices = "v 0 0 0\nv 0.2 0 0\nv 0.2 0.2 0\nv 0.8 0 0\nv 0.9 0 0\nv 0.9 0.2 0\n"
    (tmp_path / "a.obj").write_text(f"{vertices}f 1 2 3\nf -3 -2 -1\n")
    write_back(tmp_path / "a.obj", tmp_path / "b.obj", labels_at)
    scene = trimesh.load(tmp_path / "b.obj", process=False, group_material=True)
    assert "Kd 0.0000 1.0000 0.0000" in (tmp_path / "b.mtl").read_text()
    assert {"usemtl wall", "usemtl sofa_or_couch"} <= set((tmp_path / "b.obj").read_text().splitlines())
    assert sum(len(part.faces) for part in scene.dump()) == 2


@pytest.mark.parametrize("texture", [False, True])
def test_a_glb_gets_attributes(tmp_path: Path, texture: bool) -> None:
    mesh = box(texture)
    scene = trimesh.Scene()
    turn = trimesh.transformations.rotation_matrix(0.4, (0, 0, 1), (0.5, 0.5, 0.5))
    scene.add_geometry(mesh, transform=turn)
    scene.export(tmp_path / "a.glb")
    write_back(tmp_path / "a.glb", tmp_path / "b.glb", labels_at)
    assert is_sound(tmp_path / "b.glb")
    before, after = (trimesh.load(tmp_path / name, process=False).dump()[0] for name in ("a.glb", "b.glb"))
    np.testing.assert_array_equal(after.faces, before.faces)
    np.testing.assert_array_equal(after.vertices, before.vertices)
    np.testing.assert_allclose(glb.positions(tmp_path / "b.glb"), before.vertices, atol=1e-6)
    expected = labels_at(glb.positions(tmp_path / "a.glb"))
    np.testing.assert_array_equal(np.ravel(after.vertex_attributes["_LABEL"]), expected.labels)
    np.testing.assert_allclose(np.ravel(after.vertex_attributes["_CONFIDENCE"]), expected.confidence)
    if texture:
        np.testing.assert_array_equal(after.visual.uv, before.visual.uv)
        assert np.asarray(after.visual.material.baseColorTexture).shape == (8, 8, 3)
    content = json.loads((tmp_path / "b.glb").read_bytes()[20:].split(b"BIN\0")[0][:-4].decode("latin-1").rstrip())
    assert content["asset"]["extras"]["labels"] == NAMES
    write_back(tmp_path / "b.glb", tmp_path / "c.glb", labels_at)
    assert glb._read(tmp_path / "c.glb")[0]["asset"]["extras"]["before"] == content["asset"]["extras"]


@pytest.mark.parametrize("is_mesh", [True, False])
def test_a_glb_of_another_file_stands_upright_and_is_read_as_it_was(tmp_path: Path, is_mesh: bool) -> None:
    down = np.diag([1.0, -1, -1])  # a scan whose z axis points down
    if is_mesh:
        box(texture=False).export(tmp_path / "a.ply")
        places = ply.positions(tmp_path / "a.ply")
        write_back(tmp_path / "a.ply", tmp_path / "b.glb", labels_at, down)
    else:
        places = POINTS
        write_cloud(tmp_path / "b.glb", POINTS, None, labels_at(POINTS), down)
    seen = trimesh.load(tmp_path / "b.glb", process=False).dump()[0]  # as any viewer has it: y up
    np.testing.assert_allclose(seen.vertices[:, 1], -places[:, 2], atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(seen.vertices[:3]), np.linalg.det(places[:3]), atol=1e-6)  # not mirrored
    write_back(tmp_path / "b.glb", tmp_path / "c.glb", labels_at, down)
    for name in ("b.glb", "c.glb"):
        np.testing.assert_allclose(glb.positions(tmp_path / name), places, atol=1e-6)
        assert is_sound(tmp_path / name)
    if is_mesh:
        mesh = load_mesh(tmp_path / "c.glb")
        np.testing.assert_allclose(mesh.vertices, places, atol=1e-6)
        np.testing.assert_array_equal(mesh.faces, box(texture=False).faces)
    else:
        np.testing.assert_allclose(read_cloud(tmp_path / "c.glb", 1.0).points, places, atol=1e-6)


def pcd_file(path: Path, form: str) -> np.ndarray:
    table = np.empty(40, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("normal", "<f4", 3), ("ring", "<u2")])
    for i, axis in enumerate("xyz"):
        table[axis] = POINTS[:, i]
    table["normal"], table["ring"] = np.random.default_rng(2).random((40, 3)), np.arange(40)
    header = ("# .PCD v0.7\nVERSION 0.7\nFIELDS x y z normal ring\nSIZE 4 4 4 4 2\nTYPE F F F F U\nCOUNT 1 1 1 3 1\n"
              f"WIDTH 8\nHEIGHT 5\nVIEWPOINT 1 2 3 1 0 0 0\nPOINTS 40\nDATA {form}\n")  # fmt: skip
    if form == "ascii":
        numbers = [[*(r[axis] for axis in "xyz"), *r["normal"], r["ring"]] for r in table]
        body = "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in numbers).encode()
    elif form == "binary":
        body = table.tobytes()
    else:
        flat = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in table.dtype.names)
        packed = b"".join(bytes([len(flat[i : i + 32]) - 1]) + flat[i : i + 32] for i in range(0, len(flat), 32))
        body = struct.pack("<II", len(packed), len(flat)) + packed
    path.write_bytes(header.encode() + body)
    return table


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_a_pcd_keeps_fields_order_and_viewpoint(tmp_path: Path, form: str) -> None:
    table = pcd_file(tmp_path / "a.pcd", form)
    write_back(tmp_path / "a.pcd", tmp_path / "b.pcd", labels_at)
    found = pcd.PcdRows.read(tmp_path / "b.pcd")
    names = [field[0] for field in found.fields]
    assert names == ["x", "y", "z", "normal", "ring", "label", "confidence", "object", "rgb"]
    assert "VIEWPOINT 1 2 3 1 0 0 0" in found.header and "HEIGHT 5" in found.header
    for name in ("x", "y", "z", "ring", "normal"):
        np.testing.assert_allclose(found.column(name), table[name].reshape(40, -1)[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(found.column("label"), labels_at(POINTS).labels)
    again = read_cloud(tmp_path / "b.pcd", 1.0)
    np.testing.assert_allclose(again.points, POINTS, atol=1e-6)
    np.testing.assert_array_equal(again.colors, labels_at(POINTS).colors)
    part = pcd.PcdRows.read(write_parts(tmp_path / "a.pcd", tmp_path, labels_at, str)[0])
    np.testing.assert_array_equal(part.column("ring"), table["ring"][labels_at(POINTS).labels == 0])
    assert "HEIGHT 1" in part.header
    (tmp_path / "A.pcd").write_bytes((tmp_path / "a.pcd").read_bytes().replace(b"FIELDS x y z", b"FIELDS X Y Z"))
    np.testing.assert_array_equal(pcd.positions(tmp_path / "A.pcd"), pcd.positions(tmp_path / "a.pcd"))


@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_a_las_gets_extra_dimensions(tmp_path: Path, suffix: str) -> None:
    laspy = pytest.importorskip("laspy")
    las = laspy.create(point_format=3, file_version="1.2")
    las.header.offsets, las.header.scales = [455_000, 5_712_000, 0], [0.001] * 3
    las.x, las.y, las.z = (POINTS + [455_000, 5_712_000, 0]).T
    las.intensity, las.classification = np.arange(40), np.arange(40) % 7
    las.red = np.arange(40) * 100
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    las.write(str(source))

    def at(places: np.ndarray) -> Added:
        return labels_at(places - [455_000, 5_712_000, 0])

    write_back(source, target, at)
    found = laspy.read(str(target))
    assert found.header.version == las.header.version and is_sound(target)
    for name in las.point_format.dimension_names:
        np.testing.assert_array_equal(found[name], las[name])
    np.testing.assert_array_equal(found["label"], labels_at(POINTS).labels)
    np.testing.assert_allclose(found["confidence"], POINTS[:, 1], atol=1e-6)
    parts = write_parts(source, tmp_path, at, str)
    np.testing.assert_array_equal(laspy.read(str(parts[1])).intensity, las.intensity[labels_at(POINTS).labels == 1])


@pytest.mark.parametrize(
    "pair", ["a.glb b.ply", "a.glb b.obj", "a.ply b.glb", "a.ply b.obj", "a.obj b.glb", "a.stl b.ply"]
)
def test_meshes_change_their_format(tmp_path: Path, pair: str) -> None:
    source, target = pair.split()
    mesh = box(texture=source.endswith(("glb", "obj")))
    mesh.export(tmp_path / source)
    lost = write_back(tmp_path / source, tmp_path / target, labels_at)
    assert lost == ("the texture became colours of the vertices" if pair == "a.glb b.ply" else None)
    found = trimesh.load(tmp_path / target, process=False)
    found = found.to_mesh() if isinstance(found, trimesh.Scene) else found
    assert len(found.faces) == len(mesh.faces)
    np.testing.assert_allclose(found.area, mesh.area, rtol=1e-6)


@pytest.mark.parametrize("suffix", ["ply", "pcd", "obj", "glb"])
def test_points_alone_in_their_own_colours(tmp_path: Path, suffix: str) -> None:
    colors = np.random.default_rng(3).integers(0, 255, (40, 3), dtype=np.uint8)
    write_cloud(tmp_path / f"a.{suffix}", POINTS, colors, labels_at(POINTS))
    found = read_cloud(tmp_path / f"a.{suffix}", 1.0)
    np.testing.assert_allclose(found.points, POINTS, atol=1e-6)
    assert found.colors is not None and np.abs(found.colors.astype(int) - colors).max() <= 1
    assert suffix_back(tmp_path / "a.xyz") == ".ply"


def test_map_coordinates_keep_their_digits(tmp_path: Path) -> None:
    points = POINTS + [455_000, 5_712_000, 0]
    write_cloud(tmp_path / "a.ply", points, None, labels_at(POINTS))
    np.testing.assert_array_equal(ply.positions(tmp_path / "a.ply"), points)
