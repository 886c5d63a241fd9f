"""Readers of untrusted files, which are bounded in memory and time and refuse files with a `UserError` of one line.

All pictures, JSON, YAML, array and text files of the package are read through this module.
"""

import ast
import io
import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import yaml
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from xmask3d.errors import UserError, first_line

MAX_PIXELS = 1 << 26
MAX_TEXT = 1 << 28
MAX_LIST = 1 << 24
MAX_YAML = 1 << 18
MAX_NODES = 20_000
"""Largest number of entries of a YAML file, counting repetitions by alias."""

_LATE = (TiffImagePlugin, WebPImagePlugin)  # Pillow only supports these formats once they are imported
PICTURES = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""Formats that are decoded. For some others, Pillow would start foreign programs."""


@contextmanager
def reading(path: Path | str, expected: str) -> Iterator[None]:
    """Turn any error that a reader raises on a damaged or hostile file into one line; refuse pipes.

    Args:
        path: the file, or a name for the message.
        expected: expected kind of file, after "not", such as "a picture".

    Raises:
        UserError: replaces every exception.
    """
    try:
        refuse_devices(path)
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing") from error
    except MemoryError as error:
        raise UserError(f"{path}: claims more than the memory holds; damaged, or not {expected}") from error
    except Exception as error:  # readers raise all kinds of errors on damage
        kind = "cannot be read as" if isinstance(error, OSError) and error.errno else "damaged, or not"
        raise UserError(f"{path}: {kind} {expected} ({first_line(error, 120)})") from error


def refuse_devices(path: Path | str) -> None:
    """Refuse a pipe or device in place of a file, since reading it may wait or run forever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # only a name for messages, or missing, which the reader will report
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path}: a pipe or device, not a file")


def read_text(path: Path, expected: str = "a text file", *, errors: str = "strict", most: int = MAX_TEXT) -> str:
    """Read UTF-8, with or without a byte-order mark.

    Raises:
        UserError: the file is missing, is no such text, or has more than `most` bytes.
    """
    with reading(path, expected), open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size > most:  # read(most) would allocate as much for the shortest text
            raise UserError(f"{path}: more than {most >> 20 or 1} MB is not {expected}")
        content = stream.read()
        try:
            return content.decode("utf-8-sig", errors)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not a text file; expected {expected}") from error


def is_text(value: str) -> bool:
    """Return False for text with lone surrogates, which come from other encodings and from some JSON escapes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_lines(path: Path, expected: str) -> list[str]:
    """Read the lines of a list, without those that are empty or begin with #. Raises `UserError` for no such text."""
    lines = [line.strip() for line in read_text(path, expected, most=MAX_LIST).splitlines()]
    for line in lines:
        if re.search(r"[\x00-\x1f\x7f]", line):  # of another kind of file, or in another encoding, such as UTF-16
            raise UserError(f"{path}: {line[:40]!r} is no line of text; expected {expected}")
    return [line for line in lines if line and not line.startswith("#")]


def read_json(path: Path, expected: str = "JSON") -> Any:
    """Read a JSON file. Raises `UserError` where it is none."""
    return parse_json(read_text(path, expected), path, expected)


def parse_json(text: str | bytes, name: Path | str, expected: str = "JSON") -> Any:
    """Parse JSON. Raises `UserError`, which names `name`, where it is none, or gives a name twice in one place."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):  # the last value would silently replace those before it
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise UserError(f"{name}: {twice[:80]!r} is given twice; keep one of them")
        return content

    with reading(name, expected):
        return json.loads(text, object_pairs_hook=distinct)


def read_object(path: Path, expected: str = "JSON") -> dict[str, Any]:
    """Read a JSON file of names and values. Raises `UserError` where it is none, or a list, number, text or null."""
    content = read_json(path, expected)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise UserError(f"{path}: damaged, or not {expected} (a JSON {found} in place of names and values)")
    return content


def parse_yaml(text: str, name: str) -> tuple[Any, yaml.Node | None]:
    """Parse YAML to its content and its syntax tree.

    Args:
        text: content of the file.
        name: name of the file, for messages.

    Raises:
        UserError: the text is no YAML, it grows without bound, a key is given twice (YAML would use the last one), or
            there is a number such as 1:30 or 010, which YAML reads as 90 and 8.
    """
    if len(text) > MAX_YAML:
        raise UserError(f"{name}: more than {MAX_YAML >> 10} kB; no configuration is that long")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if _size(node, {}) > MAX_NODES:
            raise UserError(f"{name}: more than {MAX_NODES} entries, repeated ones counted again")
        _refuse_traps(node, name)
        return yaml.safe_load(text), node
    except UserError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or first_line(error)
        raise UserError(f"{name}{f':{mark.line + 1}' if mark else ''}: not valid YAML: {problem}") from error
    except Exception as error:  # constructors of dates and numbers raise various errors
        raise UserError(f"{name}: not valid YAML: {first_line(error, 120)}") from error


def _refuse_traps(node: yaml.Node | None, name: str) -> None:
    """Raise `UserError` if a mapping has a key twice, or YAML would misread a number."""
    if isinstance(node, yaml.ScalarNode):
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and node.style is None and (":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value)):
            raise UserError(
                f"{name}:{node.start_mark.line + 1}: '{node.value[:40]}' is {yaml.safe_load(node.value):g} in YAML "
                "(colons part by sixties, a leading 0 means eights); write the number plainly"
            )
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _refuse_traps(part, name)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise UserError(f"{name}:{key.start_mark.line + 1}: '{key.value[:80]}' is given twice")
                seen.add(key.value)
            _refuse_traps(value, name)


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Count the nodes below a node, shared ones as often as they occur."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1  # the node contains itself, so there is no end
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


@contextmanager
def open_picture(source: Path | IO[bytes], name: Path | str | None = None) -> Iterator[Image.Image]:
    """Open a picture of plausible size; any error while it is used becomes a `UserError` too.

    Args:
        source: path or stream.
        name: name of the file, for messages; `source` by default.
    """
    name = str(source if name is None else name)
    with reading(name, "a picture"), Image.open(source, formats=PICTURES) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise UserError(
                f"{name}: {picture.width} x {picture.height} pixels; at most {MAX_PIXELS >> 20} Mi are read"
            )
        yield picture


def rgb_of(picture: Image.Image) -> np.ndarray:
    """Return a picture as h x w x 3 uint8; gray of 16 bits, which Pillow would clip to white, by its upper bits."""
    if picture.mode == "F":
        raise ValueError("numbers that are no colours")
    if picture.mode.startswith("I"):
        gray = np.asarray(picture).astype(np.int64)
        gray = gray >> 8 if gray.max() > 255 else gray
        return np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, 2)
    return np.asarray(picture.convert("RGB"))


def check_picture(content: bytes, name: str) -> None:
    """Refuse a picture that a library is about to decode: another format than `PICTURES`, or too many pixels.

    Bytes that Pillow does not recognise as a picture are accepted, since nothing will decode them.

    Args:
        content: bytes of the picture's file.
        name: name of the file, for messages.
    """
    try:
        with open_picture(io.BytesIO(content), name):
            pass
    except UserError:
        try:
            Image.open(io.BytesIO(content)).close()
        except UnidentifiedImageError:
            return
        except Exception:  # the error above has a better message
            pass
        raise


def read_array(path: Path, expected: str = "an array of numbers") -> np.ndarray:
    """Read an `.npy` file of plain numbers.

    Raises:
        UserError: the file is missing, damaged, of another type, or its length differs from its header.
    """
    with reading(path, expected), open(path, "rb") as stream:
        return _array(stream, os.fstat(stream.fileno()).st_size)


def array_type(path: Path) -> np.dtype:
    """Return the dtype of the array in an `.npy` file. Raises `UserError` if there is none."""
    with reading(path, "an array of numbers"), open(path, "rb") as stream:
        return _head(stream, os.fstat(stream.fileno()).st_size)[0]


def read_arrays(
    path: Path, expected: str = "arrays of numbers", most: int = 1 << 33, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Read an `.npz` file of plain numbers and text, and verify its checksums.

    Args:
        most: largest size of all arrays together, in bytes.
        names: arrays to read if they exist, which must be numbers; all by default.

    Raises:
        UserError: the file is missing, damaged, has other types, or has more than `most` bytes or a thousand arrays.
    """
    with reading(path, expected), zipfile.ZipFile(path) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        if len(entries) < len(archive.infolist()):  # the last would silently replace those before it
            raise UserError(f"{path}: holds two arrays of one name")
        entries = {name: entry for name, entry in entries.items() if names is None or name in names}
        if sum(entry.file_size for entry in entries.values()) > most or len(entries) > 1000:
            raise UserError(f"{path}: claims more than {most >> 20} MB")
        contents = ((name, archive.read(entry)) for name, entry in entries.items())
        return {name: _array(io.BytesIO(content), len(content), names is None) for name, content in contents}


def _head(stream: BinaryIO, size: int, text: bool = False) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """Read dtype, order and shape from the header of an array, which must match the number of bytes that follow."""
    magic = stream.read(8)
    form = {1: "<H", 2: "<I", 3: "<I"}.get(magic[6]) if len(magic) == 8 and magic[:6] == b"\x93NUMPY" else None
    if form is None:
        raise ValueError("no array of numpy")
    (length,) = struct.unpack(form, stream.read(struct.calcsize(form)))
    if length > 10_000:
        raise ValueError("a head without end")
    head = ast.literal_eval(stream.read(length).decode("latin1"))
    code, fortran, shape = head["descr"], head["fortran_order"], head["shape"]
    kinds = "biufU" if text else "biuf"
    if not isinstance(code, str) or len(code) < 3 or code[0] not in "<>|=" or code[1] not in kinds:
        raise ValueError(f"type {str(code)[:40]} is no plain number")
    kind = np.dtype(code)
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("no shape")
    if math.prod(shape) * kind.itemsize != size - stream.tell():
        raise ValueError(f"{size - stream.tell()} bytes for an array of {shape} {kind}")
    return kind, bool(fortran), shape


def _array(stream: BinaryIO, size: int, text: bool = False) -> np.ndarray:
    kind, fortran, shape = _head(stream, size, text)
    content = bytearray(stream.read())
    if kind.kind == "b":  # numpy relies on booleans being 0 or 1
        return (np.frombuffer(content, np.uint8) != 0).reshape(shape, order="F" if fortran else "C")
    return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")


def inflate(data: bytes, size: int) -> bytes:
    """Undo zlib's compression.

    Args:
        size: number of bytes of the result.

    Raises:
        ValueError: the result has another size, which is detected before more bytes are made.
    """
    try:
        stream = zlib.decompressobj()
        content = stream.decompress(data, size + 1)
        if len(content) != size or not stream.eof:
            raise ValueError(f"not {size} bytes")
        return content
    except zlib.error as error:
        raise ValueError(str(error)) from error
