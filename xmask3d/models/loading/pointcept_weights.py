"""Published weights of Point Transformer V3, as Pointcept writes them, for `PointTransformer`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from xmask3d.errors import UserError
from xmask3d.models.loading.tensor_files import check_numbers, open_tensors
from xmask3d.resources import find_file

if TYPE_CHECKING:
    from xmask3d.models.point_transformer import PointTransformer

OWN = ("global_projection.", "point_projection.")  # of this method: no published weights have them
FOREIGN = ("seg_head.",)  # classifier of the published training


def load_point_transformer(network: PointTransformer, path: Path | str) -> None:
    """Load published weights into all but the two projections to text embeddings.

    A name here is the published one without `module.backbone.`; only a convolution's `weight`, O x K x K x K x I with
    taps along x first, is `kernel` here, K^3 x I x O with taps along x last. The published stem also reads normals,
    which voxels lack here: its first channels, the colours', are taken.

    Raises:
        UserError: a file that cannot be read, or of another network.
    """
    path = find_file(Path(path))
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the weights of a point transformer (.pth or .safetensors)")
    wanted = {name: x for name, x in network.state_dict().items() if not name.startswith(OWN)}
    with open_tensors(path) as file:
        stored = {name.removeprefix("module.").removeprefix("backbone."): name for name in file.names}
        names = {name: name.replace(".kernel", ".weight") for name in wanted}
        missing = sorted(set(names.values()) - stored.keys())
        others = sorted(name for name in stored.keys() - set(names.values()) if not name.startswith(FOREIGN))
        if missing or others:
            problem = f"lacks {missing[0]}" if missing else f"has {others[0]} too"
            raise UserError(f"{path}: weights of another network than model.point_network_options describes: {problem}")
        tensors = {name: _converted(name, file.get(stored[names[name]]), x) for name, x in wanted.items()}
    check_numbers(tensors, wanted, path)
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            sizes = f"{tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
            raise UserError(f"{path}: {name} is {sizes}; see model.point_network_options")
    network.load_state_dict(tensors, strict=False)


def _converted(name: str, tensor: Tensor, wanted: Tensor) -> Tensor:
    if not name.endswith(".kernel") or tensor.ndim != 5:
        return tensor
    if name.startswith("embedding.stem"):
        tensor = tensor[..., : wanted.shape[1]]
    return tensor.permute(3, 2, 1, 4, 0).flatten(0, 2)
