"""OBJ: meshes with their materials, and files with vertices alone, which mesh readers ignore."""

import io
import re
from pathlib import Path
from typing import Any, cast

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan.cloud_mesh import Surface, appearance, missing_notes, sample
from xmask3d.scan.cloud_raw import Raw, to_bytes
from xmask3d.scan.mesh_files import Assets, from_the_start

ZERO = re.compile(rb"^[ \t]*f(?:[ \t].*)?[ \t]0+(?:[/ \t]|$)", re.MULTILINE)
"""Face with a vertex of number 0."""


def read_obj(path: Path, units: float | None) -> Raw:
    """Read a mesh, or vertices alone (`v x y z`, possibly with `r g b`).

    Args:
        path: the file.
        units: units per metre, if known.
    """
    try:
        data = path.read_bytes().replace(b"\r\n", b"\n")
        vertices = [line.split()[1:] for line in re.findall(rb"^[ \t]*(v[ \t].*)", data, re.MULTILINE)]
        if re.search(rb"^[ \t]*f[ \t]", data, re.MULTILINE):
            if ZERO.search(data):  # trimesh would take it for 1
                raise ValueError("a face names vertex 0, and the first is 1")
            assets = Assets(path.parent)
            surfaces = _surfaces(from_the_start(data), assets)
            if assets.refused:
                raise assets.refused[0]
            used = sum(len(np.unique(surface.vertices, axis=0)) for surface in surfaces)
            if 2 * used >= len(vertices):
                return sample(surfaces, units, missing_notes(assets, surfaces))
        widths = {len(vertex) for vertex in vertices}
        if not widths <= {3, 4, 6, 7}:
            raise ValueError("vertices of odd lengths")
        if not vertices:
            return Raw(np.zeros((0, 3)), None, [], units)
        table = np.array([vertex[:3] + (vertex[-3:] if len(vertex) > 4 else []) for vertex in vertices], np.float64)
    except UserError:
        raise
    except Exception as error:
        # trimesh's loaders raise all kinds of errors on damaged files.
        raise UserError(f"{path}: cannot be read as OBJ ({' '.join(str(error).split())[:100]})") from error
    return Raw(table[:, :3], to_bytes(table[:, 3:6]) if table.shape[1] == 6 else None, [], units)


def _surfaces(data: bytes, assets: Assets) -> list[Surface]:
    from trimesh.exchange.obj import load_obj
    from trimesh.geometry import triangulate_quads

    surfaces = []
    loaded = load_obj(io.BytesIO(data), resolver=cast(Any, assets))
    for part in loaded["geometry"].values():
        surface = Surface(np.asarray(part["vertices"]), triangulate_quads(part["faces"]))
        if not 0 <= surface.faces.min() <= surface.faces.max() < len(surface.vertices):
            raise ValueError("a face names a vertex that is not there")
        visual = part.get("visual")
        if visual is not None:
            surface.uv, surface.texture, surface.plain = appearance(visual.uv, visual.material, len(surface.vertices))
        if np.shape(part.get("vertex_colors"))[:1] == (len(surface.vertices),):
            surface.colors = to_bytes(np.asarray(part["vertex_colors"])[:, :3])
        surfaces.append(surface)
    return surfaces
