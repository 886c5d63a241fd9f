"""Manifest of a set of rooms: arguments, models, counts, and digests for checking a copy."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from xmask3d.errors import UserError
from xmask3d.guarded import read_object
from xmask3d.rooms.furniture import FurnitureModel
from xmask3d.rooms.procedural import ProceduralSource
from xmask3d.rooms.writer import objects_file, scene_files

MANIFEST = "rooms.json"


def scene_digest(out: Path, split: str, scene: str) -> str:
    """Return the SHA-256 over the names and contents of all files of a scene, in order of their names."""
    cloud, folder = scene_files(out, split, scene)
    parts = [cloud, objects_file(out, split, scene), *(path for path in folder.rglob("*") if path.is_file())]
    digest = hashlib.sha256()
    for path in sorted(parts):
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
        UserError: there is no manifest, it has no digests, or scenes differ from it.
    """
    path = out / MANIFEST
    try:
        content = read_object(path)
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


@dataclass(frozen=True)
class FixedSet:
    """Fixed set of rooms that is the same everywhere, for comparing methods.

    Attributes:
        version, seed, views, train_rooms, val_rooms: arguments of the set; the furniture is that of the library.
        digest: digest of the complete set.
        rooms: digest of each room by its scene's name.
    """

    version: str
    seed: int
    views: int
    train_rooms: int
    val_rooms: int
    digest: str
    rooms: dict[str, str]

    @classmethod
    def read(cls, name: str) -> "FixedSet":
        """Read a set that comes with the program, such as "v1"."""
        return cls(**read_object(Path(str(files("xmask3d.rooms"))) / f"rooms-{name}.json"))

    def compare(self, out: Path) -> str:
        """Compare the manifest of some rooms with this set.

        Returns:
            Description of the rooms that exist.

        Raises:
            UserError: a room is of another set, or its files differ from those of this set.
        """
        found = {name: room["digest"] for name, room in read_object(out / MANIFEST)["rooms"].items()}
        differing = [name for name in sorted(found) if found[name] != self.rooms.get(name)]
        if differing:
            raise UserError(
                f"{out}: {len(differing)} of {len(found)} rooms are not of the benchmark set, such as {differing[0]}; "
                "scores on them cannot be compared. Other versions of the packages or other furniture make other rooms"
            )
        if len(found) == len(self.rooms):
            return f"all {len(found)} rooms of the benchmark set, digest {self.digest}"
        return f"{len(found)} of the {len(self.rooms)} rooms of the benchmark set, each with its digest"


def attribution(models: Sequence[FurnitureModel]) -> str:
    """Return the attribution required by the licences, with a line per library model."""
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
