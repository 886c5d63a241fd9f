"""Picture of a labelled scan: colours and labels from several sides, with a legend."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.visualize.cloud import class_palette
from xmask3d.visualize.page import HeatMap
from xmask3d.visualize.pictures import render_cloud, save_picture, side_by_side

SIDES = (("from above", 89.0, 0.0), ("from one side", 52.0, 30.0), ("from the other", 52.0, 210.0))
MAX_POINTS = 300_000
HEAT = np.array(
    [[48, 18, 59], [70, 107, 227], [40, 187, 236], [49, 242, 153], [162, 252, 60], [237, 208, 58], [251, 128, 34],
     [210, 49, 5]]
)  # fmt: skip
BAR_STEPS = 6  # values beside the colour bar of a heat map
HEAT_RANGE = (1, 99.5)  # percentiles of the values at the two ends of the colours, if no scale is given
HEAT_STEPS = 1024  # shades; more than one byte per colour can distinguish


def heat_colors(values: np.ndarray, scale: tuple[float, float] | None = None) -> np.ndarray:
    """Map n values to n x 3 uint8, dark blue to red.

    Args:
        values: n.
        scale: values at the two ends; by default the 1st and 99.5th percentile of the values.
    """
    values = np.nan_to_num(np.asarray(values, np.float32))
    low, high = scale or (np.percentile(values, HEAT_RANGE) if len(values) else (0.0, 1.0))
    place = np.clip((values - np.float32(low)) / np.float32(max(high - low, 1e-9)), 0, 1)
    return _heat_table()[np.rint(place * (HEAT_STEPS - 1)).astype(np.int16)]


def _color_bar(heat: HeatMap) -> tuple[list[str], np.ndarray]:
    """Return the legend of heat maps with a shared scale: values and their colours; nothing without such a scale."""
    steps = np.linspace(*heat.scale, BAR_STEPS) if heat.scale else np.zeros(0)
    return [f"{value:.2f}" for value in steps], heat_colors(steps, heat.scale)


def _heat_table() -> np.ndarray:
    places = np.linspace(0, len(HEAT) - 1, HEAT_STEPS)
    table = np.stack([np.interp(places, np.arange(len(HEAT)), channel) for channel in HEAT.T], 1)
    return np.rint(table).astype(np.uint8)


def label_colors(labels: np.ndarray, palette: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colour points by class, n x 3 uint8, shaded by the scan's brightness so that shapes stay visible.

    Unlabelled points are grey.

    Args:
        labels: n class ids, -1 unlabelled. palette: (K + 1) x 3 uint8. colors: n x 3 uint8.
    """
    brightness = colors.astype(np.float32).mean(1, keepdims=True)
    shade = 0.55 + 0.45 * brightness / np.float32(max(np.percentile(brightness, 95), 1) if len(colors) else 1)
    shown = np.minimum(palette[labels] * shade.clip(0.55, 1.05), 255)
    rest = labels < 0
    shown[rest] = 35 + 0.45 * brightness[rest]
    return shown.astype(np.uint8)


def write_overview(
    path: Path,
    points: np.ndarray,
    colors: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    heats: Sequence[HeatMap] = (),
    size: tuple[int, int] = (360, 480),
) -> None:
    """Draw colours, labels and up to three heat maps from three sides.

    Args:
        points: n x 3 metres, z up; points above 85 % of the height are left out, since ceilings would hide the rest.
        colors: n x 3 uint8. labels: n class ids, -1 unlabelled. names: K class names.
        heats: heat maps of the n points.
        size: height and width of each panel.
    """
    some = np.arange(len(points))
    if len(points) > MAX_POINTS:
        some = np.sort(np.random.default_rng(0).choice(len(points), MAX_POINTS, replace=False))
    if len(some):
        low, high = np.percentile(points[some, 2], (0.5, 99.5))
        some = some[points[some, 2] <= low + 0.85 * (high - low) + 1e-6] if high - low > 1.5 else some
    palette = class_palette(names)
    present = [i for i in np.unique(labels) if 0 <= i < len(names)]
    legend = [names[i] for i in present]
    rows: list[tuple[str, np.ndarray, list[str], np.ndarray]] = [("colours", colors[some], [], palette[:0])]
    rows.append(("labels", label_colors(labels[some], palette, colors[some]), legend, palette[present]))
    rows += [
        (f"heat map: {heat.name}", heat_colors(heat.of_points(), heat.scale)[some], *_color_bar(heat))
        for heat in heats[:3]
    ]
    pictures = []
    for title, tinted, words, shades in rows:
        panels = [(f"{title}, {side}", render_cloud(points[some], tinted, size, up, turn)) for side, up, turn in SIDES]
        pictures.append(side_by_side(panels, words, shades))
    width = max(picture.shape[1] for picture in pictures)
    canvas = Image.new("RGB", (width, sum(picture.shape[0] for picture in pictures)), (255, 255, 255))
    top = 0
    for picture in pictures:
        canvas.paste(Image.fromarray(picture), (0, top))
        top += picture.shape[0]
    save_picture(np.asarray(canvas), path)
