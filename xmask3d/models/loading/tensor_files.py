"""Large weight files, read tensor by tensor."""

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xmask3d.errors import UserError, first_line


class TensorFile(NamedTuple):
    """Open file of tensors: their names, and access to each of them."""

    names: list[str]
    get: Callable[[str], Tensor]


# First bytes of files that are not the expected checkpoint: a web page, or a pointer in a clone without git LFS.
_FOREIGN = (
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a pointer of git LFS"),
)


def refuse_foreign(path: Path) -> None:
    """Refuse files that come from a failed download, as opposed to a damaged checkpoint.

    Raises:
        UserError: the file is a web page or a pointer of git LFS.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    except OSError:
        return  # the reader of the file reports why it is unreadable
    for start, kind in _FOREIGN:
        if head.startswith(start):
            raise UserError(f"{path}: not a checkpoint (it begins like {kind}: download the file itself)")


def check_numbers(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Path | str) -> None:
    """Refuse weights that would lose a part of their values when copied, or that are NaN or infinite.

    Args:
        tensors: weights by name.
        wanted: tensors of the network, on any device; others are not checked.
        source: name of the file for the message.

    Raises:
        UserError: there are such weights; the message names the first.
    """
    for name in wanted:
        tensor = tensors.get(name)
        if tensor is None:
            continue
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()
        same_kind = tensor.is_floating_point() == wanted[name].is_floating_point()
        if not plain or not (same_kind or _is_counter(tensor)):
            raise UserError(f"{source}: {name} holds numbers of another kind ({tensor.dtype}, {tensor.layout})")
        if not torch.isfinite(tensor).all():
            raise UserError(f"{source}: {name} holds NaN or infinity; damaged, or of a training that failed")


def _is_counter(tensor: Tensor) -> bool:
    """Return True for integers stored as floats, as in batch norm's counters exported in half precision."""
    return tensor.is_floating_point() and bool((tensor == tensor.round()).all())


class _Ignored:
    """Placeholder for objects other than tensors, which accepts a checkpoint's state and does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a safetensors file, or a checkpoint that `torch.save` wrote (a state dict, alone or under "state_dict").

    Nothing in a checkpoint is executed: it may hold tensors and plain values only.

    Raises:
        UserError: the file is unreadable, or contains code objects.
    """
    refuse_foreign(path)
    if path.suffix == ".safetensors":
        try:
            file = safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: not a readable safetensors file: {error}") from error
        with file:
            yield TensorFile(list(file.keys()), file.get_tensor)
        return
    tensors = _load_checkpoint(path)
    yield TensorFile(list(tensors), tensors.__getitem__)


def _load_checkpoint(path: Path) -> dict[str, Tensor]:
    # Files older than torch 1.6 are not archives and cannot be mapped into memory.
    archive = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_stand_ins(path) if archive else []):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused, since it holds more than tensors; convert it to safetensors") from error
    except Exception as error:  # a damaged or foreign file raises all kinds of errors
        raise UserError(f"{path}: not a readable checkpoint: {first_line(error)}") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _stand_ins(path: Path) -> list[Callable | tuple[Callable, str]]:
    """Replace classes of pytorch_lightning and NumPy in Stable Diffusion 1.x checkpoints by harmless ones."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [(_Ignored, name) for name in names if name.startswith(("pytorch_lightning.", "numpy."))]
