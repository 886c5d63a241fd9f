"""Labeller: a model with the class texts of a benchmark. Batches of views in, labels out."""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from xmask3d.data.batch import Batch
from xmask3d.inference.class_scores import ViewLabels, gateable_classes, label_views
from xmask3d.inference.region_votes import among_their_kind
from xmask3d.inference.settings import LabelSettings
from xmask3d.inference.votes import SceneVotes
from xmask3d.models.clip import EncodedTokens
from xmask3d.models.contracts import Encoded
from xmask3d.models.outputs import Outputs
from xmask3d.models.xmask3d import XMask3D

BRANCHES = ("fused", "2d", "3d")
# A batch's images, encoded by the frozen networks: for the image features, and as CLIP's tokens.
Encodings = tuple[Encoded, EncodedTokens]


class Labeller:
    """Model that labels views by all K classes of a benchmark.

    Args:
        model: on the accelerator's device; put into evaluation mode at each call.
        text: K x D embeddings of the classes.
        novel: K bool, true for novel classes.
        settings: rules for turning outputs into labels.
        accelerator: its device and precision are used.
        encode_captions: embeds the views' captions for a model that is conditioned on them; None to use the classes'
            texts.
    """

    def __init__(
        self,
        model: XMask3D,
        text: Tensor,
        novel: Tensor,
        settings: LabelSettings,
        accelerator: Accelerator,
        encode_captions: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> None:
        self.model, self.settings, self.accelerator = model, settings, accelerator
        self.encode_captions = encode_captions
        self.text, self.novel = text.to(accelerator.device), novel.to(accelerator.device)
        self.gateable = gateable_classes(self.novel, settings.gating)

    @torch.no_grad()
    def __call__(self, batch: Batch, encodings: Encodings | None = None) -> tuple[Outputs, ViewLabels]:
        """Return outputs and labels of a batch on any device; `encodings` are those of its images, if already made."""
        self.model.eval()
        batch = batch.to(self.accelerator.device)
        outputs = self.run(batch, encodings)
        labels = label_views(
            outputs,
            batch,
            self.text,
            self.novel,
            base_ratio=self.settings.base_ratio,
            novel_ratio=self.settings.novel_ratio,
            gating=self.settings.gating,
            all_scores=self.settings.votes == "soft",
        )
        return outputs, labels

    def run(self, batch: Batch, encodings: Encodings | None = None) -> Outputs:
        """Run the model on a batch that is on its device."""
        encoded, tokens = encodings or (None, None)
        with self.accelerator.autocast():
            return self.model(
                batch,
                self.text,
                mask_clip=True,
                novel=self.gateable,
                encoded=encoded,
                tokens=tokens,
                captions=self.encode_captions(batch.captions) if self.encode_captions else None,
            )

    @property
    def temperature(self) -> float:
        """Factor by which the model multiplies cosine similarities."""
        return float(self.model.mask_decoder.post_mask_embed.temperature().detach())

    @torch.no_grad()
    def encode(self, batch: Batch) -> Encodings:
        """Compute the part that depends on the images alone, to share it among calls that differ in their points."""
        images = batch.images.to(self.accelerator.device)
        with self.accelerator.autocast():
            return self.model.image_features.encode(images), self.model.mask_clip.encode(images)


def by_branch(labels: ViewLabels) -> dict[str, Tensor]:
    """Return N int64 labels of each of `BRANCHES`."""
    return {"fused": labels.fused, "2d": labels.features_2d, "3d": labels.features_3d}


def cast_votes(
    votes: dict[str, SceneVotes],
    point_index: Tensor,
    labels: ViewLabels,
    kind: str,
    ungated: Tensor | None = None,
) -> None:
    """Cast the votes of some views' rows on their points, for each of `BRANCHES`.

    Args:
        point_index: N int64, see `SceneVotes.add`.
        kind: "hard" or "soft", see `LabelSettings.votes`; "soft" needs the scores of all branches.
        ungated: K bool, the novel classes, to take the gate out of soft votes; see `among_their_kind`.
    """
    scores = {"fused": labels.scores, "2d": labels.scores_2d, "3d": labels.scores_3d}
    for branch, predicted in by_branch(labels).items():
        found = scores[branch]
        if kind == "hard":
            votes[branch].add(point_index, predicted)
        else:
            assert found is not None, "soft votes need all scores"
            probabilities = found.softmax(-1) if ungated is None else among_their_kind(found.softmax(-1), ungated)
            votes[branch].add_probabilities(point_index, probabilities * (predicted >= 0)[:, None])
