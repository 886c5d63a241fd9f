"""Folder of a result: the scan it belongs to, permission to write, and the location of the scan's features.

This module is plain Python, so that queries on saved features need not import torch.
"""

import os
from pathlib import Path

from xmask3d.errors import UserError
from xmask3d.files import atomic_write, remove_leftovers
from xmask3d.guarded import read_text
from xmask3d.seal import read_sealed_json

RESULTS = Path("segmented")  # default folder of results
FEATURES = "features.safetensors"
FORMAT = "xmask3d-features-1"  # entry in the metadata of a file of features
SUMMARY = "summary.json"
STATE = ".unfinished.npz"  # state of unfinished work
OWNER = ".unfinished.txt"  # file with the path of the scan in work


def read_summary(folder: Path) -> dict:
    """Read the summary of a result; empty if there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return {}
    try:
        return read_sealed_json(path, "the summary of a result")
    except UserError as error:
        raise UserError(f"{error}; delete it, or segment the scan again") from error


def earlier_summary(folder: Path) -> dict:
    """Read the summary of an earlier result; empty even if it is damaged, since it is about to be replaced."""
    try:
        return read_summary(folder)
    except UserError:
        return {}


def features_file(path: Path) -> Path:
    """Return the features file of a result's folder; the path of a file is returned unchanged.

    Raises:
        UserError: the folder's summary is damaged.
    """
    if not path.is_dir():
        return path
    named = read_summary(path).get("features")
    return path / (named if isinstance(named, str) else FEATURES)


def name_features(features: Path, folder: Path) -> str:
    """Return the summary's entry for the features: a file name inside its own folder, or an absolute path."""
    return features.name if features.parent.resolve() == folder.resolve() else str(features.resolve())


def default_folder(name: str, scan: Path) -> Path:
    """Return `segmented/<name>`, with a number if another scan of the same name has taken it.

    Args:
        scan: path of the scan.
    """
    folder, number = RESULTS / name, 1
    while _owner(folder) not in (None, str(scan.resolve())):
        number += 1
        folder = RESULTS / f"{name}-{number}"
    return folder


def _owner(folder: Path) -> str | None:
    """Return the path of the scan to which a folder's result, or unfinished work, belongs."""
    if (folder / OWNER).is_file():
        return read_text(folder / OWNER, errors="replace")
    return earlier_summary(folder).get("path")


def begin(folder: Path, scan: Path) -> None:
    """Make a result's folder, and record the scan it belongs to while the work lasts."""
    atomic_write(folder / OWNER, str(scan.resolve()), sync=False)


def end(folder: Path) -> None:
    """Remove the files that only unfinished work needs."""
    for name in (STATE, OWNER):
        (folder / name).unlink(missing_ok=True)
    remove_leftovers(folder)


def check_places(folder: Path, features: Path | None = None) -> None:
    """Check, before any work is done, that a result can be written to the requested place.

    Args:
        features: file for the features.

    Raises:
        UserError: there is a file in place of a folder or the reverse, a file of another kind in place of the features,
            or a folder is not writable.
    """
    if features is not None and features.is_dir():
        raise UserError(f"--save-features {features}: a folder; name a file, such as {features / FEATURES}")
    if features not in (None, folder / FEATURES) and features.is_file() and not _holds_features(features):
        raise UserError(f"--save-features {features}: this file holds something else; name another, to keep it")
    _check_folder("--out", folder, folder)
    if features is not None:
        _check_folder("--save-features", features, features.parent)


def _holds_features(path: Path) -> bool:
    """Return whether a file is empty, or names the format of features in its header."""
    with open(path, "rb") as file:
        start = file.read(1 << 20)
    return not start or FORMAT.encode() in start


def _check_folder(option: str, given: Path, folder: Path) -> None:
    present = next(path for path in (folder, *folder.parents) if path.exists())
    if not present.is_dir():
        raise UserError(f"{option} {given}: {present} is a file, not a folder; name another place")
    if not os.access(present, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UserError(f"{option} {given}: {present} cannot be written (Permission denied); name another place")
