"""Segmentation of a scan by any vocabulary, in a few lines of Python.

>>> from xmask3d import Segmenter
>>> segmenter = Segmenter.from_pretrained("runs/rooms-B15N4/checkpoints/best.pt")
>>> result = segmenter("my_scan/", ["sofa|couch", "potted plant", "floor"])
>>> result.labels, result.confidence, result.heat("potted plant")
>>> again = segmenter.query(result.features, "red chair")
"""

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from xmask3d import __version__
from xmask3d.build import scan_view_settings
from xmask3d.checkpoints.checkpoint import weights_digest
from xmask3d.checkpoints.export import about_checkpoint, write_model
from xmask3d.checkpoints.hub import push_folder
from xmask3d.checkpoints.sources import find_source
from xmask3d.config import Config, load_config
from xmask3d.errors import UserError, first_line
from xmask3d.inference.fill import fill_unseen
from xmask3d.inference.gate_weights import GateWeights
from xmask3d.inference.instances import find_objects
from xmask3d.inference.region_labels import common_parts
from xmask3d.inference.region_votes import divide
from xmask3d.models.clip import ClipText
from xmask3d.models.gate import log_softmax
from xmask3d.models.xmask3d import XMask3D
from xmask3d.open_model import open_gate, open_model
from xmask3d.scan.scan import Scan, ScanOptions, open_scan
from xmask3d.segment.corrections import Corrections
from xmask3d.segment.feature_accumulator import MAX_PLACES
from xmask3d.segment.labelling import Labelled, SavedState, ScanLabeller
from xmask3d.segment.precision import Precision, with_precision
from xmask3d.segment.query import is_phrase, labels_result, own_file, phrase_result, query_features
from xmask3d.segment.regions import Region
from xmask3d.segment.result import SegmentationResult
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.settle_up import settle_up
from xmask3d.segment.vocabulary import Reference, Vocabulary, benchmark_vocabulary, class_list, parse_queries
from xmask3d.segment.wording import local_clip, understand
from xmask3d.splits import Benchmark, load_benchmark

IMAGE_MULTIPLE = 32  # sides of pictures are multiples of this number of pixels
PIXELS = 300_000  # largest number of pixels at once on a CPU: one picture of 512 x 512, or four of 256 x 256


class Segmenter:
    """Loaded model that answers queries about scans.

    Args:
        model, clip_text: results of `build_model`, with weights loaded.
        config, benchmark: configuration and benchmark of the model.
        device: device of the computation; a GPU if there is one, by default.
        source: source of the model, for summaries.
        batch_size: number of views at once; it is reduced automatically when memory runs out.
        regions: "none", "votes" or "gate", see `xmask3d.inference.region_labels`. The default is that of the model's
            evaluation, or "votes" if that has no regions.
        gate_weights: weights of head and CLIP in the gate of regions; fixed ones by default.
    """

    def __init__(
        self,
        model: XMask3D,
        clip_text: ClipText,
        config: Config,
        benchmark: Benchmark,
        device: torch.device | str | None = None,
        source: str = "",
        batch_size: int | None = None,
        regions: str | None = None,
        gate_weights: GateWeights | None = None,
    ) -> None:
        self.device = pick_device(device)
        self.model, self.clip_text = model.to(self.device).eval(), clip_text.to(self.device)
        self.config, self.benchmark, self.source = config, benchmark, source
        self.checkpoint: Path | None = None
        self.fast = False
        self.reference = Reference.of(benchmark)
        # A user's scan is no benchmark: it benefits from regions even if the published scores are without them.
        self._regions = regions or config.evaluate.regions.replace("none", "votes")
        self._gate_weights = gate_weights or open_gate(config)
        self._labeller = ScanLabeller(
            self.model,
            benchmark,
            self.device,
            scan_view_settings(config),
            config.evaluate.gate,
            config.train.precision,
            views_at_once(config, self.device) if batch_size is None else batch_size,
        )

    @classmethod
    def from_pretrained(
        cls,
        model: Path | str | None = None,
        config: Path | str | None = None,
        device: torch.device | str | None = None,
        batch_size: int | None = None,
        trust_code: bool = False,
        regions: str | None = None,
        image_size: int | None = None,
        precision: Precision | None = None,
        fast: bool = False,
    ) -> "Segmenter":
        """Load a model by its name, see `find_source`: "shipped", "newest", a file or folder, "org/name" of the hub.

        Parts that the configuration names by dotted path are imported, which runs their code, but only if the caller
        gives the configuration or sets `trust_code`. `image_size` (the longer side of the networks' input pictures) and
        `precision` (the dtype of the frozen networks) replace the values used in training. With
        `fast` the networks that look at pictures are not loaded, their files may be missing, and every scan is labelled
        by the 3D branch alone.

        Raises:
            UserError: a file is missing, damaged or does not fit its configuration, or a configuration names code
                without being trusted.
        """
        source = find_source(model, config)
        settings = load_config(source.config, trusted=trust_code or config is not None)
        if image_size is not None:
            settings = with_image_size(settings, image_size)
        if precision is not None and not fast:
            settings = with_precision(settings, precision, pick_device(device))
        assembly = open_model(settings, source.checkpoint, points_only=fast)
        benchmark = load_benchmark(settings.benchmark)
        gate = open_gate(settings)
        segmenter = cls(
            assembly.model, assembly.clip_text, settings, benchmark, device, source.words, batch_size, regions, gate
        )
        segmenter.checkpoint, segmenter.fast = source.checkpoint, fast
        return segmenter

    from_checkpoint = from_pretrained  # the earlier name of from_pretrained

    def push_to_hub(self, repo: str, private: bool = False, token: str | None = None) -> str:
        """Upload weights in half precision, configuration and model card to the Hugging Face hub.

        Args:
            repo: "org/name", created if missing.
            private: make a new repository private.
            token: access token; that of `hf auth login` by default.

        Returns:
            The address; the model can be used as `from_pretrained(repo)` and `--model repo`.

        Raises:
            UserError: the frozen networks exist only on this machine, or there is no connection or no permission.
        """
        with tempfile.TemporaryDirectory() as folder:
            about = self.checkpoint and about_checkpoint(self.checkpoint, self.config)
            write_model(self.model.state_dict(), self.config, about or {}, Path(folder))
            return push_folder(Path(folder), repo, private, token)

    def vocabulary(
        self, queries: Sequence[str], background: Sequence[str] = (), classes: str | None = None
    ) -> Vocabulary:
        """Return the classes for the points: those of a class list, or the queries.

        A single phrase does not name classes; masks are then compared with the benchmark's own classes.
        """
        if classes is not None:
            own = self.benchmark.name.partition("/")[0]
            if classes in (own, self.config.benchmark) and not queries and not background:
                return benchmark_vocabulary(self.benchmark, self.config.evaluate.prompts)
            return parse_queries([*class_list(classes), *queries], self.reference, background)
        if is_phrase(queries, background):
            return benchmark_vocabulary(self.benchmark, self.config.evaluate.prompts)
        return parse_queries(queries, self.reference, background)

    def __call__(
        self,
        scan: Scan | Path | str,
        queries: Sequence[str] | str = (),
        *,
        background: Sequence[str] = (),
        classes: str | None = None,
        objects: bool = False,
        corrections: Corrections | None = None,
        options: ScanOptions | None = None,
        state: Path | None = None,
        report: Callable[[int, int], None] | None = None,
        settle: float | None = None,
        fast: bool = False,
    ) -> SegmentationResult:
        """Segment a scan.

        Args:
            scan: an open scan or the path of one.
            queries: several queries label every point with one of them ("a|b" are synonyms); a single phrase gives a
                heat map and the places that fit it best.
            background: words whose points count as unlabelled.
            classes: name of a shipped class list that replaces the queries, such as "scannet20".
            objects: also separate objects.
            corrections: clicks on this or other scans that correct labels.
            options: options for reading the scan, if it is given as a path.
            state: file for the state of unfinished work.
            report: called with the number of finished views and of all views.
            settle: share of labels, such as 0.02; once a round of views changes no more than this, the rest is left
                out.
            fast: label with the 3D branch alone, without reading pictures.

        Raises:
            UserError: there is no query, or the scan cannot be read.
        """
        fast = fast or self.fast
        clip = local_clip(self.config.model.clip)
        asked = understand([queries] if isinstance(queries, str) else queries, clip)
        outside = understand(background, clip)
        queries, background = asked.queries, outside.queries
        if not queries and classes is None:
            raise UserError("no words to look for; give some with --query, or a class list with --classes scannet20")
        start = time.monotonic()
        scan = scan if isinstance(scan, Scan) else open_scan(scan, options)
        vocabulary = self.vocabulary(queries, background, classes)
        # Masks always compete by the benchmark's own classes, so that features, and therefore answers, do not depend on
        # the queries that came first.
        prompts = self.benchmark.test_prompts(self.config.evaluate.prompts)
        text = self.clip_text.encode_classes(prompts, self.config.evaluate.templates)
        weights = weights_digest(self.model.state_dict())
        if corrections is not None:
            corrections.check_model(self.source, weights, 2 * text.shape[1])
        settle_up(scan, lambda part: self._confidence(part, text))
        sections = {"data", "model", "evaluate", "sparse"}
        settings = self.config.model_dump_json(include=sections), self.config.train.precision
        key = (__version__, self.source, weights, scan_key(scan), *settings, MAX_PLACES, settle, fast)
        saved = SavedState(state, *key)
        labelled = self._labeller.run(scan, text, saved, report, settle=settle, fast=fast)
        features = self._features(scan, labelled, weights)
        about = {
            "kind": scan.kind,
            "wording": asked.notes + outside.notes,
            "model": self.source,
            "benchmark": self.config.benchmark,
            "device": str(self.device),
            "views": labelled.used,
            "frames": scan.frame_count,
            **own_file(features),
        }
        if classes is None and is_phrase(queries, background):
            result = phrase_result(features, queries[0], self.encode, self.reference, scan.name)
        else:
            result = labels_result(features, vocabulary, self.encode, scan.name)
        result = replace(result, colors=scan.colors, origin=scan.origin, rotation=scan.rotation, lines=list(scan.lines))
        if corrections is not None:
            result = corrections.correct(result)
        if objects:
            judged = {self.benchmark.class_names[i] for i in self.benchmark.groups.get("instances", ())}
            add_objects(result, scan, labelled, set(self.benchmark.class_names) - judged if judged else ())
        result.about = {**result.about, **about, "seconds": round(time.monotonic() - start, 2)}
        return result

    def query(
        self, features: PointFeatures, queries: Sequence[str] | str, background: Sequence[str] = ()
    ) -> SegmentationResult:
        """Answer further queries from features alone; only the text encoder runs."""
        return query_features(features, queries, self.encode, background)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed N texts: N x D float32, not normalised."""
        return self.clip_text(texts).float().cpu().numpy()

    def _confidence(self, scan: Scan, text: torch.Tensor) -> float:
        """Return the mean probability of the most likely class among those by which masks compete."""
        fused = torch.from_numpy(self._labeller.run(scan, text).features.means()[1].astype(np.float32))
        scale = self.model.mask_decoder.post_mask_embed.temperature().detach().cpu().float()
        similarity = fused @ torch.nn.functional.normalize(text.float().cpu(), dim=-1).T
        return float((scale * similarity).softmax(-1).amax(-1).mean())

    def _features(self, scan: Scan, labelled: Labelled, weights: str) -> PointFeatures:
        """Make the features to save; `weights` is the digest of the model's weights."""
        row, fused, clip, base, view_count = labelled.features.means()
        parts = self._parts(scan, row)
        row = scan.upsample(fill_unseen(scan.scene.points, row).astype(np.int32))
        colors = np.full(scan.points.shape, 128, np.uint8) if scan.colors is None else scan.colors
        about = {
            "scan": scan.name,
            "model": self.source,
            "weights": weights,
            "clip": self.config.model.clip,
            "temperature": repr(float(self.model.mask_decoder.post_mask_embed.temperature().detach())),
            "gate": self.config.evaluate.gate,
            "regions": self._regions,
            "confidence_temperature": repr(self.config.evaluate.confidence_temperature),
            "templates": "\n".join(self.config.evaluate.templates),
            "gate_weights": " ".join(map(repr, self._gate_weights.values)),
            "base_ratio": repr(self.config.evaluate.base_ratio),
            "novel_ratio": repr(self.config.evaluate.novel_ratio),
            "names": "\n".join(self.reference.names),
            "base_names": "\n".join(self.reference.base_names),
            "views": str(labelled.used),
            "rotation": " ".join(map(repr, scan.rotation.ravel().tolist())),
            "origin": " ".join(map(repr, scan.origin.tolist())),
            **({"file": str(scan.file.resolve()), "units": repr(scan.units_per_metre)} if scan.file else {}),
        }
        return PointFeatures(scan.points, colors, row, fused, clip, base, view_count, about, *parts)

    def _parts(self, scan: Scan, row: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the part of each point and of each place, and the regions of each part; empty without regions.

        Args:
            row: place of each of the networks' points, -1 for unseen points.
        """
        if self._regions == "none":
            return ()
        part, regions = common_parts(divide(scan.scene))
        seen = np.flatnonzero(row >= 0)[::-1]
        place_part = np.zeros(int(row.max(initial=-1)) + 1, np.int32)
        place_part[row[seen]] = part[seen]
        return scan.upsample(part), place_part, regions


def with_image_size(config: Config, longer: int) -> Config:
    """Set the longer side of pictures to a multiple of 32 pixels, and keep their proportions.

    Raises:
        UserError: the size is below 32 pixels.
    """
    if longer < IMAGE_MULTIPLE:
        raise UserError(f"--image-size {longer}: at least {IMAGE_MULTIPLE} pixels are needed")
    height, width = (
        max(round(side * longer / max(config.data.image_size) / IMAGE_MULTIPLE), 1) * IMAGE_MULTIPLE
        for side in config.data.image_size
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"image_size": (height, width)})})


def views_at_once(config: Config, device: torch.device) -> int:
    """Return evaluation's batch size; on a CPU less for large pictures, since memory runs out without an error."""
    if device.type != "cpu":
        return config.evaluate.batch_size
    return min(config.evaluate.batch_size, max(PIXELS // math.prod(config.data.image_size), 1))


def pick_device(device: torch.device | str | None) -> torch.device:
    """Return the requested device, or a GPU if there is one. Raises `UserError` for a device that is missing."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device}: not available here ({first_line(error, 100)})") from error


def scan_key(scan: Scan) -> str:
    """Return a key that identifies a scan and the way it was read, for resuming."""
    digest = hashlib.blake2b(repr((scan.name, scan.scene.view_names, scan.fingerprint)).encode())
    for values in (scan.scene.points, scan.scene.colors):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def add_objects(result: SegmentationResult, scan: Scan, labelled: Labelled, structure: Collection[str] = ()) -> None:
    """Separate objects; classes in `structure`, such as walls, never belong to an object of another class."""
    points, features = scan.scene.points, result.features

    def kept(values: np.ndarray) -> np.ndarray:
        return values if scan.kept_index is None else _first_of(values, scan.kept_index, len(points))

    labels = kept(result.labels)
    votes, masks = np.zeros((len(points), 1), np.float32), []
    if features is not None and result.about.get("mode") == "labels":
        temperature = np.float32(features.numbers("temperature", 1)[0])
        votes, masks = np.exp(log_softmax(temperature * result.similarity))[kept(features.row)], labelled.masks
    apart = [rank for rank, name in enumerate(result.names) if name in structure]
    found = find_objects(points, labels, votes, kept(result.confidence), masks, apart)
    result.objects = scan.upsample(found.of_point)
    result.object_names = [result.names[rank] for rank in found.classes]


def _first_of(values: np.ndarray, kept_index: np.ndarray, count: int) -> np.ndarray:
    """Select, from values of all points, those of the points that the networks see."""
    back = np.full(count, -1, values.dtype)
    back[kept_index[::-1]] = values[::-1]
    return back


__all__ = ["Region", "ScanOptions", "SegmentationResult", "Segmenter", "find_source", "open_scan", "query_features"]
