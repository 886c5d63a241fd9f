"""Settings of rooms that look like scans: every effect is a number that a file or the command line may change."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from xmask3d.errors import UserError
from xmask3d.guarded import MAX_YAML, parse_yaml, read_text


def _as_pair(value: Any) -> Any:
    """Make a range of a list, and of a single number."""
    return tuple(value) if isinstance(value, list) else value if isinstance(value, tuple) else (value, value)


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("the lower limit is above the upper one")
    return value


Number = Annotated[float, Field(ge=0, lt=1e6)]
Probability = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(gt=0, lt=1e6)]
Quality = Annotated[float, Field(ge=1, le=100)]
Range = Annotated[tuple[Number, Number], BeforeValidator(_as_pair), AfterValidator(_ascending)]
Qualities = Annotated[tuple[Quality, Quality], BeforeValidator(_as_pair), AfterValidator(_ascending)]


class ScanSettings(BaseModel):
    """Settings of the rooms, the camera and the fusion; 0 switches an effect off."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    l_shape: Probability = Field(0.25, description="probability that a corner of the room is walled off")
    chimney: Probability = Field(
        0.25, description="probability of a chimney breast, which leaves an alcove at either side"
    )
    slope: Probability = Field(0.3, description="probability of a sloped ceiling above one wall")
    clutter: Number = Field(1.0, description="number of small things on tops and floors, relative to the usual")
    wall_things: Number = Field(
        1.0, description="number of switches, posters, shelves, radiators on the walls, relative to the usual"
    )
    tiles: Probability = Field(
        0.7, description="probability that a kitchen or bathroom has tiles on a part of its walls"
    )
    unit_color: Probability = Field(
        0.7, description="probability that a kitchen's units and worktops are painted alike"
    )
    natural: Probability = Field(
        0.6, description="probability that a piece of furniture keeps the colours of its model instead of a drawn one"
    )
    low_stand: Probability = Field(
        0.5, description="probability of a low TV stand with a screen in a living room or bedroom"
    )
    tall_windows: Probability = Field(
        0.3, description="probability that a window reaches down to the floor, where nothing stands before it"
    )
    curtains: Probability = Field(0.4, description="probability that curtains hang beside a window that has none")
    outside: Range = Field(
        (1.2, 5.0), description="range of the outside's brightness in windows, relative to a white wall"
    )
    sunbeam: Probability = Field(0.5, description="probability that the sun shines in through a window")
    places: Range = Field((2, 4), description="smallest and largest number of places from which the room is filmed")
    partial: Probability = Field(0.2, description="probability that a recording shows one side of the room only")
    pitch: Number = Field(30.0, description="largest angle of the camera above and below the horizon, degrees")
    roll: Number = Field(6.0, description="standard deviation of the camera's roll, degrees")
    tilt: Number = Field(3.0, description="largest angle between the cloud's z axis and the true vertical, degrees")
    more_views: Number = Field(0.6, description="frames that are fused but not kept, relative to those that are")
    pose_shift: Number = Field(0.006, description="standard deviation of a written pose's place, metres")
    pose_turn: Number = Field(0.25, description="standard deviation of a written pose's angle, degrees")
    exposure: Number = Field(0.35, description="standard deviation of the exposure's error, stops")
    white_balance: Number = Field(0.1, description="standard deviation of the red and blue gains' logarithms")
    blur: Number = Field(1.0, description="largest standard deviation of the lens blur, pixels")
    motion: Number = Field(1.2, description="mean length of the motion blur, pixels")
    grain: Range = Field((1.5, 6.0), description="range of the picture noise's standard deviation, of 255")
    vignette: Probability = Field(0.25, description="largest loss of brightness in the corners")
    jpeg: Qualities = Field((45, 92), description="range of the JPEG quality")
    disparity_noise: Number = Field(0.03, description="standard deviation of the depth camera's disparity, pixels")
    disparity_step: Number = Field(0.0625, description="step of the disparity, pixels; 0 does not quantise")
    flying: Probability = Field(0.5, description="probability that a pixel at an edge is measured between the surfaces")
    edge_jitter: Number = Field(0.5, description="standard deviation of the places from which depth is read, pixels")
    dark_loss: Probability = Field(0.7, description="probability that a black surface gives no depth")
    shine_loss: Probability = Field(0.6, description="probability that a shiny surface gives no depth")
    glass_loss: Probability = Field(0.9, description="probability that a window pane gives no depth")
    slant_loss: Probability = Field(
        0.8, description="probability that a surface seen at a grazing angle gives no depth"
    )
    shadow: Probability = Field(1.0, description="1 loses what the depth camera's projector does not reach, 0 keeps it")
    warp: Number = Field(0.003, description="standard deviation of the smooth relative error of depth")
    reach: Range = Field((0.45, 5.0), description="nearest and farthest measured depth, metres")
    voxel_size: Length = Field(0.03, description="edge of the fusion's voxels, metres")
    label_reach: Length = Field(0.1, description="largest distance of a labelled point from a true surface, metres")

    def changed(self, values: dict[str, Any], source: str) -> "ScanSettings":
        """Return the same settings with some values replaced.

        Args:
            values: numbers, or two of them for a range, by name.
            source: name of their origin, for messages.

        Raises:
            UserError: an unknown name, or a value that its setting cannot have.
        """
        known = ScanSettings.model_fields
        for name in values:
            if name not in known:
                near = get_close_matches(str(name), known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                raise UserError(f"{source}: {name}: no such setting of rooms; {hint}")
        try:
            checked = ScanSettings.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name, problem = str(first["loc"][0]), first["msg"].removeprefix("Value error, ").lower()
            raise UserError(f"{source}: {name} {values[name]}: {problem}") from error
        return self.model_copy(update={name: getattr(checked, name) for name in values})

    @property
    def values(self) -> dict[str, float | list[float]]:
        """All settings by name, as JSON holds them."""
        return {name: list(value) if isinstance(value, tuple) else float(value) for name, value in self}


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
