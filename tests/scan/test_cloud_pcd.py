"""PCD of every kind of data and colour."""

import struct
from pathlib import Path

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.scan.cloud_pcd import lzf_decompress
from xmask3d.scan.clouds import read_cloud

POINTS = np.random.default_rng(0).uniform(0, 3, (200, 3)).astype(np.float32)
COLORS = np.random.default_rng(1).integers(0, 256, (200, 3)).astype(np.uint8)


def pcd_header(form: str, color: bool = True) -> bytes:
    extra = ("rgb", "4", "F", "1") if color else ()
    lines = ["# .PCD v0.7", "VERSION 0.7"]
    for key, values in (("FIELDS", "x y z"), ("SIZE", "4 4 4"), ("TYPE", "F F F"), ("COUNT", "1 1 1")):
        lines.append(" ".join([key, values, *extra[:1]]))
        extra = extra[1:]
    lines += [f"WIDTH {len(POINTS)}", "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0", f"POINTS {len(POINTS)}", f"DATA {form}"]
    return ("\n".join(lines) + "\n").encode()


def packed_colors() -> np.ndarray:
    """Colours as PCL packs them: bits of an integer under the name of a float."""
    red, green, blue = COLORS.astype(np.uint32).T
    return (red << 16 | green << 8 | blue).view(np.float32)


def lzf_literals(data: bytes) -> bytes:
    """LZF that only copies, and one back reference at its end to have one."""
    out = bytearray()
    for start in range(0, len(data), 32):
        part = data[start : start + 32]
        out += bytes([len(part) - 1]) + part
    return bytes(out)


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_pcd(tmp_path: Path, form: str) -> None:
    path = tmp_path / "wolke.pcd"
    table = np.concatenate([POINTS, packed_colors()[:, None]], 1)
    if form == "ascii":
        words = packed_colors().view(np.uint32)
        rows = [f"{x:.9g} {y:.9g} {z:.9g} {c}" for (x, y, z), c in zip(POINTS, words, strict=True)]
        body = "\n".join(rows).encode()
        header = pcd_header(form).replace(b"TYPE F F F F", b"TYPE F F F U")
    elif form == "binary":
        body, header = table.astype("<f4").tobytes(), pcd_header(form)
    else:
        flat = table.T.astype("<f4").tobytes()
        packed = lzf_literals(flat)
        body, header = struct.pack("<II", len(packed), len(flat)) + packed, pcd_header(form)
    path.write_bytes(header + body)
    cloud = read_cloud(path)
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-6)
    np.testing.assert_array_equal(cloud.colors, COLORS)
    path.write_bytes((header + body)[:-300])
    with pytest.raises(UserError, match=r"wolke\.pcd: damaged"):
        read_cloud(path)


def test_lzf_back_references() -> None:
    # "abc", then 6 bytes from 3 back (overlapping what is written), then "x".
    packed = bytes([2]) + b"abc" + bytes([(4 << 5), 2]) + bytes([0]) + b"x"
    assert lzf_decompress(packed, 10) == b"abcabcabcx"


@pytest.mark.parametrize(
    ("names", "kind", "factor"), [("r g b", "u1", 1), ("red green blue", "f8", 256), ("Red Green Blue", "f4", 1 / 255)]
)
def test_colours_as_three_fields(tmp_path: Path, names: str, kind: str, factor: float) -> None:
    table = np.zeros(200, [(axis, "<f4") for axis in "xyz"] + [(name, "<" + kind) for name in names.split()])
    for i, name in enumerate(table.dtype.names or ()):
        table[name] = POINTS[:, i] if i < 3 else COLORS[:, i - 3].astype(float) * factor
    header = pcd_header("binary", color=False).decode()
    for key, value in (("FIELDS", names), ("SIZE", f"{kind[1]} " * 3), ("TYPE", f"{kind[0].upper()} " * 3)):
        header = header.replace(key, f"{key} X", 1)
        line = next(line for line in header.splitlines() if line.startswith(key))
        header = header.replace(line, line.replace(" X", "") + " " + value)
    header = header.replace("COUNT 1 1 1", "COUNT 1 1 1 1 1 1")
    (tmp_path / "a.pcd").write_bytes(header.encode() + table.tobytes())
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.pcd").colors, COLORS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"COUNT 1 1 1 1", b"COUNT 1 1 2 1", "several numbers for x, y or z"),
        (b"FIELDS x y z rgb", b"FIELDS x y z x", "fields of one name"),
        (b"SIZE 4 4 4 4", b"SIZE 4 4 4 8", "200 points and 400 colours"),
    ],
)
def test_fields_of_odd_lengths_and_names(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    width = 8 if b"8" in new else 4
    rows = np.concatenate([POINTS, np.zeros((200, width // 4), np.float32)], 1)
    (tmp_path / "a.pcd").write_bytes(pcd_header("binary").replace(old, new) + rows.tobytes() + bytes(4 * 200))
    with pytest.raises(UserError, match=rf"a\.pcd: .*{message}"):
        read_cloud(tmp_path / "a.pcd")


def test_fewer_points_than_places_are_warned_of(tmp_path: Path) -> None:
    head = pcd_header("binary", color=False)
    for count, warned in ((200, False), (150, True)):
        (tmp_path / "a.pcd").write_bytes(head.replace(b"POINTS 200", b"POINTS %d" % count) + POINTS.tobytes())
        cloud = read_cloud(tmp_path / "a.pcd")
        assert len(cloud.points) == count
        assert ("warning: POINTS says 150, but WIDTH and HEIGHT 200 x 1; cut off?" in cloud.notes) == warned
    negative = head.replace(b"WIDTH 200", b"WIDTH -200").replace(b"HEIGHT 1", b"HEIGHT -1")
    (tmp_path / "a.pcd").write_bytes(negative + POINTS.tobytes())
    assert any("WIDTH and HEIGHT -200 x -1" in note for note in read_cloud(tmp_path / "a.pcd").notes)
