from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmask3d.errors import UserError
from xmask3d.scan.formats import read_color, read_depth
from xmask3d.scan.frame_files import _raw_type, _size


def test_the_size_of_most_frames_wins(tmp_path: Path) -> None:
    """The first five are odd ones, among a hundred."""
    paths = []
    for index in range(100):
        paths.append(tmp_path / f"{index}.png")
        Image.new("RGB", (16, 12) if index < 5 else (32, 24)).save(paths[-1])
    assert _size(paths, read_color) == (24, 32)


def test_damaged_arrays_are_passed_over(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.npy" for index in range(3)]
    paths[0].touch()
    np.save(paths[1], np.ones((4, 5), np.uint16))
    np.save(paths[2], np.ones((4, 5), np.uint16))
    assert _raw_type(paths) == np.uint16
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    assert _raw_type(paths) == np.uint16
    assert _size(paths, read_depth) == (4, 5)
    with pytest.raises(UserError, match=r"0\.npy"):
        read_depth(paths[0])


@pytest.mark.parametrize("channels", ["R", "Z", "Y", "RGB"])
def test_depth_in_exr_files(channels: str, tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    depth, path = np.linspace(0.5, 4, 12 * 16, dtype=np.float32).reshape(12, 16), tmp_path / "0.exr"
    depth[0, 0] = np.nan
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, {name: depth for name in channels}).write(str(path))
    np.testing.assert_array_equal(read_depth(path), np.nan_to_num(depth))
    for size in (path.stat().st_size // 2, 20, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UserError, match="depth map"):
            read_depth(path)
