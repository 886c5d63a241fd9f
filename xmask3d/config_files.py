"""Files of configurations: YAML that overrides the files it includes, with the line of every key."""

from pathlib import Path
from typing import Any

import yaml

from xmask3d.errors import UserError
from xmask3d.guarded import MAX_YAML, parse_yaml, read_text
from xmask3d.seal import check_seal


def read_with_includes(path: Path, seen: tuple[Path, ...]) -> tuple[dict, dict[tuple[str, ...], str]]:
    """Read a file over its includes, and the position of each key; `seen` are the files that include it."""
    path = path.resolve()
    if path in seen:
        raise UserError(f"{path}: includes itself")
    text = read_text(path, "a configuration in YAML, see config/", most=MAX_YAML)
    check_seal(path, "delete its first and its last line if it was changed on purpose, else copy it again")
    content, node = parse_yaml(text, str(path))
    if content is None and path.name == "config.yaml":  # a truncated file of a run or an export
        raise UserError(f"{path}: empty, so damaged; copy it or make it again")
    content = content or {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values at the top level")
    lines: dict[tuple[str, ...], str] = {}
    _collect_lines(node, (), path, lines)
    includes = content.pop("include", None) or []
    includes = [includes] if isinstance(includes, str) else includes
    if not isinstance(includes, list) or not all(isinstance(include, str) for include in includes):
        raise UserError(
            f"{where(('include',), lines, str(path))}: include: expected the name of a file or a list of names, "
            f"got {includes!r}"
        )
    merged: dict = {}
    merged_lines: dict[tuple[str, ...], str] = {}
    for include in includes:
        below, below_lines = read_with_includes(path.parent / include, (*seen, path))
        merged = _merge(merged, below)
        merged_lines.update(below_lines)
    return _merge(merged, content), merged_lines | lines


def _collect_lines(node: yaml.Node | None, keys: tuple[str, ...], path: Path, lines: dict) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*keys, str(key.value))
            lines[inner] = f"{path}:{key.start_mark.line + 1}"
            _collect_lines(value, inner, path, lines)


def _merge(below: dict, above: dict) -> dict:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merge(result[key], value) if both else value
    return result


def assign(content: dict, keys: list[str], value: Any, override: str) -> None:
    """Set the value of nested keys; `override` is the text by which they were given."""
    for key in keys[:-1]:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise UserError(f"override '{override}': {key} is a value, not a group of keys")
    content[keys[-1]] = value


def where(keys: tuple[str, ...], lines: dict[tuple[str, ...], str], default: str) -> str:
    """Return the position of nested keys, or of the nearest group around them."""
    for end in range(len(keys), 0, -1):
        if keys[:end] in lines:
            return lines[keys[:end]]
    return default
