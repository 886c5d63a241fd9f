"""Files of a result: clouds, tables, a summary, a picture and a page."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xmask3d.seal import sealed_json
from xmask3d.segment.answer import Answer
from xmask3d.segment.exports import file_name, own_file_name, write_file
from xmask3d.segment.folder import SUMMARY, earlier_summary
from xmask3d.segment.page_words import page_words
from xmask3d.segment.regions import Region
from xmask3d.segment.result import SegmentationResult
from xmask3d.visualize.cloud import class_palette, label_palette, write_ply
from xmask3d.visualize.overview import heat_colors, write_overview
from xmask3d.visualize.page import HeatMap, write_page

MAX_HEATS = 20  # largest number of heat maps written as clouds; the page shows all
PARTIAL = ".part-result"  # folder of incomplete files


def write_result(result: SegmentationResult, folder: Path) -> list[Path]:
    """Write all files of a result, and remove the files of an earlier result.

    These are `labels.ply` (colour, label and confidence of every point), the scan's own file with labels (`labelled.*`
    with its materials and textures, or `fused.ply` for a recording), `labels.csv`, `heat_<phrase>.ply` for the first
    `MAX_HEATS` phrases, `objects.ply` and `objects.csv` if there are objects, `overview.png`, `scene.html` and
    `summary.json`.

    Returns:
        The files, in that order.
    """
    partial = folder / PARTIAL  # if the process is killed meanwhile, the earlier files remain
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    earlier = _listed(folder)
    try:
        names = _write_files(result, partial, lambda name: name in earlier or not (folder / name).exists())
        for name in earlier:  # they would look like a part of the new result
            if name not in names:
                (folder / name).unlink(missing_ok=True)
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            os.replace(partial / name, folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [folder / name for name in names]


def _listed(folder: Path) -> list[str]:
    """Return the files listed in the folder's summary that exist inside the folder."""
    named, inside = earlier_summary(folder).get("files"), folder.resolve()
    texts = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    return [name for name in texts if (folder / name).is_file() and (folder / name).resolve().is_relative_to(inside)]


def _write_files(result: SegmentationResult, folder: Path, is_free: Callable[[str], bool]) -> list[str]:
    """Write all files, and return their names; the summary, which lists the others, comes last.

    Args:
        is_free: function that is true for a name that may be used. The scan's own file, its materials and textures only
            replace files of an earlier result.
    """
    palette = class_palette(result.names)
    colors = palette[result.labels]
    position = result.points + result.origin if np.any(result.origin) else result.points
    files = [folder / "labels.ply", folder / "labels.csv"]
    write_ply(files[0], position, colors, result.labels, result.confidence)
    _write_classes(files[1], result)
    for number, phrase in enumerate(result.phrases[:MAX_HEATS]):
        file = folder / f"heat_{file_name(phrase)}.ply"
        files.append(file if file not in files else file.with_stem(f"{file.stem}_{number}"))
        values = result.heat(number)
        write_ply(files[-1], position, heat_colors(values, result.scale), confidence=values)
    if result.objects is not None:
        files += [folder / "objects.ply", folder / "objects.csv"]
        write_ply(files[-2], position, label_palette(int(result.objects.max(initial=0)) + 1)[result.objects],
                  result.objects)  # fmt: skip
        _write_objects(files[-1], result)
    # Values per place instead of per point, which would take gigabytes for 200 classes and many points.
    texts = result.texts or [[] for _ in result.phrases]
    heats = [
        HeatMap(name, values, result.features.row, result.scale, said)
        for name, values, said in zip(result.phrases, result.similarity.T, texts, strict=True)
    ]
    upright = result.points @ result.rotation.T.astype(np.float32)
    files += [folder / "overview.png", folder / "scene.html", folder / SUMMARY]
    phrase_only = result.about.get("mode") == "phrase"
    shown = heats if phrase_only else []
    write_overview(files[-3], upright, result.shown_colors(), result.labels, result.names, shown)
    write_page(
        files[-2],
        result.points,
        result.shown_colors(),
        result.labels,
        result.names,
        heats,
        confidence=result.confidence,
        objects=result.objects,
        object_names=result.object_names,
        words=lambda kept: page_words(result.features, kept),
        title=result.name,
        facts=f"{len(result.points):,} points; {result.about.get('views', 0)} views",
        origin=result.origin,
        rotation=result.rotation,
        start=result.phrases[0] if phrase_only else "labels",
    )
    answer = Answer.of(result)
    own = own_file_name(answer)
    own = own if is_free(own) else f"labels_{own}"
    result.about["notes"] = write_file(answer, folder / own).notes
    every = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in (*files, folder / own)]
    beside = [name for path in every if is_free(name := path.relative_to(folder).as_posix())]
    names = ["labels.ply", own, *beside, *(file.name for file in files[1:])]
    said = {**summary(result), "files": names}
    sealed_json(said, indent=2, ensure_ascii=False)(files[-1])
    return names


def summary(result: SegmentationResult) -> dict:
    """Return the content of `summary.json`."""
    return {
        "scan": result.name,
        "points": len(result.points),
        "origin": result.origin.tolist(),
        "rotation": result.rotation.tolist(),
        "names": result.names,
        "found": result.lines,
        **result.about,
        "classes": {c.name: {"points": c.points, "share": round(c.share, 4)} for c in result.classes()},
        "unlabelled": int((result.labels < 0).sum()),
        "phrases": {
            phrase: [_region(region, result) for region in regions]
            for phrase, regions in zip(result.phrases, result.regions, strict=True)
        },
        **({} if result.objects is None else {"objects": len(result.object_names)}),
    }


def _region(region: Region, result: SegmentationResult) -> dict:
    return {
        "points": len(region.index),
        "similarity": round(region.score, 4),
        "center": _rounded(region.center + result.origin),
        "low": _rounded(region.low + result.origin),
        "high": _rounded(region.high + result.origin),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]


HEADER = ["points", "share", "area_m2", "confidence", "center_x", "center_y", "center_z", "low_x", "low_y", "low_z",
          "high_x", "high_y", "high_z"]  # fmt: skip


def _write_classes(path: Path, result: SegmentationResult) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", *HEADER])
        for c in result.classes():
            numbers = [c.points, round(c.share, 4), round(c.area, 2), round(c.confidence, 3)]
            writer.writerow([c.name, *numbers, *_rounded(c.center), *_rounded(c.low), *_rounded(c.high)])


def _write_objects(path: Path, result: SegmentationResult) -> None:
    assert result.objects is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["object", "class", "points", *HEADER[4:]])
        for number, name in enumerate(result.object_names):
            index = np.flatnonzero(result.objects == number)
            region = Region.of(result.points, index, 0.0)
            box = [*_rounded(region.center + result.origin), *_rounded(region.low + result.origin),
                   *_rounded(region.high + result.origin)]  # fmt: skip
            writer.writerow([number, name, len(index), *box])
