"""Who may connect to the live viewer, and what a client may send."""

import functools
import http.server
import socket
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import viser
from websockets.sync.client import ClientConnection, connect

from tools.studies.browser import AVAILABLE, Browser
from xmask3d.errors import UserError
from xmask3d.segment.newest import Newest
from xmask3d.segment.viewer import MAX_TEXT, SceneViewer
from xmask3d.segment.viewer_guard import MAX_CLIENTS, Guard

PROTOCOL = f"viser-v{viser.__version__}"
CAMERA = {"type": "ViewerCameraMessage", "wxyz": [1, 0, 0, 0], "position": [0, 0, 5], "fov": 1.0, "near": 0.01,
          "far": 100, "image_height": 600, "image_width": 800, "look_at": [0, 0, 0],
          "up_direction": [0, 0, 1]}  # fmt: skip


@pytest.fixture(scope="module")
def viewer():
    points = np.random.default_rng(0).uniform(size=(50, 3)).astype(np.float32)
    made = SceneViewer(points, np.zeros((50, 3), np.uint8), np.zeros(50, int), ["floor"], port=8160)
    yield made
    made.stop()


def handshake(port: int, host: str, origin: str | None, path: str = "/", upgrade: bool = True) -> int:
    """Status of a request that says what it likes."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    if upgrade:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Sec-WebSocket-Protocol: {PROTOCOL}"]  # fmt: skip
    lines += [] if origin is None else [f"Origin: {origin}"]
    with socket.create_connection(("127.0.0.1", port), 10) as stream:
        stream.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(stream.recv(4096).split()[1])


def test_the_served_page_may_connect(viewer):
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{viewer.port}"
        assert handshake(viewer.port, host, f"http://{host}") == 101
        assert handshake(viewer.port, host, None) == 101  # no browser
        assert handshake(viewer.port, host, None, upgrade=False) == 200


@pytest.mark.parametrize(
    "origin", ["null", "", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:1", "https://{host}",
               "http://localhost:{port}", "http://{host}.evil.example", "http://evil.example http://{host}"],
)  # fmt: skip
def test_another_page_may_not(viewer, origin):
    host = f"127.0.0.1:{viewer.port}"
    assert handshake(viewer.port, host, origin.format(host=host, port=viewer.port)) == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "10.0.0.1:{port}", "", ":{port}",
             "localhost.evil.example:{port}", "a@127.0.0.1:{port}", "127.0.0.1:{port}/x", "[::1]:{port}", "[:{port}"],
)  # fmt: skip
def test_another_name_is_not_served(viewer, host):
    host = host.format(port=viewer.port)
    for upgrade in (True, False):
        assert handshake(viewer.port, host, f"http://{host}", upgrade=upgrade) == 421


@pytest.mark.parametrize(
    ("served", "name", "at", "expected"),
    [
        ("0.0.0.0", "192.168.0.7:80", "192.168.0.7", True),
        ("0.0.0.0", "192.168.0.8:80", "192.168.0.7", False),
        ("0.0.0.0", "192.168.0.7", "192.168.0.7", True),
        ("", f"{socket.gethostname()}:80", "192.168.0.7", True),
        ("::", "192.168.0.7:80", "::ffff:192.168.0.7", True),
        ("::", "[fe80::1]:80", "fe80::1%eth0", True),
        ("0.0.0.0", "evil.example:80", "192.168.0.7", False),
        ("My.Machine", "my.machine:80", "192.168.0.7", True),
        ("my.machine", "evil.example:80", "192.168.0.7", False),
        ("0.0.0.0", "192.168.0.7:http", "192.168.0.7", False),
    ],
)
def test_names_of_a_server_that_others_reach(served, name, at, expected):
    assert Guard(served).serves(name, (at, 80)) is expected


def client(viewer: SceneViewer) -> ClientConnection:
    host = f"127.0.0.1:{viewer.port}"
    connection = connect(f"ws://{host}/", origin=f"http://{host}", subprotocols=[PROTOCOL], max_size=None)
    send(connection, CAMERA)
    return connection


def send(connection: ClientConnection, message: object) -> None:
    connection.send(msgspec.msgpack.encode(message))


def settled(holds) -> bool:
    for _ in range(100):
        if holds():
            return True
        time.sleep(0.05)
    return False


def update(control, **values) -> dict:
    return {"type": "GuiUpdateMessage", "uuid": control._impl.uuid, "updates": values}


def test_controls_take_what_they_offer(viewer):
    with client(viewer) as page:
        send(page, update(viewer._mode, value="colours"))
        send(page, update(viewer._size, value=2))
        send(page, update(viewer._boxes[0], value=False))
        assert settled(lambda: viewer._size.value == 2 and not viewer._boxes[0].value)
        assert viewer._mode.value == "colours" and not viewer._shown().any()
        send(page, update(viewer._boxes[0], value=True))
        assert settled(lambda: viewer._shown().all())


def test_nothing_else_is_set(viewer):
    """A later message shows that the ones before it were looked at and the connection was kept."""
    size, cut, mode, box = viewer._size, viewer._cut, viewer._mode, viewer._boxes[0]
    before = [control.value for control in (size, cut, mode, box)]
    wrong = [
        update(size, value="2"), update(size, value=1e300), update(size, value=float("nan")), update(size, value=-1),
        update(size, value=None), update(size, value=True), update(cut, value=[1]), update(mode, value="none"),
        update(mode, value=["labels"]), update(box, value=0), update(box, value="no"), update(box, update_cb=[]),
        update(box, value=False, removed=True), update(size, update_cb=None), update(size, sync_cb=None),
        update(box), update(viewer._info, content="<b>"), {**update(box, value=False), "uuid": "other"},
        {**update(box, value=False), "uuid": ["x"]}, {"type": "GuiUpdateMessage"}, {"type": "ShareUrlRequest"},
        {"type": "ShareUrlDisconnect"}, {"type": "FileTransferStartUpload", "source_component_uuid": "a",
         "transfer_uuid": "b", "filename": "c", "mime_type": "d", "part_count": 1, "size_bytes": 10},
        {"type": "FileTransferPart", "source_component_uuid": "a", "transfer_uuid": "b", "part_index": 0,
         "content": b"0" * 1000}, {"type": "RunJavascriptMessage", "source": "alert(1)"}, {"type": ["x"]}, {}, [], 3,
        {**CAMERA, "position": [float("nan")] * 3}, {**CAMERA, "wxyz": [1]}, {**CAMERA, "image_width": 1e12},
        {"type": "ScenePointerMessage", "event_type": "click", "ray_origin": "abc", "ray_direction": [0, 0, 1],
         "screen_pos": [], "modifier": None},
    ]  # fmt: skip
    with client(viewer) as page:
        for message in wrong:
            send(page, message)
        page.send(b"\xc1")
        page.send("text")
        page.send(b"\x91" * 100_000)
        send(page, update(mode, value="labels"))
        send(page, update(viewer._rest, value=False))
        assert settled(lambda: not viewer._rest.value)
        send(page, update(viewer._rest, value=True))
        assert settled(lambda: viewer._rest.value)
    assert [control.value for control in (size, cut, box)] == [before[0], before[1], before[3]]
    assert viewer._server._share_tunnel is None and mode.value == "labels"


def test_clicks_are_answered(viewer):
    eye, aim = np.array([0.5, 0.5, 9.0]), viewer._points[viewer._points[:, 2].argmax()]
    click = {"type": "ScenePointerMessage", "event_type": "click", "ray_origin": eye.tolist(),
             "ray_direction": (aim - eye).tolist(), "screen_pos": [[0.5, 0.5]], "modifier": None}  # fmt: skip
    with client(viewer) as page:
        for direction in ([0, 0, 0], (aim - eye).tolist()):
            send(page, {**click, "ray_direction": direction})
        assert settled(lambda: viewer._info.content.startswith("**floor** at ("))


def test_large_messages_and_many_clients_end_nothing(viewer):
    with client(viewer) as page:
        page.send(b"\xc6" + (20 << 20).to_bytes(4, "big") + bytes(20 << 20))
        with pytest.raises(Exception, match=r"1009|too big|closed"):
            while True:
                page.recv(10)
    host = f"127.0.0.1:{viewer.port}"
    open_ones = [client(viewer) for _ in range(MAX_CLIENTS)]
    assert handshake(viewer.port, host, f"http://{host}") == 503
    for page in open_ones:
        page.close()
    assert settled(lambda: handshake(viewer.port, host, f"http://{host}") == 101)


def test_a_question_has_an_end():
    rule = Guard("127.0.0.1")
    control = type("Control", (), {"_impl": type("Impl", (), {"uuid": "a"})})

    def message(value):
        return msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": "a", "updates": {"value": value}})

    assert not rule.takes(message("a"))
    rule.allow(control, lambda value: isinstance(value, str) and len(value) <= MAX_TEXT)
    assert rule.takes(message("a")) and not rule.takes(message("a" * (MAX_TEXT + 1)))
    rule.forget(control)
    assert not rule.takes(message("a"))


def test_a_server_started_otherwise_is_not_left_open():
    with pytest.raises(UserError, match="pip install -U viser"), Guard("127.0.0.1").installed():
        pass


def test_the_newest_call_of_a_kind_runs():
    ran, started, go = [], threading.Event(), threading.Event()
    newest = Newest()
    newest.put("a", lambda: (started.set(), go.wait(10)))
    assert started.wait(10)
    for number in range(1000):
        newest.put("a", functools.partial(ran.append, number))
    newest.put("b", lambda: 1 / 0)
    newest.put("b", functools.partial(ran.append, "late"), 0.1)
    go.set()
    assert settled(lambda: ran == [999, "late"])
    newest.stop()
    newest.put("a", functools.partial(ran.append, "never"))
    time.sleep(0.1)
    assert ran == [999, "late"]


@pytest.mark.slow
@pytest.mark.skipif(not AVAILABLE, reason="needs chromium and chromedriver")
def test_a_page_of_another_origin_is_refused_in_a_browser(viewer, tmp_path: Path):
    (tmp_path / "page.html").write_text("<title>other</title>")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(tmp_path)))
    threading.Thread(target=other.serve_forever, daemon=True).start()
    script = f"""
        window.outcome = '';
        let socket = new WebSocket('ws://127.0.0.1:{viewer.port}/', '{PROTOCOL}');
        socket.onopen = () => window.outcome = 'open'; socket.onerror = () => window.outcome ||= 'refused';
    """
    try:
        with Browser(tmp_path / "profile") as browser:
            outcomes = []
            for port in (other.server_port, viewer.port):
                page = "page.html" if port == other.server_port else ""
                browser.open(f"http://127.0.0.1:{port}/{page}")
                browser.run(script)
                outcomes.append(browser.wait("return window.outcome"))
            assert outcomes == ["refused", "open"]
    finally:
        other.shutdown()
        other.server_close()
