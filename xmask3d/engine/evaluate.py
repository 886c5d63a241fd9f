"""Evaluation of complete scenes: views label their points and vote; unseen points follow neighbours (section 3.5)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader, StackDataset
from tqdm import tqdm

from xmask3d.build import build_reader, evaluation_settings
from xmask3d.config import Config
from xmask3d.data.batch import Batch
from xmask3d.data.datasets import collate_usable
from xmask3d.data.sample import Sample
from xmask3d.data.scene import Scene, SceneReader, choose_scenes
from xmask3d.engine.accelerator import evaluation_arithmetic, make_accelerator
from xmask3d.engine.batches import ignore_signals
from xmask3d.engine.evaluation_key import digest_of_sources, digest_of_text, settings_of
from xmask3d.engine.results import Results, SceneResult
from xmask3d.errors import UserError
from xmask3d.files import sha256_of
from xmask3d.inference.fill import UnseenFiller
from xmask3d.inference.instances import find_objects, split_by_mask
from xmask3d.inference.labeller import BRANCHES, Labeller, cast_votes
from xmask3d.inference.region_embeddings import RegionEmbeddings
from xmask3d.inference.region_labels import GateEvidence, label_regions
from xmask3d.inference.region_votes import RegionGate, divide
from xmask3d.inference.settings import EvaluationSettings
from xmask3d.inference.votes import SceneVotes
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.metrics.scores import check_headlines
from xmask3d.open_model import open_labeller
from xmask3d.splits import Benchmark, load_benchmark
from xmask3d.workers import allowed_workers


def evaluate(
    config: Config,
    checkpoint: Path,
    scenes: list[str] | None = None,
    output: Path | None = None,
    share: tuple[int, int] = (0, 1),
) -> Results | None:
    """Score a checkpoint on the validation split of `config`'s benchmark.

    It runs in one process or in several started by torchrun, which share the scenes; the table does not depend on their
    number. Each scene's result is saved as soon as it is ready, under a name made of the settings and the checkpoint's
    digest, so that a stopped evaluation resumes.

    Args:
        config: configuration of the checkpoint's run, or another one that builds the same model.
        checkpoint: anything that `load_weights` reads.
        scenes: names of the scenes to use; all by default.
        output: folder for all files; `<config.output>/evaluation` by default.
        share: index of this call, from 0, and number of calls, if several independent calls share the scenes, such as
            the tasks of a SLURM array. The last one to finish returns the results.

    Returns:
        The results in the first process; None in the other processes, and as long as scenes of other shares are
        missing.

    Raises:
        UserError: missing data, unknown scenes, a scene without truth, a checkpoint that does not fit, no folder.
    """
    accelerator = make_accelerator(config.train.precision)
    benchmark = load_benchmark(config.benchmark)
    check_headlines(config.evaluate.headlines, benchmark.num_classes, benchmark.groups)
    reader = build_reader(config, benchmark, config.data.val_split)
    names = choose_scenes(reader, scenes)
    weights_digest = sha256_of(checkpoint)
    settings = settings_of(config, benchmark)
    settings_digest = digest_of_text(settings)
    folder = (output or config.output / "evaluation") / f"{checkpoint.stem}-{weights_digest[:8]}-{settings_digest[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # checked before minutes of work whose results could not be saved
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); choose another folder for the results"
        ) from error
    number, count = share
    todo = missing_scenes(accelerator, folder, names[number::count], reader)
    if todo:
        labeller = open_labeller(config, checkpoint, benchmark, accelerator)
        passes = evaluation_settings(config)
        mine = todo[accelerator.process_index :: accelerator.num_processes]
        silent = None if accelerator.is_main_process else True
        with evaluation_arithmetic(config.protocol == "reference"):
            for name in tqdm(mine, unit="scene", disable=silent, dynamic_ncols=True):
                sources = digest_of_sources(reader, name)  # digest of the files before they are read
                result = evaluate_scene(reader, benchmark, name, labeller, passes)
                replace(result, sources=sources).save(folder / "scenes" / f"{name}.npz")
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return None
    waiting = sum(not _is_done(folder / "scenes" / f"{name}.npz", reader, name) for name in names) if count > 1 else 0
    if waiting:
        print(f"{waiting} of {len(names)} scenes are left to other shares; the last to end writes the table")
        return None
    results = Results.collect(
        folder,
        names,
        benchmark,
        about={
            "benchmark": config.benchmark,
            "protocol": config.protocol,
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": weights_digest,
            "settings_sha256": settings_digest,
            "settings": json.loads(settings),
        },
        headlines=config.evaluate.headlines,
    )
    if scenes is not None:
        results.name += "-" + digest_of_text("\n".join(names))[:8]
    results.write()
    return results


def evaluate_scene(
    reader: SceneReader, benchmark: Benchmark, name: str, labeller: Labeller, settings: EvaluationSettings
) -> SceneResult:
    """Label all points of one scene from all its views, and count hits and misses.

    Raises:
        UserError: the scene has no truth, or no frames.
    """
    scene = reader.read_scene(name)
    if scene.labels is None:
        raise UserError(f"scene {name} has no labels to compare with; leave it out with --scenes")
    if not scene.view_names:
        raise UserError(f"scene {name} has no frames to label it by (xmask3d check); leave it out with --scenes")
    votes = {branch: SceneVotes(len(scene.points), benchmark.num_classes) for branch in BRANCHES}
    binary, used, masks = SceneVotes(len(scene.points), 2), 0, list[np.ndarray]()
    regions = labeller.settings.regions
    gate = None
    if regions == "gate" and benchmark.num_base < benchmark.num_classes:
        gate = RegionGate(len(scene.points), labeller.settings.gate_weights)
    divisions = divide(scene) if regions != "none" else None
    embeddings = None
    if divisions is not None and labeller.settings.region_clip:
        embeddings = RegionEmbeddings(divisions, labeller.model.mask_clip, labeller.model.fuser.frame_size)
    passes = (settings.open_views(reader, benchmark, name, rotation) for rotation in range(settings.rotations))
    loader = DataLoader(
        StackDataset(*passes),
        batch_size=settings.batch_size,
        num_workers=allowed_workers(settings.workers),
        collate_fn=_collate_turns,
        worker_init_fn=ignore_signals,
    )
    for turns in loader:
        views, encodings = None, None
        for batch in turns:
            if batch.views != views:  # rotating the points does not change the pictures
                views, encodings = batch.views, labeller.encode(batch)
                if embeddings:
                    embeddings.add(batch, encodings[1])
            outputs, labels = labeller(batch, encodings)
            ungated = labeller.novel if gate else None
            cast_votes(votes, batch.point_index, labels, labeller.settings.votes, ungated)
            if gate:
                gate.add(batch.point_index, outputs, labeller.text, labeller.novel)
            binary.add(batch.point_index, (outputs.binary_logits > 0).long())
            if settings.instances and outputs.fused:
                masks += split_by_mask(batch.point_index.cpu().numpy(), outputs.fused.mask.cpu().numpy())
            used += batch.size
    voices = embeddings.log_probabilities(labeller.text, labeller.temperature) if embeddings else None
    evidence, share = gate.summed() if gate else None, labeller.settings.region_clip
    result = count_votes(scene, benchmark, votes, binary, used, divisions, evidence, voices, share)
    if settings.instances:
        structure = set(range(benchmark.num_classes)) - set(benchmark.groups.get("instances", ()))
        result.objects = find_objects(
            scene.points,
            result.labels["fused"].astype(np.int64),
            votes["fused"].counts.numpy(),
            result.confidence.astype(np.float64),
            masks,
            structure,
        )
    return result


def _collate_turns(samples: list[tuple[Sample | None, ...]]) -> list[Batch]:
    """Collate the same views once for every rotation in which at least one of them can be used."""
    batches = [collate_usable(list(turn)) for turn in zip(*samples, strict=True)]
    return [batch for batch in batches if batch is not None]


def count_votes(
    scene: Scene,
    benchmark: Benchmark,
    votes: dict[str, SceneVotes],
    binary: SceneVotes,
    used: int,
    divisions: Sequence[np.ndarray] | None = None,
    gate: GateEvidence | None = None,
    voices: Sequence[np.ndarray] | None = None,
    region_clip: float = 0.0,
) -> SceneResult:
    """Label a scene by the votes on its points, and count hits and misses.

    Args:
        scene: scene with labels.
        votes: votes of each of `BRANCHES`. binary: votes on base (1) or novel (0).
        used: number of views that voted.
        divisions, gate, voices, region_clip: see `label_regions`; without divisions every point has its own votes.
    """
    assert scene.labels is not None
    truth = torch.from_numpy(np.array(scene.labels))  # a copy, since the arrays of a mapped file are read-only
    labels, counts, shares = {}, {}, {}
    fill = UnseenFiller(scene.points)
    for branch in BRANCHES:
        if divisions is None:
            labels[branch] = fill(votes[branch].result().numpy())
        else:
            found, shares[branch] = label_regions(
                votes[branch].counts.numpy(),
                divisions,
                benchmark.novel_mask,
                gate,
                voices=voices,
                voice_share=region_clip if branch == "fused" else 0.0,
            )
            labels[branch] = fill(found)
        matrix = ConfusionMatrix(benchmark.num_classes)
        matrix.update(torch.from_numpy(labels[branch]), truth)
        counts[branch] = matrix.counts.numpy()
    is_base = fill(binary.result().numpy())
    matrix = ConfusionMatrix(2)
    matrix.update(torch.from_numpy(is_base), torch.from_numpy(benchmark.binary_labels(scene.labels)))
    fused = votes["fused"].counts
    share = (fused.amax(1) / fused.sum(1).clamp(min=1)).numpy() if divisions is None else shares["fused"]
    return SceneResult(
        labels={branch: values.astype(np.int16) for branch, values in labels.items()},
        counts=counts,
        binary_counts=matrix.counts.numpy(),
        confidence=share.astype(np.float16),
        views=used,
        unseen=int((~fused.any(1)).sum()),
    )


def missing_scenes(accelerator: Accelerator, folder: Path, names: list[str], reader: SceneReader) -> list[str]:
    """Return the scenes without a valid result for their present files; the first process finds them for all."""
    found: list[list[str]] = [[]]
    if accelerator.is_main_process:
        found[0] = [name for name in names if not _is_done(folder / "scenes" / f"{name}.npz", reader, name)]
        done = len(names) - len(found[0])
        if done:
            accelerator.print(f"{done} of {len(names)} scenes are done already, in {folder}")
    broadcast_object_list(found)
    return found[0]


def _is_done(result: Path, reader: SceneReader, name: str) -> bool:
    found = SceneResult.load(result)
    if found is None or found.views == 0:  # a scene that no view labelled may have received its frames since
        return False
    return found.sources == digest_of_sources(reader, name)
