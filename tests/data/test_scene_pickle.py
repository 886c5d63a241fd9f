import io
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from xmask3d.data.files import read_tuple
from xmask3d.data.scene_pickle import unpickle
from xmask3d.errors import UserError

PLAIN = (None, None, None, -1, -1, 0)


class Call:
    """Pickles as a call of a function, followed by a state."""

    def __init__(self, function, arguments, state=None):
        self.value = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.value


def kind(code, *state):
    return Call(np.dtype, (code, False, True), (3, *state) if state else None)


def array(shape, dtype, content, flag=False):
    reconstruct = np.zeros(1).__reduce__()[0]
    return Call(reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, flag, content))


def scalar(dtype, content):
    return Call(np.float64(0).__reduce__()[0], (dtype, content))


def uninitialised(shape, code):
    return Call(np.zeros(1).__reduce__()[0], (np.ndarray, shape, code))


FIELD = {"a": (np.dtype("i4"), 1 << 24)}
DOUBLE = kind("f8", "<", *PLAIN)
WRITTEN = np.arange(6.0)
FORGED = {
    "objects without their flag": array((1,), kind("O8", "|", *PLAIN), b"\x41" * 8),
    "object scalar": scalar(kind("O8", "|", *PLAIN), b"\x41" * 8),
    "objects by their name": array((1,), Call(np.dtype, ("O",)), b"\x41" * 8),
    "an object state on numbers": array((1,), kind("f8", "<", None, None, None, 8, 8, 63), b"\x41" * 8),
    "a field outside its item": array((1,), kind("V8", "|", None, ("a",), FIELD, 8, 1, 16), b"\0" * 8),
    "fields of a number": array((1,), kind("f8", "<", None, ("a",), FIELD, -1, -1, 0), b"\0" * 8),
    "a subarray": array((1,), kind("f8", "<", (np.dtype("f8"), (1 << 40,)), None, None, -1, -1, 0), b"\0" * 8),
    "too few bytes": array((1000, 1000), DOUBLE, b"\0" * 8),
    "too many bytes": array((1,), DOUBLE, b"\0" * 800),
    "a negative side": array((-1, -1), DOUBLE, b"\0" * 8),
    "a shape that overflows": array((1 << 62, 1 << 62), DOUBLE, b""),
    "a shape of floats": array((1.0,), DOUBLE, b"\0" * 8),
    "text for bytes": array((1,), DOUBLE, "\0" * 8),
    "a list for bytes": array((1,), DOUBLE, [b"\0" * 8]),
    "scalar of too few bytes": scalar(DOUBLE, b"\0"),
    "uninitialised memory": uninitialised((1 << 20,), b"f8"),
    "uninitialised objects": uninitialised((16,), b"O"),
    "a type for an array": DOUBLE,
    "strings": np.array(["a"]),
    "times": np.array(["2020-01-01"], "datetime64[s]"),
    "a nested list": [[0.0] * 3] * 3,
    "a string": "points",
}
READ = """
import sys
from pathlib import Path
from xmask3d.data.files import read_points
from xmask3d.errors import UserError
for path in sorted(Path(sys.argv[1]).glob("*.pth")):
    try:
        print([part.sum() for part in read_points(path)])
    except UserError as error:
        print("refused", path.stem, str(error)[:200])
"""


def test_forged_arrays_end_in_a_line(tmp_path):
    """In a process of its own, as some of them ended in a segmentation fault."""
    for name, forged in FORGED.items():
        torch.save((forged, forged, forged), tmp_path / f"{name}.pth")
    run = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == len(FORGED) and all(line.startswith("refused") for line in lines), run.stdout


@pytest.mark.parametrize("state", [None, {}, (None, {"__code__": 1}), (1, (1,), DOUBLE, False, b"\0" * 8)])
@pytest.mark.parametrize("function", [np.dtype, np.ndarray, np.zeros(1).__reduce__()[0]])
def test_a_function_takes_no_state(function, state):
    code = pickle.dumps((function,), 2).replace(b"\x85", b"", 1)[:-1].removesuffix(b"q\x01")
    code += pickle.dumps(state, 2)[2:-1] + b"b\x85."
    with pytest.raises(pickle.UnpicklingError):
        unpickle(io.BytesIO(code))


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",  # a memo of 34 GB
        b"\x80\x02" + b"K\x01" * 20_000 + b".",
        b"\x80\x04\x8e" + (1 << 41).to_bytes(8, "little") + b"abc.",
        b"\x80\x04\x95" + (1 << 41).to_bytes(8, "little") + b"K\x01.",
        b"\x80\x02]q\x00h\x00a.",  # a list that contains itself
        b"\x80\x02}(K\x01h\x07u.",
        b"\x80\x02" + b"(" * 9_000 + b"t" * 9_000 + b".",
    ],
)
def test_few_bytes_take_little_memory_and_time(tmp_path, code):
    with zipfile.ZipFile(tmp_path / "scene.pth", "w") as archive:
        archive.writestr("scene/data.pkl", code)
    with pytest.raises(UserError, match=r"scene\.pth"):
        read_tuple(tmp_path / "scene.pth")


def test_a_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "scene.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scene/data.pkl", pickle.dumps((np.zeros(1 << 20),)))
    with pytest.raises(UserError, match="compressed"):
        read_tuple(tmp_path / "scene.pth")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", ["?", "<i2", ">i4", "<u1", ">u8", "<f4", ">f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_arrays_of_any_byte_order(protocol, dtype, order):
    value = np.asarray(np.arange(12).reshape(4, 3) % 5, dtype, order=order)
    read, number, nothing = unpickle(io.BytesIO(pickle.dumps((value, value[0, 1], None), protocol)))
    np.testing.assert_array_equal(read, value)
    assert read.dtype.newbyteorder("=") == value.dtype.newbyteorder("=") and number == value[0, 1] and nothing is None
    assert read.flags.writeable


def test_truth_values_are_zero_or_one():
    code = pickle.dumps((np.array([True, False, True] * 40),), 4).replace(b"\x01\x00\x01", b"\xff\x00\x07")
    (read,) = unpickle(io.BytesIO(code))
    assert read.sum() == 80 and len(np.flatnonzero(read)) == 80
