"""Conversion of one raw ScanNet scene to a scene file, raw ids and frames."""

import zipfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.data.files import visible_files, write_points
from xmask3d.data.images import resize_nearest
from xmask3d.data.prepare.labels import (
    Categories,
    classes_of_nyu40,
    read_categories,
    read_nyu40,
    read_raw_ids,
    read_vertices,
)
from xmask3d.data.prepare.sens import Frame, SensFile
from xmask3d.data.scannet import SCENE_SUFFIX
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.geometry.camera import Intrinsics
from xmask3d.guarded import open_picture, reading
from xmask3d.seal import read_sealed_json, sealed_json

MARKS = ".prepared"
SPLITS = ("train", "val", "test")
FRAME_SETTINGS = ("step", "frame_size", "as_published")
MESH, LABELS, GROUPS, SEGMENTS, RECORDING, LABEL_PICTURES = RAW_FILES = (
    "_vh_clean_2.ply",
    "_vh_clean_2.labels.ply",
    ".aggregation.json",
    "_vh_clean_2.0.010000.segs.json",  # annotations of the decimated mesh; those of the full mesh have other names
    ".sens",
    "_2d-label-filt.zip",
)


@dataclass(frozen=True)
class Settings:
    """Settings of the preparation of scenes.

    Attributes:
        raw: folder of raw ScanNet, with `scans/<scene>/` (or `scans_test/`, or the scene folders themselves).
        out: folder of the processed layout.
        table: ScanNet's table of categories.
        step: distance between exported frames.
        frame_size: (height, width) of exported frames.
        as_published: make colour pictures like those of the published archives, resized by nearest neighbour and saved
            with JPEG quality 75. Otherwise they are smoothed and saved with quality 95.
    """

    raw: Path
    out: Path
    table: Path
    step: int = 20
    frame_size: tuple[int, int] = (240, 320)
    as_published: bool = False


@dataclass
class Report:
    """Result of preparing a scene: counts, and what was left out, with reasons."""

    scene: str
    split: str
    points: int = 0
    frames: int = 0
    notes: list[str] = field(default_factory=list)
    skipped: bool = False


def prepare_scene(scene: str, split: str, settings: Settings) -> Report:
    """Prepare one scene, or skip it if it was done with the same settings and there are no new raw files.

    Every file is written completely or not at all, and the scene is marked as done at the end, so an interrupted run
    can simply be started again. Files of the scene from a run with another split or other settings are removed.

    Raises:
        UserError: a raw file is missing or damaged.
    """
    mark, begun = (settings.out / MARKS / f"{scene}{suffix}" for suffix in (".json", ".begun"))
    wanted = {"split": split, "step": settings.step, "frame_size": list(settings.frame_size)}
    if settings.as_published:  # written only if true, so that marks of earlier versions stay valid
        wanted["as_published"] = True
    done = _read_mark(mark)
    folder = find_scene(settings.raw, scene)
    raw_files = {ending for ending in RAW_FILES if folder and (folder / f"{scene}{ending}").is_file()}
    if done is not None and done.settings == wanted and raw_files <= done.raw_files:
        done.report.skipped = True
        begun.unlink(missing_ok=True)  # left by a process that was killed between its last two steps
        return done.report
    if folder is None:
        raise UserError(f"{settings.raw}: no folder of scene {scene} (looked for scans/{scene} and {scene})")
    categories = read_categories(settings.table)
    # Outputs are only cleared if a mark shows that this tool made them, since published files have the same paths.
    ours = mark.exists() or begun.exists()
    earlier = done or _read_mark(begun)
    if earlier is not None and any(earlier.settings.get(key) != wanted.get(key) for key in FRAME_SETTINGS):
        _need_recording(folder, settings.out, scene)
    if mark.exists():
        mark.replace(begun)
    elif not ours:
        atomic_write(begun, "")
    if ours:
        _move_points(scene, split, settings.out)
    report = Report(scene, split)
    _prepare_points(folder, settings.out, categories, report)
    _prepare_frames(folder, settings, categories, report, ours)
    content = {"settings": wanted, "raw_files": sorted(raw_files), "report": asdict(report)}
    atomic_write(mark, sealed_json(content, indent=1))
    begun.unlink(missing_ok=True)
    return report


@dataclass
class _Done:
    """Content of the mark of a finished scene; `raw_files` are the endings of the raw files at that time."""

    settings: dict
    raw_files: set[str]
    report: Report


def _read_mark(mark: Path) -> _Done | None:
    """Read a mark; None if it is missing or damaged."""
    try:
        content = read_sealed_json(mark)
        return _Done(dict(content["settings"]), set(content["raw_files"]), Report(**content["report"]))
    except (UserError, ValueError, KeyError, TypeError):
        return None


def _need_recording(folder: Path, out: Path, scene: str) -> None:
    """Refuse to mix frames of different settings, which could not be made again without the recording."""
    recording, frames = folder / f"{scene}{RECORDING}", out / "scannet_2d" / scene
    if frames.is_dir() and not recording.is_file():
        raise UserError(f"{recording}: missing, and {frames} has frames of other settings; move one of them")


def _move_points(scene: str, split: str, out: Path) -> None:
    """Move the files of an earlier split to the wanted one, so that the scene is never in both.

    They are moved instead of deleted: if the raw files are intact they are written again, and otherwise they are kept.
    """
    for kind, name in (("scannet_3d", f"{scene}{SCENE_SUFFIX}.pth"), ("scannet_3d_200", f"{scene}.txt")):
        target = out / kind / split / name
        for old in (out / kind / other / name for other in SPLITS if other != split):
            if target.is_file():
                old.unlink(missing_ok=True)
            elif old.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                old.replace(target)


def find_scene(raw: Path, scene: str) -> Path | None:
    """Return the folder of a raw scene; None if there is none."""
    candidates = (raw / "scans" / scene, raw / "scans_test" / scene, raw / scene)
    return next((folder for folder in candidates if folder.is_dir()), None)


def _prepare_points(folder: Path, out: Path, categories: Categories, report: Report) -> None:
    scene = report.scene
    points, colors = read_vertices(folder / f"{scene}{MESH}")
    report.points = len(points)
    labels_file = folder / f"{scene}{LABELS}"
    path = out / "scannet_3d" / report.split / f"{scene}{SCENE_SUFFIX}.pth"
    if labels_file.is_file():
        write_points(path, points, colors / 127.5 - 1, classes_of_nyu40(read_nyu40(labels_file, len(points))))
    elif path.is_file():  # it may be a published file, which has labels
        report.notes.append(f"no labels.ply: {path} stays as it is")
    else:
        write_points(path, points, colors / 127.5 - 1, np.full(len(points), 255))
        report.notes.append("no labels.ply: all points are unlabelled")
    aggregation, segments = folder / f"{scene}{GROUPS}", folder / f"{scene}{SEGMENTS}"
    if not (aggregation.is_file() and segments.is_file()):
        report.notes.append("no aggregation.json or segs.json: no raw ids for the 200 classes")
        return
    raw_ids, unknown = read_raw_ids(aggregation, segments, categories.raw_ids, len(points))
    report.notes += [f"category '{name}' is not in the table" for name in sorted(unknown)]
    atomic_write(out / "scannet_3d_200" / report.split / f"{scene}.txt", "\n".join(map(str, raw_ids)) + "\n")


def _prepare_frames(folder: Path, settings: Settings, categories: Categories, report: Report, clear: bool) -> None:
    scene = report.scene
    recording, labels = folder / f"{scene}{RECORDING}", folder / f"{scene}{LABEL_PICTURES}"
    target = settings.out / "scannet_2d" / scene
    if recording.is_file():
        _write_frames(recording, target, settings, report, clear)
    else:
        report.frames = len(_colors(target))
        stay = f"the {report.frames} frames that are there stay as they are" if report.frames else "no frames"
        report.notes.append(f"no .sens recording: {stay}")
    if labels.is_file():
        _write_labels(labels, target, settings, categories, report)
    elif report.frames and not (target / "label").is_dir():
        report.notes.append("no 2d-label-filt.zip: frames without label pictures cannot be trained on")


def _write_frames(recording: Path, target: Path, settings: Settings, report: Report, clear: bool) -> None:
    kept = set()
    with SensFile(recording) as source:
        # Written before the frames, so that the frames of an interrupted run have the camera of their size.
        _write_intrinsics(target, source, settings.frame_size)
        for frame in source.frames(settings.step):
            if not np.isfinite(frame.pose).all():
                report.notes.append(f"frame {frame.number}: no valid pose, left out")
                continue
            _write_frame(target, source, frame, settings)
            report.frames += 1
            kept.add(str(frame.number))
    if clear:
        _remove_others(target, kept)


def _write_frame(target: Path, source: SensFile, frame: Frame, settings: Settings) -> None:
    height, width = settings.frame_size
    resampling, quality = Image.Resampling.BILINEAR, 95
    if settings.as_published:
        resampling, quality = Image.Resampling.NEAREST, 75
    color = Image.fromarray(source.decode_color(frame)).resize((width, height), resampling)
    depth = source.decode_depth(frame) * (1000 / source.header.depth_unit)
    millimetres = np.round(np.clip(depth, 0, 65535)).astype(np.uint16)
    depth_picture = Image.fromarray(resize_nearest(millimetres, settings.frame_size))
    name = str(frame.number)
    atomic_write(target / "color" / f"{name}.jpg", partial(color.save, quality=quality), sync=False)
    atomic_write(target / "depth" / f"{name}.png", depth_picture.save, sync=False)
    atomic_write(target / "pose" / f"{name}.txt", lambda part: np.savetxt(part, frame.pose, fmt="%.9g"), sync=False)


def _colors(target: Path) -> list[Path]:
    return [path for path in visible_files(target / "color") if path.suffix == ".jpg"]


def _remove_others(target: Path, kept: set[str]) -> None:
    """Remove the frames of earlier settings that were not written again."""
    for part in ("color", "depth", "pose", "label", "label_200"):
        for path in (target / part).glob("*"):
            if path.stem.isdigit() and path.stem not in kept:
                path.unlink()


def _write_intrinsics(target: Path, source: SensFile, frame_size: tuple[int, int]) -> None:
    matrix = source.header.depth_intrinsics
    camera = Intrinsics(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    camera = camera.scaled(source.header.depth_size, frame_size)
    rows = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    atomic_write(target / "intrinsics.txt", lambda part: np.savetxt(part, rows, fmt="%.9g"))


def _write_labels(archive: Path, target: Path, settings: Settings, categories: Categories, report: Report) -> None:
    """Write the label pictures of the exported frames: NYU40 ids in 8 bits, raw ids in 16."""
    with reading(archive, "an archive of label pictures"), zipfile.ZipFile(archive) as source:
        members = {Path(name).stem: name for name in source.namelist() if name.endswith(".png")}
        for color in _colors(target):
            if color.stem not in members:
                report.notes.append(f"frame {color.stem}: not in {archive.name}, no label picture")
                continue
            name = f"{archive}: {members[color.stem]}"
            with source.open(members[color.stem]) as stream, open_picture(stream, name) as picture:
                raw = resize_nearest(np.asarray(picture).astype(np.uint16), settings.frame_size)
            _write_label_pair(target, color.stem, raw, categories)


def _write_label_pair(target: Path, stem: str, raw: np.ndarray, categories: Categories) -> None:
    known = np.where(raw < len(categories.nyu40), raw, 0)
    nyu40 = np.where(raw < len(categories.nyu40), categories.nyu40[known], 0).astype(np.uint8)
    for folder, picture in (("label", nyu40), ("label_200", raw)):
        atomic_write(target / folder / f"{stem}.png", Image.fromarray(picture).save, sync=False)
