"""Show what this machine has (torch, GPU, compiler, weights, packages, caches), and what to do about the rest."""

from argparse import ArgumentParser, Namespace

from xmask3d.cli import machine


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d doctor`."""
    parser.epilog = "Exits with 1 where something that is needed is missing or broken, else with 0."


def run(options: Namespace) -> int:
    """Print the findings, section by section; 1 if something needed is broken."""
    broken = 0
    for title, look in machine.SECTIONS.items():
        print(f"{title}:", flush=True)
        for finding in look():
            print("\n".join(finding.lines()), flush=True)
            broken += finding.state == "broken"
    print(f"\n{broken} of the things that are needed are broken" if broken else "\nall that is needed is there")
    return 1 if broken else 0
