"""A proxy on loopback, in a process of its own, before an S3 server: it lets some requests fail and some stall.

``python -m tests.faulty_s3 ENDPOINT --fail 0.01 --stall 0.01 --stall-s 30 --seed 0 --log FILE``: prints its port, and
writes to FILE what it did to each request: ``passed``, ``failed`` (503) or ``stalled`` (nothing for so many seconds,
then the connection is closed).
"""

import argparse
import http.client
import http.server
import random
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "keep-alive"}
TIMEOUT_S = 60


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: "Proxy"

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.server.fate()
        if fate == "stalled":
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
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(options.endpoint).netloc
        self.fail, self.stall, self.stall_s = options.fail, options.stall, options.stall_s
        self._random, self._lock, self._log = random.Random(options.seed), threading.Lock(), Path(options.log)

    def fate(self) -> str:
        with self._lock:
            drawn = self._random.random()
            fate = "failed" if drawn < self.fail else "stalled" if drawn < self.fail + self.stall else "passed"
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{fate}\n")
        return fate


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("--fail", type=float, default=0.0)
    parser.add_argument("--stall", type=float, default=0.0)
    parser.add_argument("--stall-s", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", required=True)
    proxy = Proxy(parser.parse_args())
    print(proxy.server_address[1], flush=True)
    proxy.serve_forever()


if __name__ == "__main__":
    main()
