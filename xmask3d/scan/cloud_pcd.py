"""PCD, the format of the Point Cloud Library, version 0.7: ascii, binary and binary_compressed."""

from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan.cloud_raw import Raw, to_bytes, unpack_colors
from xmask3d.scan.trajectories import quaternion_poses

IDENTITY = np.array([0, 0, 0, 1.0, 0, 0, 0])


def read_pcd(path: Path, units: float | None) -> Raw:
    """Read points and colours.

    Args:
        path: the file.
        units: units per metre, if known.
    """
    try:
        with path.open("rb") as stream:
            header = _pcd_header(stream)
            data = stream.read()
        kinds = {"F": "f", "I": "i", "U": "u"}
        counts = header.get("COUNT", ["1"] * len(header["FIELDS"]))
        columns = [
            (name.lower() if name != "_" else f"_{i}", kinds[kind] + size, int(count))
            for i, (name, kind, size, count) in enumerate(
                zip(header["FIELDS"], header["TYPE"], header["SIZE"], counts, strict=True)
            )
        ]
        names = [name for name, _, _ in columns]
        if len(set(names)) < len(names) or any(count != 1 for name, _, count in columns if name in ("x", "y", "z")):
            raise ValueError("fields of one name, or several numbers for x, y or z")
        table = _pcd_table(data, columns, header["DATA"][0], _count(header["POINTS"][0], data))
        points = np.stack([table[axis].reshape(-1) for axis in "xyz"], 1)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path}: damaged, or not a PCD with x, y, z ({str(error)[:100]})") from error
    return Raw(
        points,
        _pcd_colors(table),
        _notes(header, len(points)),
        units,
        pose=_viewpoint(header),
        grid=_grid(header, len(points)),
    )


def _viewpoint(header: dict[str, list[str]]) -> np.ndarray | None:
    """Return the camera's pose from the line VIEWPOINT (position, quaternion w x y z); None for the default pose."""
    try:
        values = np.array(header.get("VIEWPOINT", []), float)
    except ValueError:
        return None
    if len(values) != 7 or not np.isfinite(values).all() or not values[3:].any() or (values == IDENTITY).all():
        return None
    return quaternion_poses(values[None, :3], values[None, [4, 5, 6, 3]])[0]


def _notes(header: dict[str, list[str]], count: int) -> list[str]:
    """Return a warning where the number of points is not that of the grid's places."""
    sides = [header.get(name, ["?"])[0] for name in ("WIDTH", "HEIGHT")]
    if "?" in sides or (all(side.isdecimal() for side in sides) and int(sides[0]) * int(sides[1]) == count):
        return []
    return [f"warning: POINTS says {count}, but WIDTH and HEIGHT {sides[0]} x {sides[1]}; cut off?"]


def _grid(header: dict[str, list[str]], count: int) -> tuple[int, int] | None:
    """Return height and width of an organised cloud, with points in the order of an image's pixels."""
    sides = [header.get(name, ["1"])[0] for name in ("HEIGHT", "WIDTH")]
    height, width = (int(side) if side.isdecimal() else 1 for side in sides)
    return (height, width) if min(height, width) > 1 and height * width == count else None


def _pcd_colors(table: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return colours from a field with packed bytes, or from three fields."""
    packed = next((name for name in ("rgb", "rgba") if name in table), None)
    if packed is not None:
        return unpack_colors(table[packed])
    for channels in (("r", "g", "b"), ("red", "green", "blue")):
        if all(channel in table for channel in channels):
            return to_bytes(np.stack([table[channel].reshape(-1) for channel in channels], 1))
    return None


def _pcd_header(stream) -> dict[str, list[str]]:
    header: dict[str, list[str]] = {}
    while "DATA" not in header:
        line = stream.readline()
        if not line or len(header) > 20:
            raise ValueError("no DATA line")
        words = line.decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    return header


def _count(word: str, data: bytes) -> int:
    """Return a header's number of points, checked: a point takes a byte, compressed at least a hundredth of one."""
    count = int(word)
    if not 0 <= count <= 100 * len(data):
        raise ValueError(f"{count} points in {len(data)} bytes")
    return count


def _pcd_table(data: bytes, columns: list[tuple[str, str, int]], form: str, count: int) -> dict[str, np.ndarray]:
    if form == "ascii":
        widths = [width for _, _, width in columns]
        rows = np.array(data.split(), dtype=object).reshape(count, sum(widths))
        starts = np.cumsum([0, *widths])
        return {
            name: _pcd_ascii(rows[:, start : start + width], kind)
            for (name, kind, width), start in zip(columns, starts[:-1], strict=True)
        }
    if form == "binary":
        record = np.dtype([(name, "<" + kind, (width,)) for name, kind, width in columns])
        table = np.frombuffer(data, record, count)
        return {name: table[name] for name, _, _ in columns}
    if form == "binary_compressed":
        packed, size = np.frombuffer(data[:8], "<u4")
        flat = lzf_decompress(data[8 : 8 + int(packed)], int(size))
        result, place = {}, 0
        for name, kind, width in columns:
            values = np.frombuffer(flat, "<" + kind, count * width, place)
            result[name], place = values.reshape(count, width), place + values.nbytes
        return result
    raise ValueError(f"unknown DATA {form}")


def _pcd_ascii(values: np.ndarray, kind: str) -> np.ndarray:
    floats = values.astype(np.float64)
    if kind == "f4" and np.all(floats == np.floor(floats)) and np.abs(floats).max(initial=0) > 1 << 20:
        return floats.astype(np.uint32)  # colours written as the integer value of their bits
    return floats.astype(kind)


def lzf_decompress(data: bytes, size: int) -> bytes:
    """Undo LZF compression (literal runs and back references)."""
    out = bytearray()
    place = 0
    while place < len(data):
        control = data[place]
        place += 1
        if control < 32:
            out += data[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[place]
            place += 1
        start = len(out) - ((control & 31) << 8) - data[place] - 1
        place += 1
        if start < 0:
            raise ValueError("damaged compressed data")
        for i in range(length + 2):  # source and target may overlap
            out.append(out[start + i])
    if len(out) != size:
        raise ValueError("damaged compressed data")
    return bytes(out)
