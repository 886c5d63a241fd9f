"""Splats as trainers, CloudCompare and SuperSplat write them: faint and floating ones do not count."""

from pathlib import Path

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.geometry.ply import write_elements
from xmask3d.scan.cloud_splat import HARMONIC, SPLAT
from xmask3d.scan.clouds import read_cloud

COUNT = 3000
LOGIT = np.float32(np.log(0.9 / 0.1))


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of a room 4 x 3 x 2.5 m, colours in 0..1, and opacity: 300 faint splats, and 20 floaters far away."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, (4, 3, 2.5), (COUNT, 3)).astype(np.float32)
    opacity = np.full(COUNT, 0.9, np.float32)
    opacity[:300] = 0.02
    points[:150] += 200
    points[300:320] -= 150
    return points, rng.uniform(0.1, 0.9, (COUNT, 3)).astype(np.float32), opacity


def gaussians(prefix: str) -> np.ndarray:
    points, colors, opacity = scene()
    names = [*"xyz", *(f"{prefix}f_dc_{i}" for i in range(3)), f"{prefix}opacity"]
    rows = np.zeros(COUNT, [(name, "<f4") for name in names])
    values = [*points.T, *((colors - 0.5) / HARMONIC).T, np.log(opacity / (1 - opacity))]
    for name, column in zip(names, values, strict=True):
        rows[name] = column
    return rows


def check(path: Path, tolerance: float = 1e-6) -> None:
    points, colors, _ = scene()
    cloud = read_cloud(path)
    np.testing.assert_allclose(cloud.points, points[320:], atol=tolerance)
    np.testing.assert_allclose(cloud.colors, colors[320:] * 255, atol=2)
    assert any(note == "2700 of 3000 splats are opaque enough to be a surface" for note in cloud.notes)
    assert any("20 splats that float far outside" in note for note in cloud.notes)
    assert any("2.5 units high as rooms are in metres, so kept" in note for note in cloud.notes)


@pytest.mark.parametrize("prefix", ["", "scalar_"])
def test_gaussians_of_trainers_and_cloudcompare(prefix: str, tmp_path: Path) -> None:
    write_elements(tmp_path / "a.ply", {"vertex": gaussians(prefix)})
    check(tmp_path / "a.ply")


def test_splat_files(tmp_path: Path) -> None:
    points, colors, opacity = scene()
    rows = np.zeros(COUNT, SPLAT)
    rows["xyz"], rows["rgba"][:, :3], rows["rgba"][:, 3] = points, np.rint(colors * 255), np.rint(opacity * 255)
    rows.tofile(tmp_path / "a.splat")
    check(tmp_path / "a.splat")
    (tmp_path / "a.splat").write_bytes(rows.tobytes()[:-5])
    with pytest.raises(UserError, match=r"a\.splat: damaged"):
        read_cloud(tmp_path / "a.splat")


@pytest.mark.parametrize("ranged", [True, False])
def test_compressed_splats(ranged: bool, tmp_path: Path) -> None:
    points, colors, opacity = scene()
    names = [f"{end}_{axis}" for end in ("min", "max") for axis in ("xyzrgb" if ranged else "xyz")]
    chunks = np.zeros(-(-COUNT // 256), [(name, "<f4") for name in names])
    rows = np.zeros(COUNT, [("packed_position", "<u4"), ("packed_color", "<u4")])
    for row in range(len(chunks)):
        part = slice(row * 256, (row + 1) * 256)
        for values, axes, bits, column in (
            (points[part], "xyz", (11, 10, 11), "packed_position"), (colors[part], "rgb", (8, 8, 8), "packed_color"),
        ):  # fmt: skip
            packed = np.zeros(len(values), np.uint32)
            for axis, name, width in zip(range(3), axes, bits, strict=True):
                low, high = (values[:, axis].min(), values[:, axis].max()) if name in "xyz" or ranged else (0, 1)
                if name in "xyz" or ranged:
                    chunks[f"min_{name}"][row], chunks[f"max_{name}"][row] = low, high
                level = np.rint((values[:, axis] - low) / (high - low) * (2**width - 1)).astype(np.uint32)
                packed = (packed << np.uint32(width)) | level
            rows[column][part] = packed
    rows["packed_color"] = (rows["packed_color"] << np.uint32(8)) | np.rint(opacity * 255).astype(np.uint32)
    write_elements(tmp_path / "a.compressed.ply", {"chunk": chunks, "vertex": rows})
    kept = read_cloud(tmp_path / "a.compressed.ply", 1.0)
    far = np.arange(COUNT) // 256 == 1  # its chunk reaches to the floaters, so positions are 15 cm coarse
    np.testing.assert_allclose(kept.points[~far[320:]], points[320:][~far[320:]], atol=0.005)
    check(tmp_path / "a.compressed.ply", 0.2)
    write_elements(tmp_path / "short.ply", {"chunk": chunks[:2], "vertex": rows})
    with pytest.raises(UserError, match=r"short\.ply: damaged.*2 chunks for 3000"):
        read_cloud(tmp_path / "short.ply")


def test_transparent_splats_are_kept_with_a_warning(tmp_path: Path) -> None:
    rows = gaussians("")
    rows["opacity"] = -8
    write_elements(tmp_path / "a.ply", {"vertex": rows})
    cloud = read_cloud(tmp_path / "a.ply")
    assert len(cloud.points) == COUNT and any("nearly transparent" in note for note in cloud.notes)


def test_splats_in_one_plane_and_colours_that_are_no_numbers(tmp_path: Path) -> None:
    rows = np.zeros(COUNT, SPLAT)
    rows["xyz"], rows["rgba"] = scene()[0] * [1, 1, 0], 255
    rows.tofile(tmp_path / "a.splat")
    assert any("all points lie in one plane" in note for note in read_cloud(tmp_path / "a.splat").notes)
    bad = gaussians("")
    bad["f_dc_0"][500:700] = np.nan
    write_elements(tmp_path / "a.ply", {"vertex": bad})
    assert (
        "warning: 200 of 2680 points have colours that are NaN or infinite, taken as black"
        in read_cloud(tmp_path / "a.ply").notes
    )
