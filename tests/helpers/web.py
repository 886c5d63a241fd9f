"""Local web server of files, with a record of what was asked for."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FileServer:
    """Server of the files below a folder; use as a context.

    Args:
        folder: root of the files.
        answer: called with method, path and body before the files are looked at; returns JSON to send, or None.

    Attributes:
        asked: method and path of every request, in order.
        drops: names of files whose next transfer breaks half-way.
    """

    def __init__(self, folder: Path, answer: Callable[[str, str, bytes], object] | None = None) -> None:
        self.asked: list[str] = []
        self.drops: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                outer.asked.append(f"{self.command} {path}")
                reply = answer(self.command, self.path, body) if answer else None
                if reply is not None:
                    self.send_bytes(json.dumps(reply).encode(), "application/json")
                    return
                name = re.sub(r"^(.*/resolve/[^/]*)?/", "", path)
                file = folder / name
                if not file.is_file():
                    self.send_error(404)
                    return
                self.send_bytes(file.read_bytes(), "application/octet-stream", name)

            do_GET = do_HEAD = do_POST = handle_any

            def send_bytes(self, content: bytes, kind: str, name: str = "") -> None:
                asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                start = int(asked[1]) if asked else 0
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content) - start))
                self.send_header("ETag", f'"{len(content)}-{name}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if name in outer.drops:
                    outer.drops.discard(name)
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                else:
                    self.wfile.write(content[start:])

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "FileServer":
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
