"""Texts of the viewer: names of objects, the colour bar of a heat map, and escapes for Markdown."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from xmask3d.visualize.overview import HEAT, HEAT_RANGE

PHONE = """<style class="phone">@media (max-width: 36em) {
div:has(> .mantine-Paper-root .phone) { flex-direction: column }
div:has(+ .mantine-Paper-root .phone) { height: auto !important; min-height: 0 }
.mantine-Paper-root:has(.phone) { position: static !important; width: 100% !important; max-height: 45vh !important }
.mantine-Paper-root:has(.phone) [style*="width: 20em"] { width: 100% !important }
}</style>"""
"""Style of a narrow page: viser lays the panel over the lower part of the scene, here it stands below the scene."""


def number_objects(names: Sequence[str]) -> list[str]:
    """Name objects by their class and a number within it: "chair 1", "chair 2"."""
    seen: Counter = Counter()
    titles = []
    for name in names:
        seen[name] += 1
        titles.append(f"{name} {seen[name]}")
    return titles


def heat_bar(values: np.ndarray | None, scale: tuple[float, float] | None = None) -> str:
    """Return the colour bar of a heat map as HTML, or an empty string; see `heat_colors` for `scale`."""
    if values is None or not len(values):
        return ""
    low, high = scale or np.percentile(values, HEAT_RANGE)
    stops = ",".join(f"rgb({red},{green},{blue})" for red, green, blue in HEAT.tolist())
    ends = f"<span>{low:.2f}</span><span>similarity</span><span>{high:.2f}</span>"
    return (f'<div style="margin:2px 5%"><div style="height:10px;border-radius:3px;background:linear-gradient(90deg,'
            f'{stops})"></div><div style="display:flex;justify-content:space-between;font-size:12px;opacity:.75">'
            f"{ends}</div></div>")  # fmt: skip


def plain(text: str) -> str:
    """Escape text for Markdown, because viser's page interprets HTML and, in older versions, runs braces as code."""
    return re.sub(r"[^\w ]|_", lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def named(text: str) -> str:
    """Return the name of an object in a phrase such as "a workbench"."""
    words = text.split()
    return " ".join(words[1:] if len(words) > 1 and words[0].lower() in ("a", "an", "the") else words)
