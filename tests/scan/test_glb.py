import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
import trimesh
from PIL import Image

from xmask3d.errors import UserError
from xmask3d.scan.clouds import read_cloud
from xmask3d.scan.glb import check_gltf


def write_glb(path, change=None):
    content = trimesh.creation.box((3, 3, 2)).export(file_type="glb")
    (length,) = struct.unpack("<I", content[12:16])
    scene, rest = json.loads(content[20 : 20 + length]), content[20 + length :]
    if change:
        change(scene)
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    path.write_bytes(struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest)
    return path


def laugh(scene):
    """Each node places the next twice."""
    last = len(scene["nodes"])
    scene["nodes"] += [{"children": [last + i + 1, last + i + 1]} for i in range(40)] + [{"mesh": 0}]
    scene["scenes"][0]["nodes"] = [last]


def itself(scene):
    scene["nodes"][0]["children"] = [0]
    scene["scenes"][0]["nodes"] = [0]


CHANGES = [
    (laugh, "several parents"),
    (itself, "several parents"),
    (lambda scene: scene["accessors"][0].update(count=10**12), "numbers in"),
    (lambda scene: scene["accessors"][0].update(count=-1), "numbers in"),
    (lambda scene: scene.update(nodes=3), "damaged"),
    (lambda scene: scene["meshes"][0].update(primitives=None), "damaged"),
    (
        lambda scene: scene.update(extensionsRequired=["EXT_mesh_gpu_instancing"]),
        "needs the glTF extension EXT_mesh_gpu",
    ),
    (lambda scene: scene["meshes"][0]["primitives"][0].update(mode=6), "triangle fans"),
    (
        lambda scene: [one.update(normalized=True) for one in scene["accessors"]],
        "normalised or large whole numbers, not read",
    ),
    (
        lambda scene: [one.update(componentType=5125) for one in scene["accessors"]],
        "normalised or large whole numbers, not read",
    ),
    (lambda scene: scene["accessors"][0].update(count=True), "numbers in"),
    (lambda scene: scene["accessors"][0].update(count="9"), "numbers in"),
    (lambda scene: scene["nodes"][0].update(rotation=[0, 0, 0, 0]), "a rotation that is none"),
    (lambda scene: scene["nodes"][0].update(rotation=[0, 0, "NaN", 1]), "damaged"),
    (lambda scene: [one.update(sparse={"count": 1}) for one in scene["accessors"]], "replace others"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_scenes_without_end(tmp_path, change, message):
    path = write_glb(tmp_path / "a.glb", change)
    with pytest.raises(UserError, match=rf"a\.glb: .*{message}"):
        read_cloud(path)


def test_a_tree_of_nodes_is_read(tmp_path):
    def tree(scene):
        last = len(scene["nodes"])
        scene["nodes"] += [{"children": [last + 1]}, {"mesh": 0}]
        scene["scenes"][0]["nodes"] += [last]

    path = write_glb(tmp_path / "a.glb", tree)
    check_gltf(path)
    assert len(read_cloud(path).points) > 0


def test_a_mesh_with_a_vertex_at_infinity_is_not_sampled(tmp_path):
    mesh = trimesh.creation.box((3, 3, 2))
    mesh.vertices[0] = float("inf")
    (tmp_path / "a.stl").write_bytes(mesh.export(file_type="stl"))
    cloud = read_cloud(tmp_path / "a.stl")
    assert 0 < len(cloud.points) < 40


@pytest.mark.parametrize("inside", [True, False])
def test_gltf_with_its_points_inside_or_beside(tmp_path, inside):
    files = trimesh.creation.box((3, 3, 2)).export(file_type="gltf")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    path, scene = tmp_path / "model.gltf", json.loads(files["model.gltf"])
    beside = [buffer["uri"] for buffer in scene["buffers"]]
    if inside:
        for buffer in scene["buffers"]:
            buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(files[buffer["uri"]]).decode()
        path.write_text(json.dumps(scene))
    np.testing.assert_allclose(np.ptp(read_cloud(path).points, axis=0), (3, 3, 2), atol=0.05)
    for name in beside:
        (tmp_path / name).unlink()
    if inside:
        assert len(read_cloud(path).points) > 1000
    else:
        with pytest.raises(UserError, match=r"model\.gltf: its points are in .*, which is missing"):
            read_cloud(path)
    path.write_text(json.dumps(scene | {"buffers": [{"uri": "../../etc/passwd"}]}))
    with pytest.raises(UserError, match="missing"):
        read_cloud(path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"model\.gltf: "):
        read_cloud(path)


def png(width, height):
    """A picture that claims a size."""
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n(harm) (w) file closefile\n%%EOF\n"


@pytest.mark.parametrize(
    ("picture", "message"), [(png(60_000, 60_000), "exceeds limit"), (POSTSCRIPT, "a picture")], ids=["large", "eps"]
)
@pytest.mark.parametrize("inside", [True, False])
def test_textures_of_absurd_size_or_that_are_programs(tmp_path, picture, message, inside):
    def textured(scene):
        uri = "data:image/png;base64," + base64.b64encode(picture).decode() if inside else "texture.bin.png"
        scene["images"], scene["textures"] = [{"uri": uri}], [{"source": 0}]
        scene["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
        scene["meshes"][0]["primitives"][0]["material"] = 0

    (tmp_path / "texture.bin.png").write_bytes(picture)
    path = write_glb(tmp_path / "a.glb", textured)
    with pytest.raises(UserError, match=message) as caught:
        read_cloud(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["texture.png", "texture.mtl", "texture.eps"])
@pytest.mark.parametrize(
    ("picture", "message"), [(png(10_000, 9_000), "64 Mi"), (POSTSCRIPT, "picture|PostScript")], ids=["large", "eps"]
)
def test_textures_of_obj(tmp_path, name, picture, message):
    if name == "texture.mtl" and picture is not POSTSCRIPT:
        pytest.skip("read as materials")
    (tmp_path / name).write_bytes(picture)
    (tmp_path / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    corners = "v 0 0 0\nv 3 0 0\nv 0 3 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
    (tmp_path / "a.obj").write_text(f"mtllib a.mtl\n{corners}usemtl m\nf 1/1 2/2 3/3\n")
    with pytest.raises(UserError, match=message) as caught:
        read_cloud(tmp_path / "a.obj")
    assert "\n" not in str(caught.value)
