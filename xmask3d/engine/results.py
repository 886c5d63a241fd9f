"""Results of an evaluation: one per scene while it runs, and a table at the end."""

import csv
import io
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xmask3d
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.guarded import read_arrays
from xmask3d.inference.instances import Objects
from xmask3d.inference.labeller import BRANCHES
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.metrics.scores import Scores, title_of
from xmask3d.seal import check_seal, sealed, sealed_json
from xmask3d.splits import Benchmark

TITLES = {"fused": "fused", "2d": "2D", "3d": "3D"}


@dataclass
class SceneResult:
    """Result of one evaluated scene of n points.

    Attributes:
        labels: n int16 class ids of each branch, -1 where no view of the scene could be used.
        counts: K x (K + 1) int64 for each branch, see `ConfusionMatrix`.
        binary_counts: 2 x 3 int64, the same for base (1) or novel (0).
        confidence: n float16, share of the votes for the fused label, 0 for unseen points.
        views: number of views that voted, over all rotations.
        unseen: number of points that no view saw.
        sources: digest of the scene's files when they were read.
        objects: objects of the fused labels, if they were requested.
    """

    labels: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    binary_counts: np.ndarray
    confidence: np.ndarray
    views: int
    unseen: int
    sources: str = ""
    objects: Objects | None = None

    def save(self, path: Path) -> None:
        """Write a compressed npz, complete or not at all; the folder is made when missing."""
        arrays: dict[str, Any] = {f"labels_{branch}": self.labels[branch] for branch in BRANCHES}
        arrays |= {f"counts_{branch}": self.counts[branch] for branch in BRANCHES}
        arrays |= {"binary_counts": self.binary_counts, "confidence": self.confidence}
        arrays |= {"seen": np.array([self.views, self.unseen]), "sources": np.array(self.sources)}
        if self.objects:
            arrays |= {f"objects_{name}": np.asarray(values) for name, values in vars(self.objects).items()}
        atomic_write(path, sealed(lambda part: np.savez_compressed(part, **arrays)))

    @classmethod
    def load(cls, path: Path) -> "SceneResult | None":
        """Read a saved result; None if it is missing or damaged."""
        try:
            check_seal(path)
            file = read_arrays(path)
            objects = None
            if "objects_of_point" in file:
                confidences = file["objects_confidences"].tolist()
                objects = Objects(file["objects_of_point"], file["objects_classes"], confidences)
            return cls(
                labels={branch: file[f"labels_{branch}"] for branch in BRANCHES},
                counts={branch: file[f"counts_{branch}"] for branch in BRANCHES},
                binary_counts=file["binary_counts"],
                confidence=file["confidence"],
                views=int(file["seen"][0]),
                unseen=int(file["seen"][1]),
                sources=str(file["sources"]),
                objects=objects,
            )
        except (UserError, KeyError, IndexError):
            return None


@dataclass
class Results:
    """Scores of a set of scenes.

    Attributes:
        about: benchmark, protocol, checkpoint and settings with their digests.
        scenes: names of the scenes.
        scores: scores of each branch.
        binary: scores of the binary head; class 1 is base, 0 novel.
        views, points, unseen: sums over the scenes.
        folder: folder of the files.
        name: name of the files, without suffix.
    """

    folder: Path
    about: dict[str, Any]
    benchmark: Benchmark
    scenes: list[str]
    scores: dict[str, Scores]
    binary: Scores
    views: int
    points: int
    unseen: int
    name: str = "results"

    @classmethod
    def collect(
        cls,
        folder: Path,
        scenes: list[str],
        benchmark: Benchmark,
        about: dict[str, Any],
        headlines: Sequence[str] = ("hiou",),
    ) -> "Results":
        """Sum the saved results of scenes. They are integers, so neither order nor number of processes matters.

        Raises:
            UserError: no point has a class, so there is nothing to score.
        """
        matrices = {branch: ConfusionMatrix(benchmark.num_classes) for branch in BRANCHES}
        binary = ConfusionMatrix(2)
        views = points = unseen = 0
        for name in scenes:
            result = SceneResult.load(folder / "scenes" / f"{name}.npz")
            if result is None:
                raise FileNotFoundError(f"{folder / 'scenes' / name}.npz vanished during the evaluation")
            for branch in BRANCHES:
                matrices[branch].counts += torch.from_numpy(result.counts[branch])
            binary.counts += torch.from_numpy(result.binary_counts)
            views, unseen, points = views + result.views, unseen + result.unseen, points + len(result.confidence)
        if not matrices["fused"].counts.sum():
            raise UserError(
                f"none of {points} points in {len(scenes)} scenes has a label of {benchmark.name}'s classes: nothing "
                "can be scored; are its label ids those of the data?"
            )
        scores = {branch: matrix.scores(benchmark.groups, headlines) for branch, matrix in matrices.items()}
        gate = binary.scores({"base": (1,), "novel": (0,)})
        return cls(folder, about, benchmark, scenes, scores, gate, views, points, unseen)

    def table(self) -> str:
        """Format the results as text for a console."""
        about, binary = self.about, self.binary
        titles = [title_of(name) for name in self.scores["fused"].headlines]
        titles += ["mIoU_b", "mIoU_n", "mAcc_b", "mAcc_n", "allAcc"]
        lines = [
            f"{about['benchmark']}, protocol {about['protocol']}: {len(self.scenes)} scenes, {self.views} views, "
            f"{self.points} points ({self.unseen / max(1, self.points):.1%} unseen)",
            f"checkpoint {about['checkpoint']} (sha256 {about['checkpoint_sha256'][:12]})",
            "",
            f"{'':<8}" + "".join(f"{title:>{_width(title)}}" for title in titles),
        ]
        for branch, scores in self.scores.items():
            means = [means[group] for means in (scores.miou, scores.macc) for group in ("base", "novel")]
            values = zip(titles, (*scores.headlines.values(), *means, scores.all_accuracy), strict=True)
            cells = "".join(f"{100 * value:{_width(title)}.2f}" for title, value in values)
            lines.append(f"{TITLES[branch]:<8}{cells}")
        lines += [
            f"binary head: {100 * binary.all_accuracy:.2f} right, IoU base {100 * binary.iou[1]:.2f}, "
            f"novel {100 * binary.iou[0]:.2f}",
            "",
            f"{'class':<24}{'split':<7}{'points':>10}{'fused':>8}{'2D':>8}{'3D':>8}{'acc':>8}",
        ]
        for row in self.rows():
            kind = f"{row['class']:<24.24}{row['split']:<7}{row['points']:>10}"
            shown = (row["iou_fused"], row["iou_2d"], row["iou_3d"], row["accuracy_fused"])
            lines.append(kind + "".join(f"{100 * value:8.2f}" for value in shown))
        return "\n".join(lines)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict per class, base classes first."""
        benchmark, rows = self.benchmark, []
        for i in (*benchmark.base, *benchmark.novel):
            row: dict[str, Any] = {
                "class": benchmark.class_names[i],
                "split": "novel" if i in benchmark.novel else "base",
                "points": self.scores["fused"].counts[i],
            }
            row |= {f"iou_{branch}": scores.iou[i] for branch, scores in self.scores.items()}
            row |= {f"accuracy_{branch}": scores.accuracy[i] for branch, scores in self.scores.items()}
            rows.append(row)
        return rows

    def as_json(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        return {
            **self.about,
            "versions": {
                "xmask3d": xmask3d.__version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "scores": {branch: scores.as_dict() for branch, scores in self.scores.items()},
            "binary_head": self.binary.as_dict(),
            "classes": self.rows(),
            "views": self.views,
            "points": self.points,
            "unseen_points": self.unseen,
            "scenes": self.scenes,
        }

    def write(self) -> None:
        """Write `<name>.txt`, `.json` and `.csv`."""
        folder, name, rows = self.folder, self.name, self.rows()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(folder / f"{name}.txt", self.table() + "\n")
        atomic_write(folder / f"{name}.json", sealed_json(self.as_json(), indent=1))
        atomic_write(folder / f"{name}.csv", text.getvalue())


def _width(title: str) -> int:
    """Return the width, in characters, of a column of numbers below its title."""
    return max(8, len(title) + 2)
