import hashlib
import re
import shutil
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tests.helpers.archives import tar_of
from xmask3d.data.download import fetch as module
from xmask3d.data.download.archives import extract
from xmask3d.data.download.fetch import fetch, read_records
from xmask3d.data.download.items import ITEMS, Item, download, names
from xmask3d.data.scannet import SCANNET
from xmask3d.errors import UserError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A web server with faults: `drop_after` bytes it hangs up, `status` it refuses, `tag` names its version."""

    def __init__(self):
        self.content, self.tag, self.kind = CONTENT, '"one"', "application/octet-stream"
        self.drops, self.status, self.ranges = [], [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, request):
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if self.status:
            request.send_error(self.status.pop(0))
            return
        start = 0
        if asked and request.headers.get("If-Range") in (None, self.tag):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(self.content):
                request.send_error(416)
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        else:
            request.send_response(200)
        body = self.content[start:]
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Content-Type", self.kind)
        if self.tag:
            request.send_header("ETag", self.tag)
        request.end_headers()
        drop = self.drops.pop(0) if self.drops else len(body)
        request.wfile.write(body[:drop])


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()
    server.thread.join()


def get(server, path, **options):
    return fetch(server.url, path, wait=0.001, timeout=10, **options)


def test_downloads_and_records(server, tmp_path):
    path = get(server, tmp_path / "deep" / "file.bin", sha256=DIGEST, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    entry = read_records(path.parent)["file.bin"]
    assert entry == {"url": server.url, "size": len(CONTENT), "sha256": DIGEST}
    assert sorted(p.name for p in path.parent.iterdir()) == ["downloads.json", "file.bin"]
    get(server, path, sha256=DIGEST)
    assert len(server.ranges) == 1  # what is there is not fetched again


def test_goes_on_after_dropped_connections(server, tmp_path):
    server.drops = [100_000, 0, 50_000]
    assert get(server, tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]


def test_a_file_of_unknown_length_that_was_cut_is_not_taken_for_whole(tmp_path):
    class Chunks(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            self.wfile.write(head + b"3e8\r\n" + b"a" * 1000 + b"\r\n3e8\r\n" + b"b" * 300)  # of 1000

    with socketserver.TCPServer(("127.0.0.1", 0), Chunks) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with pytest.raises(UserError, match="ended early"):
            fetch(f"http://127.0.0.1:{server.server_address[1]}/a", tmp_path / "a", attempts=2, wait=0.001, timeout=10)
        server.shutdown()
        thread.join()
    assert not (tmp_path / "a").exists() and not read_records(tmp_path)


@pytest.mark.parametrize("tag", ['"one"', None, 'W/"weak"'])
def test_goes_on_in_a_later_call(server, tmp_path, tag):
    server.tag = tag
    server.drops = [1000, 0, 0]
    with pytest.raises(UserError, match="run the command again"):
        get(server, tmp_path / "a", attempts=2)
    assert not (tmp_path / "a").exists() and (tmp_path / "a.part").stat().st_size == 1000
    before = len(server.ranges)
    server.drops = []
    assert get(server, tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges[before:] == ["bytes=1000-"]


def test_a_file_that_changed_meanwhile_starts_again(server, tmp_path):
    server.drops = [1000, 0]
    with pytest.raises(UserError):
        get(server, tmp_path / "a", attempts=1)
    server.content, server.tag = CONTENT[::-1], '"two"'
    server.drops = []
    assert get(server, tmp_path / "a").read_bytes() == CONTENT[::-1]


def test_a_longer_file_without_tag_starts_again(server, tmp_path):
    server.tag = None
    server.drops = [1000]
    with pytest.raises(UserError):
        get(server, tmp_path / "a", attempts=1)
    server.content = CONTENT[::-1] + b"more"
    assert get(server, tmp_path / "a").read_bytes() == server.content


def test_a_complete_part_is_not_stuck(server, tmp_path):
    server.drops = [len(CONTENT) - 1]
    with pytest.raises(UserError):
        get(server, tmp_path / "a", attempts=1)
    with open(tmp_path / "a.part", "ab") as part:
        part.write(b"xx")
    assert get(server, tmp_path / "a").read_bytes() == CONTENT


def test_passing_faults_of_the_server(server, tmp_path):
    server.status = [503, 429]
    assert get(server, tmp_path / "a").read_bytes() == CONTENT
    server.status = [500] * 9
    with pytest.raises(UserError, match="500"):
        get(server, tmp_path / "b", attempts=3)
    assert len(server.status) == 6


def test_a_refusal_is_final(server, tmp_path):
    server.status = [404, 404]
    with pytest.raises(UserError, match="404"):
        get(server, tmp_path / "a")
    assert server.status == [404]


def test_wrong_digest_and_size(server, tmp_path):
    with pytest.raises(UserError, match=f"{DIGEST}, expected 00"):
        get(server, tmp_path / "a", sha256="00")
    assert not list(tmp_path.glob("a*"))
    with pytest.raises(UserError, match="expected 5"):
        get(server, tmp_path / "a", size=5)


def test_the_first_download_sets_the_digest(server, tmp_path):
    get(server, tmp_path / "a").unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(UserError, match=r"remove 'a' from .*downloads\.json"):
        get(server, tmp_path / "a")
    (tmp_path / "a").write_bytes(b"changed")
    with pytest.raises(UserError, match="move it away"):
        get(server, tmp_path / "a")


def test_a_file_put_there_by_hand_is_recorded(server, tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    get(server, tmp_path / "a")
    assert server.ranges == [] and read_records(tmp_path)["a"]["sha256"] == DIGEST


def test_a_web_page_is_no_file(server, tmp_path):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="web page"):
        get(server, tmp_path / "a")


def test_a_full_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESERVE", 1 << 60)
    with pytest.raises(UserError, match="free on that disk"):
        get(server, tmp_path / "a")


def test_no_server(tmp_path):
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch("http://127.0.0.1:9/x", tmp_path / "a", attempts=1, wait=0)
    with pytest.raises(UserError, match="only http"):
        fetch("file:///etc/passwd", tmp_path / "a")


def test_every_item_is_offered_once():
    offered = [*names("datasets"), *names("checkpoints")]
    assert sorted(offered) == sorted([*ITEMS, "furniture"])
    assert all(url.startswith("https://") for item in ITEMS.values() for url in item.urls)
    targets = [(item.folder, item.file) for item in ITEMS.values()]
    assert len(set(targets)) == len(targets)
    captions = ITEMS["captions"]  # a plain file that lies where the readers look for it
    assert (captions.folder, captions.file, captions.unpacked) == ("data", SCANNET.captions, None)


def test_item_with_a_mirror(server, tmp_path, monkeypatch):
    server.content = tar_of(tmp_path / "x.tar.gz", [("things/a", b"1")]).read_bytes()
    dead = "http://127.0.0.1:9/x"
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    item = Item("datasets", "things", (dead, server.url), "things.tar.gz", "data", "things")
    monkeypatch.setitem(ITEMS, "things", item)
    data = tmp_path / "data"
    for _ in range(2):
        assert download("things", data, tmp_path) == data / "things"
    assert (data / "things" / "a").read_bytes() == b"1" and len(server.ranges) == 1
    assert not (data / "things.tar.gz").exists()
    assert download("things", data / "other", tmp_path, keep_archive=True, urls=(server.url,)).is_dir()
    assert (data / "other" / "things.tar.gz").exists()


def test_an_archive_that_a_kill_left_is_removed(server, tmp_path, monkeypatch):
    item = Item("datasets", "", (server.url,), "a.tar.gz", "data", "inside")
    monkeypatch.setitem(ITEMS, "small", item)
    server.content = tar_of(tmp_path / "packed", [("inside/a", b"text")]).read_bytes()
    data = tmp_path / "data"
    for kept in (False, True):
        download("small", data, tmp_path, keep_archive=kept)
        assert (data / "a.tar.gz").exists() == kept
        (data / "a.tar.gz").write_bytes(b"left")
        download("small", data, tmp_path)
        assert (data / "a.tar.gz").exists() == kept
        shutil.rmtree(data)


def test_item_with_a_damaged_archive_can_be_fetched_again(server, tmp_path, monkeypatch):
    whole = tar_of(tmp_path / "x.tar.gz", [("things/a", CONTENT)]).read_bytes()
    server.content = whole[:-8] + b"checksum"
    monkeypatch.setitem(ITEMS, "things", Item("datasets", "", (server.url,), "things.tar.gz", "data", "things"))
    for _ in range(2):
        with pytest.raises(UserError, match="delete it to fetch it again"):
            download("things", tmp_path, tmp_path)
        assert "things.tar.gz" not in read_records(tmp_path) and not (tmp_path / "things").exists()
    (tmp_path / "things.tar.gz").unlink()
    server.content = whole
    assert (download("things", tmp_path, tmp_path) / "a").read_bytes() == CONTENT


def test_folders_that_cannot_be_made_and_wrong_addresses(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file.*cannot be made"):
        get(server, tmp_path / "file" / "deep" / "a")
    with pytest.raises(UserError, match=r"file.*cannot be made"):
        extract(tar_of(tmp_path / "x.tar", []), tmp_path / "file" / "deep")
    for address in ("http://[bad/x", "http://a b/x", "http://host:port/x"):
        with pytest.raises(UserError, match=r"not a valid address"):
            fetch(address, tmp_path / "a", wait=0)
    (tmp_path / "deep" / "downloads.json").mkdir(parents=True)
    (tmp_path / "deep" / "downloads.json" / "a").touch()
    with pytest.raises(UserError, match=r"downloads\.json: cannot be written"):
        module._write_records(tmp_path / "deep", {})
    (tmp_path / "downloads.json").write_text("[]")
    with pytest.raises(UserError, match=r"downloads\.json: damaged"):
        read_records(tmp_path)


def test_item_that_holds_something_else(server, tmp_path, monkeypatch):
    server.content = tar_of(tmp_path / "x.tar.gz", [("other/a", b"1")]).read_bytes()
    monkeypatch.setitem(ITEMS, "things", Item("datasets", "", (server.url,), "things.tar.gz", "data", "things"))
    with pytest.raises(UserError, match="holds no 'things'"):
        download("things", tmp_path / "data", tmp_path)
    with pytest.raises(UserError, match="there is no download 'stuff'"):
        download("stuff", tmp_path, tmp_path)
    assert download("furniture", tmp_path, tmp_path, furniture=lambda: tmp_path) == tmp_path
