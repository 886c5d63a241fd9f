"""Headless Chromium for screenshots and tests, over the WebDriver protocol; needs only the browser and its driver."""

import base64
import io
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.errors import UserError

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
AVAILABLE = bool(CHROMIUM and DRIVER)

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--proxy-server=direct://",
    "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """Browser window; use as a context.

    Args:
        profile: an empty folder for the browser's own files.
        size: width and height of the window.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1000, 700)) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._driver = subprocess.Popen(
            [str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._base = f"http://127.0.0.1:{port}"
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        options = {"binary": CHROMIUM, "args": flags}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            self._wait_for_driver()
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._stop_driver()
            raise
        self._base += f"/session/{session['sessionId']}"

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", "", None)
        finally:
            self._stop_driver()

    def open(self, address: str) -> None:
        """Load a page and wait until it is loaded."""
        self._ask("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: object) -> object:
        """Run the body of a function in the page and return its result."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Give the page the size of a phone, which windows cannot have; touch counts as the pointer."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": True}
        self._ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def picture(self) -> np.ndarray:
        """Return the picture of the window, h x w x 3 uint8."""
        data = self._ask("GET", "/screenshot", None)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(str(data)))).convert("RGB"))

    def errors(self) -> list[str]:
        """Return messages of the console since the last call that are errors."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def click(self, x: float, y: float) -> None:
        """Press and release the mouse at a place of the window."""
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
        steps = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._ask("POST", "/actions", {"actions": [{**mouse, "actions": steps}]})

    def drag(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Drag with the left button."""
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
        steps = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "duration": 100, "x": round(to_x), "y": round(to_y)},
            {"type": "pointerUp", "button": 0},
        ]
        self._ask("POST", "/actions", {"actions": [{**mouse, "actions": steps}]})

    def touch(self, *paths: tuple[float, float, float, float]) -> None:
        """Put down fingers, move them at once, and lift them. Args: paths: where each begins and ends, x and y."""
        actions = []
        for number, (x, y, to_x, to_y) in enumerate(paths):
            steps = [
                {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
                {"type": "pointerDown", "button": 0},
                {"type": "pointerMove", "duration": 100, "x": round(to_x), "y": round(to_y)},
                {"type": "pointerUp", "button": 0},
            ]
            about = {"type": "pointer", "id": f"finger {number}", "parameters": {"pointerType": "touch"}}
            actions.append({**about, "actions": steps})
        self._ask("POST", "/actions", {"actions": actions})

    def type_into(self, selector: str, text: str) -> None:
        """Clear a field, type, and press enter."""
        element = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        key = next(iter(element.values()))
        self._ask("POST", f"/element/{key}/clear", {})
        self._ask("POST", f"/element/{key}/value", {"text": text + "\ue007"})

    def wait(self, script: str, seconds: float = 30) -> object:
        """Wait until a script returns something true, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.run(script):
                return found
            time.sleep(0.2)
        raise UserError(f"the browser's page: waited {seconds} s for: {script}")

    def _stop_driver(self) -> None:
        self._driver.terminate()
        self._driver.wait(10)

    def _wait_for_driver(self) -> None:
        for _ in range(150):
            try:
                if self._ask("GET", "/status", None)["ready"]:
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        raise UserError("chromedriver did not start; see whether it fits the installed Chromium")

    def _ask(self, method: str, path: str, body: object):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            message = json.loads(error.read())["value"]["message"]
            raise UserError(f"the browser: {message.splitlines()[0]}") from error
