"""From given network outputs of a scene's views to the scene's labels and scores."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.parity.compare import Case, Results
from tests.parity.filler import fill_module
from tests.parity.fusion import FRAME, merged_masks, rank_among
from xmask3d.data.batch import Batch
from xmask3d.inference.class_scores import label_views
from xmask3d.inference.fill import fill_unseen
from xmask3d.inference.votes import SceneVotes
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.models.fusion import Fuser, fuse_inference, inference_scores
from xmask3d.models.mask_decoder import MaskPrediction
from xmask3d.models.outputs import Outputs
from xmask3d.models.similarity import cosine_logits

BRANCHES = {"fused": "fused", "2d": "features_2d", "3d": "features_3d"}


@torch.no_grad()
def run(case: Case) -> Results:
    """h_inference: all views in one batch."""
    results = Results()
    text, null, scale = (case.tensor(name) for name in ("text_embed", "null_embed", "logit_scale"))
    base, novel_ids = case.tensor("base_category").tolist(), case.tensor("novel_category").tolist()
    novel = torch.zeros(len(text), dtype=torch.bool)
    novel[novel_ids] = True
    height, width = case.sizes("mask_shape", FRAME)
    fuser = Fuser(text.shape[1], (height, width))
    fill_module(fuser, "criterion.fuser.")
    views = sum(name.endswith("/row") for name in case.inputs)
    batch = _batch(case, views)
    outputs = _outputs(case, views, torch.cat([text, null]), scale)
    outputs.fused = fuse_inference(fuser, outputs, batch, novel)
    labels = label_views(
        outputs,
        batch,
        text,
        novel,
        base_ratio=case.number("base_ratio"),
        novel_ratio=case.number("novel_ratio"),
    )
    for view in range(views):
        rows = batch.point_batch == view
        results.forward(f"view{view}/pred_logits", outputs.class_logits[0][view])
        for branch, name in BRANCHES.items():
            results.exact(f"view{view}/label_{branch}", getattr(labels, name)[rows])
    for view, prefix in enumerate(f"view{view}/" for view in range(views)):
        add_view(results, prefix, view, outputs, novel, fuser.frame_size)
    points, truth = case.inputs["scene_points"], case.tensor("scene_labels")
    for branch, name in BRANCHES.items():
        votes = SceneVotes(len(points), len(text))
        votes.add(batch.point_index, getattr(labels, name))
        scene = torch.from_numpy(fill_unseen(points, votes.result().cpu().numpy()))
        results.exact(f"scene_label_{branch}", scene)
        matrix = ConfusionMatrix(len(text))
        matrix.update(scene, truth)
        for quantity, area in zip(("intersection", "union", "target"), matrix.areas(), strict=True):
            results.exact(f"{quantity}_{branch}", area)
        scores = matrix.scores({"base": base, "novel": novel_ids})
        results.forward(f"mIoU_base_{branch}", scores.miou["base"])
        results.forward(f"mIoU_novel_{branch}", scores.miou["novel"])
        results.forward(f"hIoU_{branch}", scores.headlines["hiou"])
    return results


def add_view(
    results: Results, prefix: str, view: int, outputs: Outputs, novel: Tensor, frame_size: tuple[int, int]
) -> Tensor:
    """Add what was recorded of the fusion of one view of a batch; returns its kept masks at the points, M x N bool."""
    fused = outputs.fused
    assert fused is not None
    rows = fused.point_batch == view
    scores, keep = inference_scores(
        outputs.class_logits[0], fused.mask_logits, outputs.binary_logits, fused.point_batch, novel
    )
    _, queries = merged_masks(outputs.mask_logits, scores, keep, frame_size)
    rank = rank_among(queries[view], fused.owner[rows])
    masks = rank == torch.arange(len(queries[view]))[:, None]
    results.exact(f"{prefix}final_mask_3d", masks)
    results.exact(f"{prefix}binary_pred", (outputs.binary_logits[rows].sigmoid() > 0.5).long()[:, None])
    results.forward(f"{prefix}fused", fused.points_fused[rows])
    results.forward(f"{prefix}feat2d", fused.points_2d[rows])
    assert outputs.clip_embeddings is not None
    results.forward(f"{prefix}final_open_embedding", outputs.clip_embeddings[view, queries[view]])
    return masks


def _batch(case: Case, views: int) -> Batch:
    def joined(name: str) -> Tensor:
        return torch.cat([case.tensor(f"view{view}/{name}") for view in range(views)])

    lengths = torch.tensor([len(case.inputs[f"view{view}/row"]) for view in range(views)])
    point_index, nothing = joined("point_index"), torch.zeros(0)
    return Batch(
        scenes=[""] * views,
        views=[""] * views,
        captions=[""] * views,
        images=nothing,
        voxel_coords=nothing,
        voxel_features=nothing,
        point_to_voxel=joined("inverse"),
        point_batch=torch.arange(views).repeat_interleave(lengths),
        points=case.tensor("scene_points")[point_index],
        point_index=point_index,
        pixels=torch.stack([joined("row"), joined("col")], 1),
    )


def _outputs(case: Case, views: int, classes: Tensor, temperature: Tensor) -> Outputs:
    def stacked(name: str) -> Tensor:
        return torch.stack([case.tensor(f"view{view}/{name}") for view in range(views)])

    def at_points(name: str) -> Tensor:
        return torch.cat([case.tensor(f"view{v}/{name}")[case.tensor(f"view{v}/inverse")] for v in range(views)])

    embeddings, points_3d = stacked("mask_embed"), at_points("pred3d")
    return Outputs(
        masks=[MaskPrediction(stacked("mask_logits"), embeddings, temperature, embeddings)],
        class_logits=[cosine_logits(embeddings, classes, temperature)],
        class_embeddings=classes,
        temperature=temperature,
        global_feature=points_3d[:0],
        voxels_3d=points_3d,
        point_to_voxel=torch.arange(len(points_3d)),
        binary_logits=at_points("binary_logit")[:, 0],
        clip_embeddings=stacked("mask_embed_clip"),
    )
