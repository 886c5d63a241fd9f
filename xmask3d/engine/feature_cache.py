"""Feature cache: keeps outputs of frozen networks for each view, since views are the same in all epochs."""

import hashlib
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmask3d.checkpoints.checkpoint import weights_digest
from xmask3d.data.batch import Batch
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.models.clip import ClipText, EncodedTokens, MaskClip
from xmask3d.models.contracts import Encoded, ImageEncoder
from xmask3d.seal import UNSEALED, is_whole_cache, sealed

Key = tuple[str, str, str]  # scene, view, and everything else that the content depends on


class FeatureCache:
    """Cache of encoded images and CLIP's image tokens in half precision, and of captions; on disk if it has a folder.

    Without a folder images are kept in memory. Captions are always kept in memory, by the text encoder. Every view is
    encoded on its own and rounded before its first use, so results depend neither on the batch that a view is in nor on
    a hit or miss of the cache. A resumed run thus stays equal bit for bit.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        mask_clip: MaskClip,
        clip_text: ClipText,
        folder: Path | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Open the cache.

        Args:
            image_encoder, mask_clip, clip_text: frozen encoders; names on disk hold digests of their weights.
            folder: folder of encoded views, for larger data sets and for use by later runs; None keeps them in memory.
            device: device of the encoders, by default that of a batch. With it, batches may stay on the host, where
                their pictures are compared with the encoded ones without copying them back.
        """
        self._device = device
        self._image_encoder, self._mask_clip, self._clip_text = image_encoder, mask_clip, clip_text
        self._images = _Store(folder, "encodings", image_encoder.frozen_networks())
        self._tokens = _Store(folder, "tokens", mask_clip.frozen_networks())
        self._captions = _Store(folder, "captions", clip_text.frozen_networks()) if folder else None
        self._folder = folder

    @property
    def bytes(self) -> int:
        """Memory used by the kept views, in bytes."""
        return self._images.bytes + self._tokens.bytes

    def images(self, batch: Batch) -> Encoded:
        """Look up or make the encoded images of a batch, in the dtype of its images, on the cache's device."""
        return _encoded(self._image_encoder, self._images, batch, self._device)

    def tokens(self, batch: Batch) -> EncodedTokens:
        """Look up or make CLIP's image tokens of a batch, as `images` does for its encoded images."""
        return _encoded(self._mask_clip, self._tokens, batch, self._device)

    def captions(self, batch: Batch) -> Tensor:
        """Return text embeddings of a batch's captions, B x D, from the text encoder."""
        if self._captions is not None:
            for scene, view, text in zip(batch.scenes, batch.views, batch.captions, strict=True):
                if not self._clip_text.knows(text):
                    key = (scene, view, hashlib.sha256(text.encode()).hexdigest()[:8])
                    self._clip_text.remember(text, self._captions.get(key, partial(self._encode_text, text))[0])
        return self._clip_text(batch.captions)

    def bytes_per_view(self, image_size: tuple[int, int], tokens: bool) -> int:
        """Return the size of one view in bytes, with CLIP's tokens if `tokens` is true."""
        encoders = (self._image_encoder, self._mask_clip) if tokens else (self._image_encoder,)
        return 2 * sum(encoder.numbers_per_image(image_size) for encoder in encoders) + 4 * self._clip_text.dim

    def announce(self, views: Sequence[tuple[str, str]], image_size: tuple[int, int], tokens: bool) -> str:
        """Describe in one line how much will be kept and where, before anything is computed.

        Args:
            views: (scene, view) of every view that may be requested.
            image_size, tokens: see `bytes_per_view`.

        Raises:
            UserError: the disk does not have that much space left.
        """
        each = self.bytes_per_view(image_size, tokens)
        text = f"encodings of {len(views)} views: up to {_size(each * len(views))} ({_size(each)} each)"
        if self._folder is None:
            return f"{text}, in memory"
        size = _image_size(image_size)
        images = self.bytes_per_view(image_size, False)
        missing = images * sum(not self._images.has(scene, view, size) for scene, view in views)
        if tokens:
            missing += (each - images) * sum(not self._tokens.has(scene, view, size) for scene, view in views)
        parent = next(path for path in (self._folder, *self._folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(parent).free
        if missing > free:
            raise UserError(
                f"data.cache={self._folder}: {text}, {_size(missing)} still to write, but {_size(free)} are free; "
                "use another disk, or train.feature_cache=false"
            )
        return f"{text}, {_size(missing)} still to write to {self._folder} ({_size(free)} free)"

    def _encode_text(self, text: str) -> list[Tensor]:
        return [self._clip_text([text]).cpu()]


class _Store:
    """Store of a list of tensors for each view, in a folder of safetensors files or in memory."""

    def __init__(self, folder: Path | None, kind: str, networks: Iterable[nn.Module]) -> None:
        self._known: dict[Key, list[Tensor]] = {}
        self._folder = folder / f"{kind}-{_digest(networks)}" if folder else None

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensors in self._known.values() for tensor in tensors)

    def has(self, scene: str, view: str, size: str) -> bool:
        """Return True if the folder has an entry for a view's name and size, whatever its picture."""
        return self._folder is not None and any((self._folder / scene).glob(f"{view}-{size}-*.safetensors"))

    def get(self, key: Key, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Return the entry of a key, and make it first if it is missing."""
        tensors = _read(self._path(key)) if self._folder else self._known.get(key)
        if tensors is None:
            tensors = compute()
            if self._folder:
                _write(self._path(key), tensors)
            else:
                self._known[key] = tensors
        return tensors

    def _path(self, key: Key) -> Path:
        assert self._folder is not None
        scene, view, rest = key
        return self._folder / scene / f"{view}-{rest}.safetensors"


def _digest(networks: Iterable[nn.Module]) -> str:
    """Return eight hexadecimal digits that distinguish one set of frozen weights from another."""
    states = enumerate(network.state_dict() for network in networks)
    return weights_digest({f"{number}.{name}": x for number, state in states for name, x in state.items()})[:8]


def _views(batch: Batch) -> Iterator[tuple[Key, Tensor]]:
    for scene, view, image in zip(batch.scenes, batch.views, batch.images, strict=True):
        # Cached files outlive a data set, and another data set may have other pictures under the same names.
        content = zlib.crc32(image.cpu().contiguous().numpy())
        yield (scene, view, f"{_image_size(image.shape[-2:])}-{content:08x}"), image


def _image_size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def _encoded(encoder: ImageEncoder, store: _Store, batch: Batch, device: torch.device | None) -> Encoded:
    """Encode the images of a batch one by one, rounded to half precision."""
    device = device or batch.images.device
    kept = [store.get(key, partial(_encode_image, encoder, image, device)) for key, image in _views(batch)]
    parts = (torch.cat(tensors) for tensors in zip(*kept, strict=True))
    return encoder.unpack([part.to(device, batch.images.dtype) for part in parts])


def _encode_image(encoder: ImageEncoder, image: Tensor, device: torch.device) -> list[Tensor]:
    image = image.to(device)
    return [tensor.half().cpu().contiguous() for tensor in encoder.pack(encoder.encode(image[None]))]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _read(path: Path) -> list[Tensor] | None:
    """Read a file; None if it is missing or damaged, so that it is written again."""
    if not path.is_file():
        return None
    try:
        if not is_whole_cache(path):
            return None
        content: dict[str, Any] = load_file(path)
    except (SafetensorError, OSError):
        return None
    return [content[str(i)] for i in range(len(content))]


def _write(path: Path, tensors: list[Tensor]) -> None:
    """Write a file. Raises `UserError` where it cannot be written."""
    named = {str(i): tensor for i, tensor in enumerate(tensors)}
    write = sealed(lambda part: save_file(named, part, UNSEALED))
    atomic_write(path, write, sync=False, advice="use another data.cache")
