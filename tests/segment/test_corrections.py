"""Clicks that correct labels: alike places follow, nothing else moves, and they are kept and used for other scans."""

from pathlib import Path

import numpy as np
import pytest

from tests.segment.test_result_files import result_of
from xmask3d.errors import UserError
from xmask3d.segment.answer import Answer
from xmask3d.segment.corrections import CORRECTIONS, UNLABELLED, Corrections
from xmask3d.segment.exports import export_answer
from xmask3d.segment.result_files import write_result
from xmask3d.segment.saved_features import PointFeatures

NAMES = ["wall", "desk"]


def scan(name: str = "room", **about: str) -> PointFeatures:
    """60 points a metre apart: 20 walls, 20 desks, 20 benches that are nearly like desks."""
    kinds = np.repeat([0, 1, 2], 20)
    vectors = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0.6, 0.8, 0]])[kinds]
    vectors = vectors + np.random.default_rng(0).normal(0, 0.02, vectors.shape)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    points = np.stack([np.arange(60), np.zeros(60), np.zeros(60)], 1).astype(np.float32)
    said = {"scan": name, "model": "shipped", "origin": "1000 0 0", **about}
    return PointFeatures(points, np.zeros((60, 3), np.uint8), np.arange(60, dtype=np.int32), unit, unit,
                         np.ones(60, np.float16), np.ones(60, np.int32), said)  # fmt: skip


def labels() -> np.ndarray:
    return np.repeat([0, 1, 1], 20)


def test_alike_places_follow_and_nothing_else_moves() -> None:
    features = scan()
    corrections = Corrections.none(features)
    corrections.add(features, 45, "desk", "workbench")
    found, names, moved = corrections.apply(features, labels(), NAMES)
    assert names == ["wall", "desk", "workbench"]
    assert found.tolist() == [0] * 20 + [1] * 20 + [2] * 20 and moved.tolist() == [False] * 40 + [True] * 20
    other = scan("hall")
    again, _, _ = corrections.apply(other, labels(), NAMES)
    assert again.tolist() == found.tolist()
    strict, _, moved = corrections.apply(other, np.zeros(60, int), NAMES)
    assert not moved.any() and not strict.any()  # the label there was another


def test_near_places_need_to_be_less_alike_on_the_same_scan_only() -> None:
    features = scan()
    features.points[20:40] = features.points[45]  # desks at the place of the bench that is clicked
    corrections = Corrections.none(features)
    corrections.add(features, 45, "desk", "workbench")
    assert corrections.apply(features, labels(), NAMES)[2].sum() == 20
    features.fused[20:40] = features.fused[45] + np.float16(0.5)
    features.clip[20:40] = features.fused[20:40] = features.fused[20:40] / np.linalg.norm(
        features.fused[20:40].astype(float), axis=1, keepdims=True
    )
    assert corrections.apply(features, labels(), NAMES)[2][20:40].all()
    elsewhere = scan("hall")
    elsewhere.fused[20:40], elsewhere.clip[20:40] = features.fused[20:40], features.clip[20:40]
    elsewhere.points[:] = features.points
    assert not corrections.apply(elsewhere, labels(), NAMES)[2][20:40].any()


def test_a_click_on_what_is_right_protects_it_and_clicks_are_taken_back() -> None:
    features = scan()
    features.fused[50:], features.clip[50:] = features.fused[30:40], features.clip[30:40]
    corrections = Corrections.none(features)
    corrections.add(features, 30, "desk", "workbench")
    assert corrections.apply(features, labels(), NAMES)[2].sum() == 30
    corrections.add(features, 30, "desk", UNLABELLED)  # the same place: another answer
    assert len(corrections) == 1 and (corrections.apply(features, labels(), NAMES)[0] == -1).sum() == 30
    corrections.remove()
    assert not len(corrections) and not corrections.apply(features, labels(), NAMES)[2].any()


def test_places_without_a_mask_are_alike_by_the_models_features() -> None:
    features = scan()
    features.clip = np.zeros_like(features.clip)  # as of a cloud without pictures
    corrections = Corrections.none(features)
    corrections.add(features, 45, "desk", "workbench")
    assert corrections.apply(features, labels(), NAMES)[0].tolist() == [0] * 20 + [1] * 20 + [2] * 20


def test_clicks_at_map_coordinates_are_places_of_their_own() -> None:
    features = scan(origin="5712456 0 0")
    corrections = Corrections.none(features)
    for point in (45, 46, 46):
        corrections.add(features, point, "desk", "workbench")
    assert corrections.points[:, 0].tolist() == [5712501, 5712502]


def test_corrections_are_kept_joined_and_refused(tmp_path: Path) -> None:
    features = scan()
    corrections = Corrections.none(features)
    corrections.add(features, 45, "desk", "workbench")
    corrections.save(tmp_path / CORRECTIONS)
    kept = Corrections.load(tmp_path / CORRECTIONS)
    assert kept.after == ["workbench"] and kept.before == ["desk"] and kept.scans == ["room"]
    np.testing.assert_array_equal(kept.points, [[1045, 0, 0]])
    np.testing.assert_array_equal(kept.features, corrections.features)
    assert len(kept.joined(kept)) == 2 and len(Corrections.none(features).joined(kept)) == 1
    with pytest.raises(UserError, match="different models"):
        kept.joined(Corrections(kept.features, kept.points, ["a"], ["b"], ["c"], "another"))
    whole = (tmp_path / CORRECTIONS).read_bytes()
    (tmp_path / CORRECTIONS).write_bytes(whole[:-3] + b"abc")
    with pytest.raises(UserError, match="damaged"):
        Corrections.load(tmp_path / CORRECTIONS)
    features.save(tmp_path / "features.safetensors")
    for name, reason in (("features.safetensors", "no corrections"), ("none", "no such file")):
        with pytest.raises(UserError, match=reason):
            Corrections.load(tmp_path / name)
    narrow = scan()
    narrow.fused = narrow.fused[:, :2]
    with pytest.raises(UserError, match="another model"):
        kept.apply(narrow, labels(), NAMES)


def test_a_folder_with_corrections_exports_them(tmp_path: Path) -> None:
    features = scan()
    result = result_of(
        NAMES,
        features=features,
        points=features.points,
        labels=labels(),
        origin=np.array([1000.0, 0, 0]),
        similarity=np.zeros((60, 2), np.float32),
    )
    corrections = Corrections.none(features)
    corrections.add(features, 45, "desk", "chair")
    corrected = corrections.correct(result)
    assert corrected.about["corrected"] == 20 and (corrected.confidence[40:] == 1).all()
    write_result(result, tmp_path)
    features.save(tmp_path / "features.safetensors")
    assert Answer.read(tmp_path).labels.max() == 1
    corrections.save(tmp_path / CORRECTIONS)
    (tmp_path / "features.safetensors").rename(tmp_path / "away")
    with pytest.raises(UserError, match="needs the scan's features"):
        Answer.read(tmp_path)
    (tmp_path / "away").rename(tmp_path / "features.safetensors")
    answer = Answer.read(tmp_path)
    assert answer.names == [*NAMES, "chair"] and answer.labels[40:].tolist() == [2] * 20
    (path,) = export_answer(answer, "training", tmp_path).files
    from xmask3d.data.files import read_points

    ids = read_points(path)[2]
    assert path.relative_to(tmp_path).as_posix() == "training/scannet_3d/train/room_vh_clean_2.pth"
    assert ids[[0, 20, 40]].tolist() == [0, 12, 4]


def test_corrections_of_another_model_are_refused_though_their_features_are_as_wide(tmp_path: Path) -> None:
    features = scan(weights="a" * 64)
    corrections = Corrections.none(features)
    corrections.add(features, 45, "desk", "workbench")
    corrections.save(tmp_path / CORRECTIONS)
    kept = Corrections.load(tmp_path / CORRECTIONS)
    assert kept.apply(features, labels(), NAMES)[2].sum() == 20
    with pytest.raises(UserError, match=r"of another model \(shipped\), .* move the file of corrections away"):
        kept.apply(scan(weights="b" * 64, model="mine"), labels(), NAMES)
    assert kept.apply(scan(), labels(), NAMES)[2].sum() == 20  # features of earlier versions do not tell
    with pytest.raises(UserError, match="different models"):
        kept.joined(Corrections(kept.features, kept.points, ["a"], ["b"], ["c"], "shipped", "b" * 64))
