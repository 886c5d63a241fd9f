"""The page that answers new words: in a browser, offline, it gives what `xmask3d query` gives."""

import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.scenes import BoxRoom
from tools.studies.browser import AVAILABLE, Browser
from xmask3d.models.text_tower import load_text_tower
from xmask3d.segment.page_words import page_words
from xmask3d.segment.query import query_features, text_encoder
from xmask3d.segment.result_files import write_result
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.wording import understand
from xmask3d.visualize.cloud import colors_to_bytes
from xmask3d.weights import clip_folder

needs_browser = pytest.mark.skipif(not AVAILABLE, reason="needs chromium and chromedriver")
PHRASES = ["sofa", "red chair", "something to sit on", "Potted-Plants", "a place to sleep", "it's 3 o'clock", "Küche",
           "wooden table|desk", "where I wash my hands", "  floor  "]  # fmt: skip
TYPED = ["qwertz", "shelves", "benches", "Sofas", "SHELVES|bookshelves", "sofa, table", "sofas , qwertz,",
         "red elephant", "", ",", "the", "Küche", "椅子", "12 chairs²",
         "a place_to sit-on", "sofa|elephant|qwertz"]  # fmt: skip
CLASSES = ["chair", "sofa", "floor", "wall", "table"]


def room_features(gate: str = "soft", clip: str = "shipped") -> PointFeatures:
    """Features of a room around those of the classes, with noise; some places without CLIP's."""
    room, rng = BoxRoom(1, spacing=0.1), np.random.default_rng(0)
    count = len(room.points)
    about = {"scan": "room", "model": "none", "clip": "shipped", "temperature": "14.3", "base_ratio": "0.65",
             "novel_ratio": "0.35", "names": "\n".join(CLASSES), "base_names": "floor\nwall\nchair", "views": "3",
             "origin": "0 0 0", "rotation": "1 0 0 0 1 0 0 0 1", "gate": gate}  # fmt: skip
    empty = PointFeatures(room.points, colors_to_bytes(room.colors), np.arange(count, dtype=np.int32),
                          *(np.zeros(0, np.float16) for _ in range(3)), np.zeros(0, np.int32), about)  # fmt: skip
    text = text_encoder(empty)(CLASSES)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    owner = rng.integers(0, len(CLASSES), count)

    def noisy() -> np.ndarray:
        values = text[owner] + 0.06 * rng.normal(size=(count, text.shape[1]))
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)

    clip_features = noisy()
    clip_features[::7] = 0
    empty.fused, empty.clip = noisy(), clip_features
    empty.base = rng.random(count).astype(np.float16)
    empty.view_count = np.ones(count, np.int32)
    empty.about["clip"] = clip
    return empty


def test_a_text_tower_that_is_too_large_does_not_travel(tmp_path: Path) -> None:
    features = room_features(clip="ViT-L-14/openai")
    assert page_words(features, np.arange(10)) is None
    features.about["clip"] = "shipped"
    words = page_words(features, np.arange(10))
    assert words is not None and words.row.tolist() == list(range(10)) and words.content["places"] == 10


def test_features_of_many_places_are_packed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features, count = room_features(), 60_000
    tower = load_text_tower(clip_folder())
    monkeypatch.setattr("xmask3d.segment.page_words.load_text_tower", lambda folder: tower)
    some = np.arange(count) % len(features.fused)
    features.fused, features.clip, features.base = (v[some] for v in (features.fused, features.clip, features.base))
    features.row, features.view_count = np.arange(count, dtype=np.int32), features.view_count[some]
    tracemalloc.start()
    words = page_words(features, np.arange(count))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words is not None and words.content["places"] == count
    assert most < 2 * count * features.fused.shape[1] * 2 * 4  # less than all features in single precision, twice


@pytest.mark.slow
def test_the_page_of_200_000_points_is_below_15_megabytes(tmp_path: Path) -> None:
    features, count, rng = room_features(), 200_000, np.random.default_rng(2)
    features.points = rng.uniform(0, 5, (count, 3)).astype(np.float32)  # noise, which cannot be compressed
    features.colors = rng.integers(0, 256, (count, 3), dtype=np.uint8)
    spread = rng.normal(size=(24, features.fused.shape[1]))  # features vary along some directions, as a network's do
    features.fused = (0.03 * rng.normal(size=(count, 24)) @ spread).astype(np.float16)
    features.clip = (0.03 * rng.normal(size=(count, 24)) @ spread).astype(np.float16)
    features.base = rng.random(count).astype(np.float16)
    features.row, features.view_count = np.arange(count, dtype=np.int32), np.ones(count, np.int32)
    result = query_features(features, CLASSES, text_encoder(features))
    write_result(result, tmp_path / "out")
    page = tmp_path / "out" / "scene.html"
    assert '"count": 200000' in page.read_text(encoding="utf-8")
    assert 8e6 < page.stat().st_size < 15e6


def with_regions(features: PointFeatures, kind: str) -> PointFeatures:
    """Features with two divisions of the cloud; a tenth of the parts holds points but no place."""
    rng, count = np.random.default_rng(1), len(features.points)
    features.place_part = rng.integers(0, 90, count).astype(np.int32)
    features.part = np.where(rng.random(count) < 0.1, rng.integers(90, 100, count), features.place_part).astype(
        np.int32
    )
    features.part_regions = np.stack([np.arange(100), np.arange(100) // 2], 1).astype(np.int32)
    features.view_count = rng.integers(1, 9, count).astype(np.int32)
    features.about |= {"regions": kind, "confidence_temperature": "0.6", "gate_weights": "0.7 -1.0 -0.66 1.0"}
    return features


@needs_browser
def test_several_words_are_voted_on_by_regions_as_query_does(tmp_path: Path) -> None:
    words = ["chair|stool", "sofa", "floor", "table"]
    with Browser(tmp_path / "profile") as browser:
        for number, (regions, gate) in enumerate(
            [("gate", "soft"), ("votes", "hard"), ("gate", "clip"), ("none", "clip")]
        ):
            features = room_features(gate) if regions == "none" else with_regions(room_features(gate), regions)
            encode = text_encoder(features)
            write_result(query_features(features, CLASSES, encode), tmp_path / f"{number}")
            browser.open((tmp_path / f"{number}" / "scene.html").as_uri())
            browser.run("xmask3d.ask(arguments[0])", ", ".join(words))
            got, sure = (np.array(browser.run(f"return [...xmask3d.{name}()]")) for name in ("labels", "sureness"))
            wanted = query_features(features, words, encode)
            assert (got == wanted.labels).mean() > 0.99, (regions, gate)
            same = got == wanted.labels
            assert np.abs(sure - wanted.confidence)[same].max() < 0.02, (regions, gate)
            alone = query_features(room_features(gate), words, encode).labels
            assert regions == "none" or (alone == wanted.labels).mean() < 0.9  # regions do change the answer
        assert browser.errors() == []


@needs_browser
@pytest.mark.parametrize("gate", ["soft", "hard", "none"])
def test_answers_are_those_of_query(tmp_path: Path, gate: str) -> None:
    features = room_features(gate)
    encode = text_encoder(features)
    write_result(query_features(features, CLASSES, encode), tmp_path / "out")
    page = (tmp_path / "out" / "scene.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "") and "src=" not in page
    with Browser(tmp_path / "profile") as browser:
        browser.open((tmp_path / "out" / "scene.html").as_uri())
        for phrase in PHRASES if gate == "soft" else PHRASES[:1]:
            browser.run("xmask3d.ask(arguments[0])", phrase)
            got = browser.run("const a = xmask3d.answer().heat(arguments[0]); return JSON.stringify([...a])",
                              [word.strip() for word in phrase.split("|")])  # fmt: skip
            wanted = query_features(features, phrase, encode).heat(0)
            assert np.abs(np.array(json.loads(str(got))) - wanted).max() < 1e-2, phrase
        assert "similarity" in str(browser.run("return document.getElementById('heat').innerText"))
        browser.run("xmask3d.ask('chair|stool, sofa, floor')")
        got = np.array(browser.run("return [...xmask3d.labels()]"))
        wanted = query_features(features, ["chair|stool", "sofa", "floor"], encode)
        assert (got == wanted.labels).mean() > 0.995
        legend = str(browser.run("return document.getElementById('legend').innerText"))
        assert "sofa" in legend and "wall" not in legend
        assert browser.errors() == []


@needs_browser
def test_words_are_understood_as_query_understands_them(tmp_path: Path) -> None:
    features = room_features()
    encode = text_encoder(features)
    write_result(query_features(features, CLASSES, encode), tmp_path / "out")
    with Browser(tmp_path / "profile") as browser:
        browser.open((tmp_path / "out" / "scene.html").as_uri())

        def said(text: str) -> str:
            browser.run("xmask3d.ask(arguments[0])", text)
            return str(browser.run("return document.getElementById('answer').innerText"))

        for typed in TYPED:
            got = browser.run("return JSON.stringify(xmask3d.answer().wording.understand(arguments[0]))", typed)
            assert json.loads(str(got)) == asdict(understand([typed], clip_folder())), typed
        shown = browser.run("return document.getElementById('mode').innerText")
        nothing = "'qwertz': this model never learned such words, and finds nothing for them"
        assert said("qwertz") == nothing and said("") == ""
        assert browser.run("return document.getElementById('mode').innerText") == shown  # no heat map of noise
        assert "'benches' is taken as bench" in said("Benches") and "goes by the rest" in said("red elephant")
        assert nothing in said("qwertz, chair|zxcv, sofa")
        got = np.array(browser.run("return [...xmask3d.labels()]"))
        wanted = query_features(features, ["qwertz", "chair|zxcv", "sofa"], encode)
        assert set(got) == {1, 2} and (got == wanted.labels).mean() > 0.995
        assert "answered" in said("qwertz, zxcv")
        assert browser.run("return xmask3d.labels().every((label) => label === -1)")
        assert browser.errors() == []


@needs_browser
def test_a_page_without_the_text_tower_says_so(tmp_path: Path) -> None:
    features = room_features()
    result = query_features(features, CLASSES, text_encoder(features))
    result.features.about["clip"] = "ViT-L-14/openai"
    write_result(result, tmp_path / "out")
    with Browser(tmp_path / "profile") as browser:
        browser.open((tmp_path / "out" / "scene.html").as_uri())
        panel = str(browser.run("return document.getElementById('panel').innerText"))
        assert "too large to travel" in panel and "heat map: sofa" in panel
        assert browser.run("return document.getElementById('ask').offsetHeight") == 0
        assert browser.errors() == []
