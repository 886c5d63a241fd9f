"""Complete network: points and images in; masks, 3D and fused point features out (arXiv 2411.13243, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xmask3d.data.batch import Batch
from xmask3d.errors import UserError
from xmask3d.models.fusion import fuse_inference, fuse_training
from xmask3d.models.outputs import Fused, Outputs
from xmask3d.models.similarity import at_least_float32
from xmask3d.sparse import Voxels

if TYPE_CHECKING:
    from xmask3d.models.clip import EncodedTokens, MaskClip, TextClassifier
    from xmask3d.models.conditioner import Condition
    from xmask3d.models.contracts import Encoded, ImageFeatures, PointNetwork
    from xmask3d.models.fusion import Fuser
    from xmask3d.models.mask_decoder import MaskDecoder, MaskPrediction
    from xmask3d.models.mink_unet import BinaryHead
    from xmask3d.models.pixel_decoder import PixelDecoder
    from xmask3d.models.pyramid import FeaturePyramid


class XMask3D(nn.Module):
    """Assembly of parts that are built elsewhere."""

    def __init__(
        self,
        *,
        point_encoder: PointNetwork,
        binary_head: BinaryHead,
        image_features: ImageFeatures,
        conditioner: nn.Module | None = None,
        pyramid: FeaturePyramid,
        pixel_decoder: PixelDecoder,
        mask_decoder: MaskDecoder,
        classifier: TextClassifier,
        mask_clip: MaskClip,
        fuser: Fuser,
        sparse_backend: str = "auto",
        condition: Condition = "point",
    ) -> None:
        """Assemble the parts.

        Args:
            image_features, mask_clip: parts whose frozen networks are hidden from `parameters()` and `state_dict()`.
            conditioner: trainable part of the image features, if they do not register it themselves. It is registered
                here under its name in checkpoints.
            sparse_backend: back end of sparse convolutions, see `xmask3d.sparse.Voxels`.
            condition: kind of feature that conditions the image features of a view.
        """
        super().__init__()
        self.point_encoder = point_encoder
        self.binary_head = binary_head
        self.conditioner = conditioner
        self.image_features = image_features
        self.pyramid = pyramid
        self.pixel_decoder = pixel_decoder
        self.mask_decoder = mask_decoder
        self.classifier = classifier
        self.mask_clip = mask_clip
        self.fuser = fuser
        self.sparse_backend = sparse_backend
        self.condition = condition

    def forward(
        self,
        batch: Batch,
        text: Tensor,
        *,
        masks: bool = True,
        auxiliary: bool = False,
        mask_clip: bool = False,
        novel: Tensor | None = None,
        force_first: bool = False,
        encoded: Encoded | None = None,
        tokens: EncodedTokens | None = None,
        captions: Tensor | None = None,
    ) -> Outputs:
        """Run every network on a batch of views.

        Args:
            batch: B views with their points.
            text: n x D text embeddings, of the base classes in training, of all K at test time.
            masks: run the 2D branch; without it the outputs have no masks and nothing derived from masks.
            auxiliary: also return the predictions of the decoder's earlier layers.
            mask_clip: also embed the final masks by CLIP.
            novel, force_first: see `fuse`.
            encoded: result of `image_features.encode` for the same images, to avoid running the frozen encoder.
            tokens: result of `mask_clip.encode` for the same images, to avoid running CLIP's image tower.
            captions: B x D text embeddings of sentences about the views, for a text condition; the mean of `text`
                replaces missing captions.
        """
        global_feature, voxels_3d, binary_logits = self.encode_points(
            batch.voxel_coords, batch.voxel_features, batch.size
        )
        if tokens is None and (mask_clip or (masks and self.condition == "image")):
            tokens = self.mask_clip.encode(batch.images)
        feature = self._condition_feature(global_feature, tokens, text, captions)
        predictions = self.predict_masks(batch.images, feature, auxiliary, encoded) if masks else []
        outputs = Outputs(
            masks=predictions,
            class_logits=[self._class_logits(prediction, text) for prediction in predictions],
            class_embeddings=self.classifier.embeddings(text),
            temperature=predictions[0].temperature if masks else self.mask_decoder.post_mask_embed.temperature(),
            global_feature=global_feature,
            voxels_3d=voxels_3d,
            point_to_voxel=batch.point_to_voxel,
            binary_logits=binary_logits.index_select(0, batch.point_to_voxel),
        )
        if mask_clip:
            assert tokens is not None
            outputs.clip_embeddings = self.mask_clip.embed(tokens, outputs.mask_logits.detach())
        if masks:
            outputs.fused = self.fuse(outputs, batch, novel, force_first)
        return outputs

    def encode_points(self, coordinates: Tensor, features: Tensor, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Run the two 3D networks (section 3.2).

        Args:
            coordinates: V x 4 rows (sample, x, y, z), no row twice.
            features: V x 3 colours.
            batch_size: number B of samples.

        Returns:
            B x D global features, V x D voxel features, and V logits of being base.
        """
        voxels = Voxels(coordinates, features, batch_size, self.sparse_backend)
        global_feature, voxels_3d = self.point_encoder(voxels)
        dim = self.classifier.null_embed.shape[1]
        found, wanted = (tuple(global_feature.shape), tuple(voxels_3d.shape)), ((batch_size, dim), (len(features), dim))
        if found != wanted:
            raise UserError(f"{type(self.point_encoder).__name__} gives features of {found}, expected {wanted}")
        return global_feature, voxels_3d, self.binary_head(voxels)

    def predict_masks(
        self, images: Tensor, global_feature: Tensor, auxiliary: bool = False, encoded: Encoded | None = None
    ) -> list[MaskPrediction]:
        """Predict masks from image features that the points condition (section 3.2).

        Args:
            images: B x 3 x H x W in [0, 1].
            global_feature: B x D global feature of the points, or its replacement.
            auxiliary, encoded: see `forward`.

        Returns:
            The final prediction, then those of earlier layers.
        """
        encoded = self.image_features.encode(images) if encoded is None else encoded
        maps = self.image_features(encoded, global_feature)
        height, width = images.shape[-2:]
        pixels = self.pixel_decoder(self.pyramid(maps, (height, width)))
        return self.mask_decoder(pixels.mask_features, pixels.memories, auxiliary=auxiliary)

    def fuse(self, outputs: Outputs, batch: Batch, novel: Tensor | None = None, force_first: bool = False) -> Fused:
        """Assign points to masks and fuse their 2D and 3D features (Eq. 4).

        Args:
            outputs: outputs of `forward`; if they are changed, they must be fused again.
            batch: views of the outputs.
            novel: K bool, true for novel classes, if masks compete as at test time, see `fuse_inference`. None in
                training, where they compete by their scores alone.
            force_first: see `fuse_training`; in training only.
        """
        if novel is None:
            return fuse_training(self.fuser, outputs, batch, force_first)
        # At test time labels are computed from these features, so they are not rounded.
        with torch.autocast(batch.pixels.device.type, enabled=False):
            return fuse_inference(self.fuser, outputs, batch, novel)

    def _condition_feature(
        self, global_feature: Tensor, tokens: EncodedTokens | None, text: Tensor, captions: Tensor | None
    ) -> Tensor:
        """Choose the feature of each view, B x D, that conditions its image features; arguments as in `forward`."""
        if self.condition == "image" and tokens is not None:
            return self.mask_clip.embed_whole(tokens).to(global_feature)
        if self.condition == "text":
            return (text.mean(0).expand(len(global_feature), -1) if captions is None else captions).to(global_feature)
        return global_feature

    def _class_logits(self, prediction: MaskPrediction, text: Tensor) -> Tensor:
        # In float32 even under autocast, since cosines in half precision times a temperature of up to 100 would be
        # noise.
        with torch.autocast(text.device.type, enabled=False):
            return self.classifier.logits(at_least_float32(prediction.embeddings), text, prediction.temperature)
