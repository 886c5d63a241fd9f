"""Labels of a scan, with everything needed to export them: the scan's colours, its objects and its own file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.components import components, renumber
from xmask3d.geometry.nearest import nearest
from xmask3d.scan.writing.added import Added
from xmask3d.segment.corrections import CORRECTIONS, Corrections
from xmask3d.segment.folder import features_file, read_summary
from xmask3d.segment.query import TOUCHING
from xmask3d.segment.regions import MIN_POINTS
from xmask3d.segment.result import SegmentationResult
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.saved_labels import read_labels
from xmask3d.visualize.cloud import class_palette

SAME_PLACE = 1e-3  # vertices within this distance, in metres, are the labelled points themselves
FAR = 0.25  # a vertex farther than this, in metres, from all labelled points stays unlabelled


@dataclass
class Answer:
    """Labels of n points.

    Attributes:
        name: name of the scan.
        points: n x 3 float64 metres, in the scan's own frame.
        colors: n x 3 uint8, colours of the scan, or None.
        labels: n class ids, -1 unlabelled. confidence: n in [0, 1]. names: class names.
        rotation: 3 x 3, rotates points upright.
        file: the scan's own cloud or mesh, or None. units: units of that file per metre.
        objects: n object numbers, -1 for none, or None if objects were not separated. object_names: their classes.
    """

    name: str
    points: np.ndarray
    colors: np.ndarray | None
    labels: np.ndarray
    confidence: np.ndarray
    names: list[str]
    rotation: np.ndarray
    file: Path | None = None
    units: float = 1.0
    objects: np.ndarray | None = None
    object_names: list[str] | None = None

    @classmethod
    def of(cls, result: SegmentationResult) -> "Answer":
        """Return the labels of a result."""
        file = result.about.get("file")
        return cls(result.name, result.points.astype(np.float64) + result.origin, result.colors, result.labels,
                   result.confidence, result.names, result.rotation, Path(file) if file else None,
                   float(result.about.get("units", 1)), result.objects, result.object_names)  # fmt: skip

    @classmethod
    def read(cls, folder: Path) -> "Answer":
        """Read the labels in a result's folder, with the corrections in that folder.

        Raises:
            UserError: there are none, or they are damaged.
        """
        saved, said, clicks = read_labels(folder), read_summary(folder), folder / CORRECTIONS
        if saved is None:
            raise UserError(f"{folder}: no labels; name the folder of a result, such as segmented/my_scan")
        features, colors = features_file(folder), None
        kept = PointFeatures.load(features) if features.is_file() else None
        if kept is not None and len(kept.points) != len(saved.points):
            kept = None
        if kept is not None:
            colors = kept.own_colors
        file, units = said.get("file"), said.get("units", 1)
        if file is not None and not (isinstance(file, str) and isinstance(units, int | float) and units > 0):
            raise UserError(f"{folder / 'summary.json'}: damaged; segment the scan again")
        answer = cls(saved.title, saved.points + saved.origin, colors, saved.labels, saved.confidence, saved.names,
                     saved.rotation, Path(file) if file else None, float(units))  # fmt: skip
        if clicks.is_file():
            if kept is None:
                raise UserError(f"{clicks}: needs the scan's features, and {features} has none of them; delete it to "
                                f"export the labels before these clicks")  # fmt: skip
            answer.labels, answer.names, moved = Corrections.load(clicks).apply(kept, answer.labels, answer.names)
            answer.confidence = np.where(moved, 1, answer.confidence)
        if saved.objects is not None:
            answer.objects, answer.object_names = saved.objects, answer._classes_of(saved.objects)
        return answer

    def with_objects(self) -> "Answer":
        """Return the answer with objects; if they were not separated yet, they are connected parts of a class."""
        if self.objects is None:
            smallest = max(MIN_POINTS, len(self.points) // 2000)
            self.objects = renumber(components(self.points - self.points.min(0), self.labels, TOUCHING), smallest)
            self.object_names = self._classes_of(self.objects)
        return self

    def _classes_of(self, objects: np.ndarray) -> list[str]:
        names = []
        for number in range(int(objects.max(initial=-1)) + 1):
            labels = self.labels[objects == number]
            votes = np.bincount(labels[labels >= 0], minlength=1)
            names.append(self.names[int(votes.argmax())] if votes.any() else "unlabelled")
        return names

    def added(self, paint: bool = False) -> Added:
        """Return the labels of all points."""
        return Added(self.labels, self.confidence, self.names, class_palette(self.names), self.objects, paint)

    def added_at(self, places: np.ndarray, units: float, paint: bool = False) -> tuple[Added, bool]:
        """Transfer labels to the vertices of a file: each takes that of the nearest point, unless all are far away.

        Args:
            places: m x 3 positions of vertices, in units of the file.
            units: units of the file per metre.
            paint: use the colours of classes even if the scan has colours of its own.

        Returns:
            The labels, and True if the vertices are the labelled points themselves.
        """
        places = places / units
        if places.shape == self.points.shape and np.abs(places - self.points).max(initial=0) < SAME_PLACE:
            return self.added(paint), True
        known = np.flatnonzero(np.isfinite(places).all(1))
        rows = nearest(self.points, places[known])
        close = np.linalg.norm(self.points[rows] - places[known], axis=1) < FAR
        every = Added(np.append(self.labels, -1), np.append(self.confidence, 0), self.names,
                      class_palette(self.names), None if self.objects is None else np.append(self.objects, -1),
                      paint)  # fmt: skip
        row_of = np.full(len(places), len(self.points))
        row_of[known[close]] = rows[close]
        return every.of(row_of), False
