"""Show what this machine has (torch, GPU, compiler, weights, packages, caches), and what to do about the rest."""

import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.cli import machine
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError
from xmask3d.resources import IS_CHECKOUT, REPOSITORY


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d doctor`."""
    parser.epilog = "Exits with 1 where something that is needed is missing or broken, else with 0."
    parser.add_argument("--gpu", action="store_true", help="check and measure a GPU instead, in ten minutes at most")
    parser.add_argument("--device", default="cuda", help="torch device of --gpu (default %(default)s)")
    parser.add_argument("--small", action="store_true", help="sizes that take seconds, to try --gpu on a CPU")
    parser.add_argument(
        "--report", type=Path, default=Path("gpu-report"), help="files of --gpu, without .md and .json (%(default)s)"
    )


def run(options: Namespace) -> int:
    """Print the findings section by section; return 1 if something needed is broken."""
    if options.gpu:
        return _report_on_gpu(options)
    refuse_given(options, ["device", "small", "report"], "is for --gpu")
    broken = 0
    for title, look in machine.SECTIONS.items():
        print(f"{title}:", flush=True)
        for finding in look():
            print("\n".join(finding.lines()), flush=True)
            broken += finding.state == "broken"
    print(f"\n{broken} of the things that are needed are broken" if broken else "\nall that is needed is there")
    return 1 if broken else 0


def _report_on_gpu(options: Namespace) -> int:
    """Run `tools.gpu`, which uses the benchmarks and recorded numbers of the repository."""
    if not IS_CHECKOUT:
        raise UserError("--gpu needs the tools and recorded numbers of the repository; clone it and run it from there")
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "tools.gpu", "--device", options.device, "--report", str(options.report)]
    command += ["--small"] * options.small
    return subprocess.run(command, env=environment, check=False).returncode
