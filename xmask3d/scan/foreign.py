"""Files that are no readable scan, with advice on how to convert them to one."""

from collections.abc import Iterable
from pathlib import Path

RECORDERS = (
    "record with an app that keeps depth and poses (Record3D, Stray Scanner, 3D Scanner App, Polycam's raw data, on a "
    "phone with LiDAR), or make a point cloud from the pictures with COLMAP (colmap automatic_reconstructor, then "
    "dense/0/fused.ply)"
)
EXPORT = "export it as PLY, OBJ or GLB"
VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".webm", ".3gp")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dng", ".heic", ".heif")
HEIC = "HEIC pictures, which are not read here; make JPEG of them (sips -s format jpeg on a Mac, else heif-convert)"
_KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (VIDEOS, f"a video, which has no depth and no poses: {RECORDERS}"),
    (PICTURES, f"one picture, which has no depth: {RECORDERS}"),
    ((".heic", ".heif"), f"one of {HEIC}; and one picture has no depth: {RECORDERS}"),
    (
        (".usdz", ".usd", ".usda", ".usdc"),
        f"a USD scene, as RoomPlan and Object Capture write it: {EXPORT} in the app, or in Blender after opening it",
    ),
    ((".fbx", ".dae", ".blend", ".3ds", ".abc", ".x3d"), f"a 3D model: {EXPORT}, for example from Blender"),
    ((".skp", ".dwg", ".dxf", ".ifc", ".rvt", ".step", ".stp", ".iges"), f"a drawing and no scan: {EXPORT}"),
    (
        (".rcp", ".rcs", ".fls", ".lsproj", ".zfs", ".ptx", ".dp", ".lgs"),
        "a laser scanner's own format: export it as E57 or LAS in the scanner's program",
    ),
    (
        (".bag", ".db3", ".mcap"),
        "a ROS recording: write colour, depth and poses as files (rtabmap-export --images --poses), or the map as PCD",
    ),
    ((".db",), "a database, perhaps RTAB-Map's: rtabmap-export --images --poses FILE.db writes what can be read"),
    (
        (".mkv",),
        f"a video; of an Azure Kinect, Open3D's azure_kinect_mkv_reader writes colour and depth; else {RECORDERS}",
    ),
    (
        (".svo", ".svo2", ".oni", ".klg"),
        "a depth camera's own recording: write colour and depth as pictures and the poses as text with its tools",
    ),
    ((".spz", ".ksplat", ".sog", ".lcc"), "compressed splats: open the file in SuperSplat and export PLY"),
    ((".7z", ".rar"), "an archive that is not opened here: unpack it, or pack it as .zip"),
)
WAYS = {suffix: way for suffixes, way in _KINDS for suffix in suffixes}
"""Kind of file and advice, by suffix."""


def foreign(path: Path) -> str | None:
    """Describe a file of a known kind that is no readable scan, with advice, or return None."""
    return WAYS.get(path.suffix.lower())


def without_depth(paths: Iterable[Path]) -> str | None:
    """Describe files that do not form a scan together, such as pictures without depth, or return None."""
    suffixes = [path.suffix.lower() for path in paths]
    heic = sum(suffix in (".heic", ".heif") for suffix in suffixes)
    pictures = sum(suffix in PICTURES for suffix in suffixes)
    if heic:
        return f"{heic} {HEIC}; if no depth is beside them: {RECORDERS}"
    if pictures:
        return f"{pictures} pictures without depth: {RECORDERS}"
    return next((WAYS[suffix] for suffix in suffixes if suffix in WAYS), None)
