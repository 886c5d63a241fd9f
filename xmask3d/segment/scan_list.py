"""List of scans: their result folders, the finished ones among them, and a summary of all."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.guarded import read_lines
from xmask3d.seal import is_sound, read_sealed_json, sealed_json
from xmask3d.segment.folder import OWNER, earlier_summary

FAILED = ".failed.json"  # file with the reason why a scan could not be segmented
OVERVIEW = "scans.json"  # summary of all scans of a list


def read_list(path: Path) -> list[Path]:
    """Read the paths of scans, one per line; empty lines, lines that begin with # and repetitions are skipped.

    Raises:
        UserError: the file does not exist or is empty.
    """
    lines = read_lines(path, "a list of scans, one path a line")
    paths = {os.path.abspath(line): Path(line) for line in lines}
    if not paths:
        raise UserError(f"{path}: names no scan; write one path a line")
    return list(paths.values())


def folder_names(paths: Iterable[Path]) -> list[str]:
    """Name a folder for each scan: its own name, with as many parent folders as make it unique."""
    places = [Path(os.path.abspath(path)) for path in paths]
    parts = [[*place.parts[1:-1], place.name if place.is_dir() else place.stem] for place in places]
    lengths = [1] * len(parts)
    while True:
        names = ["-".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        count = Counter(names)
        longer = [i for i, name in enumerate(names) if count[name] > 1 and lengths[i] < len(parts[i])]
        if not longer:
            break
        for i in longer:
            lengths[i] += 1
    for i, name in enumerate(names):  # such as room.ply beside a folder called room
        if count[name] > 1:
            names[i] = f"{name}-{places[i].suffix.strip('.') or 'folder'}"
    return names


@dataclass(frozen=True)
class ListedScan:
    """Scan of a list.

    Attributes:
        path: path of the scan. folder: folder of its results.
        asked: digest of the scan's files and of everything else that its results depend on.
    """

    path: Path
    folder: Path
    asked: str

    @classmethod
    def make(cls, path: Path, folder: Path, question: object) -> "ListedScan":
        """Make the scan from a path and the settings that its results depend on, which must fit into JSON."""
        content = json.dumps([os.path.abspath(path), _state(path), question], sort_keys=True)
        return cls(path, folder, hashlib.sha256(content.encode()).hexdigest())

    @property
    def is_interrupted(self) -> bool:
        """True if work on the scan began but neither ended nor failed, for example because the process was killed."""
        return (self.folder / OWNER).is_file()

    def is_finished(self) -> bool:
        """Return True if all results for these settings exist, and those with a digest are undamaged."""
        summary = self._summary()
        if summary is None:
            return False
        files = [self.folder / str(name) for name in (*summary["files"], summary["features"])]
        return all(file.is_file() and is_sound(file) is not False for file in files)

    def fail(self, reason: str) -> None:
        """Save the reason why the scan could not be segmented."""
        atomic_write(self.folder / FAILED, sealed_json({"asked": self.asked, "reason": reason}), sync=False)
        (self.folder / OWNER).unlink(missing_ok=True)

    def entry(self) -> dict[str, object]:
        """Return the scan's part of the overview, which does not depend on the time or machine of the work."""
        known: dict[str, object] = {"scan": str(self.path), "folder": self.folder.name}
        summary = self._summary()
        if summary is not None:
            kept = ("points", "views", "phrases" if summary["mode"] == "phrase" else "classes", "unlabelled")
            return {**known, "state": "done", **{name: summary[name] for name in kept}}
        failed = _read(self.folder / FAILED)
        if failed.get("asked") == self.asked:
            return {**known, "state": "failed", "reason": failed["reason"]}
        return {**known, "state": "waiting"}

    def _summary(self) -> dict | None:
        summary = earlier_summary(self.folder)
        return summary if summary.get("asked") == self.asked else None


def write_overview(out: Path, scans: list[ListedScan]) -> dict[str, int]:
    """Write the overview of all scans, and return the number of scans in each state.

    Every process writes the overview at its end, and collects it again until it no longer changes. If several processes
    end at the same time, the overview is therefore still complete.
    """
    written = None
    while (entries := [scan.entry() for scan in scans]) != written:
        atomic_write(out / OVERVIEW, sealed_json({"scans": entries}, indent=1, ensure_ascii=False))
        written = entries
    return Counter(str(entry["state"]) for entry in entries)


def _read(path: Path) -> dict:
    try:
        return read_sealed_json(path) if path.is_file() else {}
    except UserError:  # damaged, so the scan is segmented again
        return {}


def _state(path: Path) -> list:
    """Return size and time of a file, or the times of a folder and its sub-folders, which change with their content."""
    if path.is_dir():
        return sorted([folder, os.stat(folder).st_mtime_ns] for folder, _, _ in os.walk(path))
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []
