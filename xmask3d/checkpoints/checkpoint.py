"""Checkpoints that survive kills, full disks and damage.

A checkpoint is one `torch.save` file of tensors, numbers, strings, lists and dicts, always read with
`weights_only=True`. Its SHA-256 is in a separate file beside it, in the format of `sha256sum`. Both are written to a
temporary file, synced and renamed, the digest first, so that a file with its final name is complete. The folder of a
run has `step-00000300.pt` for the newest few steps and `best.pt`, a hard link to the best one so far.
"""

import hashlib
import logging
import math
import os
import random
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from xmask3d.checkpoints.containers import find_state, load_inert
from xmask3d.checkpoints.names import CONSTANTS, package_name
from xmask3d.errors import UserError, first_line, some
from xmask3d.files import atomic_write, remove_leftovers, sha256_of
from xmask3d.guarded import reading
from xmask3d.models.loading.tensor_files import check_numbers, refuse_foreign
from xmask3d.seal import beside, check_archive, check_seal, digest_beside, read_sealed_json, sealed_json

log = logging.getLogger(__name__)

FORMAT = "xmask3d-checkpoint-1"
# Prefix of the optimiser's tensors in a weight file.
OPTIMIZER_PREFIX = "optimizer."
GATE_ENTRY = "region_gate"  # key in an exported file's metadata
STEP_FILE = re.compile(r"step-(\d{8,})\.pt")


@dataclass
class Checkpoint:
    """Complete state of a run, from which it resumes as if it had never stopped.

    Attributes:
        step: optimiser steps done since the start of the run.
        steps_per_epoch: steps in an epoch, so that `divmod(step, steps_per_epoch)` is the position in the data.
        model: state dict of the trained part (parameters that train, batch-norm buffers).
        optimizer: state dict of the optimiser.
        config: the resolved configuration as plain values.
        ema: averaged model state dict, or None.
        scaler: state of the float16 loss scaler, or None.
        rng: state of the random generators of each process, see `random_state`.
        gate: weights of the region gate, fitted at the end of training, or None.
    """

    step: int
    steps_per_epoch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    config: dict[str, Any]
    ema: dict[str, Tensor] | None = None
    scaler: dict[str, Any] | None = None
    rng: list[dict[str, Any]] = field(default_factory=list)
    gate: list[float] | None = None


class CheckpointFolder:
    """Folder of the checkpoints of one run, newest few and best.

    Args:
        folder: folder of the checkpoints, created if missing.
        keep: number of newest checkpoints to keep.
        milestones: steps whose checkpoints are never removed.
    """

    def __init__(self, folder: Path, keep: int = 2, milestones: frozenset[int] = frozenset()) -> None:
        self.folder, self.keep, self.milestones = folder, keep, milestones
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another output=FOLDER") from error

    def paths(self) -> list[Path]:
        """List checkpoint files by step, newest first."""
        found = [path for path in self.folder.iterdir() if STEP_FILE.fullmatch(path.name)]
        return sorted(found, key=_step_of, reverse=True)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove those no longer needed; if writing fails, earlier ones stay intact.

        Raises:
            UserError: the disk is full or not writable; names the newest checkpoint that is intact.
        """
        path = self.folder / f"step-{checkpoint.step:08d}.pt"
        intact = next((str(p) for p in self.paths() if p != path), None)
        kept = f"{intact} is intact" if intact else "there was none before"
        save_checkpoint(checkpoint, path, f"{kept}; make room and start again to resume")
        self._prune(checkpoint.step)
        return path

    def load_newest(self) -> tuple[Path, Checkpoint] | None:
        """Load the newest complete checkpoint, or None if there are no checkpoints.

        A damaged checkpoint is reported on stderr, and the one before it is tried.

        Raises:
            UserError: there are checkpoints, but all of them are damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                return path, read_checkpoint(path)
            except UserError as error:
                print(f"warning: {error}; trying the one before", file=sys.stderr, flush=True)
        if paths:
            raise UserError(f"{self.folder}: none of its {len(paths)} checkpoints can be read; move the folder away")
        return None

    def mark_best(self, step: int, score: float) -> bool:
        """Link the checkpoint of `step` as best.pt if `score` is the best so far; return True in that case.

        If it is called again after a kill in between, it completes the work, since the score is recorded last.
        """
        path = self.folder / f"step-{step:08d}.pt"
        record = self.folder / "best.json"
        if record.exists() and _recorded_score(record) >= score:
            return False
        best = self.folder / "best.pt"
        for source, target in [(beside(path), beside(best)), (path, best)]:
            atomic_write(target, partial(_link, source))
        atomic_write(record, sealed_json({"score": score, "from": path.name}))
        return True

    def _prune(self, step: int) -> None:
        """Remove checkpoints older than the newest `keep`, and those later than `step`, which are damaged."""
        for path in [path for path in self.paths() if _step_of(path) > step]:
            path.unlink(missing_ok=True)
        self.tidy(step)

    def tidy(self, step: int) -> None:
        """Remove leftovers of a killed process: checkpoints beyond the newest `keep`, lone digests, temporary files."""
        older = [path for path in self.paths() if _step_of(path) <= step][self.keep :]
        for path in [path for path in older if _step_of(path) not in self.milestones]:
            path.unlink(missing_ok=True)
        for digest in self.folder.glob("step-*.pt.sha256"):
            if not digest.with_suffix("").exists():
                digest.unlink(missing_ok=True)
        remove_leftovers(self.folder)


def _recorded_score(record: Path) -> float:
    """Return the score of the best checkpoint so far; an unreadable record counts as none, with a warning."""
    try:
        return float(read_sealed_json(record)["score"])
    except (UserError, KeyError, TypeError, ValueError):
        print(f"warning: {record}: damaged; the best checkpoint is chosen again from here on", file=sys.stderr)
        return -math.inf


def save_checkpoint(checkpoint: Checkpoint, path: Path, advice: str = "make room") -> None:
    """Write a checkpoint and its digest, each completely or not at all; the digest first.

    Args:
        advice: advice for a user whose disk refuses to write.

    Raises:
        UserError: the disk is full or not writable; the checkpoint is then not written.
    """
    payload = {"format": FORMAT} | {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}

    def write(part: Path) -> None:
        with open(part, "wb") as file:  # with a path instead, torch would store the temporary name in the file
            torch.save(payload, file)
        atomic_write(beside(path), f"{sha256_of(part)}  {path.name}\n", advice=advice)

    atomic_write(path, write, advice=advice)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU and check its digest, if there is a digest file.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of a run; the message names it.
    """
    return _as_checkpoint(read_payload(path), path)


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """Load the trained part's state dict: a run's checkpoint, a published one, or weights-only safetensors.

    If a checkpoint has averaged weights, these are returned. Tensors of a published checkpoint (a `state_dict` among
    other things, names with the prefix `module.`) are renamed; those unknown here keep their names, which
    `apply_weights` then handles. Tensors of a weight file that do not belong to the network are left out.

    Raises:
        UserError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        _check_exists(path)
        refuse_foreign(path)
        check_seal(path)
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if not name.startswith(OPTIMIZER_PREFIX)]  # noqa: SIM118
                return {name: file.get_tensor(name) for name in names if name not in CONSTANTS}
        except Exception as error:
            raise UserError(f"{path}: damaged or not a safetensors file ({first_line(error)})") from error
    payload = read_payload(path)
    if payload.get("format") != FORMAT and (state := find_state(payload)):
        return _from_published(state)
    checkpoint = _as_checkpoint(payload, path)
    return checkpoint.ema or checkpoint.model


def load_gate(path: Path) -> list[float] | None:
    """Load the fitted weights of the region gate from a run's checkpoint or an exported file; None if it has none.

    Raises:
        UserError: the file is damaged, or its entry of the gate is no list of numbers.
    """
    with reading(path, "a model with numbers of the region gate"):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                values = (file.metadata() or {}).get(GATE_ENTRY, "").split()
        else:
            values = read_payload(path).get("gate") or []
        return [float(value) for value in values] or None


def is_of_network_alone(path: Path) -> bool:
    """Return True for files of this package, which hold only the network; others may hold more."""
    return path.suffix in (".pt", ".safetensors")


def apply_weights(model: nn.Module, weights: dict[str, Tensor], source: Path | str, strict: bool = True) -> None:
    """Load a state dict, and describe in one line any tensors that do not fit.

    Args:
        strict: treat unknown tensors as an error; otherwise they are left out.

    Raises:
        UserError: tensors are missing, unknown, of another shape, or contain NaN or infinity; names the first few.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in weights]
    unknown = [name for name in weights if name not in wanted]
    other = [name for name in wanted if name in weights and wanted[name].shape != weights[name].shape]
    if missing or other or (unknown and strict):
        raise UserError(
            f"{source}: does not fit the model of this configuration: {len(missing)} tensors missing, "
            f"{len(unknown)} unknown, {len(other)} of another shape (first: {some(missing or unknown or other)})"
        )
    check_numbers(weights, wanted, source)
    if unknown:
        log.warning("%s: left out %d unknown tensors: %s", source, len(unknown), some(unknown))
    model.load_state_dict({name: weights[name] for name in wanted})


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of tensors, sorted by name, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_checkpoint(name: str, output: Path) -> Path:
    """Return the path of a checkpoint for "newest", "best" or a path; "newest" skips damaged ones.

    Raises:
        UserError: there is none.
    """
    folder = output / "checkpoints"
    if name == "newest":
        found = CheckpointFolder(folder).load_newest() if folder.is_dir() else None
        if found is None:
            raise UserError(f"{folder}: no checkpoint yet; train first, or name a file instead of 'newest'")
        return found[0]
    path = folder / "best.pt" if name == "best" else Path(name)
    _check_exists(path)
    return path


def random_state() -> dict[str, Any]:
    """Return the state of this process's generators (torch on CPU and GPU, numpy, python) as plain values."""
    name, keys, position, has_gauss, cached = cast(tuple, np.random.get_state())
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the state that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def read_payload(path: Path, strict: bool = False) -> dict[str, Any]:
    """Read the dict of a `torch.save` file without executing anything.

    The file is verified by the digest beside it, or else by the checksums of its archive.

    Args:
        strict: refuse anything but tensors and plain values; otherwise a stand-in replaces it.

    Raises:
        UserError: the file is missing, damaged or hostile; the message names it.
    """
    _check_exists(path)
    refuse_foreign(path)
    digest = digest_beside(path)
    if digest is None:
        check_archive(path)
    elif digest != sha256_of(path):
        raise UserError(f"{path}: damaged checkpoint, its SHA-256 is not the one in {beside(path).name}")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True) if strict else load_inert(path)
    except Exception as error:  # zip, pickle and system errors
        raise UserError(f"{path}: damaged or foreign checkpoint ({first_line(error)})") from error
    if not isinstance(payload, dict):
        raise UserError(f"{path}: not a checkpoint")
    strange = [name for name in find_state(payload) or {} if not isinstance(name, str)]
    if strange:
        raise UserError(f"{path}: not a checkpoint of this network: its state_dict has the key {strange[0]!r}, no name")
    return payload


def _as_checkpoint(payload: dict[str, Any], path: Path) -> Checkpoint:
    names = {f.name for f in fields(Checkpoint)}
    payload = {"gate": None} | payload  # earlier versions did not fit a gate
    if payload.get("format") != FORMAT or not names <= payload.keys():
        raise UserError(f"{path}: not a training checkpoint of this package")
    return Checkpoint(**{name: payload[name] for name in names})


def _from_published(state: dict[str, Any]) -> dict[str, Tensor]:
    weights = {}
    for name, tensor in state.items():
        if name.removeprefix("module.") in CONSTANTS or not isinstance(tensor, Tensor):
            continue
        try:
            weights[package_name(name)] = tensor
        except KeyError:
            weights[name] = tensor
    return weights


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")


def _step_of(path: Path) -> int:
    match = STEP_FILE.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _link(source: Path, target: Path) -> None:
    target.unlink()
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
