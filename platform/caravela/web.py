"""Files on web servers, read by byte ranges.

In: ``https://`` URLs; ``http://`` for this machine's own loopback alone. Out: size, version, the bytes of a range.

Every request has a connect and a read time-out and a limit for the whole, and is tried again a bounded number of times
with growing pauses, or the pause that the server asks for. A failure is one ``OSError`` with one line, in which no
query string stands (it may hold a signature); what is not there is ``FileNotFoundError``.

Why not fsspec's own file system for this: it takes every failure for an absent file, accepts the whole file as the
answer to a range, undoes gzip behind the reader's back where a server labels it, and never tries again.
"""

import functools
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
REQUEST_LIMIT_S = 300.0
MAX_ATTEMPTS = 6
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
READ_BYTES = 1 << 18
MAX_WHOLE_BYTES = 1 << 30
BUSY = (408, 425, 429, 500, 502, 503, 504)
ABSENT = (404, 410)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class WebFile:
    """What a server says of a file."""

    size: int
    version: str
    """ETag, or the date of the last change, or nothing."""


class _Again(OSError):
    """A failure that may pass; ``pause`` is what the server asks for."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def check(url: str) -> None:
    """Refuses what would be read in the clear, or what carries a password.

    Raises:
        OSError: with the reason.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise OSError(f"{shown(url)}: expected https:// (http:// is for this machine alone)")
    if parts.username or parts.password:
        raise OSError("a URL with a user name in it: put the name and the password into ~/.netrc")


def shown(url: str) -> str:
    """A URL as it may stand in messages and manifests: without query and without user name."""
    scheme, _, rest = url.partition("://")
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


class _Session(requests.Session):
    """Follows redirects only to where ``check`` lets it."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target: str | None = super().get_redirect_target(resp)
        if target is not None:
            check(urljoin(resp.url, target))
        return target


@functools.lru_cache(maxsize=64)
def _session(process_id: int, thread_id: int) -> requests.Session:
    """One per process and thread: connections are kept open, and must not cross a fork."""
    session = _Session()
    # Identity: a .warc.gz that a server labels as gzip-encoded must come as it is, or no offset would fit.
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "caravela"})
    return session


@contextmanager
def _response(url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    check(url)
    session = _session(os.getpid(), threading.get_ident())
    timeouts = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
    try:
        with session.get(url, headers=dict(headers), stream=True, timeout=timeouts) as response:
            if response.status_code in ABSENT:
                raise FileNotFoundError(f"{shown(url)}: HTTP {response.status_code}")
            if response.status_code in BUSY:
                asked = response.headers.get("Retry-After", "")
                raise _Again(f"HTTP {response.status_code} {response.reason}", float(asked) if asked.isdigit() else 0)
            if response.status_code not in (200, 206, 416):
                raise OSError(f"HTTP {response.status_code} {response.reason}")
            yield response
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise _Again(_reason(error)) from error
    except requests.RequestException as error:
        raise OSError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """What the library says, less the queries of the addresses in it; a redirect may have led to a signed one."""
    return re.sub(r"\?[^\s'\")]+", "", " ".join(str(error).split())) or type(error).__name__


def stat(url: str, headers: Mapping[str, str] | None = None) -> WebFile:
    """Size and version, from the answer to a request for the first byte: a signed URL may allow no HEAD.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the server cannot be reached, refuses, or does not tell the size.
    """

    def once() -> WebFile:
        with _response(url, {**(headers or {}), "Range": "bytes=0-0"}) as response:
            found = response.headers
            version = found.get("ETag", "").removeprefix("W/").strip('"') or found.get("Last-Modified", "")
            total = found.get("Content-Range", "").rpartition("/")[2]
            if response.status_code == 200:
                total = found.get("Content-Length", "")
            if not total.isdigit():
                raise OSError("the server does not tell the file's size")
            if response.status_code == 206:
                _body(response, 1, exact=False)  # a connection with nothing left in it can serve the next request
            return WebFile(int(total), version)

    return _tried(once)


def read_range(url: str, start: int, end: int, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes from ``start`` up to, not including, ``end``; fewer only where the file ends.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the server cannot be reached, refuses, or ignores byte ranges.
    """

    def once() -> bytes:
        with _response(url, {**(headers or {}), "Range": f"bytes={start}-{end - 1}"}) as response:
            if response.status_code == 416:
                return b""
            wanted = end - start
            if response.status_code == 206:
                match = re.match(r"bytes (\d+)-(\d+)/", response.headers.get("Content-Range", ""))
                if match is None or int(match[1]) != start or int(match[2]) >= end:
                    raise OSError("the server answers with another range than was asked for")
                wanted = int(match[2]) + 1 - start
            elif start:
                raise OSError("the server ignores byte ranges; copy the file to a disk or to S3 first")
            elif response.headers.get("Content-Length", "").isdigit():
                wanted = min(wanted, int(response.headers["Content-Length"]))
            return _body(response, wanted, exact=response.status_code == 206)

    return _tried(once) if end > start else b""


def read_all(url: str, headers: Mapping[str, str] | None = None) -> tuple[bytes, Mapping[str, str]]:
    """A whole small file, with the headers of the answer (names in any case)."""

    def once() -> tuple[bytes, Mapping[str, str]]:
        with _response(url, headers or {}) as response:
            length = response.headers.get("Content-Length", "")
            exact = length.isdigit()
            if exact and int(length) > MAX_WHOLE_BYTES:
                raise OSError(f"{length} bytes are too many to be read at once")
            return _body(response, int(length) if exact else MAX_WHOLE_BYTES, exact), response.headers

    return _tried(once)


def _body(response: requests.Response, wanted: int, exact: bool) -> bytes:
    """At most ``wanted`` bytes; where that many were announced, fewer are a broken connection."""
    body, end = bytearray(), time.monotonic() + REQUEST_LIMIT_S
    # read1, not iter_content: it waits for one packet only, so that a server that sends a byte a minute is noticed; and
    # undecoded, whatever the server labels the bytes as.
    while len(body) < wanted and (block := response.raw.read1(READ_BYTES, decode_content=False)):
        body += block
        if time.monotonic() > end:
            raise _Again(f"{len(body)} of {wanted} bytes in {REQUEST_LIMIT_S:.0f} s")
    if exact and len(body) < wanted:
        raise _Again(f"the connection ended after {len(body)} of {wanted} bytes")
    return bytes(body[:wanted])


def _tried(call: Callable[[], Result]) -> Result:
    for attempt in range(MAX_ATTEMPTS):
        try:
            return call()
        except _Again as error:
            if attempt == MAX_ATTEMPTS - 1:
                raise OSError(f"{error} (tried {MAX_ATTEMPTS} times)") from error
            # By chance up to half as long again: workers that were turned away together should not come back together.
            pause = max(error.pause, FIRST_PAUSE_S * 2**attempt) * random.uniform(1.0, 1.5)
            time.sleep(min(LONGEST_PAUSE_S, pause))
    raise AssertionError("the last attempt returns or raises")
