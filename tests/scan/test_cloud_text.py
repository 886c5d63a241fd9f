"""Clouds as lines of numbers: titles, separators, and what the columns are."""

from pathlib import Path

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.scan.clouds import read_cloud

POINTS = np.random.default_rng(0).uniform(0, 3, (200, 3)).astype(np.float32)
COLORS = np.random.default_rng(1).integers(0, 256, (200, 3)).astype(np.uint8)
ROWS = np.concatenate([POINTS, COLORS], 1)


def lines(rows: np.ndarray, parting: str = " ", point: str = ".") -> str:
    return "".join(parting.join(f"{value:.6f}".replace(".", point) for value in row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spaces.asc", lines(ROWS)),
        ("tabs.txt", lines(ROWS, "\t")),
        ("commas.csv", lines(ROWS, ",")),
        ("commas and spaces.txt", lines(ROWS, ", ")),
        ("semicolons.txt", lines(ROWS, ";")),
        ("decimal comma.txt", lines(ROWS, " ", ",")),
        ("decimal comma and semicolons.csv", "x;y;z;r;g;b\n" + lines(ROWS, ";", ",")),
        ("title.xyz", "X Y Z R G B\n" + lines(ROWS)),
        ("units in titles.txt", "X [m] Y [m] Z [m] R G B\n" + lines(ROWS)),
        ("quoted.csv", '"X","Y","Z","Red","Green","Blue"\n' + lines(ROWS, ",")),
        ("title and count.txt", "//X Y Z R G B\n200\n" + lines(ROWS)),
        ("comments.txt", "# a scan\n" + lines(ROWS[:1]).strip() + " # first\n# on\n" + lines(ROWS[1:])),
        ("colours first.csv", "\ufeffr,g,b,time,x,y,z\n" + lines(np.c_[COLORS, np.arange(200), POINTS], ",")),
        ("several scans.pts", f"120\n{lines(ROWS[:120])}80\n{lines(ROWS[120:])}"),
    ],
)
def test_separators_titles_and_counts(tmp_path: Path, name: str, content: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / name).write_text(content, encoding=encoding)
        cloud = read_cloud(tmp_path / name)
        np.testing.assert_allclose(cloud.points, POINTS, atol=1e-6)
        np.testing.assert_array_equal(cloud.colors, COLORS)


@pytest.mark.parametrize(
    "order", ["r g b label", "r g b nx ny nz", "nx ny nz r g b", "r g b label instance", "intensity r g b label",
              "r g b nx ny nz label", "intensity r g b nx ny nz"]
)  # fmt: skip
@pytest.mark.parametrize("scale", [1, 255])
def test_columns_without_titles(tmp_path: Path, order: str, scale: int) -> None:
    generator = np.random.default_rng(2)
    normals = generator.normal(size=(200, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    columns = dict(zip(["r", "g", "b"], COLORS.T / scale, strict=True))
    columns |= dict(zip(["nx", "ny", "nz"], normals.T, strict=True))
    columns |= {"label": generator.integers(-1, 5, 200), "instance": generator.integers(0, 30, 200)}
    columns["intensity"] = generator.uniform(-2048, 2047, 200)
    rows = np.concatenate([POINTS, np.stack([columns[name] for name in order.split()], 1)], 1)
    np.savetxt(tmp_path / "a.txt", rows, fmt="%.6f")
    cloud = read_cloud(tmp_path / "a.txt")
    np.testing.assert_array_equal(cloud.colors, COLORS)
    said = order.replace("instance", "label")
    assert f"{rows.shape[1]} numbers a line: read as x y z {said}" in cloud.notes


@pytest.mark.parametrize(
    "content",
    ["a,b\nc,d\n", "x y z\n", "1 2 3\n1 2\n", "1 2 3\n1 2 wall\n", "\0\0\n\0"]
    + [pytest.param(start + "1 " * 40_000, id="endless") for start in ("", "1 2 3\n" * 60)],
)
def test_other_text_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=r"a\.csv: ") as caught:
        read_cloud(tmp_path / "a.csv")
    assert "\n" not in str(caught.value)


def test_directions_are_no_colours(tmp_path: Path) -> None:
    normals = np.random.default_rng(2).normal(size=(200, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for values in (normals, np.abs(normals)):  # of a closed surface, and where all happen to look one way
        np.savetxt(tmp_path / "a.xyz", np.concatenate([POINTS, values], 1), fmt="%.4f")
        cloud = read_cloud(tmp_path / "a.xyz")
        assert cloud.colors is None and any("no colours (normals?)" in note for note in cloud.notes)
    red = np.tile([[1.0, 0, 0], [0, 1, 0]], (100, 1))  # floats that are colours though each is of length 1
    np.savetxt(tmp_path / "a.xyz", np.concatenate([POINTS, red], 1))
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.xyz").colors, red * 255)


@pytest.mark.parametrize(("words", "opaque"), [("r g b alpha", 255), ("r g b alpha", 1), ("intensity r g b", None)])
def test_seven_numbers_a_line(tmp_path: Path, words: str, opaque: int | None) -> None:
    one = np.full((200, 1), -3 if opaque is None else opaque)
    np.savetxt(
        tmp_path / "a.xyz", np.concatenate([POINTS, one, COLORS] if opaque is None else [POINTS, COLORS, one], 1)
    )
    cloud = read_cloud(tmp_path / "a.xyz")
    np.testing.assert_array_equal(cloud.colors, COLORS)
    assert f"7 numbers a line: read as x y z {words}" in cloud.notes


def test_a_first_column_that_counts_the_lines_is_no_coordinate(tmp_path: Path) -> None:
    numbered = np.c_[np.arange(7, 207), ROWS]
    (tmp_path / "a.txt").write_text(lines(numbered))
    cloud = read_cloud(tmp_path / "a.txt")
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-6)
    np.testing.assert_array_equal(cloud.colors, COLORS)
    assert "the first number of each line counts the lines and is not used" in cloud.notes
    np.savetxt(tmp_path / "b.txt", np.c_[np.arange(200), POINTS[:, 1:]])  # three columns are x y z
    np.testing.assert_array_equal(read_cloud(tmp_path / "b.txt", 1.0).points[:, 0], np.arange(200))


def test_fewer_points_than_announced_are_warned_of(tmp_path: Path) -> None:
    for count, warned in ((200, False), (1000, True)):
        (tmp_path / "a.pts").write_text(f"{count}\n" + lines(ROWS))
        notes = read_cloud(tmp_path / "a.pts").notes
        assert ("warning: 1,000 points are announced, and 200 are there; cut off?" in notes) == warned


def test_degrees_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("lat,lon,alt\n" + lines(POINTS, ","))
    with pytest.raises(UserError, match=r"a\.csv: latitude and longitude are no metres; project them"):
        read_cloud(tmp_path / "a.csv")


def test_colours_that_come_first_are_seen_or_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    low = POINTS - [1, 0, 0]
    for points in (low, POINTS, np.rint(low * 1000)):  # metres about zero, in one quadrant, and whole millimetres
        np.savetxt(path, np.c_[COLORS, points, np.arange(200) % 7 / 9][:, : 6 + (points is low)], fmt="%.6f")
        cloud = read_cloud(path)
        np.testing.assert_allclose(np.ptp(cloud.points, axis=0), np.ptp(POINTS, axis=0), atol=1e-3)
        np.testing.assert_array_equal(cloud.colors, COLORS)
        assert any("the first three whole and in 0..255: read as r g b x y z" in note for note in cloud.notes)
    # Voxels with colours, whole or shares, and colours as shares before points: only titles can tell.
    for rows in (
        np.c_[np.rint(POINTS * 80), COLORS],
        np.c_[np.rint(POINTS * 80), COLORS / 255],
        np.c_[COLORS / 255, low],
    ):
        np.savetxt(path, rows, fmt="%.6f")
        assert any("the first three numbers of each line could be colours" in note for note in read_cloud(path).notes)
    path.write_text("r g b x y z\n" + path.read_text())
    np.testing.assert_array_equal(read_cloud(path).colors, COLORS)


@pytest.mark.parametrize(
    "content",
    ["1,5,2,3,0,7\n", "1,52,2,31,0,07,255,8,0\n2,5,3,08,1,5,9,80,31\n", "x,y,z\n12,5,2,33,0,7\n3,5,2,1,0,7\n"],
)
def test_commas_that_are_both_separators_and_decimal_marks_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=r"a\.csv: commas part its numbers and seem to be decimal marks too"):
        read_cloud(tmp_path / "a.csv")


def test_whole_numbers_parted_by_commas_are_read(tmp_path: Path) -> None:
    rows = np.c_[np.rint(POINTS * 1000), COLORS].astype(int)
    for titles in ("", "x,y,z,r,g,b\n"):
        (tmp_path / "a.csv").write_text(titles + "".join(",".join(map(str, row)) + "\n" for row in rows))
        np.testing.assert_array_equal(read_cloud(tmp_path / "a.csv").colors, COLORS)


@pytest.mark.parametrize(("most", "warned"), [(1, False), (255, False), (65535, False), (100, False), (4095, True)])
def test_ranges_of_colours(tmp_path: Path, most: int, warned: bool) -> None:
    shares = np.concatenate([COLORS / 255, [[1.0, 1, 1]] * 3])
    values = shares * most if most <= 100 else np.rint(shares * most)
    np.savetxt(tmp_path / "a.xyz", np.c_[np.concatenate([POINTS, POINTS[:3]]), values], fmt="%.6f")
    cloud = read_cloud(tmp_path / "a.xyz")
    assert any("no colour is above" in note for note in cloud.notes) == warned
    if not warned:
        np.testing.assert_allclose(cloud.colors[:200], COLORS, atol=1)
    np.savetxt(tmp_path / "a.xyz", np.c_[POINTS, np.rint(COLORS / 2.56)], fmt="%.6f")  # whole: may be a dark room
    assert any("no colour is above 100 of 255" in note for note in read_cloud(tmp_path / "a.xyz").notes)
