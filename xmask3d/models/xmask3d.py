"""The whole network: points and an image in, masks with CLIP embeddings and point features out (paper section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xmask3d.data.batch import Batch
from xmask3d.models.outputs import Outputs
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
        mask_clip: bool = False,
        auxiliary: bool = False,
        masks: bool = True,
        encoded: EncodedImages | None = None,
        tokens: EncodedTokens | None = None,
    ) -> Outputs:
        """Run every network on a batch of views.

        Args:
            batch: B views with their points.
            text: n x D text embeddings, of the base classes in training, of all K at test time.
            mask_clip: also embed the final masks by CLIP.
            auxiliary: also return what the decoder's earlier layers predict.
            masks: run the 2D branch; without it the outputs have no masks and what is made of them.
            encoded: of the same images, to save the VAE.
            tokens: of the same images, to save CLIP's image tower.
        """
        voxels = self.voxels(batch.voxel_coords, batch.voxel_features)
        global_feature, voxels_3d = self.point_encoder(voxels, batch.size)
        binary_logits = self.binary_head(voxels)
        predictions = self._masks(batch.images, global_feature, auxiliary, encoded) if masks else []
        temperature = predictions[0].temperature if masks else self.mask_decoder.post_mask_embed.temperature()
        return Outputs(
            masks=predictions,
            class_logits=[self._class_logits(prediction, text) for prediction in predictions],
            class_embeddings=self.classifier.embeddings(text),
            temperature=temperature,
            global_feature=global_feature,
            voxels_3d=voxels_3d,
            point_to_voxel=batch.point_to_voxel,
            binary_logits=binary_logits.index_select(0, batch.point_to_voxel),
            clip_embeddings=self._clip_embeddings(batch.images, predictions[0], tokens) if mask_clip else None,
        )

    def _clip_embeddings(self, images: Tensor, masks: MaskPrediction, tokens: EncodedTokens | None) -> Tensor:
        encoded = self.mask_clip.encode(images) if tokens is None else tokens
        return self.mask_clip.embed(encoded, masks.mask_logits.detach())

    def _masks(
        self, images: Tensor, global_feature: Tensor, auxiliary: bool, encoded: EncodedImages | None
    ) -> list[MaskPrediction]:
        if encoded is None:
            encoded = self.diffusion.encode(images)
        maps = self.diffusion(encoded, *self.conditioner(global_feature))
        height, width = images.shape[-2:]
        pixels = self.pixel_decoder(self.pyramid(maps, (height, width)))
        return self.mask_decoder(pixels.mask_features, pixels.memories, auxiliary=auxiliary)

    def _class_logits(self, prediction: MaskPrediction, text: Tensor) -> Tensor:
        # Under autocast too: cosines in half precision, times a temperature of up to 100, would be noise.
        with torch.autocast(text.device.type, enabled=False):
            return self.classifier.logits(at_least_float32(prediction.embeddings), text, prediction.temperature)
