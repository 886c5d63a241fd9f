"""HTML page of a scene that opens without a server: a small WebGL viewer of points, labels, objects and heat maps."""

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from xmask3d.geometry.nearest import point_spacing
from xmask3d.visualize.cloud import KNOWN, PALETTE
from xmask3d.visualize.packed import pack

MAX_POINTS = 400_000
MAX_BYTES = 24_000_000
SHOWN = (1.0, 99.0)
"""Percentiles of the positions in the first view, since a few distant points must not make a room tiny."""


@dataclass
class HeatMap:
    """Heat map: fit of points to a phrase.

    Attributes:
        name: the phrase.
        values: n values of points, or m values of places that points share.
        row: n, place of each point; None if every point has a value of its own.
        scale: values at the two ends of the colours, equal for maps to be compared; by default the 1st and 99.5th
            percentile of the values.
        texts: texts behind the name, each with True if it counts as a base class; a page that answers words computes
            the values from them.
    """

    name: str
    values: np.ndarray
    row: np.ndarray | None = None
    scale: tuple[float, float] | None = None
    texts: Sequence[tuple[str, bool]] = ()

    def of_points(self, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the values of some points, by default of all n."""
        return self.values[chosen] if self.row is None else self.values[self.row[chosen]]


@dataclass
class PageWords:
    """Text tower and features of a page that answers new words.

    Attributes:
        content: content for JSON, with packed arrays; see `words.js`.
        row: place of each of the page's points, int32.
    """

    content: dict[str, object]
    row: np.ndarray


def write_page(
    path: Path,
    points: np.ndarray,
    colors: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    heats: Sequence[HeatMap] = (),
    *,
    confidence: np.ndarray | None = None,
    objects: np.ndarray | None = None,
    object_names: Sequence[str] = (),
    words: Callable[[np.ndarray], PageWords | None] | None = None,
    title: str = "scan",
    facts: str = "",
    origin: np.ndarray | None = None,
    rotation: np.ndarray | None = None,
    start: str = "labels",
    max_points: int = MAX_POINTS,
) -> int:
    """Write the page.

    Args:
        points: n x 3 metres. colors: n x 3 uint8. labels: n class ids, -1 unlabelled. names: K class names.
        heats: one heat map of the n points per phrase.
        confidence: n in [0, 1].
        objects: n object numbers, -1 for none. object_names: class of each object.
        words: function that makes the text tower and features from the indices of the points in the page, or returns
            None if they are too large; without them the page shows the given heat maps only.
        title, facts: texts shown on the page.
        origin: 3, added to positions of `points` that are shown as numbers.
        rotation: 3 x 3, rotates points so that z is up.
        start: first display: "colors", "labels", "objects" or the name of a heat map.
        max_points: number of points to which larger clouds are thinned evenly.

    Returns:
        Number of points in the page.
    """
    each = 3 * 2 + 3 + 2 + 1 + 2 * (objects is not None) + len(heats)
    kept = thin_rows(len(points), min(max_points, MAX_BYTES // each))
    live = words(kept) if words else None
    shown = points[kept].astype(np.float64)
    shown = shown @ rotation.T if rotation is not None else shown
    low, high = (shown.min(0), shown.max(0)) if len(shown) else (np.zeros(3), np.ones(3))
    near = np.percentile(shown, SHOWN, axis=0) if len(shown) else np.stack([low, high])
    quantised = np.rint((shown - low) / np.maximum(high - low, 1e-9) * 65535).astype("<u2")
    sureness = np.ones(len(points)) if confidence is None else confidence
    modes = ["colors", "labels", *(["objects"] if objects is not None else []), *(heat.name for heat in heats)]
    content = {
        "title": title,
        "facts": facts,
        "count": len(kept),
        "points": pack(quantised),
        "low": low.tolist(),
        "high": high.tolist(),
        "near": near.tolist(),
        "origin": (np.zeros(3) if origin is None else np.asarray(origin)).tolist(),
        "rotation": (np.eye(3) if rotation is None else np.asarray(rotation)).tolist(),
        "spacing": point_spacing(shown),
        "colors": pack(colors[kept].astype(np.uint8)),
        "labels": pack(labels[kept].astype("<i2")),
        "confidence": pack(np.rint(np.clip(sureness[kept], 0, 1) * 255).astype(np.uint8)),
        "names": list(names),
        "palette": [list(color) for color in PALETTE],
        "known": KNOWN,
        "objects": None if objects is None else pack(objects[kept].astype("<i4")),
        "object_names": list(object_names),
        "heats": [_heat(heat, kept, live is not None) for heat in heats],
        "scale": next((list(heat.scale) for heat in heats if heat.scale), None),
        "row": None if live is None else pack(live.row.astype("<i4")),
        "words": None if live is None else live.content,
        "start": modes.index(start),
    }
    folder = resources.files("xmask3d.visualize")
    page = folder.joinpath("scene.html").read_text(encoding="utf-8")
    for name in ("words.js", "wording.js", "scene.js", "controls.js"):
        page = page.replace(f"__{name}__", folder.joinpath(name).read_text(encoding="utf-8"))
    # escaped, so that nothing in it can end the script
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.replace("__TITLE__", html.escape(title)).replace("__DATA__", data), encoding="utf-8")
    return len(kept)


def thin_rows(count: int, limit: int) -> np.ndarray:
    """Choose at most `limit` of `count` rows, in order and at random so that no pattern shows."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, limit, replace=False))


def _heat(heat: HeatMap, kept: np.ndarray, is_live: bool) -> dict:
    """Convert values to bytes on their scale, unless the page can compute them."""
    values = np.nan_to_num(heat.of_points(kept).astype(np.float64))
    low, high = heat.scale or ((float(v) for v in np.percentile(values, (1, 99.5))) if len(values) else (0.0, 1.0))
    high = max(high, low + 1e-6)
    about = {"name": heat.name, "low": low, "high": high}
    if is_live and heat.texts:
        return {**about, "texts": [text for text, _ in heat.texts], "bases": [base for _, base in heat.texts]}
    return {**about, "values": pack(np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8))}
