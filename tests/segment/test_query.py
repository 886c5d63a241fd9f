"""Answers from saved features, with an encoder of few words."""

from pathlib import Path

import numpy as np
import trimesh

from xmask3d.segment.query import query_features
from xmask3d.segment.result_files import write_result
from xmask3d.segment.saved_features import PointFeatures


def encode(texts: list[str]) -> np.ndarray:
    """Embed "sofa" and "couch" each in its own direction, and all else in others that are a little like a sofa."""
    rng = np.random.default_rng(0)
    found = np.zeros((len(texts), 8), np.float32)
    for row, text in enumerate(texts):
        found[row, 2:] = rng.normal(size=6)
        found[row, 0] = -1 if "|" in text else rng.normal(0, 0.3)
        if text in ("sofa", "couch"):
            found[row] = np.eye(8)[["sofa", "couch"].index(text)]
    return found


def features(**about: str) -> PointFeatures:
    """800 points in a row of places, a centimetre apart; 100 of them are of a sofa."""
    points = np.stack([np.arange(800) / 100, np.zeros(800), np.zeros(800)], 1).astype(np.float32)
    fused = np.eye(8, dtype=np.float16)[np.where(np.arange(800) < 100, 0, 7)]
    facts = {"scan": "room", "model": "m", "clip": "none such", "temperature": "20", "base_ratio": "1",
             "novel_ratio": "1", "names": "bed", "base_names": "bed", "views": "0", "origin": "0 0 0",
             "rotation": "1 0 0 0 1 0 0 0 1", **about}  # fmt: skip
    grey = np.full((800, 3), 128, np.uint8)
    return PointFeatures(points, grey, np.arange(800, dtype=np.int32), fused, fused, np.ones(800, np.float16),
                         np.ones(800, np.int32), facts)  # fmt: skip


def test_a_place_that_fits_one_of_the_synonyms_stands_out() -> None:
    for phrase in ("sofa", "sofa|couch", "couch|sofa"):
        result = query_features(features(), phrase, encode)
        assert [region.index.tolist() for region in result.regions[0]] == [list(range(100))], phrase


def test_an_answer_gives_the_scans_own_file_back(tmp_path: Path) -> None:
    path = tmp_path / "scan.ply"
    trimesh.PointCloud(features().points * 1000).export(path)
    result = query_features(features(file=str(path), units="1000.0"), ["sofa", "bed"], encode)
    assert result.colors is None and result.about["file"] == str(path)
    files = {file.name for file in write_result(result, tmp_path / "out")}
    assert "labelled.ply" in files and "fused.ply" not in files
