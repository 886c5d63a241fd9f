"""The whole network: points and images in; masks, 3D and fused point features out (arXiv 2411.13243, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xmask3d.data.batch import Batch
from xmask3d.models.fusion import fuse_inference, fuse_training
from xmask3d.models.outputs import Fused, Outputs
from xmask3d.models.similarity import at_least_float32
from xmask3d.sparse import SparseTensor, sparse_tensor

if TYPE_CHECKING:
    from xmask3d.models.clip import EncodedTokens, MaskClip, TextClassifier
    from xmask3d.models.conditioner import EmptyConditioner, ImplicitConditioner
    from xmask3d.models.diffusion import DiffusionFeatures, EncodedImages
    from xmask3d.models.fusion import Fuser
    from xmask3d.models.mask_decoder import MaskDecoder, MaskPrediction
    from xmask3d.models.mink_unet import BinaryHead, PointEncoder
    from xmask3d.models.pixel_decoder import PixelDecoder
    from xmask3d.models.pyramid import FeaturePyramid


class XMask3D(nn.Module):
    """Assembles the parts; they are built elsewhere."""

    def __init__(
        self,
        *,
        point_encoder: PointEncoder,
        binary_head: BinaryHead,
        conditioner: ImplicitConditioner | EmptyConditioner,
        diffusion: DiffusionFeatures,
        pyramid: FeaturePyramid,
        pixel_decoder: PixelDecoder,
        mask_decoder: MaskDecoder,
        classifier: TextClassifier,
        mask_clip: MaskClip,
        fuser: Fuser,
        sparse_backend: str = "auto",
        low_products: bool = False,
    ) -> None:
        """Frozen parts (`diffusion`, `mask_clip`) keep out of `parameters()` and `state_dict()` by themselves.

        `sparse_backend` and, in training, `low_products` are what `xmask3d.sparse.sparse_tensor` takes.
        """
        super().__init__()
        self.point_encoder = point_encoder
        self.binary_head = binary_head
        self.conditioner = conditioner
        self.diffusion = diffusion
        self.pyramid = pyramid
        self.pixel_decoder = pixel_decoder
        self.mask_decoder = mask_decoder
        self.classifier = classifier
        self.mask_clip = mask_clip
        self.fuser = fuser
        self.sparse_backend, self.low_products = sparse_backend, low_products

    def voxels(self, coordinates: Tensor, features: Tensor) -> SparseTensor:
        """What the sparse networks read: V x 4 rows (batch, x, y, z), no row twice, and V x 3 features."""
        return sparse_tensor(coordinates, features, self.sparse_backend, self.low_products and self.training)

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
        encoded: EncodedImages | None = None,
        tokens: EncodedTokens | None = None,
    ) -> Outputs:
        """Run every network on a batch of views.

        Args:
            batch: B views with their points.
            text: n x D text embeddings, of the base classes in training, of all K at test time.
            masks: run the 2D branch; without it the outputs have no masks and nothing that is made of masks.
            auxiliary: also return what the decoder's earlier layers predict.
            mask_clip: also embed the final masks by CLIP.
            novel, force_first: choice of the mask that owns a point, as of `fuse`.
            encoded: the same images by `diffusion.encode`, to save the VAE.
            tokens: the same images by `mask_clip.encode`, to save CLIP's image tower.
        """
        voxels = self.voxels(batch.voxel_coords, batch.voxel_features)
        global_feature, voxels_3d = self.point_encoder(voxels, batch.size)
        binary_logits = self.binary_head(voxels)
        predictions = self.predict_masks(batch.images, global_feature, auxiliary, encoded) if masks else []
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
            tokens = self.mask_clip.encode(batch.images) if tokens is None else tokens
            outputs.clip_embeddings = self.mask_clip.embed(tokens, outputs.mask_logits.detach())
        if masks:
            outputs.fused = self.fuse(outputs, batch, novel, force_first)
        return outputs

    def predict_masks(
        self, images: Tensor, global_feature: Tensor, auxiliary: bool = False, encoded: EncodedImages | None = None
    ) -> list[MaskPrediction]:
        """Predict masks from the features of a diffusion model that the points condition (section 3.2).

        Args:
            images: B x 3 x H x W in [0, 1].
            global_feature: B x D, of the points.
            auxiliary, encoded: as of `forward`.

        Returns:
            The final prediction, then those of earlier layers.
        """
        encoded = self.diffusion.encode(images) if encoded is None else encoded
        maps = self.diffusion(encoded, *self.conditioner(global_feature))
        height, width = images.shape[-2:]
        pixels = self.pixel_decoder(self.pyramid(maps, (height, width)))
        return self.mask_decoder(pixels.mask_features, pixels.memories, auxiliary=auxiliary)

    def fuse(self, outputs: Outputs, batch: Batch, novel: Tensor | None = None, force_first: bool = False) -> Fused:
        """Give points to masks and fuse their 2D and 3D features (Eq. 4).

        Args:
            outputs: of `forward`; whoever changes them fuses again.
            batch: their views.
            novel: K bool, true for novel classes: masks compete as at test time, see `fuse_inference`. None in
                training, where they compete by their scores alone.
            force_first: in training, as of `fuse_training`.
        """
        if novel is None:
            return fuse_training(self.fuser, outputs, batch, force_first)
        # Labels follow from these features: at test time they are not rounded.
        with torch.autocast(batch.pixels.device.type, enabled=False):
            return fuse_inference(self.fuser, outputs, batch, novel)

    def _class_logits(self, prediction: MaskPrediction, text: Tensor) -> Tensor:
        # Under autocast too: cosines in half precision, times a temperature of up to 100, would be noise.
        with torch.autocast(text.device.type, enabled=False):
            return self.classifier.logits(at_least_float32(prediction.embeddings), text, prediction.temperature)
