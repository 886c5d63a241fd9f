"""Arguments shared by several commands, and checks of their values without heavy imports."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.errors import UserError
from xmask3d.resources import CACHE, EXAMPLE, scan_path

if TYPE_CHECKING:
    from xmask3d.config import Config
    from xmask3d.scan.options import ScanOptions

FURNITURE_CACHE = CACHE / "furniture"
SCAN = f"folder of a recording, .sens file, point cloud, processed scene, or {EXAMPLE}, which comes with the package"


def add_config(parser: ArgumentParser) -> None:
    """Add the configuration and its overrides."""
    parser.add_argument(
        "config", metavar="CONFIG", help="configuration: a file, or a shipped one such as scannet/B15N4"
    )
    add_overrides(parser)


def add_overrides(parser: ArgumentParser) -> None:
    """Add `key=value` overrides of a configuration."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes of keys, such as train.epochs=10 output=runs/mine"
    )


def read_config(options: Namespace) -> "Config":
    """Load the configuration named on a command line.

    Raises:
        UserError: there is a mistake in it, or a key is overridden twice.
    """
    from xmask3d.config import load_config

    keys: list[str] = []
    for override in options.overrides:
        key = override.partition("=")[0]
        for earlier in keys:
            if f"{key}.".startswith(f"{earlier}.") or f"{earlier}.".startswith(f"{key}."):
                raise UserError(f"override '{override}': {earlier} is overridden already; give each key once")
        keys.append(key)
    return load_config(options.config, options.overrides)


def check_data_folder(config: "Config") -> None:
    """Raise `UserError` if there is no data of a configuration at all."""
    from xmask3d.dotted import is_dotted
    from xmask3d.resources import find_file

    root = find_file(config.data.root)
    if not root.is_dir() and not is_dotted(config.data.layout):  # a user's own data set may not need a folder
        raise UserError(
            f"data.root {root}: no such folder; make rooms with xmask3d rooms --out {config.data.root}, "
            "get ScanNet with xmask3d download, or name another with data.root=FOLDER"
        )


def check_diffusion(config: "Config") -> None:
    """Raise `UserError` if the diffusion model of a configuration is missing."""
    from xmask3d.resources import find_file, is_of_hub

    source = config.model.diffusion
    wanted = source != "shipped" and not config.model.image_features
    if wanted and not find_file(source).exists() and not is_of_hub(source):
        raise UserError(
            f"model.diffusion {find_file(source)}: no such file or folder; get it with xmask3d download sd_model, or "
            "name another with model.diffusion=PATH, or org/name of the Hugging Face hub"
        )


def add_workers(parser: ArgumentParser) -> None:
    """Add the number of processes."""
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"
    )


def check_least(options: Namespace, *names: str) -> None:
    """Raise `UserError` for the first of some options (given by attribute) that is below 1; None is valid."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: is 1 or more")


def named_scan(path: Path) -> Path:
    """Return the path of a scan; for `example` the package's recording, with a note if a path has that name too."""
    if path == Path(EXAMPLE) and path.exists():
        print(f"{EXAMPLE}: the one in this folder; elsewhere the name stands for the recording of the package")
    return scan_path(path)


def add_reading(parser: ArgumentParser) -> None:
    """Add options for reading a scan; without them everything is determined automatically."""
    group = parser.add_argument_group("how to read the scan (determined automatically unless given)")
    group.add_argument("--views", type=int, metavar="N", help="use the N frames that together see most")
    group.add_argument("--depth-scale", type=float, metavar="UNITS", help="units per metre of depth files, as 1000")
    group.add_argument("--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help="of colour pictures")
    group.add_argument("--poses", metavar="KIND", help="camera-to-world or world-to-camera (also with ', y up')")
    group.add_argument("--unit", "--units", choices=("m", "cm", "mm", "ft", "in"), help="unit of a point cloud")
    group.add_argument("--scale", type=float, metavar="M", help="metres a unit, of a reconstruction from pictures")
    group.add_argument("--up", choices=("z", "y", "x", "-z", "-y", "-x"), help="axis that points up")
    group.add_argument("--voxel-size", type=float, default=0.02, metavar="M", help="spacing of fused points (0.02)")


def reading_options(options: Namespace) -> "ScanOptions":
    """Make `ScanOptions` of parsed arguments."""
    from xmask3d.scan.options import ScanOptions

    return ScanOptions(
        views=options.views,
        depth_scale=options.depth_scale,
        intrinsics=tuple(options.intrinsics) if options.intrinsics else None,
        poses=options.poses,
        unit=options.unit,
        scale=options.scale,
        up=options.up,
        voxel_size=options.voxel_size,
    )
