"""The live viewer: what it says of points, and, in a real browser, that a typed query changes the picture."""

import json
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.scenes import BoxRoom, write_scenes
from tests.helpers.tiny import WIDTH, write_clip
from tools.studies.browser import AVAILABLE, Browser
from xmask3d.errors import UserError
from xmask3d.models.loading.clip_weights import load_clip
from xmask3d.models.tokenizer import save_words
from xmask3d.segment.query import query_features, text_encoder
from xmask3d.segment.result_files import write_result
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.view_result import open_viewer
from xmask3d.segment.viewer import SceneViewer
from xmask3d.segment.viewer_text import named, plain

needs_browser = pytest.mark.skipif(not AVAILABLE, reason="needs chromium and chromedriver")
WORDS = ["bed", "sofa"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result whose left half fits the first word and whose right half fits the second."""
    root = tmp_path_factory.mktemp("viewer")
    clip = write_clip(root / "clip")
    model, tokenizer = load_clip(clip)
    text = model.encode_text(tokenizer(WORDS)).numpy()
    room = BoxRoom(0, spacing=0.08)
    right = (room.points[:, 0] > 2).astype(np.int32)
    about = {"scan": "room", "model": "none", "clip": str(clip), "temperature": "10", "base_ratio": "0.65",
             "novel_ratio": "0.35", "names": "bed\nsofa", "base_names": "bed\nsofa", "origin": "0 0 0", "views": "1",
             "rotation": "1 0 0 0 1 0 0 0 1"}  # fmt: skip
    assert text.shape == (2, WIDTH)
    unit = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float16)
    colors = np.rint((room.colors + 1) * 127.5).astype(np.uint8)
    ones = np.ones(2, np.float16)
    features = PointFeatures(room.points, colors, right, unit, unit, ones, ones.astype(np.int32), about)
    out = root / "out"
    write_result(query_features(features, WORDS, text_encoder(features)), out)
    features.save(out / "features.safetensors")
    return out


@pytest.fixture
def viewer(folder: Path):
    made = open_viewer(folder, port=8123)
    yield made
    made.stop()


def test_points_explain_themselves(folder: Path, viewer: SceneViewer) -> None:
    features = PointFeatures.load(folder / "features.safetensors")
    row = int(np.flatnonzero(features.points[:, 0] > 3)[0])
    text = viewer.explain(row)
    assert text.startswith("**sofa**") and "| sofa | 1.000 |" in text
    eye = np.array([2.0, 1.8, 5.0])
    hit = viewer.nearest_to_ray(eye, features.points[row] - eye)
    assert hit is not None
    met, aim = features.points[hit] - eye, features.points[row] - eye
    assert np.linalg.norm(met) <= np.linalg.norm(aim) + 0.1  # nothing nearer lies on the ray
    assert viewer.nearest_to_ray(eye, np.array([0, 0, 1.0])) is None


def test_scans_and_features_can_be_looked_at(tmp_path: Path, folder: Path) -> None:
    scan = write_scenes(tmp_path, {"val": 1}, views=1, spacing=0.2) / "scannet_2d" / "scene0000_00"
    np.savetxt(tmp_path / "room.xyz", np.random.default_rng(0).random((300, 3)))
    with zipfile.ZipFile(tmp_path / "room.zip", "w") as archive:
        archive.write(tmp_path / "room.xyz", "room.xyz")
    for path in (scan, folder / "features.safetensors", tmp_path / "room.zip"):
        viewer = open_viewer(path, port=8131)
        try:
            assert viewer.port > 0
            viewer.ask("sofa")  # without features this is answered in words, with them by a heat map
        finally:
            viewer.stop()
    with pytest.raises(UserError, match="no such file"):
        open_viewer(tmp_path / "none")


def test_names_are_shown_as_they_are_typed(folder: Path) -> None:
    hostile = "<img src=x onerror=alert(1)> *a*|_b_ {c}"
    shown = plain(hostile)
    assert shown == "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in hostile)
    assert plain("potted\n plänt 2") == "potted plänt 2"
    features = PointFeatures.load(folder / "features.safetensors")
    labels = np.zeros(len(features.points), int)
    viewer = SceneViewer(features.points, features.colors, labels, [hostile], features=features,
                         load_text=lambda: text_encoder(features), title=hostile, port=8141)  # fmt: skip
    try:
        assert viewer.explain(0).startswith(f"**{shown}** at (")
        viewer.ask("<b>sofa</b>")
        assert "<" not in viewer._info.content and plain("<b>sofa</b>") in viewer._info.content
        viewer.ask("sofa|<i>")
        assert "| sofa |" in viewer.explain(0)
        viewer.ask("bed|")
        assert "empty" in viewer._info.content and "|" not in viewer._info.content
    finally:
        viewer.stop()


def test_places_are_told_in_the_frame_of_the_scan() -> None:
    own = np.array([[1, 2, 3], [4, 5, 6]], np.float64)
    rotation, origin = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]]), np.array([455_000.0, 0, 80])
    viewer = SceneViewer(own @ rotation.T, np.zeros((2, 3), np.uint8), rotation=rotation, origin=origin, port=8142)
    try:
        assert viewer.explain(0) == "**unlabelled** at (455001.00, 2.00, 83.00) m"
        assert viewer.explain(1) == "**unlabelled** at (455004.00, 5.00, 86.00) m"
    finally:
        viewer.stop()


def test_the_ceiling_of_a_room_is_cut_off_at_first() -> None:
    points = np.random.default_rng(0).random((500, 3)).astype(np.float32) * [4, 4, 2.5]
    viewer = SceneViewer(points, np.zeros((500, 3), np.uint8), port=8151)
    try:
        drawn = points[viewer._shown()]
        assert 1.8 < drawn[:, 2].max() < 2.1 and 350 < len(drawn) < 450
    finally:
        viewer.stop()


def test_clicks_pass_what_is_hidden() -> None:
    points = np.array([[0, 0, 0.4], [0, 0, 0.8], [0, 0, 1.2], [5, 5, 0]], np.float32)
    viewer = SceneViewer(points, np.zeros((4, 3), np.uint8), np.array([0, 1, -1, 0]), ["floor", "lamp"], port=8143)
    try:
        eye, down = np.array([0, 0, 9.0]), np.array([0, 0, -1.0])
        assert viewer.nearest_to_ray(eye, down) == 2
        viewer._rest.value = False
        assert viewer.nearest_to_ray(eye, down) == 1
        viewer._boxes[1].value = False
        assert viewer.nearest_to_ray(eye, down) == 0
    finally:
        viewer.stop()


def test_a_point_is_compared_with_all_synonyms(tmp_path: Path, folder: Path) -> None:
    """The first of two words for one class fits the left half, the second the right half."""
    features = PointFeatures.load(folder / "features.safetensors")
    words = ["bed|sofa", "lamp"]
    result = query_features(features, words, text_encoder(features))
    result.about["words"] = words
    write_result(result, tmp_path)
    shutil.copy(folder / "features.safetensors", tmp_path)
    viewer = open_viewer(tmp_path, port=8144)
    try:
        for side in (features.points[:, 0] < 1, features.points[:, 0] > 3):
            row = int(np.flatnonzero(side)[0])
            assert "| bed | 1.000 |" in viewer.explain(row)
        viewer.ask("lamp|sofa, bed")
        row = int(np.flatnonzero(features.points[:, 0] > 3)[0])
        assert "| lamp | 1.000 |" in viewer.explain(row)
    finally:
        viewer.stop()


def test_features_elsewhere_are_found_and_done_without(tmp_path: Path, folder: Path) -> None:
    for name in ("labels.ply", "summary.json"):
        shutil.copy(folder / name, tmp_path)
    features = shutil.copy(folder / "features.safetensors", tmp_path / "room.features")
    summary = tmp_path / "summary.json"
    said = {key: value for key, value in json.loads(summary.read_text()).items() if key not in ("sealed", "seal")}
    summary.write_text(json.dumps({**said, "features": str(features)}))
    viewer = open_viewer(tmp_path, port=8145)
    try:
        row = int(np.flatnonzero(viewer._labels == 1)[0])
        said = viewer.explain(row)
        assert said.startswith("**sofa** at (") and "| sofa | 1.000 |" in said
    finally:
        viewer.stop()
    features.unlink()
    viewer = open_viewer(tmp_path, port=8146)
    try:
        head, sure = said.splitlines()[:2]
        assert viewer.explain(row) == f"{head}\n{sure}"
    finally:
        viewer.stop()


def test_a_cut_off_result_is_named(tmp_path: Path, folder: Path) -> None:
    for name in ("labels.ply", "summary.json", "features.safetensors"):
        shutil.copy(folder / name, tmp_path)
    ply = tmp_path / "labels.ply"
    ply.write_bytes(ply.read_bytes()[:500])
    for path in (tmp_path, tmp_path / "features.safetensors"):
        with pytest.raises(UserError, match=r"labels\.ply: damaged"):
            open_viewer(path)


def test_what_cannot_be_served_is_said(folder: Path) -> None:
    with pytest.raises(UserError, match="--port 99999: no port"):
        open_viewer(folder, port=99_999)


def test_words_that_were_never_learned_are_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "result")
    features = PointFeatures.load(copy / "features.safetensors")
    clip = Path(shutil.copytree(features.fact("clip"), tmp_path / "clip"))
    save_words(clip, WORDS)
    features.about["clip"] = str(clip)
    features.save(copy / "features.safetensors")
    viewer = open_viewer(copy, port=8153)
    try:
        viewer.ask("qwertz")
        nothing = plain("'qwertz': this model never learned such words, and finds nothing for them")
        assert viewer._info.content == f"**qwertz**: nothing found\n\n{nothing}"
        assert viewer._heat is None and viewer._mode.value == "labels"
        viewer.ask("Sofas")
        assert viewer._info.content.endswith(plain("'sofas' is taken as sofa")) and viewer._mode.value == "heat map"
        viewer.ask("qwertz, zxcv")
        assert "0 of 2 words found" in viewer._info.content and (viewer._labels == -1).all()
    finally:
        viewer.stop()


def test_corrections_that_cannot_be_saved_are_said(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "result")
    (copy / "corrections.safetensors").mkdir()  # which no file can replace
    viewer = open_viewer(copy, port=8154)
    try:
        row = int(np.flatnonzero(viewer._labels == 1)[0])
        for change in (lambda: viewer.correct(row, "workbench"), viewer.undo):
            change()
            first, last = viewer._info.content.split("\n\n")
            assert "points" in first and last.startswith("Not kept after this session") and "cannot" in last
        assert viewer._names == WORDS
    finally:
        viewer.stop()


@needs_browser
def test_a_typed_query_changes_the_picture(viewer: SceneViewer, tmp_path: Path) -> None:
    def drawn(browser: Browser) -> np.ndarray:
        return browser.picture()[:, :600].astype(int)

    def settled(browser: Browser, before: np.ndarray) -> np.ndarray:
        for _ in range(60):
            time.sleep(0.5)
            now = drawn(browser)
            if np.abs(now - before).mean() > 3:
                return now
        raise AssertionError("the picture did not change")

    with Browser(tmp_path / "profile") as browser:
        browser.open(f"http://127.0.0.1:{viewer.port}/")
        browser.wait("return document.body.innerText.includes('answer')", 60)
        labels = settled(browser, np.full((1, 1, 3), 255))
        time.sleep(1)
        labels = drawn(browser)
        browser.run(
            "let box = [...document.querySelectorAll('label')].find((l) => l.innerText.trim() === 'ask');"
            "while (!box.querySelector('input')) box = box.parentElement; box.querySelector('input').id = 'ask'"
        )
        browser.type_into("#ask", "sofa")
        heat = settled(browser, labels)
        browser.wait("return document.body.innerText.includes('places fit best')")
        browser.type_into("#ask", "sofa, bed")
        browser.wait("return document.body.innerText.includes('2 of 2 words found')")
        settled(browser, heat)
        assert browser.errors() == []


@needs_browser
def test_on_a_phone_the_panel_stands_below_the_scene(viewer: SceneViewer, tmp_path: Path) -> None:
    edges = (
        "const edge = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom] };"
        "return [...edge(document.querySelector('canvas')), ...edge(document.querySelector('.mantine-Paper-root'))]"
    )
    with Browser(tmp_path / "profile") as browser:
        browser.resize(390, 844)
        browser.open(f"http://127.0.0.1:{viewer.port}/")
        browser.wait("return document.body.innerText.includes('answer')", 60)
        browser.run("document.querySelectorAll('.mantine-Notification-closeButton').forEach((b) => b.click())")
        left, top, right, bottom, *panel = np.array(browser.run(edges))
        assert [left, top, right] == [0, 0, 390] and 0.5 * 844 < bottom < 0.6 * 844
        np.testing.assert_allclose(panel, [0, bottom, 390, 844], atol=1)
        browser.click(100, bottom + 20)  # the panel's head folds it
        time.sleep(1)
        assert np.array(browser.run(edges))[3] > 0.9 * 844
        assert browser.run("return document.documentElement.scrollWidth") == 390
        assert browser.errors() == []


def test_clicks_correct_labels_and_are_kept(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "result")
    viewer = open_viewer(copy, port=8151)
    try:
        row = int(np.flatnonzero(viewer._labels == 1)[0])
        viewer.correct(row, named("a workbench"))
        assert viewer._names == ["bed", "sofa", "workbench"] and (viewer._labels != 1).all()
        assert viewer.explain(row).startswith("**workbench**") and "points follow" in viewer._info.content
        moved = (viewer._labels == 2).sum()
    finally:
        viewer.stop()
    viewer = open_viewer(copy, port=8152)
    try:
        assert (viewer._labels == 2).sum() == moved > 100
        viewer.undo()
        assert (viewer._labels == 1).sum() == moved and viewer._names == ["bed", "sofa"]
    finally:
        viewer.stop()
