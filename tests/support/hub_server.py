"""A server that speaks as much of the hub's protocol as `mars fetch` uses, and can misbehave."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee0000000000000000000000000000c0ffee"
LARGE = 1000  # bytes from which a file counts as an LFS file


class Hub(ThreadingHTTPServer):
    """Serves ``<folder>/<owner>/<name>/...``.

    Attributes:
        requests: how often each "<METHOD> <path>" was asked.
        sent: bytes of each file that were sent.
        gated: repositories that need an accepted licence.
        failing: answers with status 503 still to be given, by path.
        cutting: transfers of a file still to be broken off half-way, by path.
        corrupting: transfers still to be sent with a wrong byte, by path.
        stalling: set it and a transfer stops after half of the file until it is cleared.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.gated: set[str] = set()
        self.failing: Counter[str] = Counter()
        self.cutting: Counter[str] = Counter()
        self.corrupting: Counter[str] = Counter()
        self.stalling = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """A running hub."""
    hub = Hub(folder)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.stalling.clear()
        hub.shutdown()
        hub.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.requests[f"{self.command} {path}"] += 1
        if self.server.failing[path] > 0:
            self.server.failing[path] -= 1
            return self._send(503, b"busy", {})
        if found := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/tree/.+", path):
            return self._repository(found[1], tree=True)
        if found := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/.+)?", path):
            return self._repository(found[1])
        if found := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._file(found[1], found[2], path, body)
        return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _repository(self, repository: str, tree: bool = False) -> None:
        """What the hub says of a repository, or its files alone."""
        folder = self.server.folder / repository
        if not folder.is_dir():
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        siblings = [self._sibling(str(path.relative_to(folder)), path) for path in files]
        content = siblings if tree else {"id": repository, "sha": COMMIT, "siblings": siblings}
        return self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _sibling(self, name: str, path: Path) -> dict:
        data = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        sibling: dict = {"rfilename": name, "size": len(data), "blobId": blob}
        sibling |= {"type": "file", "path": name, "oid": blob}  # the same in a listing of files
        if len(data) >= LARGE:
            digest = hashlib.sha256(data).hexdigest()
            sibling["lfs"] = {
                "size": len(data),
                "sha256": digest,
                "oid": digest,
                "pointerSize": 130,
            }
        return sibling

    def _file(self, repository: str, name: str, path: str, body: bool) -> None:
        if repository in self.server.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        file = self.server.folder / repository / name
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start, status = 0, 200
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(wanted[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if body and self.server.corrupting[path] > 0:
            self.server.corrupting[path] -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._send(status, data[start:], headers, path if body else None)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], path: str | None = ""
    ) -> None:
        """An answer; ``path`` names the file that is sent, None sends no body."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if path is None or self.command == "HEAD":
            return
        half = len(data) // 2
        if path and self.server.cutting[path] > 0:
            self.server.cutting[path] -= 1
            self.close_connection = True
            data = data[:half]
        try:
            if path and self.server.stalling.is_set() and len(data) > LARGE:
                self.wfile.write(data[:half])
                self.wfile.flush()
                self.server.sent[path] += half
                while self.server.stalling.is_set():
                    threading.Event().wait(0.05)
                data = data[half:]
            self.wfile.write(data)
            self.server.sent[path or "other"] += len(data)
        except OSError:
            self.close_connection = True
