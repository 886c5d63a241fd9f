"""Make the animation of the README: words typed one after the other light up a scene, then several label all of it."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xmask3d.errors import UserError, run_tool
from xmask3d.segment.folder import features_file
from xmask3d.segment.query import query_features, text_encoder
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.visualize.cloud import class_palette
from xmask3d.visualize.overview import heat_colors, label_colors
from xmask3d.visualize.pictures import render_cloud

SIZE = (380, 720)
ABOVE = 76  # height of the strip that holds the box of words
FINER = 2  # pixels are drawn this much finer, and averaged
NOTHING = 0xFFFFFF  # number of the background's point
BACK, BOX, INK, FAINT = (21, 24, 29), (40, 46, 54), (232, 234, 237), (154, 164, 178)
TYPING, FADING, STAYING = 90, 70, 1600  # milliseconds of a frame
STEPS = 5  # frames of a fade
BELOW = 0.8  # share of the height that is drawn; ceilings would hide the rest


class Stage:
    """Scene seen from one side: which point each pixel shows, and the frames drawn so far.

    Args:
        points: n x 3 metres, z up.
        elevation, azimuth: angles of the view, see `render_cloud`.
    """

    def __init__(self, points: np.ndarray, elevation: float, azimuth: float) -> None:
        low, high = np.percentile(points[:, 2], (0.5, 99.5))
        drawn = np.flatnonzero(points[:, 2] <= low + BELOW * (high - low))
        # A point's number, written as a colour, shows which points the renderer draws.
        numbers = np.stack([drawn >> 16, (drawn >> 8) & 255, drawn & 255], 1).astype(np.uint8)
        picture = render_cloud(points[drawn], numbers, (SIZE[0] * FINER, SIZE[1] * FINER), elevation, azimuth)
        self.owner = picture.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def add(self, colors: np.ndarray, words: str, duration: int, found: str = "") -> None:
        """Draw a frame.

        Args:
            colors: n x 3 in [0, 255].
            words: content of the box.
            duration: milliseconds that it stays.
            found: a line below the box.
        """
        shown = np.where((self.owner == NOTHING)[..., None], BACK, colors[np.minimum(self.owner, len(colors) - 1)])
        height, width = SIZE
        averaged = shown.reshape(height, FINER, width, FINER, 3).mean((1, 3))
        frame = Image.new("RGB", (width, height + ABOVE), BACK)
        frame.paste(Image.fromarray(np.rint(averaged).astype(np.uint8)), (0, ABOVE))
        draw, font = ImageDraw.Draw(frame), ImageFont.load_default(17)
        draw.rounded_rectangle((16, 14, 16 + 400, 14 + 34), 7, fill=BOX)
        draw.text((28, 20), words + "|", fill=INK, font=font)
        draw.text((28, 54), found, fill=FAINT, font=ImageFont.load_default(14))
        self.frames.append(frame)
        self.durations.append(duration)

    def type_and_show(self, before: np.ndarray, after: np.ndarray, words: str, found: str) -> None:
        """Type words, then fade from the colours of before to those of after."""
        for length in range(1, len(words) + 1):
            self.add(before, words[:length], TYPING)
        for step in range(1, STEPS + 1):
            share = step / STEPS
            self.add((1 - share) * before + share * after, words, FADING)
        self.add(after, words, STAYING, found)

    def save(self, path: Path) -> None:
        """Write an animated WebP that repeats for ever."""
        self.frames[0].save(
            path, save_all=True, append_images=self.frames[1:], duration=self.durations, loop=0, quality=70, method=4
        )


def animate(features: PointFeatures, phrases: list[str], words: list[str], background: list[str], view: tuple) -> Stage:
    """Draw phrases as heat maps, then several words as labels.

    Args:
        features: features of the scene.
        phrases: queries that are shown one after the other.
        words: words that share the points in the end. background: words whose points stay grey.
        view: elevation and azimuth.
    """
    encode = text_encoder(features)
    stage = Stage(features.points @ features.numbers("rotation", 9).reshape(3, 3).T, *view)
    own = features.colors.astype(np.float32)
    stage.add(own, "", STAYING // 2)
    for phrase in phrases:
        result = query_features(features, phrase, encode)
        after = heat_colors(result.heat(0), result.scale)
        stage.type_and_show(own, after, phrase, "dark blue to red: how well each point fits")
    result = query_features(features, words, encode, background)
    after = label_colors(result.labels, class_palette(result.names), features.colors)
    stage.type_and_show(own, after, ", ".join(words), f"every point gets a word; grey: {', '.join(background)}")
    return stage


def main() -> int:
    """Parse arguments and write the animation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="folder that `xmask3d segment example` wrote, or another result")
    parser.add_argument("out", type=Path, nargs="?", default=Path("fig/query.webp"), help="default: %(default)s")
    parser.add_argument("--phrases", nargs="+", default=["sofa", "table", "bookshelf"], help="shown as heat maps")
    parser.add_argument("--words", nargs="+", default=["sofa", "table", "bookshelf", "picture", "door"])
    parser.add_argument("--background", nargs="+", default=["wall", "floor", "ceiling"])
    parser.add_argument("--view", nargs=2, type=float, default=(48, 210), metavar=("UP", "TURN"), help="degrees")
    arguments = parser.parse_args()
    file = features_file(arguments.result)
    if not file.is_file():
        raise UserError(f"{file}: no features; name the folder of a result, such as segmented/example")
    features = PointFeatures.load(file)
    stage = animate(features, arguments.phrases, arguments.words, arguments.background, tuple(arguments.view))
    stage.save(arguments.out)
    print(f"{arguments.out}: {len(stage.frames)} frames, {arguments.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    run_tool(main)
