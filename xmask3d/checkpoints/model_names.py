"""Names of models, and a check of names that needs neither network nor torch."""

from pathlib import Path

from xmask3d.errors import UserError
from xmask3d.resources import is_of_hub

SHIPPED_NAME, NEWEST_NAME = "shipped", "newest"
PUBLISHED = ("scannet20-b15n4", "scannet20-b12n7", "scannet20-b10n9", "scannet200-b170n30", "scannet200-b150n50")


def check_name(name: str) -> None:
    """Raise `UserError` for a name that is not a model."""
    known = name in (SHIPPED_NAME, NEWEST_NAME) or name.lower() in PUBLISHED
    if not known and not Path(name).exists() and not is_of_hub(name):
        raise UserError(f"checkpoint {name}: no such file, nor the name of a model; names are shipped, newest, "
                        f"{', '.join(PUBLISHED)}, or org/name of the Hugging Face hub")  # fmt: skip
