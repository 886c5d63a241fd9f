"""GLB with labels: adds the attributes `_LABEL` and `_CONFIDENCE` to every primitive, and keeps everything else.

The file's own metadata (`asset.extras`) are kept there under `before`. For a scan from another format, a node above all
others makes it upright in viewers, whose y axis is up; the coordinates remain those of the scan.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.files import atomic_write
from xmask3d.scan.glb import UPRIGHT
from xmask3d.scan.writing.added import SEAL, Added
from xmask3d.seal import sealed

FLOAT, BYTE = 5126, 5121
Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # rotates z up to glTF's y up
TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
LARGEST = {"i1": 127, "u1": 255, "<i2": 32767, "<u2": 65535}  # divisors for positions stored as normalised integers


def positions(path: Path) -> np.ndarray:
    """Read the vertices of all primitives, n x 3 float64, in the order of meshes and in the frame of the scene.

    Raises:
        ValueError, KeyError: the form is not supported here, such as compressed geometry.
    """
    content, binary = _read(path)
    worlds = _worlds(content)
    parts = []
    for number, accessor in _primitives(content):
        places = _numbers(content, binary, accessor)
        world = worlds.get(number, np.eye(4))
        parts.append(places @ world[:3, :3].T + world[:3, 3])
    return np.concatenate(parts)


def write(source: Path, target: Path, added: Added) -> None:
    """Write a copy of a file with attributes added to its primitives."""
    _write(target, *_labelled(*_read(source), added))


def stand_upright(path: Path, rotation: np.ndarray) -> None:
    """Add a node above all others of a file that rotates it, so that viewers show it upright.

    Args:
        rotation: 3 x 3, rotates the file's coordinates to z up.
    """
    content, binary = _read(path)
    world = np.eye(4)
    world[:3, :3] = Y_UP @ rotation
    roots = [root for scene in content["scenes"] for root in scene.get("nodes", [])]
    content["nodes"].append({"name": UPRIGHT, "matrix": world.T.ravel().tolist(), "children": roots})
    content["scenes"] = [{"nodes": [len(content["nodes"]) - 1]}]
    content["scene"] = 0
    _write(path, content, bytearray(binary))


def _labelled(content: dict[str, Any], binary: bytes, added: Added) -> tuple[dict[str, Any], bytearray]:
    """Return the description and the binary data of a file with attributes added to its primitives."""
    body, start = bytearray(binary), 0
    done: dict[int, dict[str, int]] = {}
    for mesh in content["meshes"]:
        for part in mesh["primitives"]:
            accessor = part["attributes"]["POSITION"]
            count = content["accessors"][accessor]["count"]
            rows = slice(start, start + count)
            start += count
            taken = {name[1:].lower() for name in part["attributes"] if name.startswith("_")}
            if accessor not in done:
                done[accessor] = {
                    f"_{name.upper()}": _append(content, body, values.astype("<f4"), "SCALAR", FLOAT)
                    for name, values in added.of(np.arange(rows.start, rows.stop)).columns(taken).items()
                }
                material = content.get("materials", [{}])[part.get("material", 0)] if "materials" in content else {}
                textured = "baseColorTexture" in material.get("pbrMetallicRoughness", {})
                if added.paint or not (textured or "COLOR_0" in part["attributes"] or "material" in part):
                    colors = np.concatenate([added.colors[rows], np.full((count, 1), 255, np.uint8)], 1)
                    done[accessor]["COLOR_0"] = _append(content, body, colors, "VEC4", BYTE)
            part["attributes"] |= done[accessor]
    said = content["asset"].get("extras")
    extras = {"seal": SEAL, "labels": added.names, **({"before": said} if said else {})}
    asset = {**content["asset"], "extras": extras}
    return {"asset": asset, **{k: v for k, v in content.items() if k != "asset"}}, body


def _write(target: Path, content: dict[str, Any], body: bytearray) -> None:
    content["buffers"][0]["byteLength"] = len(body)
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + len(body)
    head = struct.pack("<4sIII4s", b"glTF", 2, size, len(text), b"JSON")
    data = b"".join([head, text, struct.pack("<I4s", len(body), b"BIN\0"), bytes(body)])
    atomic_write(target, sealed(lambda part: part.write_bytes(data)))


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    content = json.loads(data[20 : 20 + length])
    rest = data[20 + length :]
    if len(rest) < 8 or not content.get("meshes") or "uri" in content["buffers"][0]:
        raise ValueError("no geometry inside")
    return content, rest[8 : 8 + struct.unpack_from("<I", rest)[0]]


def _primitives(content: dict[str, Any]) -> list[tuple[int, Any]]:
    """List the mesh of every primitive, and the accessor of its positions."""
    meshes = enumerate(content["meshes"])
    return [(number, part["attributes"]["POSITION"]) for number, mesh in meshes for part in mesh["primitives"]]


def _numbers(content: dict[str, Any], binary: bytes, number: int) -> np.ndarray:
    accessor = content["accessors"][number]
    if "bufferView" not in accessor or "sparse" in accessor or accessor["type"] != "VEC3":
        raise ValueError("positions that are compressed or sparse")
    view = content["bufferViews"][accessor["bufferView"]]
    kind = np.dtype(TYPES[accessor["componentType"]])
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    step = view.get("byteStride", 3 * kind.itemsize)
    rows = np.ndarray((accessor["count"], 3), kind, binary, start, (step, kind.itemsize)).astype(np.float64)
    return rows / LARGEST[kind.str.replace("|", "")] if accessor.get("normalized") else rows


def _worlds(content: dict[str, Any]) -> dict[int, np.ndarray]:
    """Return the 4 x 4 transform of each mesh in the scene; the first one if it is placed several times."""
    nodes, worlds = content.get("nodes", []), {}
    parents = {child: number for number, node in enumerate(nodes) for child in node.get("children", [])}
    for number, node in enumerate(nodes):
        if "mesh" not in node or node["mesh"] in worlds:
            continue
        world, at, seen = _local(node), parents.get(number), 0
        while at is not None and seen <= len(nodes):
            world, at, seen = _local(nodes[at]) @ world, parents.get(at), seen + 1
        worlds[node["mesh"]] = world
    return worlds


def _local(node: dict[str, Any]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    if node.get("name") == UPRIGHT:
        return np.eye(4)  # see `stand_upright`
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    local = np.eye(4)
    local[:3, :3] = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix() * node.get("scale", [1, 1, 1])
    local[:3, 3] = node.get("translation", [0, 0, 0])
    return local


def _append(content: dict[str, Any], body: bytearray, values: np.ndarray, shape: str, kind: int) -> int:
    """Append numbers to the buffer, and return the accessor."""
    body += bytes(-len(body) % 4)
    view = {"buffer": 0, "byteOffset": len(body), "byteLength": values.nbytes, "target": 34962}
    body += values.tobytes()
    content["bufferViews"].append(view)
    place, normalised = len(content["bufferViews"]) - 1, {"normalized": True} if kind == BYTE else {}
    accessor = {"bufferView": place, "componentType": kind, "count": len(values), "type": shape}
    content["accessors"].append(accessor | normalised)
    return len(content["accessors"]) - 1
