"""The recording that comes with the package: its tool writes a folder that is read as a scan."""

from pathlib import Path

from tools.studies.example import make_example
from xmask3d.scan.options import ScanOptions
from xmask3d.scan.scan import open_scan


def test_a_made_recording_is_small_and_read_as_it_was_written(tmp_path: Path) -> None:
    size = make_example(tmp_path / "room", None, "living room", 3, 4)
    assert size < 4 * 150_000
    scan = open_scan(tmp_path / "room", ScanOptions(voxel_size=0.05))
    assert scan.frame_count == 4 and "depth read as 1000 units per metre" in scan.lines
    assert "intrinsics: intrinsics.txt (focal length 288.9 pixels at 320 x 240)" in scan.lines
