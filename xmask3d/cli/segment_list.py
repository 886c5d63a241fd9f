"""Segmentation of a list of scans: shared by processes and resumable, with a line per scan and a final overview."""

import os
import time
from argparse import Namespace
from datetime import timedelta
from typing import TYPE_CHECKING

from xmask3d import __version__
from xmask3d.cli.segment import RENDERED, label_scan, load_segmenter
from xmask3d.errors import UserError, without_traceback
from xmask3d.files import locked, sha256_of
from xmask3d.workers import work_share

if TYPE_CHECKING:
    from xmask3d.checkpoints.sources import Source
    from xmask3d.segment.scan_list import ListedScan
    from xmask3d.segment.segmenter import Segmenter

ANSWER = ("query", "classes", "background", "instances", "regions", "views", "depth_scale", "intrinsics", "poses",
          "unit", "scale", "up", "voxel_size", "settle", "image_size", "precision", "fast")  # fmt: skip
"""Options on which results depend."""


def segment_list(options: Namespace) -> int:
    """Segment this process's share of the scans; return 1 if any of them failed, else 0."""
    from xmask3d.checkpoints.sources import find_source
    from xmask3d.segment import folder
    from xmask3d.segment.scan_list import OVERVIEW, ListedScan, folder_names, read_list, write_overview

    out, paths = options.out or folder.RESULTS, read_list(options.list)
    number, count = work_share()
    source = find_source(options.model, options.config)
    question = _question(options, source)
    named = zip(paths, folder_names(paths), strict=True)
    scans = [ListedScan.make(path, out / name, question) for path, name in named]
    mine = scans[number::count]
    todo = sorted((scan for scan in mine if not scan.is_finished()), key=lambda scan: scan.is_interrupted)
    share = f", share {number} of {count}" if count > 1 else ""
    print(f"{options.list}: {len(scans)} scans{share}: {len(mine)}, of which {len(mine) - len(todo)} are done already")
    failed = _segment_all(options, source, todo) if todo else 0
    failed = _sum_over_processes(failed)
    if int(os.environ.get("RANK", 0)) == 0:
        states = write_overview(out, scans)
        said = ", ".join(f"{states[state]} {state}" for state in ("done", "failed", "waiting") if states[state])
        print(f"{said}; summary: {out / OVERVIEW}")
    return 1 if failed else 0


def _question(options: Namespace, source: "Source") -> list:
    """Return all settings, besides the scan, on which its results depend."""
    corrections = options.corrections and sha256_of(options.corrections)
    return [__version__, sha256_of(source.checkpoint), sha256_of(source.config), corrections,
            {name: getattr(options, name) for name in ANSWER}]  # fmt: skip


def _segment_all(options: Namespace, source: "Source", todo: list["ListedScan"]) -> int:
    """Segment scans one after the other; return the number of failures."""
    segmenter = load_segmenter(options, source)
    print(f"model: {source.words}" + (f"\n{RENDERED}" if segmenter.config.model.clip == "shipped" else ""), flush=True)
    failed, start = 0, time.monotonic()
    for done, scan in enumerate(todo, 1):
        try:
            with locked(scan.folder, "a segmentation"):
                said = _segment_one(options, segmenter, scan)
        except Exception as error:  # whatever error a damaged scan raises, the others are still segmented
            failed += 1
            lines = without_traceback(error).splitlines() or [""]
            said = (
                f"error: {lines[0]}" if isinstance(error, UserError) else f"error: {type(error).__name__}: {lines[0]}"
            )
        left = timedelta(seconds=round((time.monotonic() - start) / done * (len(todo) - done)))
        print(f"[{done}/{len(todo)}] {scan.path}: {said}; {left} left", flush=True)
    return failed


def _segment_one(options: Namespace, segmenter: "Segmenter", scan: "ListedScan") -> str:
    """Segment a scan into its folder, which is locked; return the line to print. A failure is recorded there."""
    from xmask3d.scan.scan import open_scan

    try:
        opened = open_scan(scan.path, options.reading)
        result, _ = label_scan(options, segmenter, opened, scan.path, scan.folder, asked=scan.asked)
    except Exception as error:
        scan.fail(without_traceback(error))
        raise
    return f"{len(result.points):,} points, {result.about['views']} views, {result.about['seconds']:.1f} s"


def _sum_over_processes(failed: int) -> int:
    """Sum over all processes, after waiting for them, since torchrun would end all with the first that fails."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return failed

    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(days=30))  # the slowest process determines the wait
    total = torch.tensor(failed)
    dist.all_reduce(total)
    dist.destroy_process_group()
    return int(total)
