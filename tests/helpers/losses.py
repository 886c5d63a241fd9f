"""The losses of a configuration, for outputs of `random_outputs`."""

from tests.helpers.outputs import FRAME
from xmask3d.build import make_losses
from xmask3d.config import LossConfig
from xmask3d.losses.criterion import Criterion
from xmask3d.losses.point_losses import NovelSupervision

REGULARISED = LossConfig().mask_regularisation_start
"""First epoch with the mask regularisation."""


def criterion_of(
    num_classes: int = 5,
    frame_size: tuple[int, int] = FRAME,
    novel_supervision: NovelSupervision = "reference",
    reference: bool = False,
    **weights: float,
) -> Criterion:
    """Losses with the published weights but for the given ones."""
    losses = make_losses(LossConfig(**weights), novel_supervision)
    return Criterion(
        losses,
        num_classes=num_classes,
        frame_size=frame_size,
        novel_supervision=novel_supervision,
        reference=reference,
    )
