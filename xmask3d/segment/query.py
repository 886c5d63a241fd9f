"""Queries on saved features: labels, heat maps, and places that fit a phrase. Only a text encoder runs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from xmask3d.geometry.nearest import point_spacing
from xmask3d.segment.regions import Region, best_regions
from xmask3d.segment.result import SegmentationResult
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.vocabulary import Reference, Vocabulary, parse_queries
from xmask3d.segment.wording import NONSENSE, is_learned, local_clip, understand

TOUCHING = 0.06  # largest distance between neighbouring points of a region, in metres

SCALE_PLACES = 5_000  # prompt for finding the scale of heat maps
MARGIN = 0.75  # a phrase must fit a place better than words without sense by this number of standard deviations
DOUBTFUL_MARGIN = 4.0  # the same for a phrase with words that the encoder never learned

Encoder = Callable[[Sequence[str]], np.ndarray]
"""Function that maps N texts to N x D float32 embeddings, not normalised."""


def text_encoder(features: PointFeatures) -> Encoder:
    """Return the text encoder that belongs to features, without importing torch if possible."""
    from xmask3d.models.text_tower import load_text_tower
    from xmask3d.weights import clip_folder

    source = features.fact("clip")
    tower = load_text_tower(clip_folder() if source == "shipped" else Path(source))
    if tower is not None:
        return tower
    from xmask3d.build import open_clip_model
    from xmask3d.models.clip import ClipText

    clip_text = ClipText(*open_clip_model(source))
    return lambda texts: clip_text(texts).float().numpy()


def query_features(
    features: PointFeatures, queries: Sequence[str] | str, encode: Encoder, background: Sequence[str] = ()
) -> SegmentationResult:
    """Answer queries from features. A run over the views gives the same labels, since it queries its own features."""
    clip = local_clip(features.fact("clip"))
    asked = understand([queries] if isinstance(queries, str) else queries, clip)
    outside = understand(background, clip)
    names, base_names, scan, model = (features.fact(name) for name in ("names", "base_names", "scan", "model"))
    reference = Reference(names.split("\n"), base_names.split("\n"))
    if is_phrase(asked.queries, background):
        result = phrase_result(features, asked.queries[0], encode, reference, scan)
    else:
        vocabulary = parse_queries(asked.queries, reference, outside.queries)
        result = labels_result(features, vocabulary, encode, scan)
    views, rotation, origin = (features.numbers(*fact) for fact in (("views", 1), ("rotation", 9), ("origin", 3)))
    result.about = {
        **result.about,
        "wording": asked.notes + outside.notes,
        "model": model,
        "views": int(views[0]),
        **own_file(features),
    }
    return replace(result, rotation=rotation.reshape(3, 3), origin=origin)


def own_file(features: PointFeatures) -> dict[str, str | float]:
    """Return the summary's entries on the scan's own cloud or mesh: its file, and its units per metre."""
    if "file" not in features.about:
        return {}
    return {"file": features.fact("file"), "units": float(features.numbers("units", 1)[0])}


def is_phrase(queries: Sequence[str], background: Sequence[str] = ()) -> bool:
    """Return True if a query asks for places instead of the class of each point."""
    return len(queries) == 1 and not background


def hide_background(labels: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Set background points to -1, unlabelled."""
    return np.where(labels == len(vocabulary.names) - 1, -1, labels) if vocabulary.has_background else labels


def labels_result(features: PointFeatures, vocabulary: Vocabulary, encode: Encoder, name: str) -> SegmentationResult:
    """Label every point with a class of a vocabulary; texts that the encoder never learned get no points."""
    result = heat_result(features, vocabulary, encode, name)
    clip = local_clip(features.fact("clip"))
    learned = np.flatnonzero([is_learned(text, clip) for text in vocabulary.texts])
    if not len(learned):
        return result
    text = _class_embeddings(features, vocabulary, encode)[learned]
    labels, sureness = features.label(text, vocabulary.novel[learned])
    labels = hide_background(vocabulary.groups[learned][labels], vocabulary)
    return replace(result, labels=labels, confidence=sureness)


def _class_embeddings(features: PointFeatures, vocabulary: Vocabulary, encode: Encoder) -> np.ndarray:
    """Embed the texts of a vocabulary, T x D; with several templates, as the mean of the normalised embeddings."""
    templates = features.about.get("templates", "{}").split("\n")
    found = encode([template.replace("{}", text) for text in vocabulary.texts for template in templates])
    if len(templates) == 1:
        return found
    found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found.reshape(len(vocabulary.texts), len(templates), -1).mean(1)


def heat_result(features: PointFeatures, vocabulary: Vocabulary, encode: Encoder, name: str) -> SegmentationResult:
    """Compute how well every place fits each class of a vocabulary, without setting labels."""
    text = _class_embeddings(features, vocabulary, encode)
    similarity = vocabulary.merge(features.similarities(text, vocabulary.novel))
    shown = len(vocabulary.names) - vocabulary.has_background
    return SegmentationResult(
        name=name,
        points=features.points,
        colors=features.own_colors,
        names=list(vocabulary.names[:shown]),
        labels=np.full(len(features.points), -1),
        confidence=np.zeros(len(features.points), np.float32),
        phrases=list(vocabulary.names[:shown]),
        similarity=similarity[:, :shown],
        regions=[[] for _ in range(shown)],
        scale=heat_scale(features, encode),
        texts=vocabulary.texts_of_classes()[:shown],
        features=features,
        about={"mode": "labels"},
    )


def heat_scale(features: PointFeatures, encode: Encoder) -> tuple[float, float]:
    """Return the similarities at the two ends of the heat maps' colours, one scale for all words on a scan.

    The scale spans the similarities of the classes of the model's benchmark, so that a word that fits nowhere stays
    dark.
    """
    names, base = features.fact("names").split("\n"), features.fact("base_names").split("\n")
    some = features.at(np.arange(0, len(features.fused), max(1, len(features.fused) // SCALE_PLACES)))
    found = some.similarities(encode(names), np.array([name not in base for name in names]))
    if not found.size:
        return 0.0, 1.0
    return float(np.percentile(found, 5)), float(np.percentile(found.max(1), 95))


def phrase_result(
    features: PointFeatures, phrase: str, encode: Encoder, reference: Reference, name: str
) -> SegmentationResult:
    """Find the places that fit a phrase: its heat map, the best regions, and these as labels."""
    vocabulary = parse_queries([phrase], reference)
    result = heat_result(features, vocabulary, encode, name)
    regions = regions_of_places(features, result.similarity[:, 0])
    regions = _standing_out(regions, features, phrase, encode, vocabulary)
    labels = np.full(len(features.points), -1)
    for region in regions:
        labels[region.index] = 0
    confidence = np.clip(result.heat(0), 0, 1).astype(np.float32)
    return replace(result, labels=labels, confidence=confidence, regions=[regions], about={"mode": "phrase"})


def _standing_out(
    regions: list[Region], features: PointFeatures, phrase: str, encode: Encoder, vocabulary: Vocabulary
) -> list[Region]:
    """Keep the regions that fit a phrase better than meaningless words do; none if it was never learned.

    Some meaningless word always fits a region best, by chance, whereas a meaningful phrase fits far better than all of
    them.
    """
    clip = local_clip(features.fact("clip"))
    if not regions or not is_learned(phrase, clip):
        return []
    wanted = MARGIN if is_learned(phrase, clip, every=True) else DOUBTFUL_MARGIN
    texts, count = encode([*vocabulary.texts, *NONSENSE]), len(vocabulary.texts)
    novel = np.append(vocabulary.novel, np.repeat(vocabulary.novel[:1], len(NONSENSE)))
    found = []
    for region in regions:
        places = np.unique(features.row[region.index])
        fits = features.at(places).similarities(texts, novel)
        best, chance = fits[:, :count].max(1).mean(), fits[:, count:].mean(0)
        if best - chance.mean() >= wanted * chance.std():
            found.append(region)
    return found


def regions_of_places(features: PointFeatures, values: np.ndarray) -> list[Region]:
    """Find the best regions among one point of each place, and extend them to all points of these places.

    Args:
        values: m, how well each place fits.
    """
    points, row = features.points, features.row
    stand_in = np.zeros(len(values), np.int64)
    stand_in[row[::-1]] = np.arange(len(points))[::-1]
    places = points[stand_in]
    spacing = TOUCHING if len(places) == len(points) else max(TOUCHING, point_spacing(places))
    regions = []
    for region in best_regions(places, values, spacing):
        inside = np.zeros(len(places), bool)
        inside[region.index] = True
        regions.append(Region.of(points, np.flatnonzero(inside[row]), region.score))
    return regions
