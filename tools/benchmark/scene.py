"""Labels of a complete scene by the Rooms networks, compared with a loop over its views as published."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from tools.benchmark import plain
from tools.benchmark.case import Case, Job, Request
from tools.benchmark.sample import (
    SCENE,
    plain_label_map,
    plain_projection,
    plain_voxels,
    write_scene,
)
from tools.benchmark.sparse import PerOffsetManager
from tools.benchmark.step import ROOMS, Maps, whole_diffusion
from xmask3d.build import build_labeller, build_model, build_reader, evaluation_settings
from xmask3d.config import Config, load_config
from xmask3d.data.batch import Batch
from xmask3d.data.images import resize_bilinear
from xmask3d.engine.accelerator import make_accelerator
from xmask3d.engine.evaluate import evaluate_scene
from xmask3d.errors import UserError
from xmask3d.inference.labeller import Labeller
from xmask3d.models.xmask3d import XMask3D
from xmask3d.sparse import SparseTensor, Voxels
from xmask3d.splits import Benchmark, load_benchmark

CONTENDERS = ("plain", "xmask3d-1")
IMPOSSIBLE = -1e10
# What the loop over views does, so that labels are equal.
PUBLISHED = ("evaluate.gate=hard", "evaluate.votes=hard", "evaluate.regions=none", "evaluate.angle=0")


def cases(request: Request) -> list[Case]:
    """List scenes of every size; `xmask3d-1` is this project with batches of one view."""
    found = []
    for points in request.points:
        for views in request.views or (30,):
            for contender in ("xmask3d", *request.against):
                options: dict[str, str | int | float] = {"points": points, "views": views}
                name = f"scene, {points // 1000}k points, {views} views"
                found.append(Case("scene", name, contender, options, request.device, request.threads, request.repeats))
    return found


def prepare(case: Case, config: Path = ROOMS) -> Job:
    """Prepare a written room and the networks that `config` describes; a run returns the labels of all points."""
    if case.contender == "plain" and case.device != "cpu":
        raise UserError("the plain scene is written for the CPU; leave out --against plain or --device")
    folder = tempfile.TemporaryDirectory()
    write_scene(Path(folder.name), int(case.options["points"]), int(case.options["views"]), split="val")
    overrides = [f"data.root={folder.name}", "data.val_split=val", *PUBLISHED]
    if case.contender == "xmask3d-1":
        overrides.append("evaluate.batch_size=1")
    settings = load_config(config, overrides)
    scenes = Scenes(settings, folder, case.device)
    return Job(scenes.plain if case.contender == "plain" else scenes.ours)


class Scenes:
    """Networks and a scene on disk; each method reads and labels it."""

    def __init__(self, config: Config, folder: tempfile.TemporaryDirectory, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.config, self.folder, self.benchmark = config, folder, load_benchmark(config.benchmark)
        accelerator, assembly = make_accelerator("float32", cpu=device == "cpu"), build_model(config)
        self.labeller = build_labeller(config, assembly, self.benchmark, accelerator)
        self.whole: Maps | None = None

    def ours(self) -> np.ndarray:
        """Label a scene as `xmask3d evaluate` does."""
        reader = build_reader(self.config, self.benchmark, self.config.data.val_split)
        settings = evaluation_settings(self.config)
        return evaluate_scene(reader, self.benchmark, SCENE, self.labeller, settings).labels["fused"]

    def plain(self) -> np.ndarray:
        """Label a scene with all views in memory, one after the other through all networks, with loops over queries."""
        if self.whole is None:
            self.whole = whole_diffusion(self.labeller.model.image_features.diffusion, trained=False)
        root = Path(self.folder.name)
        path = root / "scannet_3d" / "val" / f"{SCENE}_vh_clean_2.pth"
        points, colors, _ = torch.load(path, weights_only=False)
        views = read_views(root / "scannet_2d" / SCENE, points, colors, self.config, self.benchmark)
        votes = np.zeros((3, len(points), self.benchmark.num_classes), np.int64)
        for index, batch, _ in views:
            branches = label_view(self.labeller, self.whole, batch.to("cpu", self.labeller.text.dtype))
            for own, classes in zip(votes, branches, strict=True):
                for label in range(self.benchmark.num_classes):
                    own[index, label] += classes == label
        fused, *_ = [_elect(own, points) for own in votes]
        return fused


def read_views(
    folder: Path, points: np.ndarray, colors: np.ndarray, config: Config, benchmark: Benchmark
) -> list[tuple[np.ndarray, Batch, Tensor]]:
    """Read indices of the visible points, input and label map of every view, all at once as published."""
    data, views = config.data, []
    for path in sorted((folder / "color").iterdir(), key=lambda path: int(path.stem)):
        picture = resize_bilinear(np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1), data.image_size)
        image = torch.from_numpy(picture).float()[None] / 255
        depth = np.asarray(Image.open(folder / "depth" / f"{path.stem}.png")) / 1000
        pose = np.loadtxt(folder / "pose" / f"{path.stem}.txt")
        ids = np.asarray(Image.open(folder / "label" / f"{path.stem}.png"))
        label_map = plain_label_map(ids, benchmark, data.image_size)
        rows, columns, visible = plain_projection(points, pose, depth)
        if len(rows) < data.min_points:
            continue
        cells, first, inverse = plain_voxels(points[visible], data.voxel_size, 0.0)
        batch = Batch(
            scenes=[SCENE],
            views=[path.stem],
            captions=[""],
            images=image,
            voxel_coords=torch.from_numpy(np.pad(cells, ((0, 0), (1, 0)))),
            voxel_features=torch.from_numpy(colors[visible][first]).float(),
            point_to_voxel=torch.from_numpy(inverse),
            point_batch=torch.zeros(len(rows), dtype=torch.int64),
            points=torch.from_numpy(points[visible]).float(),
            point_index=torch.from_numpy(np.flatnonzero(visible)),
            pixels=torch.from_numpy(np.stack([rows, columns], 1)),
        )
        views.append((np.flatnonzero(visible), batch, label_map))
    return views


def _elect(votes: np.ndarray, points: np.ndarray) -> np.ndarray:
    seen, found = votes.any(1), votes.argmax(1)
    if seen.any() and not seen.all():
        found[~seen] = found[seen][cKDTree(points[seen]).query(points[~seen])[1]]
    return found


@torch.no_grad()
def label_view(labeller: Labeller, maps: Maps, batch: Batch) -> list[np.ndarray]:
    """Return classes of the visible points of one view, N int64: of the fused, 2D and 3D features."""
    model, text, novel, settings = labeller.model.eval(), labeller.text, labeller.novel, labeller.settings
    global_feature, voxels_3d = model.point_encoder(_voxels(batch))
    binary = model.binary_head(_voxels(batch))[batch.point_to_voxel]
    pyramid = model.pyramid(maps(batch.images, *model.conditioner(global_feature)), batch.images.shape[-2:])
    pixels = model.pixel_decoder(pyramid)
    masks = plain.decode_masks(model.mask_decoder, pixels.mask_features, pixels.memories)
    embeddings = model.classifier.embeddings(text)
    logits, *_ = [plain.class_logits(prediction, embeddings) for prediction in masks]
    clip = model.mask_clip(batch.images, masks[0].mask_logits)
    scores, keep = _scores(model, masks[0].mask_logits[0], logits[0], binary, batch, novel)
    frame = model.fuser.frame_size
    owner = plain.own_points(masks[0].mask_logits, scores[None], keep[None], batch.pixels, batch.point_batch, frame)
    points_3d, temperature = voxels_3d[batch.point_to_voxel], masks[0].temperature
    fused = model.fuser(points_3d, masks[0].embeddings, owner, batch.point_batch)
    normed = torch.nn.functional.normalize(text, dim=-1)

    def similarity(features: Tensor) -> Tensor:
        return (temperature * torch.nn.functional.normalize(features, dim=-1) @ normed.T).log_softmax(-1)

    ratios = torch.where(novel, settings.novel_ratio, settings.base_ratio)
    total = similarity(fused)
    for query in owner.unique().tolist():
        if query >= 0:
            inside = owner == query
            total[inside] = ratios * total[inside] + (1 - ratios) * similarity(clip[0, query])
    is_base = binary.sigmoid() > 0.5
    total[is_base[:, None] & novel] = IMPOSSIBLE
    total[~is_base[:, None] & ~novel] = IMPOSSIBLE
    # The two branches on the side, without CLIP; a point without mask has the 2D feature of the nearest one with.
    points_2d = torch.where((owner >= 0)[:, None], masks[0].embeddings[0][owner.clamp(min=0)], 0)
    has, positions = (owner >= 0).numpy(), batch.points.numpy()
    if has.any() and not has.all():
        nearest = cKDTree(positions[has]).query(positions[~has])[1]
        points_2d[torch.from_numpy(~has)] = points_2d[torch.from_numpy(has)][torch.from_numpy(nearest)]
    branches = [total]
    for features in (points_2d, points_3d):
        scores = similarity(features)
        scores[is_base[:, None] & novel] = IMPOSSIBLE
        scores[~is_base[:, None] & ~novel] = IMPOSSIBLE
        branches.append(scores)
    return [scores.argmax(-1).numpy() for scores in branches]


def _scores(
    model: XMask3D, mask_logits: Tensor, logits: Tensor, binary: Tensor, batch: Batch, novel: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the score of each query, Q, and which take part, Q bool, query by query, from the points of its mask."""
    covers = plain.covered(mask_logits, batch.pixels, model.fuser.frame_size)
    scores, keep = torch.zeros(len(logits)), torch.zeros(len(logits), dtype=torch.bool)
    for query, inside in enumerate(covers):
        if inside.sum().item() == 0:
            continue
        is_base = binary[inside].sigmoid().mean().item() > 0.5
        allowed = logits[query].clone()
        blocked = novel if is_base else ~novel
        allowed[:-1][blocked] = IMPOSSIBLE
        if not is_base:
            allowed[-1] = IMPOSSIBLE
        scores[query], keep[query] = allowed.softmax(-1).max().item(), True
    return scores, keep


def _voxels(batch: Batch) -> Voxels:
    """Make separate kernel maps for each network, and a product for each tap."""
    voxels, manager = Voxels(batch.voxel_coords, batch.voxel_features, batch.size), PerOffsetManager(batch.voxel_coords)
    voxels.__dict__["sparse"] = SparseTensor(manager.arrange(batch.voxel_features), 1, manager)
    return voxels
