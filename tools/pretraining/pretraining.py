"""Pre-training, stage by stage; the result of each stage is kept, so that a stopped run resumes."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from tqdm import trange

from tools.pretraining import evaluation as ev
from tools.pretraining.alignment import Teachers
from tools.pretraining.autoencoder_training import VaeTrainer, encode_latents, make_vae, standardise_latents
from tools.pretraining.clip_training import ClipTrainer, make_tokenizer, model_config, prepare_stem, train_text
from tools.pretraining.dataset import Pool, load_pool, render_pool
from tools.pretraining.diffusion_training import UNET_CONFIG, UnetTrainer, region_embeddings
from tools.pretraining.export import export_clip, export_diffusion
from tools.pretraining.features import FeaturePool, extract_features
from tools.pretraining.teachers import check_teachers, sentence_embeddings
from tools.pretraining.vocabulary import all_texts
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.models.loading.clip_weights import build_clip

KEEP_EVERY = 100
"""Steps between checkpoints within a stage."""


@dataclass(frozen=True)
class Plan:
    """Amounts of data and training.

    Attributes:
        seed: seed of the random generator.
        split_seed: seed of the rooms that the models are for: decides which furniture is for training.
        collages, val_collages: rooms of eight views each, to learn from and to measure on.
        per_kind: models made by rule of each kind, besides the library's.
        variants: number of feature sets per view: one of the complete view, the others of random crops.
        text_steps, clip_steps, vae_steps, unet_steps: optimisation steps.
        batch_size: views a step for CLIP; the others scale with it.
    """

    seed: int = 0
    split_seed: int = 0
    collages: int = 1408
    val_collages: int = 80
    per_kind: int = 60
    variants: int = 2
    text_steps: int = 500
    clip_steps: int = 1000
    vae_steps: int = 600
    unet_steps: int = 800
    batch_size: int = 64


def pretrain(furniture: Path, work: Path, out: Path, plan: Plan, workers: int = 1) -> dict[str, Any]:
    """Render, teach, export and measure.

    Args:
        furniture: folder of the furniture archives.
        work: folder for views and checkpoints; give the same one to resume a run that was stopped.
        out: folder to write `clip` and `diffusion` into.

    Returns:
        Seconds and losses of the stages, and accuracies; also written to `out/report.json`.

    Raises:
        UserError: `work` holds a run of another plan, or a teacher is not installed.
    """
    check_teachers()
    _check_plan(work, plan)
    report: dict[str, Any] = {"plan": asdict(plan)}
    for split, count in (("train", plan.collages), ("val", plan.val_collages)):
        render_pool(
            furniture,
            work / "views",
            split,
            collages=count,
            seed=plan.seed,
            split_seed=plan.split_seed,
            per_kind=plan.per_kind,
            workers=workers,
        )
    pool = load_pool(work / "views", "train")
    tokenizer, texts = make_tokenizer(), all_texts()
    torch.manual_seed(plan.seed)
    clip = build_clip(model_config(tokenizer.vocab_size))
    targets = _stage(work / "sentences.pt", lambda: sentence_embeddings(texts, clip.text_projection.shape[1]))
    _module_stage(
        work / "text.pt",
        clip,
        report,
        lambda: {"cosine": train_text(clip, tokenizer, texts, targets, steps=plan.text_steps, seed=plan.seed)},
    )
    features = _features(work / "features.pt", pool, plan)
    prepare_stem(clip, features)
    _module_stage(
        work / "clip.pt",
        clip,
        report,
        lambda: _run(
            ClipTrainer(
                clip,
                tokenizer,
                pool,
                features,
                texts,
                targets,
                steps=plan.clip_steps,
                batch_size=plan.batch_size,
                seed=plan.seed,
            ),
            work / "clip.part.pt",
            "CLIP",
        ),
    )
    vae, unet = _pretrain_diffusion(work, plan, report, clip, tokenizer, pool, features.deep[: len(pool)])
    export_clip(out / "clip", clip, tokenizer)
    export_diffusion(out / "diffusion", vae, unet, clip, tokenizer)
    report |= measure(out, load_pool(work / "views", "val"), pool)
    atomic_write(out / "report.json", json.dumps(report, indent=1) + "\n")
    return report


def measure(weights: Path, unseen: Pool, seen: Pool, rooms: Path | None = None) -> dict[str, Any]:
    """Measure exported weights on views of unseen furniture, and on validation rooms if there are any."""
    sources: dict[str, Callable[[], ev.Views]] = {"unseen furniture": lambda: ev.pool_views(unseen, 400)}
    if rooms is not None:
        sources["validation rooms"] = lambda: ev.room_views(rooms, "val")
    result: dict[str, Any] = {}
    for name, views in sources.items():
        confusion = ev.mask_accuracy(weights / "clip", views())
        result[f"CLIP, true masks, {name}"] = ev.class_accuracy(confusion)
        reference = ev.pool_views(seen, 300)
        centroids = ev.centroid_accuracy(weights / "diffusion", reference, views())
        result[f"diffusion, nearest centroid, {name}"] = {
            level: ev.class_accuracy(c)["mean"] for level, c in centroids.items()
        }
    return result


def _pretrain_diffusion(
    work: Path, plan: Plan, report: dict, clip: open_clip.CLIP, tokenizer: Any, pool: Pool, teacher: Tensor
) -> tuple[AutoencoderKL, UNet2DConditionModel]:
    torch.manual_seed(plan.seed + 1)
    vae, unet = make_vae(), UNet2DConditionModel(**UNET_CONFIG)
    regions = _stage(work / "regions.pt", lambda: region_embeddings(clip, pool))
    teachers = Teachers(pool, regions, teacher)

    def fit_vae() -> dict[str, float]:
        trainer = VaeTrainer(
            vae, pool.images, teachers, steps=plan.vae_steps, batch_size=max(2, plan.batch_size // 8), seed=plan.seed
        )
        losses = _run(trainer, work / "vae.part.pt", "autoencoder")
        standardise_latents(vae, pool.images)
        return losses

    def fit_unet() -> dict[str, float]:
        trainer = UnetTrainer(
            unet,
            clip,
            tokenizer,
            pool,
            latents,
            teachers,
            steps=plan.unet_steps,
            batch_size=max(4, plan.batch_size * 3 // 8),
            seed=plan.seed,
        )
        return _run(trainer, work / "unet.part.pt", "UNet")

    _module_stage(work / "vae.pt", vae, report, fit_vae)
    latents = _stage(work / "latents.pt", lambda: encode_latents(vae, pool.images))
    _module_stage(work / "unet.pt", unet, report, fit_unet)
    return vae, unet


def _features(path: Path, pool: Pool, plan: Plan) -> FeaturePool:
    if not path.exists():
        features = vars(extract_features(pool, variants=plan.variants, seed=plan.seed))
        atomic_write(path, lambda part: torch.save(features, part))
    return FeaturePool.load(path)


def _check_plan(work: Path, plan: Plan) -> None:
    record = work / "plan.json"
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) != asdict(plan):
        raise UserError(f"{work} holds a run with other settings ({record}): give another folder or the same settings")
    atomic_write(record, json.dumps(asdict(plan)))


def _run(trainer: ClipTrainer | VaeTrainer | UnetTrainer, checkpoint: Path, name: str) -> dict[str, float]:
    """Train to the end, from the last checkpoint if there is one. Returns smoothed losses."""
    if checkpoint.exists():
        trainer.restore(torch.load(checkpoint, weights_only=True))
    average: dict[str, float] = {}
    bar = trange(trainer.step, trainer.steps, initial=trainer.step, total=trainer.steps, desc=name)
    for step in bar:
        losses = trainer.train_step()
        if not np.isfinite(sum(losses.values())):
            raise UserError(f"{name}: the loss is not finite at step {step}: lower the learning rate")
        average = {key: average.get(key, value) * 0.95 + value * 0.05 for key, value in losses.items()}
        bar.set_postfix({key: f"{value:.3f}" for key, value in average.items()})
        if trainer.step % KEEP_EVERY == 0:
            atomic_write(checkpoint, lambda part: torch.save(trainer.state(), part))
    checkpoint.unlink(missing_ok=True)
    return average


def _stage(path: Path, make: Callable[[], Tensor]) -> Tensor:
    if not path.exists():
        made = make()
        atomic_write(path, lambda part: torch.save(made, part))
    return torch.load(path, weights_only=True)


def _module_stage(path: Path, module: nn.Module, report: dict, fit: Callable[[], dict[str, float]]) -> None:
    """Fit a module, or load the result of an earlier run; record seconds and losses."""
    if not path.exists():
        start = time.perf_counter()
        losses = fit()
        done = {"weights": module.state_dict(), "losses": losses, "seconds": time.perf_counter() - start}
        atomic_write(path, lambda part: torch.save(done, part))
    done = torch.load(path, weights_only=True)
    module.load_state_dict(done["weights"])
    report[path.stem] = {
        "seconds": round(done["seconds"]),
        **{name: round(loss, 4) for name, loss in done["losses"].items()},
    }
