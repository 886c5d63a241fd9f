"""Configuration reference: every key with its default, values and sentence, written from the schema."""

from xmask3d.cli.config import limits_of, sentence_of, shown, walk
from xmask3d.config import Config
from xmask3d.resources import REPOSITORY

PAGE = REPOSITORY / "docs" / "configuration.md"

HEAD = """# Configuration

Every key of a configuration, written from the schema by `python -m tools.site.configuration`. A YAML file holds
sections as nested mappings; a command line overrides keys as `section.key=value`, as in `xmask3d train rooms/B15N4
train.epochs=3`. `xmask3d config CONFIG` prints the values of one configuration. Unknown keys are refused.
"""


def page() -> str:
    """Write the page: a section of the schema becomes a heading and a table."""
    defaults = Config()
    lines, section = [HEAD.rstrip()], None
    for key, field, default in walk(defaults, ()):
        above, _, name = key.rpartition(".")
        if above != section:
            section = above
            lines += ["", f"## {section or 'Top level'}", "", sentence_of(defaults, section)]
            lines += ["", "| key | default | values | meaning |", "|---|---|---|---|"]
        values = limits_of(field).replace(" | ", ", ")
        cells = (f"`{name}`", f"`{shown(default)}`", values, field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page into docs/."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
