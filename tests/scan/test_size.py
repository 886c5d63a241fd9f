"""Reconstructions without a scale get that of a room; feet, inches and --scale are followed."""

from pathlib import Path

import numpy as np
import pytest

from tests.scan.test_exports import colmap_binary
from tests.scan.test_gravity import furnished_room
from xmask3d.errors import UserError
from xmask3d.scan.options import ScanOptions
from xmask3d.scan.scan import open_scan
from xmask3d.scan.size import scale_by_height
from xmask3d.visualize.cloud import write_ply


@pytest.mark.parametrize("scale", [0.01, 0.3, 7.0, 900.0])
def test_the_height_gives_the_scale(scale: float) -> None:
    factor, words = scale_by_height(furnished_room(True) * scale)
    assert factor * scale == pytest.approx(2.6 / 2.4, rel=0.02)
    assert words.startswith("warning: ") and f"--scale {factor:g}" in words


def test_metres_are_kept() -> None:
    factor, words = scale_by_height(furnished_room(True))
    assert scale_by_height(np.zeros((0, 3)))[0] == scale_by_height(np.ones((9, 3)))[0] == 1
    assert factor == 1 and "2.4 units high as rooms are in metres, so kept" in words


def test_a_cloud_of_colmap_is_scaled_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "dense").mkdir()
    np.savetxt(tmp_path / "dense/fused.xyz", furnished_room(True) * 3)
    cloud = tmp_path / "dense/fused.ply"
    rows = furnished_room(True) * 3
    columns = "".join(f"property float {axis}\n" for axis in "xyz")
    lines = "\n".join(" ".join(map(str, row)) for row in rows)
    cloud.write_text(f"ply\nformat ascii 1.0\nelement vertex {len(rows)}\n{columns}end_header\n{lines}\n")
    scan = open_scan(cloud)
    assert np.ptp(scan.scene.points[:, 2]) == pytest.approx(2.6, rel=0.03)
    assert np.ptp(open_scan(cloud, ScanOptions(scale=0.25)).points[:, 2]) == pytest.approx(1.8, rel=0.01)
    assert np.ptp(open_scan(tmp_path / "dense/fused.xyz").points[:, 2]) == pytest.approx(7.2, rel=0.01)
    write_ply(tmp_path / "fused.ply", rows, np.zeros(rows.shape, np.uint8))  # of a result: in metres
    assert np.ptp(open_scan(tmp_path / "fused.ply").points[:, 2]) == pytest.approx(7.2, rel=0.01)


@pytest.mark.parametrize(("unit", "metres"), [("ft", 0.3048), ("in", 0.0254), ("mm", 0.001)])
def test_units(unit: str, metres: float, tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.xyz", furnished_room(True) / metres)
    assert np.ptp(open_scan(tmp_path / "a.xyz", ScanOptions(unit=unit)).points[:, 2]) == pytest.approx(2.4, rel=0.01)


def test_unit_and_scale_are_one_thing() -> None:
    with pytest.raises(UserError, match="--unit ft --scale 2"):
        ScanOptions(unit="ft", scale=2.0).check()
    with pytest.raises(UserError, match="--scale -1"):
        ScanOptions(scale=-1.0).check()


def test_a_recording_of_colmap_is_scaled(tmp_path: Path) -> None:
    """Its poses and depth maps together; what is seen of the room is 1.22 m high, which counts as metres."""
    colmap_binary(tmp_path)
    kept, doubled = open_scan(tmp_path), open_scan(tmp_path, ScanOptions(scale=2.0))
    assert any("so kept" in line for line in kept.lines)
    assert any("2 metres a unit, as given" in line for line in doubled.lines)
    sizes = [np.ptp(np.percentile(scan.points, (2, 98), axis=0), axis=0) for scan in (kept, doubled)]
    np.testing.assert_allclose(sizes[1], 2 * sizes[0], rtol=0.05)
    assert doubled.fingerprint != kept.fingerprint
    name = kept.scene.view_names[0]
    views = [scan.read_view(scan.name, name).depth for scan in (kept, doubled)]
    seen = (views[0] > 0) & (views[1] > 0)
    np.testing.assert_allclose(views[1][seen], 2 * views[0][seen], rtol=1e-5)
