"""Results read back from their folder, whole and damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.segment.saved_labels import read_labels
from xmask3d.visualize.cloud import write_ply

ORIGIN = [500_000.0, 100.0, 0.0]
ROTATION = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    points = np.array([[0.25, 1, 2], [3, 4, 5], [6, 7, 8]]) + ORIGIN
    write_ply(tmp_path / "labels.ply", points, np.zeros((3, 3), np.uint8), np.array([1, -1, 0]), np.array([0.5, 0, 1]))
    said = {"scan": "room", "names": ["bed", "sofa"], "words": ["bed", "sofa|couch"], "origin": ORIGIN,
            "rotation": ROTATION}  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps(said))
    return tmp_path


def test_labels_come_back(folder: Path) -> None:
    saved = read_labels(folder)
    assert saved is not None and saved.title == "room"
    assert saved.points.tolist() == [[0.25, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert saved.labels.tolist() == [1, -1, 0] and saved.confidence.tolist() == [0.5, 0, 1]
    assert saved.names == ["bed", "sofa"] and saved.words == ["bed", "sofa|couch"]
    assert saved.origin.tolist() == ORIGIN and saved.rotation.tolist() == ROTATION


def test_there_may_be_none(folder: Path) -> None:
    (folder / "labels.ply").unlink()
    assert read_labels(folder) is None


@pytest.mark.parametrize("kept", [0, 40, -9])
def test_a_cut_off_cloud_is_named(folder: Path, kept: int) -> None:
    path = folder / "labels.ply"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"labels\.ply: damaged.*delete it to see the features alone") as caught:
        read_labels(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ['{"scan": "room", "na', "[]", '{"scan": "room"}', '{"names": ["bed"]}',
             '{"names": ["bed", "sofa"], "origin": [1]}', '{"names": ["bed", "sofa"], "rotation": "up"}']
)  # fmt: skip
def test_a_damaged_summary_is_named(folder: Path, text: str) -> None:
    (folder / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary\.json: damaged.*segment the scan again") as caught:
        read_labels(folder)
    assert "\n" not in str(caught.value)
