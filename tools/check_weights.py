"""Say which weights a configuration needs are there, what is missing, where to get it and where to put it."""

import argparse
from pathlib import Path

from xmask3d.checkpoints.check_weights import check_weights
from xmask3d.config import load_config
from xmask3d.errors import run_tool


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML file, such as config/scannet/B15N4.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as model.clip=ViT-L-14.pt")
    parser.add_argument("--checkpoint", type=Path, help="default: the published one, if there is any")
    return parser.parse_args(arguments)


def main() -> int:
    """Check all; 1 if anything is missing."""
    args = parse()
    findings = check_weights(load_config(args.config, args.overrides), args.checkpoint)
    for finding in findings:
        print("\n".join(finding.lines()))
    missing = [finding.what for finding in findings if not finding.there]
    print(f"missing: {', '.join(missing)}" if missing else "all there")
    return 1 if missing else 0


if __name__ == "__main__":
    run_tool(main)
