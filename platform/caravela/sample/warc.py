"""WARC files written so that the same crawl gives the same bytes: one gzip member per record, no clock, no chance.

What a crawler stores per fetch: the request, the response and a metadata record, tied by WARC-Concurrent-To. Dates
advance from a fixed start, ids are UUIDs of version 5, and gzip headers carry no time.
"""

import base64
import datetime
import gzip
import hashlib
import http
import uuid
import zlib
from collections.abc import Mapping
from typing import IO

START = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
SECONDS_PER_FETCH = 7
CHUNK_BYTES = 1400
GZIP_WINDOW = 31  # zlib's code for its largest window with a gzip header, whose time stamp is then 0


def record_id(seed: int, name: str) -> str:
    """``<urn:uuid:…>``, a function of the seed and of what the record is about."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'caravela-sample/{seed}/{name}')}>"


def date_of(fetch: int) -> datetime.datetime:
    return START + datetime.timedelta(seconds=SECONDS_PER_FETCH * fetch)


def http_response(status: int, headers: Mapping[str, str], body: bytes, encodings: tuple[str, ...] = ()) -> bytes:
    """Status line, headers and body as they go over the wire; ``encodings`` may hold ``gzip`` and ``chunked``."""
    fields = dict(headers)
    if "gzip" in encodings:
        body = gzip.compress(body, mtime=0)
        fields["Content-Encoding"] = "gzip"
    if "chunked" in encodings:
        parts = [body[i : i + CHUNK_BYTES] for i in range(0, len(body), CHUNK_BYTES)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
        fields["Transfer-Encoding"] = "chunked"
    else:
        fields["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def record(kind: str, identity: str, date: datetime.datetime, block: bytes, fields: Mapping[str, str]) -> bytes:
    """One WARC/1.0 record as one gzip member. ``fields`` are the headers that differ between kinds."""
    digest = base64.b32encode(hashlib.sha1(block).digest()).decode("ascii")
    headers = {
        "WARC-Type": kind,
        "WARC-Record-ID": identity,
        "WARC-Date": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **fields,
        "WARC-Block-Digest": f"sha1:{digest}",
        "Content-Length": str(len(block)),
    }
    head = "\r\n".join(["WARC/1.0", *(f"{key}: {value}" for key, value in headers.items()), "", ""])
    packer = zlib.compressobj(9, zlib.DEFLATED, GZIP_WINDOW)
    return packer.compress(head.encode("utf-8") + block + b"\r\n\r\n") + packer.flush()


class WarcWriter:
    """Writes the records of a crawl to one file."""

    def __init__(self, file: IO[bytes], name: str, seed: int) -> None:
        self.file = file
        self.seed = seed
        self.info_id = record_id(seed, name)
        block = "software: caravela sample crawl\r\nformat: WARC File Format 1.0\r\nrobots: classic\r\n"
        fields = {"WARC-Filename": name, "Content-Type": "application/warc-fields"}
        file.write(record("warcinfo", self.info_id, START, block.encode("ascii"), fields))

    def write_fetch(self, fetch: int, url: str, response: bytes, *, truncate: bool = False) -> str:
        """Request, response and metadata of one fetch; gives the response's id.

        With ``truncate`` the file ends in the middle of the response's gzip member, as after a lost connection.
        """
        host, _, path = url.partition("://")[2].partition("/")
        identity, date = record_id(self.seed, url), date_of(fetch)
        target = {"WARC-Target-URI": url, "WARC-Warcinfo-ID": self.info_id}
        related = {**target, "WARC-Concurrent-To": identity}
        request = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: caravela-sample/1.0\r\nAccept: */*\r\n\r\n"
        http_type = "application/http; msgtype="
        self.file.write(
            record(
                "request",
                record_id(self.seed, f"request {url}"),
                date,
                request.encode("ascii"),
                {**related, "Content-Type": f"{http_type}request"},
            )
        )
        data = record(
            "response",
            identity,
            date,
            response,
            {**target, "WARC-IP-Address": "192.0.2.80", "Content-Type": f"{http_type}response"},
        )
        if truncate:
            self.file.write(data[: len(data) // 2])
            return identity
        self.file.write(data)
        metadata = f"fetchTimeMs: {120 + 37 * fetch % 900}\r\n".encode("ascii")
        self.file.write(
            record(
                "metadata",
                record_id(self.seed, f"metadata {url}"),
                date,
                metadata,
                {**related, "Content-Type": "application/warc-fields"},
            )
        )
        return identity
