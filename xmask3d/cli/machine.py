"""Inspection of the machine for `xmask3d doctor`: one function per section, each yielding findings."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from xmask3d import __version__
from xmask3d.cli.arguments import FURNITURE_CACHE
from xmask3d.errors import UserError, first_line
from xmask3d.resources import CACHE

EXTRAS = {
    "train": "logs in TensorBoard",
    "rooms": "rendering of rooms",
    "view": "the live viewer",
    "plots": "bar charts and pictures of evaluations",
    "formats": "LAS and EXR files of scans",
    "captions": "sentences about views by an image-to-text model",
    "pretrain": "pre-training of the stand-ins for CLIP and Stable Diffusion",
    "dev": "the tests of a checkout",
}
"""Purpose of each extra of the package."""


@dataclass(frozen=True)
class Finding:
    """Finding about the machine.

    Attributes:
        state: "there"; "missing" if everything works without it; "broken" if something needed does not work.
        text: description of the finding. advice: advice to the user.
    """

    state: Literal["there", "missing", "broken"]
    text: str
    advice: str = ""

    def lines(self) -> list[str]:
        """Format the finding for the console."""
        mark = {"there": "ok", "missing": "--", "broken": "BROKEN"}[self.state]
        return [f"  {mark:7}{self.text}"] + ([f"         {self.advice}"] if self.advice else [])


def find_python() -> Iterator[Finding]:
    """Report Python and this package."""
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("there", f"Python {platform.python_version()} on {system}, {sys.prefix}")
    yield Finding("there", f"xmask3d {__version__}, {Path(__file__).parents[1]}")


def find_torch() -> Iterator[Finding]:
    """Report torch, its devices, and whether it works."""
    try:
        import torch

        total = float(torch.ones(2, 2).sum())
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("broken", f"torch: {first_line(error)}", "reinstall it; see installation.md")
        return
    if total != 4:
        yield Finding("broken", f"torch {torch.__version__} adds 1 + 1 + 1 + 1 to {total}", "reinstall it")
    yield Finding("there", f"torch {torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Finding("there", f"GPU {index}: {device.name}, {device.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for CPUs"
        problem = None
        with suppress(ImportError):  # other packages may be what is missing
            from xmask3d.engine.accelerator import unusable_gpu

            problem = unusable_gpu()
        advice = "everything runs on the CPU; published sizes need a GPU to train"
        yield Finding("missing", problem or f"no GPU ({built})", advice)


def find_compiler() -> Iterator[Finding]:
    """Report the C++ compiler, and build or load the compiled loops."""
    from xmask3d.native import compiler
    from xmask3d.native.library import library

    found = " ".join(compiler.find_compiler())
    try:
        library()
    except compiler.BuildError as error:
        advice = "plain torch is used, several times slower on a CPU; install g++ or clang++, or name one in CXX"
        yield Finding("missing", f"compiled loops: {error}", advice)
    except ImportError as error:
        yield Finding("missing", f"compiled loops: not tried, {first_line(error)}")
    else:
        yield Finding("there", f"compiled loops; compiler {found or 'none, but they were built before'}")


def find_weights() -> Iterator[Finding]:
    """Report the shipped weights, and the model that `xmask3d segment` uses."""
    from safetensors import SafetensorError, safe_open

    from xmask3d import weights

    files = [weights.SHIPPED / "model.safetensors", *sorted(weights.STAND_INS.rglob("*.safetensors"))]
    for path in files:
        name = path.relative_to(Path(weights.__file__).parent)
        try:
            with safe_open(str(path), "numpy") as file:
                count = len(list(file.keys()))
            yield Finding("there", f"shipped {name}: {count} tensors, {_size(path.stat().st_size)}")
        except (SafetensorError, OSError) as error:
            yield Finding("broken", f"shipped {name}: {first_line(error)}", "install the package again")
    try:
        from xmask3d.checkpoints.sources import find_source

        yield Finding("there", f"xmask3d segment uses {find_source().words}")
    except (UserError, ImportError) as error:
        yield Finding("broken", f"no model for xmask3d segment: {first_line(error)}")


def find_packages() -> Iterator[Finding]:
    """Report the required packages, and those of the extras."""
    try:
        required = metadata.requires("xmask3d") or []
    except metadata.PackageNotFoundError:
        text = "xmask3d is not installed, only found by its path; which packages it needs is not known here"
        yield Finding("missing", text, "sh scripts/install.sh installs it")
        return
    groups: dict[str, list[str]] = {"": []}
    for requirement in required:
        named = re.match(r"[\w.-]+", requirement)
        of_extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        # Packages not available on this platform are not expected; an extra made of others has no packages of its own.
        if named and named.group() != "xmask3d" and (of_extra or ";" not in requirement):
            groups.setdefault(of_extra.group(1) if of_extra else "", []).append(named.group())
    state: Literal["missing", "broken"]
    for extra, names in groups.items():
        missing = [name for name in names if not _installed(name)]
        if not extra:
            about, state, cure = (
                f"{len(names)} needed packages",
                "broken",
                "sh scripts/install.sh, or pip install xmask3d",
            )
        else:
            about, state = f"[{extra}] {EXTRAS.get(extra, 'further packages')}", "missing"
            cure = f"pip install 'xmask3d[{extra}]'"
        if missing:
            yield Finding(state, f"{about}: {', '.join(missing)} missing", cure)
        else:
            yield Finding("there", about)


def find_caches() -> Iterator[Finding]:
    """Report the folders of caches, and their sizes."""
    home = Path.home() / ".cache"
    hub = Path(os.environ.get("HF_HOME") or home / "huggingface")
    places = {
        "compiled loops": CACHE,
        "furniture": FURNITURE_CACHE,
        "Hugging Face": hub,
        "CLIP": home / "clip",
    }
    for name, place in places.items():
        size = folder_size(place, {FURNITURE_CACHE} - {place})
        yield Finding("there", f"{name}: {place}, {_size(size) if place.is_dir() else 'nothing yet'}")
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("there", f"free here: {_size(free)}")


SECTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "program": find_python,
    "torch": find_torch,
    "compiler": find_compiler,
    "weights": find_weights,
    "packages": find_packages,
    "caches": find_caches,
}
"""Functions of the sections, by the titles under which their findings are printed."""


def folder_size(folder: Path, left_out: set[Path]) -> int:
    """Sum the sizes of the files below a folder, without links and without those below some folders."""
    total = 0
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(root, name) not in left_out]
        for name in files:
            path = Path(root, name)
            if not path.is_symlink():
                total += path.stat().st_size
    return total


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
