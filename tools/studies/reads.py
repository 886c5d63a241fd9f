"""Study of what a training reads: bytes, and files of each kind, by epoch and process, without training.

python -m tools.studies.reads config/rooms/B15N4.yaml data.cache=null --processes 4 --workers 2 --epochs 2
"""

import argparse
import os
import sys
from collections import defaultdict
from pathlib import Path

from xmask3d.build import build_training_views
from xmask3d.config import Config, load_config
from xmask3d.engine.batch_norm import micro_batches
from xmask3d.engine.batches import EpochBatches
from xmask3d.errors import run_tool
from xmask3d.splits import load_benchmark

KINDS = {"scannet_3d": "scene", "scannet_3d_200": "raw labels", "color": "colour", "depth": "depth", "pose": "pose",
         "label": "labels", "label_200": "labels", "scenes": "kept scene", "visible": "kept visibility"}  # fmt: skip
"""Kind of a file by the name of a folder above it."""


class Reads:
    """Bytes read by calls of the system, which leaves out mapped files, and the files of a data set, by kind."""

    def __init__(self) -> None:
        self.bytes = 0
        self.files: dict[str, set[str]] = defaultdict(set)

    def add(self, path: str) -> None:
        """Note a file that was opened."""
        kind = next((KINDS[name] for name in reversed(Path(path).parts[:-1]) if name in KINDS), None)
        if kind:
            self.files[kind].add(path)


class Watch:
    """Observer of all that this process reads, once made. Needs Linux, which counts the bytes."""

    def __init__(self) -> None:
        self._reads, self._before = Reads(), _bytes_read()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike) and not (arguments[2] or 0) & os.O_WRONLY:
            self._reads.add(os.fspath(arguments[0]))

    def take(self) -> Reads:
        """Return what was read since the last call."""
        taken, now = self._reads, _bytes_read()
        taken.bytes, self._reads, self._before = now - self._before, Reads(), now
        return taken


def _bytes_read() -> int:
    """Return the bytes that this process has read so far, from files or their copies in memory."""
    return int(Path("/proc/self/io").read_text(encoding="utf-8").split()[1])


def epoch_reads(config: Config, processes: int, workers: int, epochs: int, watch: Watch) -> list[list[Reads]]:
    """Read all samples as the loader processes of a training do, each with its own reader; what each process read.

    Returns:
        For every epoch, for every process.
    """
    benchmark = load_benchmark(config.benchmark)
    views = [[build_training_views(config, benchmark) for _ in range(workers)] for _ in range(processes)]
    found = []
    for epoch in range(epochs):
        found.append([Reads() for _ in range(processes)])
        for process in range(processes):
            accumulate = micro_batches(config.train, processes)
            length, size = len(views[0][0]), config.train.batch_size
            batches = EpochBatches(length, size, config.seed, process, processes, accumulate)
            batches.seek(epoch)
            watch.take()
            for number, batch in enumerate(batches):
                own = views[process][number % workers]
                own.set_epoch(epoch)
                for index in batch:
                    own[index]
            found[-1][process] = watch.take()
    return found


def table(found: list[list[Reads]]) -> str:
    """Format what was read."""
    lines = [f"{'epoch':<7}{'process':<9}{'MB read':>8}  different files opened"]
    for epoch, processes in enumerate(found):
        for process, reads in enumerate(processes):
            files = ", ".join(f"{kind} {len(paths)}" for kind, paths in sorted(reads.files.items()))
            lines.append(f"{epoch:<7}{process:<9}{reads.bytes / 1e6:>8.1f}  {files}")
    return "\n".join(lines)


def main() -> int:
    """Read the samples of some epochs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="configuration, with the data in place")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of keys")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes of the training (1)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="loader processes of each (1)")
    parser.add_argument("--epochs", type=int, default=2, metavar="N", help="epochs to read (2)")
    options = parser.parse_args()
    config = load_config(options.config, options.overrides)
    print(table(epoch_reads(config, options.processes, options.workers, options.epochs, Watch())))
    return 0


if __name__ == "__main__":
    run_tool(main)
