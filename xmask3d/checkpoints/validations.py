"""Record of a run's validations, by step, beside its checkpoints."""

import json
from pathlib import Path

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.guarded import read_json

FILE = "validations.json"


def read_validations(folder: Path) -> dict[int, dict[str, float]]:
    """Read the scores by name of each validation, by step; none where there is no record of any.

    Args:
        folder: folder of the run's checkpoints.
    """
    try:
        return {int(step): metrics for step, metrics in read_json(folder / FILE).items()}
    except (UserError, ValueError, AttributeError):
        return {}


def record_validation(folder: Path, step: int, metrics: dict[str, float]) -> None:
    """Record the results of the validation after `step`, and that it was made.

    Raises:
        UserError: the record cannot be written.
    """
    found = read_validations(folder) | {step: metrics}
    atomic_write(folder / FILE, json.dumps(found, indent=1) + "\n")
