"""Pictures of clouds, masks and tables, with numpy and pillow; the bar chart with matplotlib."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import cKDTree

from xmask3d.files import atomic_write

BACKGROUND = 255


def render_cloud(
    points: np.ndarray,
    colors: np.ndarray,
    size: tuple[int, int] = (480, 640),
    elevation: float = 62.0,
    azimuth: float = 30.0,
) -> np.ndarray:
    """Draw a cloud obliquely from above: parallel projection and square splats, of which the nearest is visible.

    Args:
        points: n x 3 metres, z up.
        colors: n x 3 uint8.
        size: height and width in pixels.
        elevation: degrees above the horizon; 90 is a bird's-eye view.
        azimuth: rotation of the cloud about z in degrees.

    Returns:
        height x width x 3 uint8, white where there are no points.
    """
    height, width = size
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    if len(points) == 0:
        return picture
    across, up, depth = _view_axes(np.asarray(points, np.float64), elevation, azimuth)
    extent = max(np.ptp(across) / (0.94 * width), np.ptp(up) / (0.94 * height), 1e-9)
    column = (across - (across.max() + across.min()) / 2) / extent + width / 2
    row = height / 2 - (up - (up.max() + up.min()) / 2) / extent
    radius = _splat_radius(points, extent)
    offsets = np.arange(-radius, radius + 1)
    rows = (np.floor(row).astype(np.int64)[:, None, None] + offsets[:, None]).clip(0, height - 1)
    columns = (np.floor(column).astype(np.int64)[:, None, None] + offsets).clip(0, width - 1)
    pixel = (rows * width + columns).reshape(len(points), -1)
    nearest_last = np.argsort(depth, kind="stable")
    front = np.full(height * width, -1)
    # where pixels repeat, the last one is written, which is the nearest
    front[pixel[nearest_last]] = nearest_last[:, None]
    flat = picture.reshape(-1, 3)
    flat[front >= 0] = colors[front[front >= 0]]
    return picture


def overlay_masks(image: np.ndarray, owner: np.ndarray, colors: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """Tint the pixels of each mask.

    Args:
        image: h x w x 3 uint8.
        owner: h x w mask number of each pixel, -1 for none.
        colors: at least (largest number + 1) x 3 uint8.

    Returns:
        h x w x 3 uint8.
    """
    tinted = image.astype(np.float64)
    covered = owner >= 0
    tinted[covered] = (1 - opacity) * tinted[covered] + opacity * colors[owner[covered]]
    return np.rint(tinted).astype(np.uint8)


def draw_points(image: np.ndarray, pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Draw points, three pixels wide, over a darkened picture.

    Args:
        image: h x w x 3 uint8.
        pixels: n x 2 (row, column).
        colors: n x 3 uint8.
    """
    picture = image // 3
    height, width = image.shape[:2]
    for down, across in itertools.product((-1, 0, 1), repeat=2):
        picture[(pixels[:, 0] + down).clip(0, height - 1), (pixels[:, 1] + across).clip(0, width - 1)] = colors
    return picture


def side_by_side(
    panels: Sequence[tuple[str, np.ndarray]],
    names: Sequence[str] = (),
    colors: np.ndarray | None = None,
) -> np.ndarray:
    """Place titled pictures of equal size in a row, with a legend below.

    Args:
        panels: (title, h x w x 3 uint8) each.
        names, colors: entries of the legend; len(names) x 3 uint8.

    Returns:
        H x W x 3 uint8.
    """
    gap, title_height, line = 8, 24, 22
    height, width = panels[0][1].shape[:2]
    total = gap + len(panels) * (width + gap)
    columns = max(1, total // 170)
    legend_height = line * -(-len(names) // columns) + (gap if names else 0)
    canvas = Image.new("RGB", (total, title_height + height + gap + legend_height), (BACKGROUND,) * 3)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    for i, (title, panel) in enumerate(panels):
        left = gap + i * (width + gap)
        draw.text((left, 6), title, fill=(0, 0, 0), font=font)
        canvas.paste(Image.fromarray(panel), (left, title_height))
    for i, name in enumerate(names):
        assert colors is not None
        left, top = gap + i % columns * 170, title_height + height + gap + i // columns * line
        draw.rectangle((left, top, left + 14, top + 14), fill=tuple(int(c) for c in colors[i]))
        draw.text((left + 20, top), name, fill=(0, 0, 0), font=font)
    return np.asarray(canvas)


def compare_labels(
    points: np.ndarray,
    input_colors: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    names: Sequence[str],
    palette: np.ndarray,
) -> np.ndarray:
    """Draw input, truth and prediction of a scene side by side, with a legend of the classes that occur.

    Args:
        points: n x 3. input_colors: n x 3 uint8.
        truth, prediction: n class ids, K ignored or -1 unknown; truth may be None.
        names: K class names. palette: (K + 1) x 3 uint8.
    """
    panels = [("input", render_cloud(points, input_colors))]
    shown = [prediction]
    if truth is not None:
        panels.append(("truth", render_cloud(points, palette[truth])))
        shown.append(truth)
    panels.append(("prediction", render_cloud(points, palette[prediction])))
    present = [i for i in np.unique(np.concatenate(shown)) if 0 <= i < len(names)]
    return side_by_side(panels, [names[i] for i in present], palette[present])


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write h x w x 3 uint8 as PNG; the folder is created if missing."""
    atomic_write(path, Image.fromarray(picture).save, sync=False)


def save_bar_chart(
    path: Path, names: Sequence[str], values: Sequence[float], novel: np.ndarray, title: str, quantity: str = "IoU"
) -> None:
    """Draw one bar per class, novel ones in another colour.

    Args:
        path: PNG file to write.
        names, values: K each, values in [0, 1].
        novel: K bool.
        quantity: name of the values.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(max(6.0, 0.32 * len(names) + 2), 4.2), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(novel, kind="stable")  # base classes first
    places = np.arange(len(names))
    for is_novel, color, label in [(False, "#4878a8", "base"), (True, "#d9822b", "novel")]:
        chosen = novel[order] == is_novel
        if not chosen.any():
            continue
        axes.bar(places[chosen], np.asarray(values)[order][chosen] * 100, color=color, label=label)
    axes.set_xticks(places, [names[i] for i in order], rotation=60, ha="right", fontsize=7 if len(names) > 40 else 9)
    axes.set_ylabel(f"{quantity} in %")
    axes.set_ylim(0, 100)
    axes.margins(x=0.01)
    axes.set_title(title)
    axes.legend()
    atomic_write(path, lambda part: figure.savefig(part, dpi=120), sync=False)


def _view_axes(points: np.ndarray, elevation: float, azimuth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the coordinates of points to the right, upwards and towards the viewer."""
    tilt, turn = np.radians(elevation), np.radians(azimuth)
    x = np.cos(turn) * points[:, 0] - np.sin(turn) * points[:, 1]
    y = np.sin(turn) * points[:, 0] + np.cos(turn) * points[:, 1]
    z = points[:, 2]
    return x, np.sin(tilt) * y + np.cos(tilt) * z, np.sin(tilt) * z - np.cos(tilt) * y


def _splat_radius(points: np.ndarray, extent: float) -> int:
    """Return half the side of a splat, in pixels, at which neighbours touch; `extent` is metres per pixel."""
    if len(points) < 2:
        return 2
    some = points[:: max(1, len(points) // 500)]
    spacing = np.median(cKDTree(points).query(some, k=2)[0][:, 1])
    return int(np.clip(np.ceil(0.9 * spacing / extent), 1, 4))
