"""Result of a query on a scan: labels, confidence, fit to phrases, and objects."""

from dataclasses import dataclass, field

import numpy as np

from xmask3d.geometry.voxels import quantise
from xmask3d.segment.regions import Region
from xmask3d.segment.saved_features import PointFeatures

AREA_VOXEL = 0.05  # metres; areas are counted in squares of this size


@dataclass
class ClassSummary:
    """Numbers about a class: points, share of all points, rough area in square metres, centre, box, mean confidence."""

    name: str
    points: int
    share: float
    area: float
    center: np.ndarray
    low: np.ndarray
    high: np.ndarray
    confidence: float


@dataclass
class SegmentationResult:
    """Answer to a query.

    Attributes:
        name: name of the scan.
        points: n x 3 float32, metres from `origin` in the scan's own frame. colors: n x 3 uint8, or None.
        names: K class names, without background words, whose points are -1.
        labels: n int64 class ids, -1 where unlabelled.
        confidence: n float32 in [0, 1]: share of agreeing views, or probability.
        phrases: P phrases, and `similarity`: m x P float32 cosines of the features' places with them.
        regions: best places for each phrase. texts: texts behind each phrase, each with True if it counts as base.
        scale: similarities at the two ends of the heat maps' colours, see `query.heat_scale`.
        features: features for further queries.
        objects: n int64 object numbers, -1 for none; None unless requested. object_names: class of each object.
        origin: 3. rotation: 3 x 3, rotates points upright.
        lines: findings about the scan, to print. about: facts for the summary.
    """

    name: str
    points: np.ndarray
    colors: np.ndarray | None
    names: list[str]
    labels: np.ndarray
    confidence: np.ndarray
    phrases: list[str]
    similarity: np.ndarray
    regions: list[list[Region]]
    features: PointFeatures
    scale: tuple[float, float] | None = None
    objects: np.ndarray | None = None
    object_names: list[str] = field(default_factory=list)
    texts: list[list[tuple[str, bool]]] = field(default_factory=list)
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    lines: list[str] = field(default_factory=list)
    about: dict = field(default_factory=dict)

    def heat(self, phrase: str | int) -> np.ndarray:
        """Return how well each point fits a phrase (given by text or number), n float32."""
        column = phrase if isinstance(phrase, int) else self.phrases.index(phrase)
        return self.similarity[self.features.row, column]

    def shown_colors(self) -> np.ndarray:
        """Return n x 3 uint8 colours, mid-grey for a scan without colours."""
        return np.full(self.points.shape, 128, np.uint8) if self.colors is None else self.colors

    def classes(self) -> list[ClassSummary]:
        """List all classes with points, the largest first."""
        found = []
        for label in np.unique(self.labels[self.labels >= 0]):
            chosen = self.labels == label
            part = self.points[chosen].astype(np.float64)
            found.append(
                ClassSummary(
                    name=self.names[label],
                    points=len(part),
                    share=len(part) / len(self.points),
                    area=len(quantise(np.floor(part / AREA_VOXEL)).coords) * AREA_VOXEL**2,
                    center=part.mean(0) + self.origin,
                    low=part.min(0) + self.origin,
                    high=part.max(0) + self.origin,
                    confidence=float(self.confidence[chosen].mean()),
                )
            )
        return sorted(found, key=lambda summary: -summary.points)
