"""PLY files and class colours."""

from pathlib import Path

import numpy as np

from xmask3d.geometry.ply import read_elements
from xmask3d.visualize.cloud import UNLABELLED, colors_to_bytes, label_palette, write_ply


def test_palette_tells_classes_apart() -> None:
    for count in (2, 19, 200):
        palette = label_palette(count)
        assert palette.shape == (count + 1, 3) and palette.dtype == np.uint8
        assert tuple(palette[-1]) == UNLABELLED
        assert len({tuple(color) for color in palette}) == count + 1
        neighbours = np.abs(palette[1:-1].astype(int) - palette[:-2].astype(int)).sum(1)
        assert neighbours.min() > 60


def test_colours_to_bytes() -> None:
    assert colors_to_bytes(np.array([[-1.0, 0.0, 1.0], [-2.0, 2.0, 0.5]])).tolist() == [[0, 128, 255], [0, 255, 191]]


def test_ply_reads_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    points = generator.random((5, 3)).astype(np.float32)
    colors = generator.integers(0, 256, (5, 3)).astype(np.uint8)
    path = tmp_path / "made" / "cloud.ply"
    write_ply(path, points, colors, np.arange(5) - 1, np.linspace(0, 1, 5))
    vertex = read_elements(path)["vertex"]
    assert np.array_equal(np.stack([vertex[a] for a in "xyz"], 1), points)
    assert np.array_equal(np.stack([vertex[a] for a in ("red", "green", "blue")], 1), colors)
    assert vertex["label"].tolist() == [-1, 0, 1, 2, 3]
    assert np.allclose(vertex["confidence"], [0, 0.25, 0.5, 0.75, 1])
    assert vertex["x"].dtype == np.float32
    write_ply(tmp_path / "plain.ply", points, colors)
    assert "label" not in read_elements(tmp_path / "plain.ply")["vertex"].dtype.names


def test_map_coordinates_keep_their_millimetres(tmp_path: Path) -> None:
    points = np.random.default_rng(1).random((50, 3)) * 5 + [455_123.25, 5_712_456.75, 80]
    write_ply(tmp_path / "map.ply", points, np.zeros((50, 3), np.uint8))
    vertex = read_elements(tmp_path / "map.ply")["vertex"]
    assert np.array_equal(np.stack([vertex[a] for a in "xyz"], 1), points)
