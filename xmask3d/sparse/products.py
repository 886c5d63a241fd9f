"""Dense matrix products of fixed shape with one weight, as fast as the machine allows."""

import torch
from torch import Tensor


class Weight:
    """The right side of many products `rows @ matrix` with the same number of rows, prepared once.

    In float32 on a CPU `torch.mm` reaches half of what oneDNN does, and only a private operator of torch leads there;
    where that is missing (or for other types and devices, and bfloat16 on a processor without it) `torch.mm` is used.

    Args:
        matrix: A x B.
        rows: number of rows of every left side to come.
    """

    def __init__(self, matrix: Tensor, rows: int) -> None:
        self._matrix = matrix
        self._packed = _pack(matrix, rows)

    def product(self, left: Tensor) -> Tensor:
        """rows x A -> rows x B."""
        if self._packed is None:
            return left @ self._matrix
        return torch.ops.mkldnn._linear_pointwise(left, self._packed, None, "none", [], "")


def add_outer(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`total + left.T @ right` of L x A, R x L and R x A; `total` may be overwritten."""
    if left.is_cpu and left.dtype == torch.float32 and has_onednn_linear():
        turned = left.t().contiguous()
        return torch.ops.mkldnn._linear_pointwise.binary(turned, total, right.t(), None, "add")
    return total.add_(left.t() @ right)


def has_onednn_linear(dtype: torch.dtype = torch.float32) -> bool:
    """Whether torch's private oneDNN product is there, and takes this type on this processor."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    if dtype == torch.bfloat16:
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return supported is not None and supported()
    return dtype == torch.float32


def _pack(matrix: Tensor, rows: int) -> Tensor | None:
    if not (matrix.is_cpu and has_onednn_linear(matrix.dtype)):
        return None
    return torch.ops.mkldnn._reorder_linear_weight(matrix.t().contiguous(), rows)
