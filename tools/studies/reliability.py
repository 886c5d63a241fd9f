"""Study of reliability: of the labels with a confidence of 0.6, 60 % should be right."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xmask3d.data.files import read_points
from xmask3d.errors import UserError, run_tool
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.segmenter import Segmenter

BINS = 10
TEMPERATURES = np.round(np.geomspace(0.4, 4, 24), 3)


@dataclass
class Outcomes:
    """Labels of points and their truth, at one temperature.

    Attributes:
        hits: n bool, points that are labelled right. confidence: n in [0, 1].
    """

    hits: np.ndarray
    confidence: np.ndarray

    def rows(self) -> Iterator[tuple[float, float, float]]:
        """Yield of each range of confidence that has points: their share, mean confidence, and share that is right."""
        bins = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        for number in range(BINS):
            inside = bins == number
            if inside.any():
                yield float(inside.mean()), float(self.confidence[inside].mean()), float(self.hits[inside].mean())

    def calibration_error(self) -> float:
        """Return the expected calibration error: the mean over points of the distance of the two in their range."""
        return sum(share * abs(confidence - right) for share, confidence, right in self.rows())

    def loss(self) -> float:
        """Return the mean log loss of the confidence as the probability of being right."""
        sure = self.confidence.clip(1e-4, 1 - 1e-4)
        return float(-np.where(self.hits, np.log(sure), np.log(1 - sure)).mean())


@dataclass
class Room:
    """Features of a scene, and the class of its points; `classes` are K x D embeddings, `novel` K bool."""

    features: PointFeatures
    truth: np.ndarray
    classes: np.ndarray
    novel: np.ndarray

    def outcomes(self, temperature: float) -> Outcomes:
        """Label the scene and compare, where the truth is one of the classes."""
        self.features.about["confidence_temperature"] = repr(float(temperature))
        labels, confidence = self.features.label(self.classes, self.novel)
        known = (self.truth >= 0) & (self.truth < len(self.novel))
        return Outcomes((labels == self.truth)[known], confidence[known])


def look_at(segmenter: Segmenter, scenes: Iterable[Path]) -> list[Room]:
    """Find the features of scenes of a data set in ScanNet's processed layout (.pth files), without their labels."""
    vocabulary = segmenter.vocabulary((), classes=segmenter.config.benchmark)
    classes = segmenter.encode(vocabulary.texts)
    rooms = []
    for path in tqdm(list(scenes), unit="scene", disable=None):
        _, _, ids = read_points(path)
        if ids is None:
            raise UserError(f"{path}: has no labels to compare with")
        features = segmenter(path, classes=segmenter.config.benchmark).features
        truth = segmenter.benchmark.classes_of_points(ids)
        rooms.append(Room(features, truth, classes, vocabulary.novel))
    return rooms


def joined(rooms: list[Room], temperature: float) -> Outcomes:
    """Return the outcomes of all rooms together."""
    found = [room.outcomes(temperature) for room in rooms]
    return Outcomes(np.concatenate([o.hits for o in found]), np.concatenate([o.confidence for o in found]))


def fit(rooms: list[Room]) -> float:
    """Return the temperature of least log loss."""
    return float(min(TEMPERATURES, key=lambda temperature: joined(rooms, temperature).loss()))


def main() -> int:
    """Parse arguments, fit on some scenes, print the table of others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="model, as of xmask3d segment --checkpoint")
    parser.add_argument(
        "--fit", type=Path, metavar="FOLDER", help="scenes to fit on, such as data/rooms/scannet_3d/train"
    )
    parser.add_argument("--test", type=Path, nargs="+", metavar="FOLDER", default=[], help="scenes to report on")
    parser.add_argument("--scenes", type=int, metavar="N", help="only the first N scenes of each folder")
    arguments = parser.parse_args()
    segmenter = Segmenter.from_checkpoint(arguments.checkpoint)
    temperature = segmenter.config.evaluate.confidence_temperature
    if arguments.fit:
        temperature = fit(look_at(segmenter, sorted(arguments.fit.glob("*.pth"))[: arguments.scenes]))
        print(f"evaluate.confidence_temperature={temperature}", flush=True)
    for folder in arguments.test:
        rooms = look_at(segmenter, sorted(folder.glob("*.pth"))[: arguments.scenes])
        for each in (1.0, temperature):
            found = joined(rooms, each)
            print(f"\n{folder}, temperature {each}: expected calibration error {found.calibration_error():.1%}, "
                  f"{found.hits.mean():.1%} right")  # fmt: skip
            print(f"{'points':>8}{'confidence':>12}{'right':>8}")
            for share, confidence, right in found.rows():
                print(f"{share:8.1%}{confidence:12.2f}{right:8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    run_tool(main)
