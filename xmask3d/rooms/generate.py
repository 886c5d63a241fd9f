"""Generation of a set of rooms by many processes; the seed determines the result, and finished rooms are kept."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from xmask3d.data.download.fetch import make_folder
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.guarded import read_object
from xmask3d.rooms.catalogue import CLASS_NAMES
from xmask3d.rooms.contact_sheet import write_contact_sheet
from xmask3d.rooms.furniture import FurnitureModel, load_catalogue, procedural_models, split_models
from xmask3d.rooms.manifest import MANIFEST, attribution, scene_digest, set_digest
from xmask3d.rooms.package import get_furniture
from xmask3d.rooms.room_types import CYCLE, furnish
from xmask3d.rooms.scanned.build import build_scanned
from xmask3d.rooms.scanned.furnishing import furnish_scanned, low_stands
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.scanned.writer import write_scan
from xmask3d.rooms.structure import build_room
from xmask3d.rooms.writer import objects_file, scene_files, write_json, write_room
from xmask3d.workers import allowed_workers

GENERATORS = {"v0": 2, "v1": 3}
"""Number of the generator of each version of the rooms, to be raised when the same arguments give other rooms."""

FIRST_VAL_SCENE = 5000
"""Number of the first validation scene, chosen so that more training rooms do not rename it."""

VARIANTS = 8
"""Number of procedural models of each kind and split."""

SPLIT_SEED = 0
"""Seed of the split of furniture. It does not depend on the seed of the rooms, because the stand-ins for CLIP and
Stable Diffusion were pre-trained on the training furniture and must not have seen the rest."""


@dataclass(frozen=True)
class Job:
    """Request for one room.

    Attributes:
        furniture: folder of archives, or None for procedural furniture only.
        settings: settings of a room that looks like a scan (v1), or None for a clean one (v0).
    """

    out: Path
    split: str
    index: int
    views: int
    seed: int
    furniture: Path | None
    settings: ScanSettings | None = None

    @property
    def version(self) -> str:
        """Name of the version."""
        return "v0" if self.settings is None else "v1"

    @property
    def generator(self) -> int:
        """Number of the generator."""
        return GENERATORS[self.version]

    @property
    def scene(self) -> str:
        """Name of the scene in ScanNet's style."""
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
        identity = {
            "split": self.split,
            "index": self.index,
            "views": self.views,
            "seed": self.seed,
            "version": self.generator,
            "furniture": "procedural" if self.furniture is None else "library",
        }
        return identity if self.settings is None else identity | {"settings": self.settings.values}


def find_furniture(choice: str, cache: Path, required: bool = False) -> Path | None:
    """Return the folder of furniture archives for a choice, or None for procedural furniture.

    Args:
        choice: "procedural"; "auto" for the library if it can be fetched, else procedural; or a folder with .sh3f
            archives.
        cache: folder for the library if "auto" fetches it.
        required: refuse to continue without the library if "auto" cannot get it.

    Raises:
        UserError: the folder has no archive, or the library is required but cannot be fetched.
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
        if required:
            raise
        print(f"{error}\ncontinuing with procedural furniture", flush=True)
        return None


def make_rooms(
    out: Path,
    train_rooms: int,
    val_rooms: int,
    views: int,
    seed: int,
    furniture: Path | None,
    workers: int = 1,
    settings: ScanSettings | None = None,
) -> None:
    """Write rooms in the layout of processed ScanNet, with captions, attribution, a summary and a contact sheet.

    A finished room of the same arguments is kept; rooms of an earlier set that are not in this one are removed.

    Args:
        views: frames per room.
        furniture: folder of archives, or None for procedural furniture only.
        workers: number of processes, which does not affect the result.
        settings: settings of rooms that look like scans (v1), or None for clean ones (v0).

    Raises:
        UserError: there is nothing to make, the folder cannot be made or holds other scenes, or the furniture differs
            from that of rooms made before.
    """
    if min(train_rooms, val_rooms) < 0 or train_rooms + val_rooms == 0 or views < 1:
        raise UserError("nothing to make: ask for at least one room and one view")
    if seed < 0:
        raise UserError(f"--seed {seed}: use 0 or more")
    counts = {"train": train_rooms, "val": val_rooms}
    jobs = [
        Job(out, split, index, views, seed, furniture, settings)
        for split, count in counts.items()
        for index in range(count)
    ]
    for split in counts:
        make_folder(out / "scannet_3d" / split)
    _refuse_others_scenes(out, jobs)
    _remove_others(out, {job.scene for job in jobs})
    todo = [job for job in jobs if not is_finished(job)]
    for _ in tqdm(_run(todo, workers), total=len(todo), desc="rooms", unit="room", disable=not todo):
        pass
    _summarise(out, jobs)


def is_finished(job: Job) -> bool:
    """Return True if a room of the same arguments is complete."""
    cloud, _ = scene_files(job.out, job.split, job.scene)
    files = (cloud, objects_file(job.out, job.split, job.scene))
    return all(path.is_file() for path in files) and _record(job).get("identity") == job.identity


def _record(job: Job) -> dict[str, Any]:
    """Return the record of a room; empty where it is missing, damaged, or of an earlier version."""
    try:
        record = read_object(job.record)
    except UserError:
        return {}
    kinds = {"captions": dict, "points": int, "frames_per_class": dict, "models": list, "digest": str}
    fits = all(isinstance(record.get(name), kind) for name, kind in kinds.items())
    return record if fits and all(isinstance(model, str) for model in record["models"]) else {}


def make_room(job: Job) -> str:
    """Make one room and its record, and return the scene's name."""
    job.record.unlink(missing_ok=True)
    rng = np.random.default_rng([job.generator, job.seed, job.split == "val", job.index])
    models = models_of(job.furniture, job.seed)[job.split]
    place = (job.out, job.split, job.scene, job.views)
    if job.settings is None:
        room = furnish(job.kind, models, rng)
        files = write_room(build_room(room, rng), *place, rng)
    else:
        room = furnish_scanned(job.kind, job.split, models, job.settings, rng)
        files = write_scan(build_scanned(room, job.settings, rng), *place, job.settings, rng)
    write_json(
        job.record,
        {
            "identity": job.identity,
            "kind": job.kind,
            "captions": files.captions,
            "points": files.points,
            "frames_per_class": {CLASS_NAMES[label]: n for label, n in files.frames_per_class.items() if label < 20},
            "models": sorted({piece.model.key for piece in room.pieces}),
            "digest": scene_digest(job.out, job.split, job.scene),
        },
    )
    return job.scene


@lru_cache(maxsize=2)
def models_of(furniture: Path | None, seed: int) -> dict[str, list[FurnitureModel]]:
    """Return furniture for training and validation rooms: that of the library (if any) and procedural furniture."""
    made = [model for split in ("train", "val") for model in procedural_models(split, seed, VARIANTS)]
    return split_models(made + ([] if furniture is None else load_catalogue(furniture)), SPLIT_SEED)


def _run(jobs: list[Job], workers: int) -> Iterator[str]:
    workers = allowed_workers(workers, alone=1)
    if workers <= 1 or len(jobs) < 2:
        yield from map(make_room, jobs)
        return
    # Fresh processes, since a forked one may inherit locks of threads that it does not have.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(make_room, jobs)


def _remove_others(out: Path, scenes: set[str]) -> None:
    """Remove rooms of an earlier set, since the folders' content is the split. Only recorded rooms are removed."""
    for record in sorted((out / "records").glob("scene*.json")):
        if record.stem in scenes:
            continue
        for split in ("train", "val"):
            cloud, folder = scene_files(out, split, record.stem)
            cloud.unlink(missing_ok=True)
            objects_file(out, split, record.stem).unlink(missing_ok=True)
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
    records = {job.scene: _record(job) for job in jobs}
    write_json(out / "captions.json", {scene: record["captions"] for scene, record in records.items()})
    used = {
        split: sorted({key for job in jobs if job.split == split for key in records[job.scene]["models"]})
        for split in ("train", "val")
    }
    by_key = {model.key: model for part in models_of(jobs[0].furniture, jobs[0].seed).values() for model in part}
    by_key |= {model.key: model for split in ("train", "val") for model in low_stands(split)}
    unknown = [key for part in used.values() for key in part if key not in by_key]
    if unknown:
        raise UserError(
            f"{out}: rooms made before have furniture that is missing from {jobs[0].furniture} ({unknown[0]}); "
            "choose another --out, or the same --furniture"
        )
    atomic_write(out / "ATTRIBUTION.txt", attribution([by_key[key] for part in used.values() for key in part]))
    first = jobs[0]
    kept = ("points", "frames_per_class", "digest")
    write_json(
        out / MANIFEST,
        {
            "version": first.version,
            "generator": first.generator,
            "arguments": {
                "seed": first.seed,
                "views": first.views,
                "furniture": first.identity["furniture"],
                **{f"{split}_rooms": sum(job.split == split for job in jobs) for split in ("train", "val")},
            },
            "settings": None if first.settings is None else first.settings.values,
            "digest": set_digest({scene: record["digest"] for scene, record in records.items()}),
            "models": used,
            "rooms": {
                job.scene: {"kind": job.kind, "split": job.split} | {name: records[job.scene][name] for name in kept}
                for job in jobs
            },
        },
    )
    write_contact_sheet(out, [(job.split, job.scene) for job in jobs])
