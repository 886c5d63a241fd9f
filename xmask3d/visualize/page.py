"""HTML page of a scene that opens without a server: points, labels and heat maps in a small WebGL viewer."""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from xmask3d.geometry.nearest import point_spacing
from xmask3d.visualize.cloud import label_palette

MAX_POINTS = 400_000
MAX_BYTES = 24_000_000


@dataclass
class HeatMap:
    """Fit of points to a phrase.

    Attributes:
        name: the phrase.
        values: n; or m, of the places that points share.
        row: n, the place of each point; None where every point has a value of its own.
        scale: values at the two ends of the colours, the same for maps that are to be compared; by default the values'
            own 1st and 99.5th percentile.
    """

    name: str
    values: np.ndarray
    row: np.ndarray | None = None
    scale: tuple[float, float] | None = None

    def of_points(self) -> np.ndarray:
        """Return n values, one per point."""
        return self.values if self.row is None else self.values[self.row]


def write_page(
    path: Path,
    points: np.ndarray,
    colors: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    heats: Sequence[HeatMap] = (),
    *,
    confidence: np.ndarray | None = None,
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
        heats: one heat map of the n points a phrase.
        confidence: n in [0, 1].
        title, facts: shown on the page.
        origin: 3, added to positions that are shown in numbers, which are those of `points`.
        rotation: 3 x 3, turns points so that z is up.
        start: first display: "colors", "labels" or the name of a heat map.
        max_points: larger clouds are thinned evenly.

    Returns:
        How many points the page holds.
    """
    each = 3 * 2 + 3 + 2 + 1 + len(heats)
    kept = thin_rows(len(points), min(max_points, MAX_BYTES // each))
    shown = points[kept].astype(np.float64)
    shown = shown @ rotation.T if rotation is not None else shown
    low, high = (shown.min(0), shown.max(0)) if len(shown) else (np.zeros(3), np.ones(3))
    quantised = np.rint((shown - low) / np.maximum(high - low, 1e-9) * 65535).astype("<u2")
    sureness = np.ones(len(points)) if confidence is None else confidence
    modes = ["colors", "labels", *(heat.name for heat in heats)]
    content = {
        "title": title,
        "facts": facts,
        "count": len(kept),
        "points": _encode(quantised),
        "low": low.tolist(),
        "high": high.tolist(),
        "origin": (np.zeros(3) if origin is None else np.asarray(origin)).tolist(),
        "rotation": (np.eye(3) if rotation is None else np.asarray(rotation)).tolist(),
        "spacing": point_spacing(shown),
        "colors": _encode(colors[kept].astype(np.uint8)),
        "labels": _encode(labels[kept].astype("<i2")),
        "confidence": _encode(np.rint(np.clip(sureness[kept], 0, 1) * 255).astype(np.uint8)),
        "names": list(names),
        "palette": label_palette(len(names))[: len(names)].tolist(),
        "heats": [_heat(heat, kept) for heat in heats],
        "start": modes.index(start),
    }
    template = resources.files("xmask3d.visualize").joinpath("scene.html").read_text(encoding="utf-8")
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c")  # nothing in it can end the script
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template.replace("__TITLE__", html.escape(title)).replace("__DATA__", data), encoding="utf-8")
    return len(kept)


def thin_rows(count: int, limit: int) -> np.ndarray:
    """Choose at most `limit` of `count` rows, in order, spread at random so that no pattern shows."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, limit, replace=False))


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _heat(heat: HeatMap, kept: np.ndarray) -> dict:
    """Convert values to bytes between the ends of their scale."""
    values = np.nan_to_num(heat.of_points().astype(np.float64))
    low, high = heat.scale or ((float(v) for v in np.percentile(values, (1, 99.5))) if len(values) else (0.0, 1.0))
    high = max(high, low + 1e-6)
    scaled = np.rint(np.clip((values[kept] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return {"name": heat.name, "low": low, "high": high, "values": _encode(scaled)}
