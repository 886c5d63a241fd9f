import re
from pathlib import Path

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.scan.options import ScanOptions
from xmask3d.scan.scan import open_scan


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depth_scale=0.0), "--depth-scale 0: must be above 0"),
        (dict(depth_scale=-1000.0), "--depth-scale -1000: must be above 0"),
        (dict(depth_scale=np.inf), "--depth-scale inf: must be above 0"),
        (dict(farthest=np.nan), "--farthest nan: must be above 0"),
        (dict(max_points=0), "--max-points 0: must be above 0"),
        (dict(voxel_size=-0.02), "--voxel-size -0.02: must be at least 0.001"),
        (dict(voxel_size=1e-6), "--voxel-size 1e-06: must be at least 0.001"),
        (dict(voxel_size=1e9), "--voxel-size 1e+09: must be at least 0.001 and at most 1"),
        (dict(intrinsics=(1e308, 500.0, 160.0, 120.0)), "--intrinsics 1e+308 500 160 120: expected FX FY CX CY"),
        (dict(intrinsics=(0.0, 0.0, 0.0, 0.0)), "--intrinsics 0 0 0 0: expected FX FY CX CY"),
        (dict(intrinsics=(500.0, 500.0, np.nan, 120.0)), "--intrinsics 500 500 nan 120: expected FX FY CX CY"),
        (dict(views=0), "--views 0: at least one"),
        (dict(up="w"), "--up w: unknown; known: z"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        open_scan("no such scan", ScanOptions(**options))


def test_what_has_no_effect_is_named(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "room.xyz", np.random.default_rng(0).random((300, 3)))
    assert not any("has no effect" in line for line in open_scan(tmp_path / "room.xyz").lines)
    given = ScanOptions(poses="camera-to-world", depth_scale=1000.0, unit="m")
    lines = [line for line in open_scan(tmp_path / "room.xyz", given).lines if "has no effect" in line]
    assert lines == [f"warning: --{name} has no effect on a cloud" for name in ("depth-scale", "poses")]
