"""Weights of the region gate, fitted to training scenes at the end of a training.

The fit reads the same labels that train the binary head: they say which points are base and which are novel.
"""

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader

from xmask3d.build import build_reader, evaluation_settings
from xmask3d.config import Config
from xmask3d.data.datasets import collate_usable, evenly_spaced
from xmask3d.data.scene import SceneReader
from xmask3d.engine.batches import ignore_signals
from xmask3d.engine.feature_cache import FeatureCache
from xmask3d.inference.gate_weights import fit_gate
from xmask3d.inference.labeller import Labeller
from xmask3d.inference.region_embeddings import RegionEmbeddings
from xmask3d.inference.region_labels import novel_odds, sum_regions
from xmask3d.inference.region_votes import RegionGate, divide
from xmask3d.inference.settings import EvaluationSettings
from xmask3d.splits import Benchmark
from xmask3d.workers import allowed_workers

SCENES = 24  # evenly spaced scenes; they give thousands of regions to fit three numbers to


def can_fit_gate(config: Config, benchmark: Benchmark) -> bool:
    """Return True if the evaluation of a run uses weights that can be fitted to labels its training may read."""
    evaluate, has_novel = config.evaluate, benchmark.num_base < benchmark.num_classes
    wanted = evaluate.regions == "gate" and evaluate.gate != "clip" and config.protocol != "reference"
    # With the odds of masks alone, weights fitted to training rooms do far worse on other rooms than the fixed ones.
    wanted = wanted and config.train.fit_gate and evaluate.region_clip > 0
    return wanted and has_novel and (config.train.supervision, config.train.novel_supervision) == ("base", "reference")


def unused_fit(config: Config, benchmark: Benchmark) -> str | None:
    """Return a warning if fitting is asked for but impossible, else None."""
    if not config.train.fit_gate or can_fit_gate(config, benchmark):
        return None
    return (
        "train.fit_gate has no effect: it needs novel classes, evaluate.regions=gate, evaluate.region_clip above 0, "
        "train.novel_supervision=reference, and neither evaluate.gate=clip nor protocol=reference"
    )


def fit_to_training_scenes(
    config: Config, benchmark: Benchmark, labeller: Labeller, cache: FeatureCache | None = None
) -> list[float] | None:
    """Fit `GateWeights` to regions of some training scenes; None if these show no novel class.

    The processes share the scenes, and all return the same weights.

    Args:
        labeller: labeller with the trained weights.
        cache: cache of the views' frozen features, if training has one.
    """
    accelerator = labeller.accelerator
    reader, settings = build_reader(config, benchmark, config.data.train_split), evaluation_settings(config)
    names = evenly_spaced(list(reader.scene_names), SCENES)
    mine = names[accelerator.process_index :: accelerator.num_processes]
    rows = [(name, region_rows(reader, benchmark, name, labeller, settings, cache)) for name in mine]
    if accelerator.num_processes > 1:
        rows = gather_object(rows)
    by_name = dict(rows)  # in the same order for any number of processes, so that the sums are equal
    together = np.concatenate([by_name[name] for name in names])
    fitted = fit_gate(together[:, :2], together[:, 2], together[:, 3])
    return None if fitted is None else fitted.values


def region_rows(
    reader: SceneReader,
    benchmark: Benchmark,
    name: str,
    labeller: Labeller,
    settings: EvaluationSettings,
    cache: FeatureCache | None = None,
) -> np.ndarray:
    """Return evidence (2) and numbers of base and of novel points (2) of the regions that views show: R x 4."""
    scene = reader.read_scene(name)
    divisions, gate = divide(scene), RegionGate(len(scene.points))
    model = labeller.model
    embeddings = RegionEmbeddings(divisions, model.mask_clip, model.fuser.frame_size)
    loader = DataLoader(
        settings.open_views(reader, benchmark, name),
        batch_size=settings.batch_size,
        collate_fn=collate_usable,
        num_workers=allowed_workers(settings.workers),
        worker_init_fn=ignore_signals,
    )
    model.eval()
    for batch in loader:
        if batch is None:
            continue
        encodings = (cache.images(batch), cache.tokens(batch)) if cache else labeller.encode(batch)
        batch = batch.to(labeller.accelerator.device)
        with torch.no_grad():
            outputs = labeller.run(batch, encodings)
        embeddings.add(batch, encodings[1])
        gate.add(batch.point_index, outputs, labeller.text, labeller.novel)
    assert scene.labels is not None, "training scenes have labels"
    targets = benchmark.binary_labels(scene.labels)
    kinds = np.stack([targets == 1, targets == 0], 1)
    voices = embeddings.log_probabilities(labeller.text, labeller.temperature)
    rows = []
    for region, voice in zip(divisions, voices, strict=True):
        evidence, seen = gate.summed().evidence(region, novel_odds(voice, benchmark.novel_mask))
        rows.append(np.concatenate([evidence, sum_regions(region, kinds)], 1)[seen])
    return np.concatenate(rows)
