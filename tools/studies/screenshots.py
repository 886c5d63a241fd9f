"""Take the pictures of viewer and page that the documentation shows, in a headless Chromium, from a result's folder."""

import argparse
import tempfile
import time
from pathlib import Path

from xmask3d.errors import UserError, run_tool

SIZE, PHONE = (1240, 760), (390, 844)
MAX_COLORS = 256
"""Of the written PNG files, so that each stays small."""


def main() -> int:
    """Parse arguments, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="folder that `xmask3d segment` wrote")
    parser.add_argument("out", type=Path, nargs="?", default=Path("fig"), help="folder of the pictures (default: fig)")
    parser.add_argument("--phrase", default="sofa", help="what is typed into the viewer's box (default: %(default)s)")
    parser.add_argument("--turn", type=int, default=0, help="pixels by which the page is dragged aside first")
    parser.add_argument("--port", type=int, default=8080, help="of the viewer (default: %(default)s)")
    arguments = parser.parse_args()
    from tools.studies.browser import AVAILABLE, Browser
    from xmask3d.segment.view_result import open_viewer

    page = arguments.result / "scene.html"
    if not page.is_file():
        raise UserError(f"{arguments.result}: no scene.html; name the folder that `xmask3d segment` wrote")
    if not AVAILABLE:
        raise UserError("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile), SIZE) as browser:
        browser.open(page.resolve().as_uri())
        browser.run("xmask3d.render()")
        if arguments.turn:
            browser.drag(700, 400, 700 + arguments.turn, 400)
            browser.run("xmask3d.render()")
        save(browser, arguments.out / "scene.png")
        browser.resize(*PHONE, scale=2)
        browser.open(page.resolve().as_uri())
        browser.run("xmask3d.ask(arguments[0]); xmask3d.render()", arguments.phrase)
        save(browser, arguments.out / "scene_phone.png")
        browser.resize(*SIZE)
        viewer = open_viewer(arguments.result, port=arguments.port)
        try:
            browser.open(f"http://127.0.0.1:{viewer.port}/")
            browser.wait("return document.body.innerText.includes('answer')", 60)
            time.sleep(5)  # the cloud arrives after the panel
            browser.run(
                "let box = [...document.querySelectorAll('label')].find((l) => l.innerText.trim() === 'ask');"
                "while (!box.querySelector('input')) box = box.parentElement; box.querySelector('input').id = 'ask'"
            )
            browser.type_into("#ask", arguments.phrase)
            browser.wait("return document.body.innerText.includes('places fit best')", 120)
            browser.run("document.querySelectorAll('.mantine-Notification-closeButton').forEach((b) => b.click())")
            time.sleep(5)
            save(browser, arguments.out / "viewer.png")
        finally:
            viewer.stop()
    return 0


def save(browser, path: Path) -> None:
    """Write the browser's picture in few colours; an error on the page's console is an error here."""
    from PIL import Image

    if errors := browser.errors():
        raise UserError(f"the page reports: {errors[0][:200]}")
    Image.fromarray(browser.picture()).quantize(MAX_COLORS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_tool(main)
