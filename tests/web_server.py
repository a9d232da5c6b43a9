"""A web server on loopback, in a process of its own, that serves a folder by byte ranges and counts what it sends.

``python -m tests.web_server FOLDER LOG``: prints its port; writes one JSON line a request to LOG. The first part of a
path says how the server behaves:

* ``/plain/<file>``: byte ranges as RFC 9110 has them, an ETag.
* ``/whole/<file>``: ignores ranges. ``/gone/<file>``: 410. ``/refused/<file>``: 403. ``/down/<file>``: 503, always.
* ``/flaky/<file>``: of each three requests the first is answered with 503, the second breaks off halfway.
* ``/labelled/<file>``: labels what it sends with ``Content-Encoding: gzip``.
* ``/moved/<file>``: redirects to ``/plain/<file>``; ``/elsewhere/<file>``: to the same under another name of this host;
  ``/away/<file>``: to a host in the clear.
* ``/api/datasets/...`` and ``/datasets/...``: as the Hugging Face Hub answers for the data sets in FOLDER/datasets; two
  files a page of a listing, and what is private below ``private/`` for the token ``secret`` alone.
"""

import hashlib
import http.server
import json
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 2


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection; the folder and the log belong to the server."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    server: "Server"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        manner, _, name = path.lstrip("/").partition("/")
        if manner in ("api", "datasets"):
            return self.hub(manner, name)
        fixed = {"gone": 410, "refused": 403, "down": 503}
        count = self.server.count(path)
        if manner in fixed or (manner == "flaky" and count % 3 == 0):
            return self.answer(fixed.get(manner, 503), b"", {"Retry-After": "0"})
        places = {
            "moved": f"/plain/{name}",
            "elsewhere": f"http://localhost:{self.server.server_address[1]}/plain/{name}",
            "away": f"http://example.invalid/{name}?secret=1",
        }
        if manner in places:
            return self.answer(302, b"", {"Location": places[manner]})
        return self.file(self.server.folder / name, manner, broken=manner == "flaky" and count % 3 == 1)

    def file(self, path: Path, manner: str, broken: bool = False) -> None:
        if not path.is_file():
            return self.answer(404, b"no such file", {})
        data = path.read_bytes()
        headers = {"ETag": f'"{path.stat().st_mtime_ns:x}-{len(data):x}"'}
        if manner == "labelled":
            headers["Content-Encoding"] = "gzip"
        asked = self.headers.get("Range")
        if asked is None or manner == "whole":
            return self.answer(200, data, headers, broken)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(len(data), int(last) + 1)
        if start >= len(data):
            return self.answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        return self.answer(206, data[start:end], headers, broken)

    def hub(self, manner: str, name: str) -> None:
        parts = name.removeprefix("datasets/").split("/")
        owner, repository, call, revision, rest = *parts[:4], "/".join(parts[4:])
        if revision != "main" or (owner == "private" and self.headers.get("Authorization") != "Bearer secret"):
            return self.answer(404, b'{"error": "Repository not found"}', {})
        folder = self.server.folder / "datasets" / owner / repository
        if manner == "datasets":
            return self.file(folder / rest, "plain")
        if not (folder / rest).is_dir():
            return self.answer(404, b'{"error": "Entry not found"}', {"X-Error-Code": "EntryNotFound"})
        assert call == "tree", f"the Hub's stand-in knows listings alone, asked for {name}"
        query = parse_qs(urlsplit(self.path).query)
        deep = query.get("recursive", ["false"])[0].lower() == "true"
        found = sorted((folder / rest).rglob("*") if deep else (folder / rest).iterdir())
        start = int(query.get("cursor", ["0"])[0])
        headers = {"Content-Type": "application/json"}
        if start + PAGE < len(found):
            more = f"http://{self.headers['Host']}{urlsplit(self.path).path}?recursive={deep}&cursor={start + PAGE}"
            headers["Link"] = f'<{more}>; rel="next"'
        entries = [entry(path, folder) for path in found[start : start + PAGE]]
        return self.answer(200, json.dumps(entries).encode(), headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str], broken: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        sent = body[: len(body) // 2] if broken else body
        # Written before anything is sent: whoever has the answer finds it in the log.
        line = {"path": self.path, "status": status, "bytes": len(sent), "peer": self.client_address[1]}
        self.server.write(json.dumps({**line, "authorized": "Authorization" in self.headers}))
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = broken

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """The log is ours."""


def entry(path: Path, folder: Path) -> dict[str, object]:
    """A line of a listing: large files by their SHA-256, others by git's id."""
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
    data = path.read_bytes()
    known = {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": name}
    if name.endswith(".parquet"):
        known["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return known


class Server(http.server.ThreadingHTTPServer):
    """Knows its folder, its log and how often each path was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path, log: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.log = folder, log.open("a", encoding="utf-8", buffering=1)
        self.lock, self.counts = threading.Lock(), dict[str, int]()

    def count(self, path: str) -> int:
        with self.lock:
            self.counts[path] = self.counts.get(path, -1) + 1
            return self.counts[path]

    def write(self, line: str) -> None:
        with self.lock:
            self.log.write(line + "\n")


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), Path(sys.argv[2]))
    print(server.server_address[1], flush=True)
    server.serve_forever()
