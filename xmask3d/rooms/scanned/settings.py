"""Settings of rooms that look like scans: every effect is a number that a file or the command line may change."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from xmask3d.errors import UserError
from xmask3d.guarded import MAX_YAML, parse_yaml, read_text

Range = tuple[float, float]


@dataclass(frozen=True)
class ScanSettings:
    """Settings of the rooms, the camera and the fusion. Probabilities lie in [0, 1]; 0 switches an effect off.

    Attributes:
        l_shape: probability that a corner of the room is walled off.
        chimney: probability of a chimney breast, which leaves an alcove at either side.
        slope: probability of a sloped ceiling above one wall.
        clutter: number of small things on tops and floors, relative to the usual.
        wall_things: number of switches, posters, shelves, radiators on the walls, relative to the usual.
        tiles: probability that a kitchen or bathroom has tiles on a part of its walls.
        unit_color: probability that a kitchen's units and worktops are painted alike.
        natural: probability that a piece of furniture keeps the colours of its model instead of a drawn one.
        low_stand: probability of a low TV stand with a screen in a living room or bedroom.
        tall_windows: probability that a window reaches down to the floor, where nothing stands before it.
        curtains: probability that curtains hang beside a window that has none.
        outside: range of the outside's brightness in windows, relative to a white wall.
        sunbeam: probability that the sun shines in through a window.
        places: smallest and largest number of places from which the room is filmed.
        partial: probability that a recording shows one side of the room only.
        pitch: largest angle of the camera above and below the horizon, degrees.
        roll: standard deviation of the camera's roll, degrees.
        tilt: largest angle between the cloud's z axis and the true vertical, degrees.
        more_views: frames that are fused but not kept, relative to those that are.
        pose_shift: standard deviation of a written pose's place, metres.
        pose_turn: standard deviation of a written pose's angle, degrees.
        exposure: standard deviation of the exposure's error, stops.
        white_balance: standard deviation of the red and blue gains' logarithms.
        blur: largest standard deviation of the lens blur, pixels.
        motion: mean length of the motion blur, pixels.
        grain: range of the picture noise's standard deviation, of 255.
        vignette: largest loss of brightness in the corners.
        jpeg: range of the JPEG quality.
        disparity_noise: standard deviation of the depth camera's disparity, pixels.
        disparity_step: step of the disparity, pixels; 0 does not quantise.
        flying: probability that a pixel at an edge is measured between the surfaces.
        edge_jitter: standard deviation of the places from which depth is read, pixels.
        dark_loss: probability that a black surface gives no depth.
        shine_loss: probability that a shiny surface gives no depth.
        glass_loss: probability that a window pane gives no depth.
        slant_loss: probability that a surface seen at a grazing angle gives no depth.
        shadow: 1 loses what the depth camera's projector does not reach, 0 keeps it.
        warp: standard deviation of the smooth relative error of depth.
        reach: nearest and farthest measured depth, metres.
        voxel_size: edge of the fusion's voxels, metres.
        label_reach: largest distance of a labelled point from a true surface, metres.
    """

    l_shape: float = 0.25
    chimney: float = 0.25
    slope: float = 0.3
    clutter: float = 1.0
    wall_things: float = 1.0
    tiles: float = 0.7
    unit_color: float = 0.7
    natural: float = 0.6
    low_stand: float = 0.5
    tall_windows: float = 0.3
    curtains: float = 0.4
    outside: Range = (1.2, 5.0)
    sunbeam: float = 0.5
    places: Range = (2, 4)
    partial: float = 0.2
    pitch: float = 30.0
    roll: float = 6.0
    tilt: float = 3.0
    more_views: float = 0.6
    pose_shift: float = 0.006
    pose_turn: float = 0.25
    exposure: float = 0.35
    white_balance: float = 0.1
    blur: float = 1.0
    motion: float = 1.2
    grain: Range = (1.5, 6.0)
    vignette: float = 0.25
    jpeg: Range = (45, 92)
    disparity_noise: float = 0.03
    disparity_step: float = 0.0625
    flying: float = 0.5
    edge_jitter: float = 0.5
    dark_loss: float = 0.7
    shine_loss: float = 0.6
    glass_loss: float = 0.9
    slant_loss: float = 0.8
    shadow: float = 1.0
    warp: float = 0.003
    reach: Range = (0.45, 5.0)
    voxel_size: float = 0.03
    label_reach: float = 0.1

    def changed(self, values: dict[str, Any], source: str) -> "ScanSettings":
        """Return the same settings with some values replaced.

        Args:
            values: numbers, or two of them for a range, by name.
            source: name of their origin, for messages.

        Raises:
            UserError: an unknown name, or a value that its setting cannot have.
        """
        kinds = get_type_hints(ScanSettings)
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if name not in kinds:
                near = get_close_matches(str(name), kinds, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(kinds)}"
                raise UserError(f"{source}: {name}: no such setting of rooms{hint}")
            checked[name] = _number(value, f"{source}: {name}") if kinds[name] is float else _range(value, source, name)
            if name in PROBABILITIES and checked[name] > 1:
                raise UserError(f"{source}: {name} {value}: is a probability, at most 1")
        if min(checked.get("voxel_size", 1), checked.get("label_reach", 1)) <= 0:
            raise UserError(f"{source}: voxel_size and label_reach must be above 0")
        return replace(self, **checked)

    @property
    def values(self) -> dict[str, float | list[float]]:
        """All settings by name, as JSON holds them."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: list(value) if isinstance(value, tuple) else float(value) for name, value in pairs}


PROBABILITIES = {
    "l_shape", "tall_windows", "chimney", "slope", "tiles", "unit_color", "natural", "low_stand", "curtains", "sunbeam",
    "partial", "flying", "dark_loss", "shine_loss", "glass_loss", "slant_loss", "shadow", "vignette",
}  # fmt: skip
"""Settings that may not exceed 1."""


def read_settings(path: Path | None, pairs: Sequence[str]) -> ScanSettings:
    """Read settings from a YAML file, then `key=value` pairs, each over the defaults.

    Raises:
        UserError: a file that cannot be read, a malformed pair, or an impossible setting.
    """
    settings = ScanSettings()
    if path is not None:
        content, _ = parse_yaml(read_text(path, "settings of rooms", most=MAX_YAML), f"--settings {path}")
        if not isinstance(content, dict):
            raise UserError(f"--settings {path}: expected lines such as 'clutter: 0.5'")
        settings = settings.changed(content, f"--settings {path}")
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: expected key=value, such as clutter=0.5")
        value, _ = parse_yaml(f"[{text}]" if "," in text and "[" not in text else text, f"--set {pair[:80]}")
        settings = settings.changed({name: value}, "--set")
    return settings


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise UserError(f"{place} {value}: expected a number, 0 or more")
    return float(value)


def _range(value: Any, source: str, name: str) -> Range:
    place = f"{source}: {name}"
    if not isinstance(value, list | tuple):
        value = [value, value]
    if len(value) != 2:
        raise UserError(f"{place} {value}: expected a lower and an upper limit, such as {name}=1,2")
    low, high = (_number(number, place) for number in value)
    if low > high:
        raise UserError(f"{place} {value}: the lower limit is above the upper one")
    if name == "jpeg" and not 1 <= low <= high <= 100:
        raise UserError(f"{place} {value}: JPEG qualities lie in 1..100")
    return low, high
