"""User options for reading a scan, and their validation."""

import math
from dataclasses import dataclass

from xmask3d.errors import UserError
from xmask3d.scan.formats import MAX_FOCAL
from xmask3d.scan.gravity import NAMES
from xmask3d.scan.recording import CONVENTIONS

UNITS = {"m": 1.0, "cm": 100.0, "mm": 1000.0, "ft": 1 / 0.3048, "in": 1 / 0.0254}
# metres; a grid of smaller voxels would span less than a kilometre, and no depth camera is that precise
SMALLEST_VOXEL, LARGEST_VOXEL = 0.001, 1.0


@dataclass(frozen=True)
class ScanOptions:
    """Options of a user for reading a scan; None means that the value is determined automatically.

    Attributes:
        views: use at most this many views.
        depth_scale: units of the depth files per metre. farthest: largest depth in metres that is trusted.
        intrinsics: fx, fy, cx, cy of the colour pictures.
        poses: "camera-to-world" or "world-to-camera" (also with ", y up").
        unit: key of `UNITS`, of a point cloud. up: "z", "y", "x" or with a minus.
        scale: metres per unit of a cloud, or of the poses (and depth) of a recording without a scale.
        voxel_size: metres between points of a fused cloud.
        max_points: larger clouds are thinned to a coarser spacing; results are copied back to every point.
    """

    views: int | None = None
    depth_scale: float | None = None
    farthest: float = 10.0
    intrinsics: tuple[float, float, float, float] | None = None
    poses: str | None = None
    unit: str | None = None
    scale: float | None = None
    up: str | None = None
    voxel_size: float = 0.02
    max_points: int = 2_000_000

    @property
    def units_per_metre(self) -> float | None:
        """Units of a cloud in one metre, or None to determine them automatically."""
        return 1 / self.scale if self.scale is not None else UNITS[self.unit] if self.unit else None

    def unused(self, what: str, *names: str) -> list[str]:
        """Return a warning for each given option, among some, that has no effect on a kind of scan.

        Args:
            what: the kind of scan, for the warnings.
            names: names of the options.
        """
        given = [name for name in names if getattr(self, name) != getattr(ScanOptions(), name)]
        return [f"warning: --{name.replace('_', '-')} has no effect on {what}" for name in given]

    def check(self) -> None:
        """Raise `UserError` naming the first option with an impossible value."""
        for name, word, known in (
            ("unit", self.unit, UNITS),
            ("up", self.up, NAMES),
            ("poses", self.poses, CONVENTIONS),
        ):
            if word is not None and word not in known:
                raise UserError(f"--{name} {word}: unknown; known: {', '.join(known)}")
        if self.unit is not None and self.scale is not None:
            raise UserError(f"--unit {self.unit} --scale {self.scale:g}: both say how long a unit is; give one of them")
        if self.views is not None and self.views < 1:
            raise UserError(f"--views {self.views}: at least one view is needed")
        for name, value, what in (
            ("depth-scale", self.depth_scale, "the units of the depth files per metre, as 1000"),
            ("farthest", self.farthest, "metres"),
            ("scale", self.scale, "metres a unit, as 0.35"),
            ("max-points", self.max_points, "a number of points"),
        ):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(f"--{name} {value:g}: must be above 0 ({what})")
        if not SMALLEST_VOXEL <= self.voxel_size <= LARGEST_VOXEL:
            sizes = f"at least {SMALLEST_VOXEL:g} and at most {LARGEST_VOXEL:g}"
            raise UserError(f"--voxel-size {self.voxel_size:g}: must be {sizes} (metres)")
        if self.intrinsics is not None:
            given = " ".join(f"{value:g}" for value in self.intrinsics)
            if not (all(abs(value) < MAX_FOCAL for value in self.intrinsics) and min(self.intrinsics[:2]) > 0):
                raise UserError(f"--intrinsics {given}: expected FX FY CX CY in pixels, the focal lengths above 0")
