"""Reports of a run: console lines, a log file, TensorBoard."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm


class LossWindow:
    """Losses since the last report."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps, self._start = 0, time.monotonic()

    def add(self, values: dict[str, Tensor]) -> None:
        """Add the losses of a step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._steps += 1

    def means(self, accelerator: Accelerator) -> tuple[dict[str, float], float]:
        """Average the losses over steps and processes; also the seconds per step."""
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name].float() for name in names])
        means = accelerator.reduce(sums, reduction="mean") / self._steps
        return dict(zip(names, means.tolist(), strict=True)), (time.monotonic() - self._start) / self._steps


class RunLog:
    """Log of a run: `<output>/train.log`, `<output>/tensorboard` and the console; a silent log writes nothing.

    Args:
        output: folder of the run.
        step: step at which the run starts; TensorBoard hides later entries of an interrupted run.
        silent: True in all processes but the first.
    """

    def __init__(self, output: Path, step: int = 0, silent: bool = False) -> None:
        self.silent = silent
        self._writer: Any = None
        if silent:
            return
        self._file = open(output / "train.log", "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        try:
            from torch.utils.tensorboard import SummaryWriter  # imported here because it takes a second
        except ImportError:
            self.line("no tensorboard: no curves, no pictures; pip install 'xmask3d[train]' for them")
        else:
            self._writer = SummaryWriter(str(output / "tensorboard"), purge_step=step)

    def line(self, text: str) -> None:
        """Print a line above the progress bar and keep it in the log file."""
        if not self.silent:
            tqdm.write(text)
            sys.stdout.flush()
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._file.flush()

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add one point to each named curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Add an h x w x 3 uint8 picture."""
        if self._writer is not None:
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            self._writer.close()
        if not self.silent:
            self._file.close()


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in GiB of the GPU, or else of the process; 0 if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
