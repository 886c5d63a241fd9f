"""The self-contained page, opened from disk in a real browser."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.scenes import BoxRoom
from tools.studies.browser import AVAILABLE, Browser
from xmask3d.visualize.cloud import class_palette, colors_to_bytes
from xmask3d.visualize.page import HeatMap, write_page

needs_browser = pytest.mark.skipif(not AVAILABLE, reason="needs chromium and chromedriver")
NAMES = ["floor", "everything </script><b>else"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = BoxRoom(1, spacing=0.06)
    points = room.points
    labels = np.where(points[:, 2] < 0.02, 0, 1)
    labels[points[:, 0] < 0.05] = -1
    path = tmp_path_factory.mktemp("seite") / "scène.html"
    heat = HeatMap("far along x", points[:, 0] / 4)
    kept = write_page(path, points, colors_to_bytes(room.colors), labels, NAMES, [heat], title="Küche", facts="a room",
                      origin=np.array([100.0, 0, 0]))  # fmt: skip
    assert kept == len(points)
    return path


def count_shaded(picture: np.ndarray, color: np.ndarray) -> int:
    """Pixels of a colour, or of a shade of it from half to all of its brightness."""
    shade = picture.astype(float).sum(-1, keepdims=True) / color.sum()
    return int(((np.abs(picture - shade * color).max(-1) < 4) & (shade[..., 0] > 0.5) & (shade[..., 0] < 1.03)).sum())


def test_page_is_thinned_and_needs_nothing_else(tmp_path: Path) -> None:
    points = np.random.default_rng(0).random((5000, 3), np.float32)
    kept = write_page(tmp_path / "a.html", points, np.zeros((5000, 3), np.uint8), np.zeros(5000, int), ["x"],
                      max_points=1000)  # fmt: skip
    text = (tmp_path / "a.html").read_text()
    assert kept == 1000 and "__DATA__" not in text
    assert "http" not in text and "src=" not in text


@needs_browser
def test_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    palette = class_palette(NAMES)
    with Browser(tmp_path / "profile") as browser:
        browser.open(page.as_uri())
        browser.run("xmask3d.render()")
        labels = browser.picture()
        assert browser.errors() == []
        floor = count_shaded(labels, palette[0])
        assert floor > 2000  # the class's colour is on the screen

        browser.run("document.querySelector('#legend input').click(); xmask3d.render()")
        hidden = browser.picture()
        assert count_shaded(hidden[:, 300:], palette[0]) < 0.05 * floor  # beside the legend
        browser.run("document.querySelector('#legend input').click()")

        def mode(number: int) -> np.ndarray:
            browser.run(
                "const m = document.getElementById('mode'); m.value = arguments[0];"
                "m.dispatchEvent(new Event('change')); xmask3d.render()",
                number,
            )
            return browser.picture()

        colors, heat = mode(0), mode(2)
        assert np.abs(colors.astype(int) - labels).mean() > 2
        assert np.abs(heat.astype(int) - colors).mean() > 2

        assert browser.run("return document.getElementById('cut').value") == "0.8"  # no ceiling at first
        browser.run("const c = document.getElementById('cut'); c.value = 0; xmask3d.render()")
        cut = browser.picture()
        browser.run("const c = document.getElementById('cut'); c.value = 0.8; xmask3d.render()")
        assert np.abs(cut.astype(int) - heat).mean() > 2  # walls are gone, the floor is left
        np.testing.assert_array_equal(browser.picture()[:, 300:], heat[:, 300:])

        browser.drag(700, 400, 820, 430)
        browser.run("xmask3d.render()")
        assert np.abs(browser.picture().astype(int) - heat).mean() > 1  # turned

        browser.run("document.querySelector('button[data-view=top]').click(); xmask3d.render()")
        x, y, _ = browser.run("return xmask3d.project(arguments[0])", 800)
        browser.click(x, y)
        text = str(browser.wait("return document.getElementById('pick').innerText"))
        assert "far along x" in text and ("floor" in text or "everything" in text)
        assert browser.run("return xmask3d.picked()") >= 0
        assert "\n10" in text  # places are shown in the coordinates of the scan
        assert browser.errors() == []


@needs_browser
def test_places_of_a_turned_scan_are_its_own(tmp_path: Path) -> None:
    points = np.array([[0.5, 1, 2], [0.5, 3, 4], [0.5, 5, 2], [0.5, 3, 0]], np.float32)
    rotation = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    write_page(tmp_path / "a.html", points, np.full((4, 3), 200, np.uint8), np.zeros(4, int), ["x"],
               origin=np.array([100.0, 200, 300]), rotation=rotation)  # fmt: skip
    with Browser(tmp_path / "profile") as browser:
        browser.open((tmp_path / "a.html").as_uri())
        browser.run("xmask3d.render()")
        x, y, _ = browser.run("return xmask3d.project(2)")
        browser.run("xmask3d.pick(arguments[0], arguments[1])", x, y)
        assert "100.50, 205.00, 302.00 m" in str(browser.run("return document.getElementById('pick').innerText"))


@needs_browser
def test_objects_and_a_far_point(tmp_path: Path) -> None:
    room = BoxRoom(1, spacing=0.06)
    points = np.concatenate([room.points, [[900.0, 0, 0]]]).astype(np.float32)  # one stray point
    objects = np.where(points[:, 2] < 0.02, 0, np.where(points[:, 0] < 0.05, 1, -1))
    write_page(tmp_path / "a.html", points, np.full((len(points), 3), 200, np.uint8), objects, ["floor", "wall"],
               objects=objects, object_names=["floor", "floor"], start="objects")  # fmt: skip
    with Browser(tmp_path / "profile") as browser:
        for size in ((1000, 700), (390, 844)):
            browser.resize(*size)
            browser.open((tmp_path / "a.html").as_uri())
            browser.run("xmask3d.render()")
            assert "floor 1" in str(browser.run("return document.getElementById('badges').innerText"))
            legend = "return document.getElementById('legend').textContent"
            assert "floor 2" in str(browser.run(legend)) and "no object" in str(browser.run(legend))
            # The room fills the part that the panel leaves free, whatever lies far away.
            xs, ys = np.array([browser.run("return xmask3d.project(arguments[0])", i)[:2]
                               for i in range(0, len(room.points), 97)]).T  # fmt: skip
            top, right = browser.run(
                "const r = document.getElementById('panel').getBoundingClientRect(); return [r.top, r.right]"
            )
            wide = size[0] > 700
            width, height = browser.run("return [innerWidth, innerHeight]")
            assert xs.min() > (right if wide else 0) - 5 and xs.max() < width + 5
            assert ys.min() > -5 and ys.max() < (height if wide else top) + 5
            assert xs.max() - xs.min() > 0.5 * (width - (right if wide else 0)) or ys.max() - ys.min() > 0.5 * height
            assert browser.run("return document.documentElement.scrollWidth") <= width
            assert browser.errors() == []


@needs_browser
def test_the_panel_folds(page: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        browser.resize(390, 844)
        browser.open(page.as_uri())
        height = "return document.getElementById('panel').offsetHeight"
        folded = browser.run(height)
        browser.run("document.getElementById('fold').click()")
        assert browser.run(height) > folded + 100 and browser.run(height) < 0.65 * 844


@needs_browser
def test_one_finger_turns_two_fingers_zoom_and_a_tap_picks(page: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        browser.resize(390, 844)
        browser.open(page.as_uri())
        distance, yaw = browser.run("return [xmask3d.eye.distance, xmask3d.eye.yaw]")
        browser.touch((150, 300, 90, 300), (230, 300, 300, 300))
        nearer, same = browser.run("return [xmask3d.eye.distance, xmask3d.eye.yaw]")
        assert nearer < 0.9 * distance and same == yaw and browser.run("return xmask3d.picked()") == -1
        browser.touch((150, 300, 250, 300))
        assert browser.run("return xmask3d.eye.yaw") < yaw - 0.3
        browser.run("document.querySelector('button[data-view=top]').click(); xmask3d.render()")
        x, y, _ = browser.run("return xmask3d.project(arguments[0])", 800)
        browser.touch((x, y, x, y))
        assert browser.run("return xmask3d.picked()") >= 0
