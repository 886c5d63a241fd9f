"""Check of GLB files before a mesh library relies on their content."""

import json
import struct
from pathlib import Path
from typing import Any

from xmask3d.guarded import reading

MAX_VERTICES = 50_000_000
"""Vertices of all meshes, each as often as nodes place it."""


def check_glb(path: Path) -> None:
    """Refuse a scene that is no tree, or that few bytes make endless.

    Raises:
        UserError: damaged, nodes with two parents, or more numbers than the file has bytes.
    """
    with reading(path, "a GLB file"), open(path, "rb") as stream:
        magic, _, _, length, kind = struct.unpack("<4sIII4s", stream.read(20))
        size = path.stat().st_size
        if magic != b"glTF" or kind != b"JSON" or length > size:
            raise ValueError("no description in it")
        content = json.loads(stream.read(length))
        nodes = content.get("nodes", [])
        children = [child for node in nodes for child in node.get("children", [])]
        roots = [root for scene in content.get("scenes", []) for root in scene.get("nodes", [])]
        if len({*children, *roots}) != len(children) + len(roots):
            raise ValueError("nodes with several parents")
        counts = [accessor["count"] for accessor in content.get("accessors", [])]
        if any(not 0 <= count <= size for count in counts):
            raise ValueError(f"{max(counts)} numbers in {size} bytes")
        meshes = [_vertices(mesh, counts) for mesh in content.get("meshes", [])]
        if sum(meshes[node["mesh"]] for node in nodes if "mesh" in node) > MAX_VERTICES:
            raise ValueError(f"more than {MAX_VERTICES} vertices")


def _vertices(mesh: dict[str, Any], counts: list[int]) -> int:
    return sum(counts[part["attributes"]["POSITION"]] for part in mesh["primitives"])
