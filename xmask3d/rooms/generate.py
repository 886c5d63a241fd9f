"""Generation of a whole set of rooms by many processes: one seed gives one result, and finished rooms are kept."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xmask3d.data.download.fetch import make_folder
from xmask3d.errors import UserError
from xmask3d.rooms.catalogue import CLASS_NAMES
from xmask3d.rooms.contact_sheet import write_contact_sheet
from xmask3d.rooms.furniture import FurnitureModel, load_catalogue, procedural_models, split_models
from xmask3d.rooms.package import get_furniture
from xmask3d.rooms.procedural import ProceduralSource
from xmask3d.rooms.room_types import CYCLE, furnish
from xmask3d.rooms.structure import build_room
from xmask3d.rooms.writer import scene_files, write_json, write_room

VERSION = 2
"""Raise it when the same arguments give other rooms."""

FIRST_VAL_SCENE = 5000
"""Number of the first validation scene, so that more training rooms rename nothing."""

VARIANTS = 8
"""Procedural models of each kind and split."""

SPLIT_SEED = 0
"""Which furniture is for training does not depend on the seed of the rooms: the stand-ins of CLIP and Stable Diffusion
were pre-trained on the training half, and must not have seen the other."""


@dataclass(frozen=True)
class Job:
    """Request for one room. `furniture` is the folder of archives, or None for procedural furniture only."""

    out: Path
    split: str
    index: int
    views: int
    seed: int
    furniture: Path | None

    @property
    def scene(self) -> str:
        """Name of the scene, as ScanNet names its."""
        return f"scene{self.index + (FIRST_VAL_SCENE if self.split == 'val' else 0):04d}_00"

    @property
    def kind(self) -> str:
        """Kind of room."""
        return CYCLE[self.index % len(CYCLE)]

    @property
    def record(self) -> Path:
        """Path of the record of the finished room."""
        return self.out / "records" / f"{self.scene}.json"

    @property
    def identity(self) -> dict[str, object]:
        """Everything that the finished room depends on."""
        return {
            "split": self.split,
            "index": self.index,
            "views": self.views,
            "seed": self.seed,
            "version": VERSION,
            "furniture": "procedural" if self.furniture is None else "library",
        }


def find_furniture(choice: str, cache: Path) -> Path | None:
    """Return the folder of furniture archives that a choice names, or None for procedural furniture.

    Args:
        choice: "procedural"; "auto" for the library if it can be had, else procedural; or a folder with .sh3f archives.
        cache: folder in which "auto" keeps the library.

    Raises:
        UserError: the folder holds no archive.
    """
    if choice == "procedural":
        return None
    if choice != "auto":
        folder = Path(choice)
        if not any(folder.rglob("*.sh3f")):
            raise UserError(
                f"--furniture {choice}: no .sh3f archive in that folder; use auto, procedural or another folder"
            )
        return folder
    try:
        return get_furniture(cache)
    except UserError as error:
        print(f"{error}\ngoing on with procedural furniture", flush=True)
        return None


def make_rooms(
    out: Path, train_rooms: int, val_rooms: int, views: int, seed: int, furniture: Path | None, workers: int = 1
) -> None:
    """Write rooms in the layout of processed ScanNet, with captions, attribution, a summary and a contact sheet.

    A finished room of the same arguments is kept; rooms of an earlier set that are not in this one are removed.

    Args:
        views: frames per room.
        furniture: folder of archives, or None for procedural furniture only.
        workers: processes; the result does not depend on it.

    Raises:
        UserError: nothing to make, a folder that cannot be made or holds scenes of others, or not the furniture of
            rooms made before.
    """
    if min(train_rooms, val_rooms) < 0 or train_rooms + val_rooms == 0 or views < 1:
        raise UserError("nothing to make: ask for at least one room and one view")
    if seed < 0:
        raise UserError(f"--seed {seed}: use 0 or more")
    counts = {"train": train_rooms, "val": val_rooms}
    jobs = [Job(out, split, index, views, seed, furniture) for split, count in counts.items() for index in range(count)]
    for split in counts:
        make_folder(out / "scannet_3d" / split)
    _refuse_others_scenes(out, jobs)
    _remove_others(out, {job.scene for job in jobs})
    todo = [job for job in jobs if not is_finished(job)]
    for _ in tqdm(_run(todo, workers), total=len(todo), desc="rooms", unit="room", disable=not todo):
        pass
    _summarise(out, jobs)


def is_finished(job: Job) -> bool:
    """Return True where a room of the same arguments is complete."""
    cloud, _ = scene_files(job.out, job.split, job.scene)
    try:
        return cloud.is_file() and json.loads(job.record.read_text())["identity"] == job.identity
    except (OSError, ValueError, KeyError):
        return False


def make_room(job: Job) -> str:
    """Make one room and its record; returns the scene's name."""
    job.record.unlink(missing_ok=True)
    rng = np.random.default_rng([VERSION, job.seed, job.split == "val", job.index])
    room = furnish(job.kind, models_of(job.furniture, job.seed)[job.split], rng)
    files = write_room(build_room(room, rng), job.out, job.split, job.scene, job.views, rng)
    write_json(
        job.record,
        {
            "identity": job.identity,
            "kind": job.kind,
            "captions": files.captions,
            "points": files.points,
            "frames_per_class": {CLASS_NAMES[label]: n for label, n in files.frames_per_class.items() if label < 20},
            "models": sorted({piece.model.key for piece in room.pieces}),
        },
    )
    return job.scene


@lru_cache(maxsize=2)
def models_of(furniture: Path | None, seed: int) -> dict[str, list[FurnitureModel]]:
    """Return furniture for training and validation rooms: that of the library (if any) and that made by rule."""
    made = [model for split in ("train", "val") for model in procedural_models(split, seed, VARIANTS)]
    return split_models(made + ([] if furniture is None else load_catalogue(furniture)), SPLIT_SEED)


def _run(jobs: list[Job], workers: int) -> Iterator[str]:
    if workers <= 1 or len(jobs) < 2:
        yield from map(make_room, jobs)
        return
    # Fresh processes: a forked one may inherit locks of threads that it does not have.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(make_room, jobs)


def _remove_others(out: Path, scenes: set[str]) -> None:
    """Remove rooms of an earlier set, since the folders' content is the split. Only recorded rooms are touched."""
    for record in sorted((out / "records").glob("scene*.json")):
        if record.stem in scenes:
            continue
        for split in ("train", "val"):
            cloud, folder = scene_files(out, split, record.stem)
            cloud.unlink(missing_ok=True)
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            if folder.is_dir():
                folder.rmdir()
        record.unlink()


def _refuse_others_scenes(out: Path, jobs: list[Job]) -> None:
    """Refuse to write over scenes without a record, which this generator did not make."""
    if (out / "records").is_dir():
        return
    for job in jobs:
        cloud, _ = scene_files(out, job.split, job.scene)
        if cloud.exists():
            raise UserError(f"{cloud}: a scene that is no room of this tool; choose another --out, or remove it")


def _summarise(out: Path, jobs: list[Job]) -> None:
    records = {job.scene: json.loads(job.record.read_text()) for job in jobs}
    write_json(out / "captions.json", {scene: record["captions"] for scene, record in records.items()})
    used = {
        split: sorted({key for job in jobs if job.split == split for key in records[job.scene]["models"]})
        for split in ("train", "val")
    }
    by_key = {model.key: model for part in models_of(jobs[0].furniture, jobs[0].seed).values() for model in part}
    unknown = [key for part in used.values() for key in part if key not in by_key]
    if unknown:
        raise UserError(
            f"{out}: rooms that were made before have furniture that {jobs[0].furniture} lacks ({unknown[0]}); "
            "choose another --out, or the same --furniture"
        )
    (out / "ATTRIBUTION.txt").write_text(attribution([by_key[key] for part in used.values() for key in part]))
    first = jobs[0]
    write_json(
        out / "rooms.json",
        {
            "version": VERSION,
            "arguments": {
                "seed": first.seed,
                "views": first.views,
                "furniture": first.identity["furniture"],
                **{f"{split}_rooms": sum(job.split == split for job in jobs) for split in ("train", "val")},
            },
            "models": used,
            "rooms": {
                job.scene: {
                    "kind": job.kind,
                    "split": job.split,
                    "points": records[job.scene]["points"],
                    "frames_per_class": records[job.scene]["frames_per_class"],
                }
                for job in jobs
            },
        },
    )
    write_contact_sheet(out, [(job.split, job.scene) for job in jobs])


def attribution(models: list[FurnitureModel]) -> str:
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
