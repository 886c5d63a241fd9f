"""PLY files: every form of numbers and rows, and headers that promise what the file has not."""

from pathlib import Path

import numpy as np
import pytest

from xmask3d.geometry.ply import KINDS, read_elements, write_elements

FORMS = {"<": b"binary_little_endian", ">": b"binary_big_endian", "": b"ascii"}
VERTICES = np.array([(455_123.001953125, -1, 200), (0.1, 2, 0)], [("x", "f8"), ("label", "i2"), ("red", "u1")])
HEADER = b"""ply
format %s 1.0
comment made in K\xf6ln \xe2\x82\xac end_header
element edge 1
property list uchar float weights
element vertex 2
property double x
property int16 label
property uint8 red
element face %d
property list uint8 int vertex_indices
property uchar kind
element material 1
property float shine
end_header
"""


def body(order: str, faces: list[list[int]]) -> bytes:
    """An edge of three weights, the vertices, faces of kind 7, and a material."""
    if not order:
        lines = [" ".join(map(str, [len(face), *face, 7])) for face in faces]
        return "\n".join(["3 1 2 3.5", "455123.001953125 -1 200", "0.1 2 0", *lines, "0.5", ""]).encode()
    parts = [b"\3" + np.array([1, 2, 3.5], order + "f4").tobytes()]
    parts.append(VERTICES.astype(VERTICES.dtype.newbyteorder(order)).tobytes())
    parts += [bytes([len(face)]) + np.array(face, order + "i4").tobytes() + b"\7" for face in faces]
    return b"".join([*parts, np.array(0.5, order + "f4").tobytes()])


@pytest.mark.parametrize("order", FORMS)
@pytest.mark.parametrize("faces", [[[0, 1, 2], [2, 1, 0]], [[0, 1, 2], [3, 4, 5, 6], [0, 1, 2]], [[0, 1], []], []])
def test_every_form_is_read(order: str, faces: list[list[int]], tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(HEADER % (FORMS[order], len(faces)) + body(order, faces))
    found = read_elements(path)
    assert list(found) == ["edge", "vertex", "face", "material"]
    np.testing.assert_array_equal(found["vertex"], VERTICES)
    assert found["vertex"].dtype == VERTICES.dtype  # double, and in the machine's byte order
    assert found["edge"]["weights"].tolist() == [[1, 2, 3.5]] and found["material"]["shine"].tolist() == [0.5]
    assert len(found["face"]) == len(faces)
    if faces == [[0, 1, 2], [2, 1, 0]]:
        assert found["face"]["vertex_indices"].tolist() == faces and found["face"]["kind"].tolist() == [7, 7]


@pytest.mark.parametrize("ending", [b"\r\n", b"\r"])
@pytest.mark.parametrize("order", FORMS)
def test_other_line_endings(ending: bytes, order: str, tmp_path: Path) -> None:
    head, rows = HEADER % (FORMS[order], 1), body(order, [[0, 1, 2]])
    if not order:
        rows = rows.replace(b"\n", ending)
    (tmp_path / "a.ply").write_bytes(head.replace(b"\n", ending) + rows)
    np.testing.assert_array_equal(read_elements(tmp_path / "a.ply")["vertex"], VERTICES)


@pytest.mark.parametrize("order", FORMS)
@pytest.mark.parametrize("faces", [[[0, 1, 2], [2, 1, 0]], [[0, 1, 2], [3, 4, 5, 6]]])
def test_a_file_that_is_cut_off_anywhere_is_refused(order: str, faces: list[list[int]], tmp_path: Path) -> None:
    content = HEADER % (FORMS[order], 2) + body(order, faces)
    for end in range(4, len(content) - (0 if order else 4), 3):  # the last number of a text may lose digits unseen
        (tmp_path / "a.ply").write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"cut off|numbers, not|columns"):
            read_elements(tmp_path / "a.ply")


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.zeros(50, [(name, kind) for name, kind in KINDS.items()])
    for name, kind in KINDS.items():
        rows[name] = rng.uniform(-100, 100, 50) if kind in "fd" else rng.integers(0, 100, 50)
    faces = np.zeros(4, [("vertex_indices", "i4", (3,)), ("kind", "u1")])
    faces["vertex_indices"] = rng.integers(0, 50, (4, 3))
    write_elements(tmp_path / "a.ply", {"vertex": rows, "face": faces})
    found = read_elements(tmp_path / "a.ply")
    np.testing.assert_array_equal(found["vertex"], rows)
    np.testing.assert_array_equal(found["face"]["vertex_indices"], faces["vertex_indices"])
    assert found["face"].dtype.names == ("length of vertex_indices", "vertex_indices", "kind")


def test_the_bytes_of_a_cloud(tmp_path: Path) -> None:
    rows = np.array([(1.5, 2, -3)], [("x", "f4"), ("red", "u1"), ("label", "i4")])
    write_elements(tmp_path / "a.ply", {"vertex": rows})
    assert (tmp_path / "a.ply").read_bytes() == (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nproperty uchar red\n"
        b"property int label\nend_header\n\0\0\xc0?\2\xfd\xff\xff\xff"
    )


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (b"", b"", "not a PLY file"),
        (b"plyx\n", b"", "not a PLY file"),
        (b"ply\nelement vertex 0\nproperty float x\n", b"", "names no format"),
        (b"ply\nformat ascii 1.0\nelement a 0\nelement a 0\n", b"", "an element twice"),
        (b"ply\nformat ascii 1.0\nproperty float x\n", b"", "says 'property float x'"),
        (b"ply\nformat ascii 1.0\nelement vertex -1\n", b"", "says 'element vertex -1'"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty quad x\n", b"1\n", "'quad' as a kind of number"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list float int x\n", b"1 1\n", "'property list float"),
        (b"ply\nformat ascii 1.0\nelement vertex 2\nproperty uchar x\n", b"1\n300\n", "too large for its kind"),
        (b"ply\nformat ascii 1.0\nelement vertex 2\nproperty uchar x\n", b"1\nred\n", "red"),
        (b"ply\nformat ascii 1.0\nelement vertex 99999999999999\nproperty uchar x\n", b"1\n2\n", "cut off: 99999999"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999999\nproperty uchar x\n", b"12", "cut off"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 4\n", b"", "cut off: 4 rows"),
        (b"ply\nformat binary_little_endian 1.0\nelement face 1\nproperty list int int x\n", b"\xff" * 8, "cut off"),
        (b"ply\nformat binary_little_endian 1.0\nelement face 1\nproperty list uint int x\n", b"\xff" * 8, "cut off"),
        (b"ply\nformat binary_little_endian 1.0\nelement a 1\nproperty int x\nproperty int x\n", b"\0" * 8, "x"),
    ],
)
def test_damage_is_named(header: bytes, rows: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(header + (b"end_header\n" if header else b"") + rows)
    with pytest.raises(ValueError, match=message):
        read_elements(tmp_path / "a.ply")
