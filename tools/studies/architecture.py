"""Drawing of the package: which folder uses which, read from the imports of its files."""

import argparse
import ast
import re
from pathlib import Path

from xmask3d.errors import run_tool
from xmask3d.resources import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"
GROUPS = {
    "the command": ["cli"],
    "beside the method": ["scan", "segment", "visualize", "rooms", "datasets"],
    "runs: sees the configuration": ["engine", "open_model", "checkpoints", "build_untrained", "build"],
    "networks and computation: plain arguments alone": [
        "inference", "losses", "models", "sparse", "data", "geometry", "metrics",
    ],
}  # fmt: skip
"""Folders and files of the package that are drawn, by the frame around them. Everything else serves all of them."""


def imports_of(node: ast.AST) -> set[str]:
    """List the modules that code imports, inside functions too, but not those that only type checkers import."""
    found: set[str] = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            found.update(f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Import):
            found.update(alias.name for alias in child.names)
        found |= imports_of(child)
    return found


def read_uses(package: Path) -> dict[str, set[str]]:
    """Map each folder, and each file at the top of the package, to those that it imports."""
    uses: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        unit = path.relative_to(package).with_suffix("").parts[0]
        used = uses.setdefault(unit, set())
        for module in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
            parts = module.split(".")
            if parts[0] == package.name and len(parts) > 1:
                used.add(parts[1])
        used.discard(unit)
    return uses


def reduce_edges(uses: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out every edge that a longer path implies. There must be no ring."""
    reach: dict[str, set[str]] = {}

    def reachable(unit: str) -> set[str]:
        if unit not in reach:
            reach[unit] = set().union(*({used} | reachable(used) for used in uses[unit]))
        return reach[unit]

    return {unit: {one for one in used if not any(one in reachable(o) for o in used)} for unit, used in uses.items()}


def draw(package: Path) -> str:
    """Write the drawing as a mermaid flow chart: an arrow means "uses"; those that follow from others are left out."""
    drawn = {unit for units in GROUPS.values() for unit in units}
    uses = read_uses(package)
    edges = reduce_edges({unit: uses[unit] & drawn for unit in sorted(drawn)})
    lines = ["flowchart TD"]
    for number, (title, units) in enumerate(GROUPS.items()):
        lines.append(f'    subgraph group{number}["{title}"]')
        lines += [f'        {unit}["{unit}{"" if (package / unit).is_dir() else ".py"}"]' for unit in units]
        lines.append("    end")
    lines += [f"    {unit} --> {used}" for unit in sorted(edges) for used in sorted(edges[unit])]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the drawing of the present imports into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, help="page with a mermaid block (default %(default)s)")
    page = parser.parse_args().page
    drawing = f"```mermaid\n{draw(REPOSITORY / 'xmask3d')}```"
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"```mermaid\n.*?```", lambda _: drawing, text, flags=re.DOTALL), encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    run_tool(main)
