"""Bombs, forged heads and nesting without end: one line, within a second, in little memory."""

import io
import json
import re
import resource
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.raw_scannet import sens_frame, sens_header
from xmask3d.checkpoints.checkpoint import load_weights
from xmask3d.checkpoints.validations import read_validations
from xmask3d.config import load_config
from xmask3d.data.download.fetch import read_records
from xmask3d.data.files import picture_size, read_matrix, read_picture
from xmask3d.data.prepare.many import read_list as read_scenes
from xmask3d.data.prepare.sens import SensFile
from xmask3d.data.scannet import read_captions
from xmask3d.data.segments import read_segments
from xmask3d.errors import UserError
from xmask3d.guarded import (
    inflate,
    open_picture,
    parse_yaml,
    read_array,
    read_arrays,
    read_json,
    read_object,
    read_text,
    reading,
)
from xmask3d.metrics.compare import read_row
from xmask3d.models.loading.clip_weights import load_clip
from xmask3d.models.tokenizer import CompactTokenizer, learned_words
from xmask3d.rooms.manifest import check_set
from xmask3d.scan import formats, trajectories
from xmask3d.scan.clouds import read_cloud
from xmask3d.scan.phones import find_record3d, find_scanner_app
from xmask3d.scan.reconstructions import find_nerfstudio
from xmask3d.seal import read_sealed_json
from xmask3d.segment.folder import default_folder, earlier_summary, read_summary
from xmask3d.segment.scan_list import read_list as read_scans
from xmask3d.sparse.fastest import remembered

SIDE = 60_000
MEMORY = 400 << 20


def png(width: int, height: int) -> bytes:
    """A picture of zeros, of which nearly nothing is left in the file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def npy(descr: object, shape: object, data: bytes = b"", fortran: object = False) -> bytes:
    head = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def sens(width: int, height: int, color: bytes, depth: bytes) -> bytes:
    head = bytearray(sens_header(1))
    place = head.index(struct.pack("<f", 1000.0)) - 16
    head[place : place + 16] = struct.pack("<4I", width, height, width, height)
    return bytes(head) + sens_frame(np.eye(4), color, depth)


def decode(path: Path) -> None:
    with SensFile(path) as file:
        for frame in file.frames():
            file.decode_color(frame)
            file.decode_depth(frame)


PCD = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {n}\nHEIGHT 1\nPOINTS {n}\nDATA {form}\n"
GLB = json.dumps(
    {"asset": {"version": "2.0"}, "accessors": [{"count": 10**12, "type": "VEC3", "componentType": 5126}],
     "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}], "nodes": [{"mesh": 0}],
     "scenes": [{"nodes": [0]}], "scene": 0}
).encode()  # fmt: skip
GLB += b" " * (-len(GLB) % 4)
MANY = 10**12
HOSTILE = {
    "bomb.png": (png(SIDE, SIDE), [read_picture, formats.read_color, formats.read_depth]),
    "bomb.jpg": (jpeg(SIDE, SIDE), [lambda path: read_picture(path, "RGB"), formats.read_color]),
    "bomb.pgm": (b"P5 %d %d 255\n" % (SIDE, SIDE), [read_picture, formats.read_depth]),
    "huge.pgm": (b"P5 %d %d 255\n" % (MANY, MANY), [read_picture, formats.read_depth]),
    "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", [read_picture, formats.read_color]),
    "big.npy": (npy("<f8", (MANY,)), [formats.read_depth, trajectories.read_pose]),
    "negative.npy": (npy("<f8", (-2, 3), bytes(48)), [formats.read_depth, trajectories.read_pose]),
    "object.npy": (npy("|O", (4, 4), bytes(128)), [formats.read_depth, trajectories.read_pose]),
    "fields.npy": (npy([("a", "<f8")], (4, 4), bytes(128)), [formats.read_depth, trajectories.read_pose]),
    "long.npy": (npy("<f8", (4, 4), bytes(129)), [formats.read_depth, trajectories.read_pose]),
    "nested.npy": (npy("<f8", (4, 4))[:10] + b"(" * 5000, [formats.read_depth, trajectories.read_pose]),
    "nested.json": (b"[" * 200_000, [read_json, read_captions, read_object, formats.read_intrinsics]),
    "long.txt": (b"1 " * 100_000, [read_matrix, trajectories.read_pose, formats.read_intrinsics]),
    "itself.yaml": (b"a: &a [*a]\n", [load_config]),
    "laughs.yaml": (
        b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i + 1, i + 1, i, i) for i in range(40)),
        [load_config],
    ),
    "nested.yaml": (b"[" * 100_000, [load_config]),
    "date.yaml": (b"seed: !!timestamp x\n", [load_config]),
    "bool.yaml": (b"seed: !!bool x\n", [load_config]),
    "long.yaml": (b"- 1\n" * 1_000_000, [load_config]),
    "many.ply": (
        b"ply\nformat binary_little_endian 1.0\nelement vertex %d\nproperty float x\nproperty float y\n"
        b"property float z\nend_header\n" % MANY,
        [read_cloud],
    ),
    "lines.ply": (
        b"ply\nformat ascii 1.0\nelement vertex %d\nproperty float x\nproperty float y\n"
        b"property float z\nend_header\n1 2 3\n" % MANY,
        [read_cloud],
    ),
    "minus.ply": (
        b"ply\nformat ascii 1.0\nelement vertex -5\nproperty float x\nproperty float y\n"
        b"property float z\nend_header\n1 2 3\n",
        [read_cloud],
    ),
    "text.pcd": (PCD.format(n=MANY, form="ascii").encode() + b"1 2 3\n", [read_cloud]),
    "binary.pcd": (PCD.format(n=MANY, form="binary").encode() + bytes(12), [read_cloud]),
    "minus.pcd": (PCD.format(n=-1, form="binary").encode() + bytes(12), [read_cloud]),
    "packed.pcd": (PCD.format(n=MANY, form="binary_compressed").encode() + b"\xff" * 12, [read_cloud]),
    "bytes3.pcd": (PCD.format(n=1, form="binary").encode().replace(b"SIZE 4", b"SIZE 3") + bytes(12), [read_cloud]),
    "many.stl": (bytes(80) + struct.pack("<I", 0xFFFFFFFF), [read_cloud]),
    "many.off": (b"OFF\n%d %d 0\n0 0 0\n" % (MANY, MANY), [read_cloud]),
    "minus.off": (b"OFF\n-1 -1 0\n0 0 0\n", [read_cloud]),
    "face.obj": (b"v 0 0 0\nf 1 2 %d\n" % MANY, [read_cloud]),
    "many.glb": (
        struct.pack("<4sII", b"glTF", 2, 20 + len(GLB)) + struct.pack("<I4s", len(GLB), b"JSON") + GLB, [read_cloud]
    ),
    "chunk.glb": (struct.pack("<4sIII4s", b"glTF", 2, 20, 0xFFFFFFF0, b"JSON"), [read_cloud]),
    "head.sens": (sens(1 << 31, 1 << 31, b"", b""), [decode]),
    "color.sens": (sens(64, 48, png(SIDE, SIDE), zlib.compress(bytes(64 * 48 * 2))), [decode]),
    "depth.sens": (sens(64, 48, jpeg(64, 48), zlib.compress(bytes(1 << 26), 9)), [decode]),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path: Path, name: str) -> None:
    content, readers = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    for read in readers:
        peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with pytest.raises(UserError, match=name.replace(".", r"\.")) as refusal:
            read(tmp_path / name)
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 600
        assert time.process_time() - start < 3  # a second alone, more on a busy machine
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10 < MEMORY


def test_a_window_of_exr_is_looked_at_before_its_pixels(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    path = tmp_path / "0.exr"
    exr.File({"compression": exr.NO_COMPRESSION, "type": exr.scanlineimage}, {"Z": np.ones((4, 4), np.float32)}).write(
        str(path)
    )
    np.testing.assert_array_equal(formats.read_depth(path), np.ones((4, 4)))
    content = path.read_bytes()
    place = content.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    path.write_bytes(content[:place] + struct.pack("<4i", 0, 0, 1 << 20, 1 << 20) + content[place + 16 :])
    with pytest.raises(UserError, match=r"0\.exr"):
        formats.read_depth(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for value in (b"1" * 8, b"2" * 8):
            archive.writestr("depth.npy", npy("<f8", (1,), value))
    with pytest.raises(UserError, match=r"a\.npz: holds two arrays of one name"):
        read_arrays(tmp_path / "a.npz")


def test_labels_in_an_archive_are_looked_at_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy("<f8", (1 << 21,), bytes(8 << 21)))
    with pytest.raises(UserError, match="claims more"):
        read_arrays(tmp_path / "a.npz", most=1 << 20)
    assert read_arrays(tmp_path / "a.npz")["a"].shape == (1 << 21,)
    with pytest.raises(UserError, match="bomb"), open_picture(io.BytesIO(png(SIDE, SIDE)), "bomb"):
        pass


@pytest.mark.parametrize(
    "value", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3), ">i2")), np.bool_([1, 0])]
)
def test_arrays_are_read_as_numpy_does(tmp_path: Path, value: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", value)
    read = read_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(read, value)
    assert read.dtype == value.dtype and read.flags.writeable
    np.savez(tmp_path / "a.npz", first=value, second=np.array("text"))
    arrays = read_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays["first"], value)
    assert str(arrays["second"]) == "text"


def test_yaml_may_repeat_itself_within_bounds() -> None:
    content, node = parse_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n", "a.yaml")
    assert content == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}} and node is not None
    assert parse_yaml("", "a.yaml") == (None, None)
    with pytest.raises(UserError, match=r"a\.yaml:3: not valid YAML"):
        parse_yaml("a: 1\nb: [\n", "a.yaml")


def test_text_with_and_without_a_mark(tmp_path: Path) -> None:
    for content in (b"\xef\xbb\xbf{}", b"{}"):
        (tmp_path / "a.json").write_bytes(content)
        assert read_json(tmp_path / "a.json") == {}
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"a\.txt: not a text file"):
        read_text(tmp_path / "a.txt")
    assert read_text(tmp_path / "a.txt", errors="replace") == "caf�"
    with pytest.raises(UserError, match="more than"):
        read_text(tmp_path / "a.txt", most=3)


def test_whatever_a_reader_raises_becomes_one_line() -> None:
    for error, words in [
        (MemoryError(), "memory"), (RecursionError("deep\nstack"), r"deep\)$"), (FileNotFoundError(), "missing"),
        (KeyError(), "KeyError"), (PermissionError(13, "Permission denied"), "cannot be read as a file"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=words), reading("a.bin", "a file"):
            raise error
    with pytest.raises(KeyboardInterrupt), reading("a.bin", "a file"):
        raise KeyboardInterrupt


def test_what_comes_out_of_zlib_is_bounded(tmp_path: Path) -> None:
    assert inflate(zlib.compress(b"abc"), 3) == b"abc"
    for data, size in (
        (zlib.compress(b"abc"), 2),
        (zlib.compress(b"abc"), 4),
        (b"abc", 3),
        (zlib.compress(b"abc")[:-2], 3),
    ):
        with pytest.raises(ValueError):
            inflate(data, size)
    (tmp_path / "a.png").write_bytes(png(SIDE, SIDE))
    assert picture_size(tmp_path / "a.png") is None


@pytest.mark.parametrize(("text", "number"), [("a: 1:30", "90"), ("a: [3, 010]", "8"), ("-1:30.5", "-90.5")])
def test_numbers_that_yaml_takes_for_others_are_refused(text: str, number: str) -> None:
    with pytest.raises(UserError, match=rf"c\.yaml:1: '.*' is {number} in YAML .*; write the number plainly"):
        parse_yaml(text, "c.yaml")


def test_numbers_as_yaml_means_them() -> None:
    assert parse_yaml("[0, -0, 0.5, 1e-3, 1_000, 0x10, '1:30', '010', a:b]", "c.yaml")[0] == [
        0, 0, 0.5, "1e-3", 1000, 16, "1:30", "010", "a:b",
    ]  # fmt: skip


OTHER_JSON = (
    b"[]",
    b"[[1]]",
    b"3",
    b"null",
    b'"text"',
    b"{",
    b"",
    b'{"a": [[',
    b"[" * 200_000,
    b"\xff\xfe{\0}\0",
    b"\0\0",
)
OF_NAMES = {
    "captions.json": read_captions,
    "summary.json": lambda path: read_summary(path.parent),
    "downloads.json": lambda path: read_records(path.parent),
    "rooms.json": lambda path: check_set(path.parent),
    "open_clip_config.json": lambda path: load_clip(path.parent),
    "results.json": lambda path: read_row("name", [path]),
    "transforms.json": lambda path: find_nerfstudio(path.parent),
    "frame_00000.json": lambda path: find_scanner_app(path.parent),
    "metadata.json": lambda path: find_record3d(path.parent),
    "a.segs.json": lambda path: read_segments(path.with_name("a.ply"), 1),
    "sealed.json": read_sealed_json,
    "intrinsics.json": formats.read_intrinsics,
    "vocabulary.json": lambda path: CompactTokenizer.load(path, vocabulary_size=100).kept and 1 / 0,
    "scene.gltf": read_cloud,
}


@pytest.mark.parametrize("name", OF_NAMES)
def test_json_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "rgb").mkdir()
    for content in OTHER_JSON:
        (tmp_path / name).write_bytes(content)
        if name == "vocabulary.json" and content == b"[]":
            continue
        with pytest.raises(UserError) as refusal:
            OF_NAMES[name](tmp_path / name)
        assert "\n" not in str(refusal.value) and name in str(refusal.value)


@pytest.mark.parametrize("content", [b'{"fx": 1, "fy": 2, "fx": 3}', b'{"a": [{"fx": 1, "fx": 1}]}'])
def test_a_name_given_twice_in_json_is_refused(tmp_path: Path, content: bytes) -> None:
    """The last value would silently replace the first."""
    (tmp_path / "a.json").write_bytes(content)
    for read in (read_json, formats.read_intrinsics, read_sealed_json):
        with pytest.raises(UserError, match=r"a\.json: 'fx' is given twice; keep one of them$"):
            read(tmp_path / "a.json")
    chunk = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(content), len(content), b"JSON") + content
    (tmp_path / "a.glb").write_bytes(chunk)
    with pytest.raises(UserError, match="'fx' is given twice"):
        read_cloud(tmp_path / "a.glb")


def test_a_name_given_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(200_000)]
    (tmp_path / "a.json").write_text("{" + ", ".join(f'"{name}": 1' for name in [*names, names[-1]]) + "}")
    with pytest.raises(UserError, match="'n199999' is given twice"):  # a search of all earlier names would time out
        read_json(tmp_path / "a.json")


def test_records_of_another_kind_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    for content in OTHER_JSON:
        for name in ("validations.json", "summary.json", "backends.json"):
            (tmp_path / name).write_bytes(content)
        (tmp_path / "segmented" / "scan").mkdir(parents=True, exist_ok=True)
        assert read_validations(tmp_path) == {} == earlier_summary(tmp_path)
        assert formats.point_clouds(tmp_path, (".ply",)) == []
        assert remembered(tmp_path / "backends.json", "key", lambda: "torch") == "torch"
    (tmp_path / "summary.json").write_text('{"files": 5}')
    assert formats.point_clouds(tmp_path, (".ply",)) == []


def test_the_owner_of_a_folder_in_another_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    owner = tmp_path / "segmented" / "scan" / ".unfinished.txt"
    owner.parent.mkdir(parents=True)
    owner.write_bytes(b"caf\xe9\xff")
    assert default_folder("scan", tmp_path / "scan") == Path("segmented/scan-2")


@pytest.mark.parametrize(
    "content", [b"", b"# nothing\n", b"a\0b\n", "räume\n".encode("utf-16"), b"r\xe4ume\n", b"\x1b[2J\n"]
)
def test_lists_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    for read in (read_scenes, read_scans):
        with pytest.raises(UserError, match=r"list\.txt: "):
            read(tmp_path / "list.txt")
        with pytest.raises(UserError, match=r"cannot be read as a list of"):
            read(tmp_path)
    (tmp_path / "trained_words.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match="trained_words"):
        learned_words(tmp_path)


def test_a_folder_in_place_of_a_digest(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"")
    (tmp_path / "a.pt.sha256").mkdir()
    with pytest.raises(UserError, match=r"a\.pt\.sha256: cannot be read as a digest"):
        load_weights(tmp_path / "a.pt")


def test_every_file_comes_in_through_here() -> None:
    """What is left are files of this program, of the system, and bytes that were checked before."""
    direct = re.compile(r"json\.loads?\(|\.read_text\(|yaml\.(?:safe_)?load|Image\.open\(|np\.loadtxt\(")
    package = Path(formats.__file__).parents[1]
    found = {p.relative_to(package).as_posix() for p in package.rglob("*.py") if direct.search(p.read_text())}
    assert found == {
        "guarded.py", "memory.py", "native/compiler.py", "rooms/package.py", "rooms/contact_sheet.py",
        "rooms/scanned/camera.py", "engine/evaluate.py", "visualize/page.py",
        "segment/vocabulary.py", "scan/writing/glb.py", "scan/cloud_text.py", "geometry/ply.py",
    }  # fmt: skip
