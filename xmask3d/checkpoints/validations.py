"""Record of a run's validations, by step, beside its checkpoints."""

import sys
from pathlib import Path

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.seal import read_sealed_json, sealed_json

FILE = "validations.json"
BEST = "best.json"


def read_validations(folder: Path) -> dict[int, dict[str, float]]:
    """Read the scores of each validation, {step: {name: score}}; empty if there is no record.

    A damaged record counts as none, with a warning.

    Args:
        folder: folder of the run's checkpoints.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        return {int(step): metrics for step, metrics in read_sealed_json(path).items()}
    except (UserError, ValueError):
        print(f"warning: {path}: damaged; validations are recorded again from here on", file=sys.stderr)
        return {}


def record_validation(folder: Path, step: int, metrics: dict[str, float]) -> None:
    """Record that the validation after `step` was made, with its results.

    Raises:
        UserError: the record cannot be written.
    """
    found = read_validations(folder) | {step: metrics}
    atomic_write(folder / FILE, sealed_json({str(step): scores for step, scores in found.items()}, indent=1))


def best_metrics(folder: Path) -> dict[str, float]:
    """Read the scores, by name, of the checkpoint marked as the best; empty if there is no record.

    Args:
        folder: folder of the run's checkpoints.
    """
    try:
        step = int("".join(filter(str.isdigit, Path(read_sealed_json(folder / BEST)["from"]).stem)))
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return {}
    return read_validations(folder).get(step, {})
