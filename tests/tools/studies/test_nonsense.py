"""The study of places counts what a phrase finds, and what it would find if every fit were good enough."""

import numpy as np

from tests.segment.test_page_words import room_features
from tools.studies.nonsense import places
from xmask3d.segment.query import text_encoder


def test_words_that_name_nothing_find_no_place() -> None:
    features = room_features()
    features.points = features.points * np.float32(0.5)  # points of a region touch
    encode = text_encoder(features)
    sofa = encode(["sofa"])[0]
    corner = (features.points[:, :2] < np.quantile(features.points[:, :2], 0.35, axis=0)).all(1)
    features.fused[corner] = features.clip[corner] = sofa / np.linalg.norm(sofa)
    for phrase in ("qwertz", "thing", "near the small object", "colorless green idea"):
        assert places(features, phrase, encode)[0] == 0, phrase
    kept, every = places(features, "sofa", encode)
    assert 0 < kept <= every, (kept, every)
