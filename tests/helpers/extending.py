"""Blocks of code of a section of `docs/extending.md`, so that tests run what readers copy."""

import re

import yaml

from xmask3d.resources import REPOSITORY


def section(title: str) -> str:
    """Text of a section, from its heading to the next."""
    text = (REPOSITORY / "docs" / "extending.md").read_text()
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def code(title: str, language: str = "python") -> list[str]:
    """Blocks of a language in a section, in order."""
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


def configuration(title: str) -> dict:
    """Keys of the section's last YAML block."""
    return yaml.safe_load(code(title, "yaml")[-1])
