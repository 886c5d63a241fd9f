"""Training step: from a batch of views to losses (arXiv 2411.13243, section 3.4)."""

import torch
from torch import Tensor, nn

from xmask3d.data.batch import Batch
from xmask3d.losses.criterion import Criterion
from xmask3d.models.clip import EncodedTokens
from xmask3d.models.contracts import Encoded
from xmask3d.models.xmask3d import XMask3D


class TrainingStep(nn.Module):
    """Model and criterion in one module, so that data parallelism sees every use of a parameter."""

    def __init__(self, model: XMask3D, criterion: Criterion) -> None:
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(
        self,
        batch: Batch,
        text: Tensor,
        captions: Tensor,
        epoch: int,
        generator: torch.Generator,
        encoded: Encoded | None = None,
        tokens: EncodedTokens | None = None,
    ) -> dict[str, Tensor]:
        """Return weighted losses by name, and their `total`.

        If no loss that needs masks has a weight, the 2D branch does not run and its parameters get no gradient.

        Args:
            batch: B views.
            text: C x D embeddings of the base classes. captions: B x D.
            epoch: number of the epoch, from 0, which decides the losses that take part.
            generator: generator of the random points at which masks are compared.
            encoded, tokens: encoded images and CLIP's tokens of the batch, if known.
        """
        criterion, masks, regions = self.criterion, self.criterion.needs("masks"), self.criterion.needs("regions")
        if not (masks or regions):
            return criterion(self.model(batch, text, masks=False), batch, captions, epoch=epoch, generator=generator)
        targets = criterion.count_targets(batch) if masks else None
        if regions and tokens is None:
            tokens = self.model.mask_clip.encode(batch.images)
        outputs = self.model(
            batch,
            text,
            masks=masks,
            auxiliary=True,
            mask_clip=criterion.needs("clip", epoch),
            force_first=criterion.reference,
            encoded=encoded,
            tokens=tokens,
            captions=captions,
        )
        if regions:
            assert tokens is not None and batch.label_maps is not None
            count = criterion.num_labels
            outputs.region_embeddings = self.model.mask_clip.embed_regions(tokens, batch.label_maps, count)
        return criterion(outputs, batch, captions, epoch=epoch, generator=generator, targets=targets)
