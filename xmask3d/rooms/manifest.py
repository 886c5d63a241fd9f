"""Manifest of a set of rooms: arguments, models, counts, and digests by which anyone can check his copy."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xmask3d.errors import UserError
from xmask3d.guarded import read_json
from xmask3d.rooms.furniture import FurnitureModel
from xmask3d.rooms.procedural import ProceduralSource
from xmask3d.rooms.writer import objects_file, scene_files

MANIFEST = "rooms.json"


def scene_digest(out: Path, split: str, scene: str) -> str:
    """Return the SHA-256 over the names and contents of all files of a scene, in order of their names."""
    cloud, folder = scene_files(out, split, scene)
    files = [cloud, objects_file(out, split, scene), *(path for path in folder.rglob("*") if path.is_file())]
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(out).as_posix()} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def set_digest(scenes: Mapping[str, str]) -> str:
    """Return the SHA-256 over the digests of a set's scenes. Args: scenes: digest by name."""
    return hashlib.sha256("".join(f"{name} {scenes[name]}\n" for name in sorted(scenes)).encode()).hexdigest()


def check_set(out: Path) -> str:
    """Compare all files of a set with its manifest.

    Returns:
        Digest of the set.

    Raises:
        UserError: no manifest, a manifest without digests, or scenes that differ from it.
    """
    path = out / MANIFEST
    try:
        content: Any = read_json(path)
        rooms = {name: (room["split"], room["digest"]) for name, room in content["rooms"].items()}
        wanted = content["digest"]
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no manifest of rooms with digests ({error}); make the rooms again") from error
    differing = []
    for name, (split, digest) in sorted(rooms.items()):
        try:
            same = scene_digest(out, split, name) == digest
        except OSError:
            same = False
        differing += [] if same else [name]
    if differing:
        raise UserError(
            f"{out}: {len(differing)} of {len(rooms)} rooms differ from {path.name}, such as {differing[0]}"
        )
    if set_digest({name: digest for name, (_, digest) in rooms.items()}) != wanted:
        raise UserError(f"{path}: its digest is not that of its rooms")
    return str(wanted)


def attribution(models: Sequence[FurnitureModel]) -> str:
    """Return the attribution that the licences ask for: a line per library model."""
    lines = ["Rooms made by xmask3d. The furniture below was rescaled and recoloured.", ""]
    library = sorted(
        (model for model in models if not isinstance(model.source, ProceduralSource)), key=lambda model: model.key
    )
    if library:
        lines += [
            "From the Debian package sweethome3d-furniture 1.8-1 (http://www.sweethome3d.com/importModels.jsp).",
            "CC BY 3.0: https://creativecommons.org/licenses/by/3.0/  CC BY 3.0 US: "
            "https://creativecommons.org/licenses/by/3.0/us/  CC0: https://creativecommons.org/publicdomain/zero/1.0/",
            "",
        ]
        lines += [f'{model.key}: "{model.name}" by {model.creator}, {model.licence}' for model in library]
    else:
        lines.append("No furniture of others was used; all of it was made by rule.")
    return "\n".join(lines) + "\n"
