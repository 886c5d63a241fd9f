from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from xmask3d.errors import UserError
from xmask3d.models.gate import soft_gate
from xmask3d.seal import UNSEALED, sealed
from xmask3d.segment.saved_features import PointFeatures


def features(**about: str) -> PointFeatures:
    nothing = np.zeros((0, 3), np.float32)
    return PointFeatures(nothing, nothing, nothing, nothing, nothing, nothing, nothing, about)


def test_answers_are_gated_as_labels_are() -> None:
    rng = np.random.default_rng(0)
    scores, base = rng.normal(size=(50, 5)).astype(np.float32), rng.random(50).astype(np.float32)
    novel = np.array([False, True, False, True, True])
    expected = soft_gate(torch.from_numpy(scores), torch.from_numpy(base), torch.from_numpy(novel))
    np.testing.assert_allclose(features(gate="soft")._gated(scores, base, novel), expected, atol=1e-5)
    np.testing.assert_array_equal(features(gate="none")._gated(scores, base, novel), scores)
    # Files of earlier versions do not say: they were gated hard.
    hard = features()._gated(scores, base, novel)
    np.testing.assert_array_equal(hard == np.finfo(np.float32).min, novel == (base > 0.5)[:, None])


@pytest.mark.parametrize("gate", ["hard", "soft"])
def test_words_of_one_kind_are_not_gated(gate: str) -> None:
    scores, base = np.ones((2, 3), np.float32), np.zeros(2, np.float32)
    for novel in (np.zeros(3, bool), np.ones(3, bool)):
        np.testing.assert_array_equal(features(gate=gate)._gated(scores, base, novel), scores)


def test_places_of_a_region_choose_together_and_unseen_points_follow_them() -> None:
    text, novel = np.eye(3, dtype=np.float32), np.array([False, False, True])
    fused = np.array([[1, 0.2, 0], [0.9, 1, 0], [0, 0, 1]], np.float16)
    about = {"temperature": "20", "base_ratio": "1", "novel_ratio": "1", "gate": "none", "regions": "votes"}
    found = PointFeatures(
        points=np.zeros((5, 3), np.float32),
        colors=np.zeros((5, 3), np.uint8),
        row=np.array([0, 1, 2, 1, 2], np.int32),  # the last two points are unseen, and near the second and third place
        fused=fused,
        clip=np.zeros_like(fused),
        base=np.ones(3, np.float16),
        view_count=np.array([3, 1, 1], np.int32),
        about=about,
        part=np.array([0, 0, 1, 0, 2], np.int32),
        place_part=np.array([0, 0, 1], np.int32),
        part_regions=np.array([[0], [1], [2]], np.int32),
    )
    labels, share = found.label(text, novel)
    np.testing.assert_array_equal(labels, [0, 0, 2, 0, 2])  # 3 views at the first place outvote 1 at the second
    assert share[0] == share[3] < share[2]
    found.part_regions = np.zeros((0, 0), np.int32)
    np.testing.assert_array_equal(found.label(text, novel)[0], [0, 1, 2, 1, 2])


def test_a_region_weighs_the_head_and_clip_between_base_and_novel() -> None:
    text, novel = np.eye(3, dtype=np.float32), np.array([False, False, True])
    about = {"temperature": "10", "base_ratio": "1", "novel_ratio": "1", "gate": "soft", "regions": "gate"}
    found = PointFeatures(
        points=np.zeros((2, 3), np.float32),
        colors=np.zeros((2, 3), np.uint8),
        row=np.arange(2, dtype=np.int32),
        fused=np.array([[1, 0, 0], [1, 0, 0]], np.float16),
        clip=np.array([[0, 0, 1], [1, 0, 0]], np.float16),
        base=np.array([0.7, 0.7], np.float16),
        view_count=np.ones(2, np.int32),
        about=about,
        part=np.arange(2, dtype=np.int32),
        place_part=np.arange(2, dtype=np.int32),
        part_regions=np.arange(2, dtype=np.int32)[:, None],
    )
    np.testing.assert_array_equal(found.label(text, novel)[0], [2, 0])  # CLIP sees the novel one in the first
    found.part_regions = np.zeros((2, 1), np.int32)  # one region: CLIP's odds cancel, the head says base
    np.testing.assert_array_equal(found.label(text, novel)[0], [0, 0])


def small() -> PointFeatures:
    rng = np.random.default_rng(1)
    half, row = rng.normal(size=(4, 8)).astype(np.float16), np.array([0, 1, 2, 3, 0], np.int32)
    about = {"scan": "room", "temperature": "14", "rotation": "1 0 0 0 1 0 0 0 1", "origin": "0 0"}
    points, colors = rng.normal(size=(5, 3)).astype(np.float32), np.zeros((5, 3), np.uint8)
    return PointFeatures(points, colors, row, half, half.copy(), half[:, 0].copy(), row[:4].copy(), about)


@pytest.mark.parametrize(
    "name, value",
    [("row", [0, 1, 2, 3, 4]), ("row", [0, 1, 2, 3, -1]), ("fused", np.full((4, 8), np.nan, np.float16)),
     ("fused", np.zeros((4, 5), np.float16)), ("points", np.zeros((4, 3), np.float32)),
     ("points", np.full((5, 3), np.inf, np.float32)), ("colors", np.zeros((5, 3), np.float32))],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(name: str, value: object, tmp_path: Path) -> None:
    sound = small()
    sound.save(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(PointFeatures.load(tmp_path / "a.safetensors").fused, sound.fused)
    replace(sound, **{name: np.array(value, dtype=None if hasattr(value, "dtype") else np.int32)}).save(
        tmp_path / "a.safetensors"
    )
    with pytest.raises(UserError, match=r"a\.safetensors: damaged, or no features of a scan \(") as caught:
        PointFeatures.load(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_files_of_earlier_versions_with_another_name_of_an_array_are_read(tmp_path: Path) -> None:
    features = small()
    arrays = {{"view_count": "looks"}.get(name, name): value for name, value in vars(features).items()
              if isinstance(value, np.ndarray)}  # fmt: skip
    about = {**features.about, "format": "xmask3d-features-1", **UNSEALED}
    sealed(lambda part: save_file(arrays, part, metadata=about))(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(PointFeatures.load(tmp_path / "a.safetensors").view_count, features.view_count)


def test_facts_that_are_missing_or_no_numbers_are_named(tmp_path: Path) -> None:
    features = small()
    assert features.fact("scan") == "room" and features.numbers("rotation", 9).reshape(3, 3).trace() == 3
    for name, count, message in (("views", 1, "no views"), ("origin", 3, "their origin is none"),
                                 ("scan", 1, "their scan is none")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            features.numbers(name, count)
    features.about["temperature"] = "nan"
    with pytest.raises(UserError, match="their temperature is not finite"):
        features.numbers("temperature", 1)
    del features.about["temperature"]
    features.save(tmp_path / "room.features")
    with pytest.raises(UserError, match=r"room\.features: no temperature in them"):
        PointFeatures.load(tmp_path / "room.features").numbers("temperature", 1)
