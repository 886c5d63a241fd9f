"""Named tensors that the parts of the network exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from xmask3d.models.mask_decoder import MaskPrediction


@dataclass
class Outputs:
    """Outputs of a forward; B samples, Q queries, N points, n texts.

    Attributes:
        masks: final prediction first, then those of the decoder's earlier layers if requested; empty without the 2D
            branch.
        class_logits: B x Q x (n + 1) of each prediction, null last.
        class_embeddings: (n + 1) x D, the texts and null, not normalised.
        temperature: scalar factor of cosine similarities.
        global_feature: B x D, the implicit caption.
        voxels_3d: V x D.
        point_to_voxel: N int64, row of `voxels_3d` for each point.
        binary_logits: N, positive where base.
        clip_embeddings: B x Q x D, CLIP embeddings of the final masks, without gradient; None unless requested.
        fused: features that masks give to the points; None without the 2D branch.
        region_embeddings: B x R x D, CLIP's view of the regions that stand in for labels, no gradient; None where
            training has labels.
    """

    masks: list[MaskPrediction]
    class_logits: list[Tensor]
    class_embeddings: Tensor
    temperature: Tensor
    global_feature: Tensor
    voxels_3d: Tensor
    point_to_voxel: Tensor
    binary_logits: Tensor
    clip_embeddings: Tensor | None = None
    fused: Fused | None = None
    region_embeddings: Tensor | None = None

    @property
    def points_3d(self) -> Tensor:
        """Feature of each point's voxel, N x D; gathered at each call."""
        return self.voxels_3d.index_select(0, self.point_to_voxel)

    @property
    def mask_logits(self) -> Tensor:
        """Mask logits of the final prediction, B x Q x h x w."""
        return self.masks[0].mask_logits

    @property
    def mask_embeddings(self) -> Tensor:
        """Mask embeddings of the final prediction, B x Q x D."""
        return self.masks[0].embeddings


@dataclass
class Fused:
    """Features that the masks of a batch gave to its N points.

    Attributes:
        owner: N int64, query that owns the point, -1 where none does.
        point_batch: N int64, sample of the point.
        mask_logits: N x Q, logit of every mask of the sample at the point's pixel, without gradient.
        embeddings: B x Q x D mask embeddings.
        rows: U x D fused features; a point that no mask owns keeps its 3D feature.
        point_to_row: N int64, row of `rows` for each point.
        row_to_point: U int64, one of the points of each row.
    """

    owner: Tensor
    point_batch: Tensor
    mask_logits: Tensor
    embeddings: Tensor
    rows: Tensor
    point_to_row: Tensor
    row_to_point: Tensor

    @property
    def covered(self) -> Tensor:
        """Points that a mask owns, N bool."""
        return self.owner >= 0

    @property
    def mask(self) -> Tensor:
        """Mask that owns each point, numbered over all samples; N int64, -1 where none does."""
        return torch.where(self.covered, self.point_batch * self.embeddings.shape[1] + self.owner, -1)

    @property
    def points_fused(self) -> Tensor:
        """Fused feature of each point, N x D; gathered at each call."""
        return self.rows.index_select(0, self.point_to_row)

    @property
    def points_2d(self) -> Tensor:
        """Embedding of each point's mask, N x D, 0 where uncovered; gathered at each call to save memory."""
        return gather_by_owner(self.embeddings, self.owner, self.point_batch)


def gather_by_owner(per_query: Tensor, owner: Tensor, point_batch: Tensor) -> Tensor:
    """Gather the row of each point's owner: B x Q x D to N x D, 0 where the owner is -1."""
    queries = per_query.shape[1]
    # An additional row of zeros avoids a second pass over N x D numbers for uncovered points.
    table = F.pad(per_query.flatten(0, 1), (0, 0, 0, 1))
    rows = torch.where(owner >= 0, point_batch * queries + owner, len(table) - 1)
    return table.index_select(0, rows)
