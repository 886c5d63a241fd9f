"""Distortion of lenses is undone: a straight picture comes back from one bent by the formulas of OpenCV."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import fsolve

from tests.scan.test_exports import COUNT, K, nerfstudio
from xmask3d.scan.distortion import Lens, lens_of_colmap, undistorted
from xmask3d.scan.layouts import find_recording

MATRIX = np.array([[K.fx, 0, K.cx], [0, K.fy, K.cy], [0, 0, 1]])
LENSES = [Lens((-0.2, 0.05)), Lens((0.1, 0.02, -0.01), (0.004, -0.006)), Lens((0.05, -0.02, 0.01, 0.0), fisheye=True)]


@pytest.mark.parametrize("lens", LENSES)
def test_a_pixel_shows_what_the_lens_moved(lens: Lens) -> None:
    """A picture whose values are the direction x of each pixel becomes one of even steps."""
    bent = np.zeros((240, 320), np.float32)
    for row, column in np.ndindex(240, 320):
        if row % 24 == 0 and column % 32 == 0:
            goal = (column - K.cx) / K.fx, (row - K.cy) / K.fy
            x, y = fsolve(lambda at, goal=goal: np.subtract(lens.bend(*at), goal), goal)
            bent[row, column] = 1000 + 1000 * x + y
    straight = undistorted(lambda index: bent, [lens], [MATRIX])(0)
    found = np.argwhere(straight > 0)
    assert len(found) > 30
    expected = 1000 + 1000 * (found[:, 1] - K.cx) / K.fx + (found[:, 0] - K.cy) / K.fy
    np.testing.assert_allclose(straight[tuple(found.T)], expected, atol=1000 * 1.2 / K.fx)


def test_a_pinhole_is_left_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    load = undistorted(lambda index: picture, [None, Lens((1e-9,))], [MATRIX, MATRIX])
    np.testing.assert_array_equal(load(0), picture)
    np.testing.assert_array_equal(load(1), picture)


def test_models_of_colmap() -> None:
    assert lens_of_colmap("OPENCV", [0.1, 0.2, 0.3, 0.4]) == Lens((0.1, 0.2), (0.3, 0.4))
    assert lens_of_colmap("SIMPLE_RADIAL", [0.0]) is None
    with pytest.raises(KeyError):
        lens_of_colmap("FOV", [0.9])


def test_nerfstudio_states_its_lens(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    pinhole = find_recording(tmp_path).load_depth(0)
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"k1": 0.12}))
    recording = find_recording(tmp_path)
    assert len(recording) == COUNT and any("distortion is undone" in note for note in recording.notes)
    bent = recording.load_depth(0)
    np.testing.assert_array_equal(bent, undistorted(lambda _: pinhole, [Lens((0.12, 0, 0))], [MATRIX])(0))
    assert (bent != pinhole).mean() > 0.1 and bent[0, 0] == 0
    color = np.asarray(Image.open(tmp_path / "images/frame_00000.jpg"))
    assert (recording.load_color(0)[0, 0] == 0).all() and (recording.load_color(0)[120, 160] == color[120, 160]).all()
