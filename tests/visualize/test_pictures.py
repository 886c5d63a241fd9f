"""Pictures: what is in front is seen, and files are whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmask3d.visualize.cloud import label_palette
from xmask3d.visualize.pictures import (
    compare_labels,
    draw_points,
    overlay_masks,
    render_cloud,
    save_bar_chart,
    save_picture,
    side_by_side,
)

RED, BLUE = np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8)


def sheet(z: float) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 40))
    return np.stack([x, y, np.full_like(x, z)], -1).reshape(-1, 3)


@pytest.mark.parametrize("lower_first", [True, False])
def test_from_above_the_upper_sheet_hides_the_lower(lower_first: bool) -> None:
    sheets = [(sheet(0.0), RED), (sheet(1.0), BLUE)]
    if not lower_first:
        sheets.reverse()
    points = np.concatenate([points for points, _ in sheets])
    colors = np.concatenate([np.tile(color, (len(points), 1)) for points, color in sheets])
    picture = render_cloud(points, colors, (60, 60), elevation=90, azimuth=0)
    assert (picture == BLUE).all(-1).sum() > 2500
    assert not (picture == RED).all(-1).any()


def test_up_is_up_and_right_is_right() -> None:
    points = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0]], float)
    colors = np.array([[1, 1, 1], RED, BLUE], np.uint8)
    picture = render_cloud(points, colors, (100, 100), elevation=0, azimuth=0)
    red, blue = np.argwhere((picture == RED).all(-1)), np.argwhere((picture == BLUE).all(-1))
    assert red[:, 0].mean() < 20 and blue[:, 0].mean() > 80
    assert red[:, 1].mean() < 20 and blue[:, 1].mean() > 80


def test_empty_and_single_clouds() -> None:
    assert (render_cloud(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), (20, 30)) == 255).all()
    assert (render_cloud(np.zeros((1, 3)), RED[None], (20, 30)) == RED).all(-1).any()


def test_masks_and_points_over_an_image() -> None:
    image = np.full((4, 6, 3), 100, np.uint8)
    owner = np.full((4, 6), -1)
    owner[1, 2] = 1
    tinted = overlay_masks(image, owner, np.stack([RED, BLUE]), opacity=0.5)
    assert tinted[1, 2].tolist() == [50, 50, 178] and tinted[0, 0].tolist() == [100, 100, 100]
    drawn = draw_points(image, np.array([[3, 5]]), RED[None])
    assert drawn[3, 5].tolist() == [255, 0, 0] and drawn[0, 0].tolist() == [33, 33, 33]
    assert (image == 100).all()


def test_panels_and_files(tmp_path: Path) -> None:
    palette = label_palette(3)
    row = side_by_side([("a", np.zeros((50, 80, 3), np.uint8)), ("b", np.ones((50, 80, 3), np.uint8))])
    assert row.shape[1] > 160 and row.shape[0] > 50
    points = sheet(0.0)
    truth, prediction = np.zeros(len(points), np.int64), np.full(len(points), 2)
    truth[:10] = 3  # ignored
    picture = compare_labels(points, np.zeros((len(points), 3), np.uint8), truth, prediction, ["x", "y", "z"], palette)
    for color in (palette[0], palette[2], palette[3]):
        assert (picture == color).all(-1).any()
    assert not (picture == palette[1]).all(-1).any()  # a class that does not occur is not in the legend
    save_picture(picture, tmp_path / "p" / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p" / "a.png")), picture)
    save_bar_chart(tmp_path / "bars.png", ["x", "y", "z"], [0.1, 0.5, 1.0], np.array([False, True, False]), "IoU")
    assert Image.open(tmp_path / "bars.png").size[0] > 400
