"""Build the published network with random weights and take one whole forward and backward: seconds and peak memory."""

import argparse
import sys

import torch

from xmask3d.config import REPOSITORY, load_config
from xmask3d.engine.full_size import check_full_size
from xmask3d.errors import run_tool


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = REPOSITORY / "config" / "scannet" / "B15N4.yaml"
    parser.add_argument("config", nargs="?", default=default, help="YAML file (default: ScanNet B15/N4)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as model.checkpointing=false")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--limit", type=float, default=12, help="largest peak memory in GiB (default %(default)s)")
    return parser.parse_args(arguments)


def main() -> int:
    """Check; 1 if it took more memory than the limit, or a parameter got no gradient."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    report = check_full_size(load_config(args.config, ["model.checkpointing=true", *args.overrides]))
    print("\n".join(report.lines()))
    if report.with_gradient < report.parameters:
        print(f"{report.parameters - report.with_gradient} parameters have no finite gradient", file=sys.stderr)
        return 1
    if report.peak_gib > args.limit:
        print(f"more than {args.limit:g} GiB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_tool(main)
