"""What the frozen image networks say of a view, computed once: views do not change from epoch to epoch."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xmask3d.data.scene import Batch
from xmask3d.models.diffusion import DiffusionFeatures, EncodedImages


class EncodingCache:
    """Latents and VAE maps of views in half precision, on disk if a folder is given, else in memory.

    Every view is encoded on its own and rounded before it is used for the first time, so that results depend neither on
    the batches it comes in nor on whether it was found: runs that are resumed stay equal bit for bit.
    """

    def __init__(self, diffusion: DiffusionFeatures, folder: Path | None = None) -> None:
        """
        Args:
            diffusion: the frozen networks; the folder's name holds a digest of their weights.
            folder: where to keep encodings, for larger data sets and between runs; None keeps them in memory.
        """
        self._diffusion = diffusion
        self._known: dict[tuple[str, str, tuple[int, ...]], list[Tensor]] = {}
        self._folder = folder / f"encodings-{weights_digest(diffusion)}" if folder else None

    def __len__(self) -> int:
        """Number of views in memory."""
        return len(self._known)

    @property
    def bytes(self) -> int:
        """Memory that the kept encodings take."""
        return sum(tensor.nbytes for tensors in self._known.values() for tensor in tensors)

    def bytes_per_view(self, image_size: tuple[int, int]) -> int:
        """What one view takes, in bytes."""
        height, width = image_size
        channels, strides = self._diffusion.channels, self._diffusion.strides
        picked = [0, 1, len(strides) - 2, len(strides) - 1]
        cells = sum(channels[i] * (height // strides[i]) * (width // strides[i]) for i in picked)
        latent = 4 * (height // strides[1]) * (width // strides[1])
        return 2 * (cells + latent)

    def __call__(self, batch: Batch) -> EncodedImages:
        """Encodings of a batch's views, in the dtype and on the device of its images."""
        items = [
            self._view(scene, view, image)
            for scene, view, image in zip(batch.scenes, batch.views, batch.images, strict=True)
        ]
        return EncodedImages.concatenate([_unpack(tensors, batch.images) for tensors in items])

    def _view(self, scene: str, view: str, image: Tensor) -> list[Tensor]:
        key = (scene, view, tuple(image.shape))
        path = self._path(key)
        tensors = _read(path) if path else self._known.get(key)
        if tensors is None:
            tensors = _pack(self._diffusion.encode(image[None]))
            if path:
                _write(path, tensors)
            else:
                self._known[key] = tensors
        return tensors

    def _path(self, key: tuple[str, str, tuple[int, ...]]) -> Path | None:
        scene, view, (_, height, width) = key
        return self._folder / scene / f"{view}-{height}x{width}.safetensors" if self._folder else None


def weights_digest(diffusion: DiffusionFeatures) -> str:
    """Eight hexadecimal digits that tell one set of frozen weights from another."""
    digest = hashlib.sha256()
    for network in diffusion.frozen_networks():
        for name, tensor in network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().double().sum().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


def _pack(encoded: EncodedImages) -> list[Tensor]:
    tensors: Iterable[Tensor] = (encoded.latent, *encoded.encoder_maps, *encoded.decoder_maps)
    return [tensor.half().cpu().contiguous() for tensor in tensors]


def _unpack(tensors: list[Tensor], like: Tensor) -> EncodedImages:
    latent, *maps = (tensor.to(like.device, like.dtype) for tensor in tensors)
    half = len(maps) // 2
    return EncodedImages(latent, tuple(maps[:half]), tuple(maps[half:]))


def _read(path: Path) -> list[Tensor] | None:
    """None where there is no file, or a damaged one, which is then written anew."""
    if not path.is_file():
        return None
    try:
        content = load_file(path)
    except SafetensorError:
        return None
    return [content[str(i)] for i in range(len(content))]


def _write(path: Path, tensors: list[Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")  # another process may be writing the same view
    save_file({str(i): tensor for i, tensor in enumerate(tensors)}, temporary)
    temporary.replace(path)
