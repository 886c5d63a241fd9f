"""Alignment of feature maps with the objects that they show.

Networks of a few million parameters that see ten thousand pictures learn little meaning from pixels or noise alone.
So their maps, at the points where the published system reads them, also predict what the small CLIP and an ImageNet
network say about each place: as REPA (arXiv 2410.06940) does for a diffusion UNet and VA-VAE (arXiv 2501.01423) for an
autoencoder. The linear heads for this are not kept.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.pretraining.dataset import Pool


class Teachers:
    """Targets of teachers for each place of the views of a pool.

    Args:
        pool: N views with region maps.
        regions: N x R x D CLIP embeddings of the regions.
        teacher: N x C x h x w features of the ImageNet network.

    Attributes:
        dims: D and C.
    """

    def __init__(self, pool: Pool, regions: Tensor, teacher: Tensor) -> None:
        self._maps, self._regions, self._teacher = pool.regions, regions, teacher
        self.dims = (regions.shape[-1], teacher.shape[1])

    def paint(self, rows: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return targets B x (D + C) x side x side, and the mask of regions: B x 1 x side x side."""
        maps = torch.from_numpy(self._maps[rows.numpy()]).long()
        stride = maps.shape[-1] // side
        # The region at the middle of each cell stands for the cell.
        maps = maps[:, stride // 2 :: stride, stride // 2 :: stride]
        known = (maps < 255)[:, None]
        numbers = maps.clamp(max=self._regions.shape[1] - 1).flatten(1)[..., None].expand(-1, -1, self.dims[0])
        painted = self._regions[rows].float().gather(1, numbers).transpose(1, 2).unflatten(2, (side, side)) * known
        teacher = F.interpolate(self._teacher[rows].float(), (side, side), mode="bilinear", align_corners=False)
        return torch.cat([painted, teacher], 1), known.float()


class AlignmentHeads(nn.Module):
    """Linear heads, one per map, and the distance of their predictions from the teachers.

    Args:
        channels: channels of each map. dims: channels of the two teachers, `Teachers.dims`.
    """

    def __init__(self, channels: Sequence[int], dims: tuple[int, int]) -> None:
        super().__init__()
        self.dims = dims
        self.heads = nn.ModuleList(nn.Conv2d(c, sum(dims), 1) for c in channels)

    def forward(self, maps: Sequence[Tensor], targets: Tensor, weight: Tensor) -> list[Tensor]:
        """Return the loss of each map.

        Args:
            maps: B x C_i x h_i x w_i, no finer than the targets.
            targets: B x (D + C) x h x w. weight: B x 1 x h x w, where a region is.
        """
        return [self._distance(head(x), targets, weight) for head, x in zip(self.heads, maps, strict=True)]

    def _distance(self, predicted: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Compute one minus the cosine, of the CLIP and the ImageNet part, at the resolution of the prediction."""
        if predicted.shape[-1] < targets.shape[-1]:
            targets = F.adaptive_avg_pool2d(targets, predicted.shape[-2:])
            weight = F.adaptive_avg_pool2d(weight, predicted.shape[-2:])
        parts = zip(predicted.split(self.dims, 1), targets.split(self.dims, 1), strict=True)
        regions, teacher = (1 - F.cosine_similarity(p, t, dim=1) for p, t in parts)
        return (regions * weight[:, 0]).sum() / weight.sum().clamp(min=1) + 0.25 * teacher.mean()
