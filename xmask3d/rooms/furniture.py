"""Furniture: named models with a class, a size and a mesh, from Debian's sweethome3d-furniture or procedural.

Every mesh stands on the floor, centred at the origin, z up, in metres, its front facing -y.
"""

import io
import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from xmask3d.errors import UserError
from xmask3d.rooms.catalogue import CLASS_IDS, CLASS_NAMES, CLASS_OF_KIND, KIND_OF_MODEL, LIBRARIES, LICENCES
from xmask3d.rooms.mesh import ByteArray, Mesh, merge, solid_texture
from xmask3d.rooms.procedural import ProceduralSource, procedural_variants

if TYPE_CHECKING:
    import trimesh

MAX_TEXELS = 128
"""Longest side of a texture; more would not be visible at 320 x 240 pixels."""


@dataclass(frozen=True)
class ArchiveSource:
    """Place of a library model's mesh: a member of a .sh3f zip, its rotation (3 x 3 by rows), and a cached copy."""

    archive: Path
    member: str
    rotation: tuple[float, ...]
    cache: Path


@dataclass(frozen=True)
class FurnitureModel:
    """One piece of furniture.

    Attributes:
        key: unique name, such as "scopia/iron_bed" or "made/bed/train/3".
        name: name in the library.
        class_id: index into `CLASS_NAMES`.
        size: width (x), depth (y) and height (z) in metres.
        creator, licence: creator to be named, and licence.
        source: source from which `load_mesh` reads the mesh.
        kind: a finer division than the class, which determines the place of the piece and the words that describe it.
        elevation: height of its lowest point above the floor in metres.
    """

    key: str
    name: str
    class_id: int
    size: tuple[float, float, float]
    creator: str
    licence: str
    source: ArchiveSource | ProceduralSource
    kind: str
    elevation: float = 0.0

    @property
    def class_name(self) -> str:
        """Name of the model's class."""
        return CLASS_NAMES[self.class_id]


def load_catalogue(root: Path) -> list[FurnitureModel]:
    """List the library models with a class.

    Args:
        root: folder that holds the .sh3f archives, at any depth; parsed meshes are cached in `root/meshes`.

    Raises:
        UserError: there is no archive, or one cannot be read.
    """
    root = Path(root)
    archives = sorted(root.rglob("*.sh3f"))
    if not archives:
        raise UserError(f"no furniture in {root}: unpack the Debian package sweethome3d-furniture there (dpkg-deb -x)")
    models = [model for archive in archives for model in _models_in(archive, root / "meshes")]
    return sorted(models, key=lambda model: model.key)


def load_mesh(model: FurnitureModel) -> Mesh:
    """Load the mesh of a model, at the model's size, on the floor at the origin, front facing -y, z up."""
    return _load_mesh(model.source, model.size)


def procedural_models(split: str, seed: int = 0, per_kind: int = 6) -> list[FurnitureModel]:
    """Generate procedural furniture for every class.

    Styles (proportions, colours, details) are drawn from ranges that differ between the splits.

    Args:
        split: "train" or "val".
        per_kind: number of variants of each kind.
    """
    return [made_model(*variant) for variant in procedural_variants(split, seed, per_kind)]


def made_model(source: ProceduralSource, size: tuple[float, float, float], elevation: float = 0.0) -> FurnitureModel:
    """Return the model of a procedural piece."""
    kind = source.kind
    key, class_id = f"made/{kind}/{source.split}/{source.variant}", CLASS_IDS[CLASS_OF_KIND[kind]]
    return FurnitureModel(key, kind, class_id, size, "xmask3d", "made by rule", source, kind, elevation)


def split_models(models: Sequence[FurnitureModel], seed: int) -> dict[str, list[FurnitureModel]]:
    """Divide models between training and validation rooms, kind by kind; about a third is for validation.

    No model is in both splits. A kind with a single model is assigned by its name, and procedural variants fill the gap
    in the other split. Procedural models keep the split for which they were made.
    """
    parts: dict[str, list[FurnitureModel]] = {"train": [], "val": []}
    library: dict[str, list[FurnitureModel]] = {}
    for model in models:
        if isinstance(model.source, ProceduralSource):
            parts[model.source.split].append(model)
        else:
            library.setdefault(model.kind, []).append(model)
    for kind in sorted(library):
        of_kind = sorted(library[kind], key=lambda model: model.key)
        rng = np.random.default_rng([seed, *kind.encode()])
        order = [of_kind[i] for i in rng.permutation(len(of_kind))]
        count = max(1, round(len(order) / 3)) if len(order) > 1 else 0
        parts["val"] += order[:count]
        parts["train"] += order[count:]
    return parts


def _models_in(archive: Path, cache: Path) -> list[FurnitureModel]:
    entries = _read_properties(archive)
    numbered: dict[int, dict[str, str]] = {}
    for key, value in entries.items():
        name, _, number = key.partition("#")
        numbered.setdefault(int(number), {})[name] = value
    models = []
    for _, entry in sorted(numbered.items()):
        if "model" not in entry:
            continue
        prefix, _, identity = entry["id"].partition("#")
        library = LIBRARIES.get(prefix)
        kind = KIND_OF_MODEL.get(f"{library}/{identity}") or KIND_OF_MODEL.get(identity)
        if library is None or kind is None:
            continue
        key = f"{library}/{identity}"
        width, depth, height = (float(entry[name]) / 100 for name in ("width", "depth", "height"))
        rotation = tuple(float(number) for number in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split())
        source = ArchiveSource(archive, entry["model"].lstrip("/"), rotation, cache / f"{key}.npz")
        size = (width, depth, height)
        class_id, elevation = CLASS_IDS[CLASS_OF_KIND[kind]], float(entry.get("elevation", 0)) / 100
        licence = LICENCES[library]
        models.append(
            FurnitureModel(key, entry["name"], class_id, size, entry["creator"], licence, source, kind, elevation)
        )
    return models


def _read_properties(archive: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(archive) as package:
            text = package.read("PluginFurnitureCatalog.properties").decode("latin-1")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"cannot read the furniture archive {archive} ({error}): delete it and unpack it again"
        ) from error
    return {key: value.strip() for key, value in re.findall(r"^([\w]+#\d+)\s*[=:]\s*(.*)$", text, re.MULTILINE)}


@lru_cache(maxsize=64)
def _load_mesh(source: ArchiveSource | ProceduralSource, size: tuple[float, float, float]) -> Mesh:
    if isinstance(source, ProceduralSource):
        return source.build(size)
    with suppress(UserError, KeyError):  # not cached yet, or damaged
        return Mesh.load(source.cache)
    mesh = _fit(_parse(source), size, source.rotation)
    mesh.save(source.cache)
    return mesh


def _fit(mesh: Mesh, size: tuple[float, float, float], rotation: tuple[float, ...]) -> Mesh:
    """Apply the catalogue's rotation, bring y-up to z-up, and scale the box to the catalogue's size."""
    points = mesh.vertices @ np.array(rotation, np.float32).reshape(3, 3).T
    mesh = Mesh(
        np.stack([points[:, 0], -points[:, 2], points[:, 1]], -1), mesh.faces, mesh.uv, mesh.texture, mesh.textures
    )
    return mesh.scaled(np.asarray(size) / np.maximum(mesh.extent, 1e-6)).standing()


def _parse(source: ArchiveSource) -> Mesh:
    """Read an OBJ with its materials and textures from an archive."""
    import trimesh  # imported here because it takes half a second and is not needed if all models are cached

    with zipfile.ZipFile(source.archive) as package:
        folder = source.member.rsplit("/", 1)[0]
        resolver = trimesh.resolvers.ZipResolver(
            {
                info.filename.rsplit("/", 1)[-1]: io.BytesIO(package.read(info))
                for info in package.infolist()
                if info.filename.startswith(folder + "/") and not info.is_dir()
            }
        )
        scene = trimesh.load_scene(
            io.BytesIO(package.read(source.member)), file_type="obj", resolver=resolver, process=False
        )
    parts = [
        _convert(part) for part in scene.geometry.values() if isinstance(part, trimesh.Trimesh) and len(part.faces)
    ]
    if not parts:
        raise UserError(f"no triangles in {source.member} of {source.archive}")
    return merge(*parts)


def _convert(part: "trimesh.Trimesh") -> Mesh:
    material = getattr(part.visual, "material", None)
    uv = getattr(part.visual, "uv", None)
    image = getattr(material, "image", None)
    count = len(part.faces)
    if image is not None and uv is not None and len(uv) == len(part.vertices):
        texture, face_uv = _shrink(image), np.asarray(uv, np.float32)[part.faces]
    else:
        diffuse = getattr(material, "diffuse", None)
        color = np.asarray([160, 160, 160] if diffuse is None else diffuse, np.float64)[:3] / 255
        if image is not None:
            color = _shrink(image).reshape(-1, 3).mean(0) / 255
        texture, face_uv = solid_texture(color), np.zeros((count, 3, 2), np.float32)
    return Mesh(
        np.asarray(part.vertices, np.float32),
        np.asarray(part.faces, np.int32),
        np.nan_to_num(face_uv),
        np.zeros(count, np.int32),
        [texture],
    )


def _shrink(image: Image.Image) -> ByteArray:
    """Shrink an RGB texture to the necessary size; transparent texels become the mean of the others."""
    small = image.convert("RGBA")
    small.thumbnail((MAX_TEXELS, MAX_TEXELS), Image.Resampling.BOX)
    array = np.asarray(small).astype(np.float64)
    alpha = array[..., 3:] / 255
    mean = (array[..., :3] * alpha).sum((0, 1)) / max(alpha.sum(), 1e-6)
    return np.round(array[..., :3] * alpha + mean * (1 - alpha)).astype(np.uint8)
