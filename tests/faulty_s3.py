"""A proxy on loopback, in a process of its own, before an S3 server: it lets some requests fail, stall or be cut.

``python -m tests.faulty_s3 ENDPOINT --fail 0.01 --stall 0.01 --stall-s 30 --seed 0 --log FILE``: prints its port, and
writes to FILE what it did to each request: ``passed``, ``failed`` (503), ``stalled`` (nothing for so many seconds,
then the connection is closed) or ``cut`` (closed when half of an upload is read). ``FaultyS3`` runs one for a test,
lets it go away and come back at its port, and leads the storage of this process and of its children to it.
"""

import argparse
import http.client
import http.server
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from caravela import storage

HOP = {"connection", "transfer-encoding", "keep-alive", "expect"}
TIMEOUT_S = 60


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: "Proxy"

    def handle_expect_100(self) -> bool:
        """Asks for the body at once: the client waits for that, and what is written is buffered."""
        answered = super().handle_expect_100()
        self.wfile.flush()
        return answered

    def do(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        fate = self.server.fate(size)
        body = self.rfile.read(size // 2 if fate == "cut" else size)
        if fate == "cut":
            self.close_connection = True
        elif fate == "stalled":
            time.sleep(self.server.stall_s)
            self.close_connection = True
        elif fate == "failed":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.forward(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def forward(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=TIMEOUT_S)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        data = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP and (name.lower() != "content-length" or self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        upstream.close()

    def log_message(self, *arguments: object) -> None:
        """Says nothing: stdout is for the port."""


class Proxy(http.server.ThreadingHTTPServer):
    """Decides what becomes of requests, in the order in which they come."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", options.port), Handler)
        self.upstream = urlsplit(options.endpoint).netloc
        self.fail, self.stall, self.stall_s, self.cut = options.fail, options.stall, options.stall_s, options.cut
        self._random, self._lock, self._log = random.Random(options.seed), threading.Lock(), Path(options.log)

    def fate(self, size: int) -> str:
        """Of a request with a body of so many bytes."""
        with self._lock:
            drawn = self._random.random()
            fate = "failed" if drawn < self.fail else "stalled" if drawn < self.fail + self.stall else "passed"
            if fate == "passed" and size > 1 and self._random.random() < self.cut:
                fate = "cut"
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{fate}\n")
        return fate


class FaultyS3:
    """A proxy before ``endpoint``; a context."""

    def __init__(self, endpoint: str, log: Path, *, seed: int = 1, **rates: float) -> None:
        """Starts with ``__enter__``; ``rates`` are options of the command by name."""
        options = [text for name, value in rates.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        module = [sys.executable, "-m", "tests.faulty_s3", endpoint]
        self.command = [*module, "--log", str(log), "--seed", str(seed), *options]
        self.log = log
        self.port = 0
        self._patch = pytest.MonkeyPatch()

    def come(self) -> None:
        """Listens, at the same port each time."""
        command = [*self.command, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        assert self.process.stdout is not None, "asked for as a pipe"
        self.port = int(self.process.stdout.readline())

    def go(self) -> None:
        """Is away: connections are refused, and those that there are end."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "FaultyS3":
        self.come()
        self._patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self.port}")
        storage._filesystem.cache_clear()  # the client knows the endpoint that it was made with
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()
        storage._filesystem.cache_clear()
        self.go()

    def fates(self) -> dict[str, int]:
        """What became of how many requests."""
        fates = self.log.read_text(encoding="utf-8").split() if self.log.exists() else []
        return {fate: fates.count(fate) for fate in set(fates)}


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("--fail", type=float, default=0.0)
    parser.add_argument("--stall", type=float, default=0.0)
    parser.add_argument("--stall-s", type=float, default=30.0)
    parser.add_argument("--cut", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", required=True)
    proxy = Proxy(parser.parse_args())
    print(proxy.server_address[1], flush=True)
    proxy.serve_forever()


if __name__ == "__main__":
    main()
