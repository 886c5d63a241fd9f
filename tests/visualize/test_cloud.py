"""PLY files and class colours."""

from pathlib import Path

import numpy as np
import pytest

from xmask3d.geometry.ply import read_elements
from xmask3d.segment.vocabulary import class_list
from xmask3d.visualize.cloud import (
    KNOWN,
    PALETTE,
    UNLABELLED,
    class_palette,
    colors_to_bytes,
    label_palette,
    write_ply,
)
from xmask3d.visualize.pictures import save_picture

# Linear RGB as seen without red, and without green, cones (Machado et al., 2009, severity 1).
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip


def to_lab(colors: np.ndarray, sight: np.ndarray) -> np.ndarray:
    """n x 3 uint8 to CIELAB, as somebody sees them."""
    values = colors / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = (linear @ sight.T).clip(0, 1) @ TO_XYZ.T / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart(sight: str) -> None:
    lab = to_lab(label_palette(len(PALETTE)), SIGHTS[sight])  # with that of unlabelled points
    distance = np.linalg.norm(lab[:, None] - lab, axis=2) + 1000 * np.eye(len(lab))
    assert distance.min() >= 20


def test_palette_has_one_colour_a_number() -> None:
    for count in (0, 2, 19, 200):
        palette = label_palette(count)
        assert palette.shape == (count + 1, 3) and palette.dtype == np.uint8
        assert tuple(palette[-1]) == UNLABELLED
        assert len({tuple(color) for color in palette}) == min(count, len(PALETTE)) + 1


def test_well_known_classes_keep_their_colours() -> None:
    alone, among = class_palette(["Sofa"]), class_palette(["zebra", "couch", "chair", "floor"])
    assert tuple(alone[0]) == tuple(among[1]) == PALETTE[KNOWN["sofa"]] and tuple(among[3]) == PALETTE[KNOWN["floor"]]
    names = [*class_list("scannet20"), "sofa", "zebra"]  # a colour is given to one class only
    palette = class_palette(names[:20])
    assert len({tuple(color) for color in palette}) == 21
    assert class_palette(["x"] * 200).shape == (201, 3)


def test_spellings_of_a_known_name_share_its_colour() -> None:
    spellings = ["shower curtain", "Shower_curtain", "shower-curtain", " shower  Curtain "]
    assert len({tuple(class_palette([name])[0]) for name in spellings}) == 1


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


def test_clouds_and_pictures_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object, **_: object) -> None:
        next(argument for argument in arguments if isinstance(argument, Path)).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("xmask3d.visualize.cloud.write_elements", stopped)
    monkeypatch.setattr("PIL.Image.Image.save", stopped)
    for name in ("a.ply", "a.png"):
        (tmp_path / name).write_bytes(b"of before")
    with pytest.raises(KeyboardInterrupt):
        write_ply(tmp_path / "a.ply", np.zeros((5, 3)), np.zeros((5, 3), np.uint8))
    with pytest.raises(KeyboardInterrupt):
        save_picture(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png")
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"of before"] * 2


def test_map_coordinates_keep_their_millimetres(tmp_path: Path) -> None:
    points = np.random.default_rng(1).random((50, 3)) * 5 + [455_123.25, 5_712_456.75, 80]
    write_ply(tmp_path / "map.ply", points, np.zeros((50, 3), np.uint8))
    vertex = read_elements(tmp_path / "map.ply")["vertex"]
    assert np.array_equal(np.stack([vertex[a] for a in "xyz"], 1), points)
