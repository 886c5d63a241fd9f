"""Baselines: other methods' ideas by this project's parts, trained on the same views and scored like the method.

Every row sees as many views, by the same point network and CLIP; a run that is there is not repeated.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from xmask3d.build import build_reader, evaluation_settings, open_clip_model
from xmask3d.checkpoints.checkpoint import find_checkpoint
from xmask3d.config import Config, load_config
from xmask3d.data.batch import Batch
from xmask3d.data.datasets import collate_usable
from xmask3d.data.scene import SceneReader
from xmask3d.engine.evaluate import count_votes, evaluate
from xmask3d.engine.results import Results
from xmask3d.engine.train import train
from xmask3d.errors import UserError, run_tool
from xmask3d.files import atomic_write
from xmask3d.inference.labeller import BRANCHES
from xmask3d.inference.region_embeddings import RegionEmbeddings
from xmask3d.inference.region_votes import divide
from xmask3d.inference.votes import SceneVotes
from xmask3d.losses.loss import Loss, LossStep
from xmask3d.metrics.compare import mean_cell
from xmask3d.models.clip import ClipText, EncodedTokens, MaskClip
from xmask3d.seal import read_sealed_json
from xmask3d.splits import Benchmark, load_benchmark

TEMPERATURE = 1 / 0.07  # that this project's model starts with
POINTS_ALONE = tuple(
    f"loss.{name}=0"
    for name in ("mask_class", "mask", "dice", "point_fused", "caption_fused", "caption_2d", "mask_regularisation")
)
UNGATED = ("evaluate.gate=none", "evaluate.regions=votes", "evaluate.region_clip=0")


@dataclass(frozen=True)
class Method:
    """Row of the table.

    Attributes:
        title: name in the table.
        labels: labels that train it.
        changes: overrides of the configuration.
        branch: features whose labels are the method's.
        folder: name of its runs; methods of one folder are branches of one evaluation.
        trained: whether anything trains.
    """

    title: str
    labels: str
    changes: tuple[str, ...] = ()
    branch: str = "3d"
    folder: str = ""
    trained: bool = True


METHODS = {
    "points": Method(
        "cross entropy of points with base names (LSeg-3D-like)", "base",
        (*POINTS_ALONE, "loss.caption_3d=0", "loss.binary=0", *UNGATED),
    ),
    "captions": Method(
        "the same, captions of views and a base/novel head (PLA-like)", "base, captions",
        (*POINTS_ALONE, "evaluate.gate=soft", "evaluate.regions=votes", "evaluate.region_clip=0"),
    ),
    "fusion": Method("patches of CLIP, mean over views (OpenScene-2D-like)", "none", UNGATED, "3d", "clip", False),
    "regions": Method("regions by CLIP, mean over views", "none", UNGATED, "fused", "clip", False),
    "distillation": Method(
        "UNet distilled from the patches' means (OpenScene-3D-like)", "none",
        (*POINTS_ALONE, "loss.point_3d=0", "loss.caption_3d=0", "loss.binary=0", *UNGATED),
    ),
    "unlabelled": Method(
        "this method without labels", "captions",
        ("train.supervision=none", "evaluate.gate=none", "evaluate.regions=votes"), "fused",
    ),
    "ours": Method("this method", "base, captions", (), "fused"),
}  # fmt: skip


def dense_features(mask_clip: MaskClip, tokens: EncodedTokens) -> Tensor:
    """Return CLIP's features of the patches, B x patches x D: the last layer's values without attention (MaskCLIP)."""
    visual = mask_clip.visual
    values = tokens.values[-1][:, :, 1:].transpose(1, 2).flatten(2)
    features = visual.ln_post(visual.transformer.resblocks[-1].attn.out_proj(values))
    return features if visual.proj is None else features @ visual.proj


def patch_of(pixels: Tensor, grid: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """Return the number of the patch that each pixel of the frame grid falls in, N int64."""
    (rows, columns), (height, width) = grid, frame_size
    return (pixels[:, 0] * rows // height) * columns + pixels[:, 1] * columns // width


@dataclass(frozen=True)
class ClipViews:
    """Views of scenes as CLIP sees them.

    Attributes:
        config, benchmark, reader: the data.
        mask_clip: CLIP's image tower.
    """

    config: Config
    benchmark: Benchmark
    reader: SceneReader
    mask_clip: MaskClip

    @torch.no_grad()
    def views(self, scene: str) -> Iterator[tuple[Batch, EncodedTokens]]:
        """Yield all views of a scene in batches."""
        settings = evaluation_settings(self.config)
        views = settings.open_views(self.reader, self.benchmark, scene)
        for batch in DataLoader(views, settings.batch_size, collate_fn=collate_usable):  # type: ignore[arg-type]
            if batch is not None:
                yield batch, self.mask_clip.encode(batch.images)

    @torch.no_grad()
    def add_patches(self, sums: Tensor, batch: Batch, tokens: EncodedTokens) -> None:
        """Add to each point, n x D, the feature of the patch that each view shows it in."""
        features = F.normalize(dense_features(self.mask_clip, tokens), dim=-1)
        patch = patch_of(batch.pixels, self.mask_clip.patch_grid, self.config.data.frame_size)
        sums.index_add_(0, batch.point_index, features[batch.point_batch, patch])

    def write_features(self, folder: Path) -> None:
        """Write the mean feature of each point of each scene, where it is missing; zeros where no view shows it."""
        todo = [name for name in self.reader.scene_names if not (folder / f"{name}.npy").exists()]
        for name in tqdm(todo, desc="features", unit="scene", disable=None):
            sums = torch.zeros(len(self.reader.read_scene(name).points), self.mask_clip.dim)
            for batch, tokens in self.views(name):
                self.add_patches(sums, batch, tokens)
            features = F.normalize(sums, dim=-1).half().numpy()
            atomic_write(folder / f"{name}.npy", lambda part, features=features: np.save(part, features))


class Distillation(Loss):
    """Distance of each point's 3D feature and the mean of CLIP's patches that show it."""

    name, group, weight = "distillation", "points", 1.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, np.ndarray] = {}

    def compute(self, step: LossStep) -> Tensor:
        """Compute the loss, see `Loss`."""
        batch, rows = step.batch, []
        for view, scene in enumerate(batch.scenes):
            if scene not in self._known:
                self._known[scene] = np.load(self._folder / f"{scene}.npy", mmap_mode="r")
            index = batch.point_index[batch.point_batch == view]
            rows.append(torch.from_numpy(self._known[scene][index.cpu().numpy()]))
        wanted = torch.cat(rows).to(step.voxels)
        seen = wanted.any(1)
        distance = 1 - F.cosine_similarity(step.voxels[step.outputs.point_to_voxel], wanted, dim=-1)
        return torch.where(seen, distance, 0).sum() / seen.sum().clamp(min=1)


def evaluate_clip(config: Config, folder: Path) -> Results:
    """Score CLIP alone: means of patches as the 3D branch, of regions as the fused one, both voted over regions."""
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, config.data.val_split)
    clip, tokenizer = open_clip_model(config.model.clip)
    source = ClipViews(config, benchmark, reader, MaskClip(clip))
    names = benchmark.test_prompts(config.evaluate.prompts)
    text = F.normalize(ClipText(clip, tokenizer).encode_classes(names, config.evaluate.templates), dim=-1)
    for name in tqdm(reader.scene_names, unit="scene", disable=None):
        scene = reader.read_scene(name)
        divisions, used = divide(scene), 0
        regions = RegionEmbeddings(divisions, source.mask_clip, config.data.frame_size)
        sums = torch.zeros(len(scene.points), source.mask_clip.dim)
        for batch, tokens in source.views(name):
            source.add_patches(sums, batch, tokens)
            regions.add(batch, tokens)
            used += batch.size
        seen = sums.any(1).nonzero().squeeze(1)
        voices = regions.log_probabilities(text, TEMPERATURE)
        by_region = np.mean([np.exp(voice)[region] for voice, region in zip(voices, divisions, strict=True)], 0)
        by_patch = (TEMPERATURE * F.normalize(sums[seen], dim=-1) @ text.T).softmax(-1)
        votes = {branch: SceneVotes(len(scene.points), benchmark.num_classes) for branch in BRANCHES}
        for branch, cast in votes.items():
            cast.add_probabilities(seen, torch.from_numpy(by_region)[seen] if branch == "fused" else by_patch)
        result = count_votes(scene, benchmark, votes, SceneVotes(len(scene.points), 2), used, divisions)
        result.save(folder / "scenes" / f"{name}.npz")
    about = {"benchmark": config.benchmark, "protocol": config.protocol}
    about |= {"checkpoint": f"{config.model.clip} CLIP, no training", "checkpoint_sha256": ""}
    results = Results.collect(folder, list(reader.scene_names), benchmark, about, config.evaluate.headlines)
    results.write()
    return results


def run_cell(name: str, config: Config) -> int:
    """Train a method with the seed of its configuration, and evaluate it; returns the exit code."""
    method = METHODS[name]
    folder, losses, started = config.output / "evaluation", list[Loss](), time.monotonic()
    if not method.trained:
        evaluate_clip(config, folder)
        return 0
    if name == "distillation":
        benchmark = load_benchmark(config.benchmark)
        reader = build_reader(config, benchmark, config.data.train_split)
        features = config.output.parents[1] / "features"
        ClipViews(config, benchmark, reader, MaskClip(open_clip_model(config.model.clip)[0])).write_features(features)
        losses = [Distillation(features)]
    if code := train(config, losses=losses):
        return code
    cost = {"minutes": (time.monotonic() - started) / 60}
    cost["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if not (config.output / "cost.json").exists():
        atomic_write(config.output / "cost.json", json.dumps(cost))
    evaluate(config, find_checkpoint("newest", config.output))
    return 0


def tabulate(out: Path, names: Sequence[str], seeds: Sequence[int]) -> str:
    """Format the table of finished runs: means with standard deviations over seeds."""
    columns = {"hiou": "hIoU", "miou_base": "base", "miou_novel": "novel", "f_miou": "f-mIoU"}
    lines = [f"| method | trained on | {' | '.join(columns.values())} | minutes | GiB |", "|---|---|" + "---:|" * 6]
    for name in names:
        method = METHODS[name]
        runs = [out / (method.folder or name) / f"seed-{seed}" for seed in seeds if method.trained or seed == seeds[0]]
        found = [next(iter(sorted((run / "evaluation").rglob("results.json"))), None) for run in runs]
        scores = [read_sealed_json(path, "results")["scores"][method.branch] for path in found if path]
        if not scores:
            continue
        cells = [mean_cell([100 * each[column] for each in scores]) for column in columns]
        costs = [
            json.loads((run / "cost.json").read_text(encoding="utf-8")) for run in runs if (run / "cost.json").exists()
        ]
        cells += [mean_cell([cost[key] for cost in costs]) for key in ("minutes", "gib")]
        lines.append(f"| {method.title} | {method.labels} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, each run in a process of its own, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="configuration, such as rooms/B15N4")
    parser.add_argument("overrides", nargs="*", help="key=value overrides for all runs")
    parser.add_argument("--methods", default=",".join(METHODS), help="rows, of %(default)s")
    parser.add_argument("--seeds", default="5557,1,2", help="seeds of what trains (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/baselines"), help="folder (default: %(default)s)")
    parser.add_argument("--here", action="store_true", help="run in this process, and print no table")
    options = parser.parse_intermixed_args()
    names, seeds = options.methods.split(","), [int(seed) for seed in options.seeds.split(",")]
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise UserError(f"--methods {unknown[0]}: unknown; known: {', '.join(METHODS)}")
    for seed in seeds:
        for name in names:
            method = METHODS[name]
            output = options.out / (method.folder or name) / f"seed-{seed}"
            if any((output / "evaluation").rglob("results.json")) or (seed != seeds[0] and not method.trained):
                continue
            if options.here:
                place = ["evaluate.headlines=[hiou,f_miou]", f"seed={seed}", f"output={output}"]
                code = run_cell(name, load_config(options.config, [*options.overrides, *method.changes, *place]))
            else:
                print(f"\n== {name}, seed {seed}", flush=True)
                command = [sys.executable, "-m", "tools.studies.baselines", options.config, *options.overrides]
                command += ["--methods", name, "--seeds", str(seed), "--out", str(options.out), "--here"]
                code = subprocess.run(command, check=False).returncode
            if code:
                return code
    if not options.here:
        text = tabulate(options.out, names, seeds)
        atomic_write(options.out / "baselines.md", text + "\n")
        print(f"\n{text}")
    return 0


if __name__ == "__main__":
    run_tool(main)
