"""Random network outputs and batches, small and of any shape."""

import torch
from torch import Tensor

from xmask3d.data.batch import Batch
from xmask3d.models.mask_decoder import MaskPrediction
from xmask3d.models.outputs import Outputs
from xmask3d.models.similarity import cosine_logits

FRAME = (24, 32)


def random_batch(
    points: tuple[int, ...] = (40, 30), num_classes: int = 5, novel: int = 2, label_size: int = 16, seed: int = 0
) -> Batch:
    """Views of so many points each; training ids 0..num_classes, of whose null points the first are novel."""
    generator = torch.Generator().manual_seed(seed)
    size, total = len(points), sum(points)

    def integers(high: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    labels = integers(num_classes + 1, (total,))
    unknown = torch.where(integers(novel + 1, (total,)) > 0, 0, -1)
    return Batch(
        scenes=["scene"] * size,
        views=[str(view) for view in range(size)],
        captions=[f"view {view}" for view in range(size)],
        images=torch.rand(size, 3, 8, 8, generator=generator),
        voxel_coords=torch.zeros(0, 4, dtype=torch.int32),
        voxel_features=torch.zeros(0, 3),
        point_to_voxel=torch.arange(total),
        point_batch=torch.repeat_interleave(torch.arange(size), torch.tensor(points)),
        points=torch.rand(total, 3, generator=generator),
        point_index=torch.arange(total),
        pixels=torch.stack([integers(FRAME[0], (total,)), integers(FRAME[1], (total,))], 1),
        labels=labels,
        binary_labels=torch.where(labels < num_classes, 1, unknown),
        label_maps=integers(num_classes + 1, (size, label_size, label_size)),
    )


def random_outputs(
    batch: Batch,
    num_classes: int = 5,
    queries: int = 7,
    dim: int = 6,
    predictions: int = 3,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Outputs:
    """Outputs for `batch`, as leaves that take gradients."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    size, total = batch.size, len(batch.pixels)
    temperature = torch.tensor(14.0, dtype=dtype, requires_grad=True)
    classes = leaf(num_classes + 1, dim)
    masks = [
        MaskPrediction(leaf(size, queries, 6, 8), leaf(size, queries, dim), temperature, torch.zeros(0))
        for _ in range(predictions)
    ]
    return Outputs(
        masks=masks,
        class_logits=[cosine_logits(prediction.embeddings, classes, temperature) for prediction in masks],
        class_embeddings=classes,
        temperature=temperature,
        global_feature=leaf(size, dim),
        voxels_3d=leaf(total, dim),
        point_to_voxel=batch.point_to_voxel,
        binary_logits=leaf(total),
        clip_embeddings=torch.randn(size, queries, dim, generator=generator).to(dtype),
    )
