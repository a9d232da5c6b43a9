"""WARC reading against warcio's writer and reader, and against files damaged at known places."""

import gzip
import io
import zlib

import pytest
import zstandard
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from caravela.data import warc

BODIES = [f"<html><body><p>Página número {i}: {'texto ' * 40}</p></body></html>".encode() for i in range(6)]


def written(gzipped: bool) -> bytes:
    """A WARC of one warcinfo and six responses, written by warcio."""
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=gzipped)
    writer.write_record(writer.create_warcinfo_record("test.warc", {"software": "test"}))
    for i, body in enumerate(BODIES):
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
        record = writer.create_warc_record(
            f"http://exemplo.example/{i}", "response", payload=io.BytesIO(body), http_headers=headers
        )
        writer.write_record(record)
    return buffer.getvalue()


def member_starts(data: bytes) -> list[int]:
    """Offsets of the gzip members, found by inflating one after the other."""
    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        member = zlib.decompressobj(wbits=31)
        member.decompress(data[at:])
        at = len(data) - len(member.unused_data)
    return starts


def bodies(data: bytes) -> list[bytes]:
    records = warc.read_records(io.BytesIO(data))
    return [warc.parse_http(r.content, 1 << 20).body for r in records if r.type == "response" and not r.problem]


def problems(data: bytes) -> list[str]:
    return [r.problem for r in warc.read_records(io.BytesIO(data)) if r.problem]


CONTAINERS = {
    "plain": lambda: written(gzipped=False),
    "gzip per record": lambda: written(gzipped=True),
    "one gzip stream": lambda: gzip.compress(written(gzipped=False)),
    "zstandard": lambda: zstandard.compress(written(gzipped=False)),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_read_records_any_container_equals_warcio(container: str) -> None:
    data = CONTAINERS[container]()
    theirs = [
        r.content_stream().read() for r in ArchiveIterator(io.BytesIO(written(False))) if r.rec_type == "response"
    ]
    assert bodies(data) == theirs == BODIES
    assert problems(data) == []


def test_read_records_corrupt_member_loses_that_record_only() -> None:
    data = bytearray(written(gzipped=True))
    starts = member_starts(bytes(data))
    data[starts[3] + 20] ^= 0xFF  # the third response: warcinfo is member 0
    found = bodies(bytes(data))
    assert found == [b for i, b in enumerate(BODIES) if i != 2]
    assert len(problems(bytes(data))) == 1


@pytest.mark.parametrize("container", CONTAINERS)
def test_read_records_truncated_anywhere_keeps_whole_records_and_says_so(container: str) -> None:
    data = CONTAINERS[container]()
    for cut in range(len(data) // 10, len(data), len(data) // 7):
        found = bodies(data[:cut])
        assert found == BODIES[: len(found)]
        assert len(found) == len(BODIES) or problems(data[:cut]), f"cut at {cut}: records lost in silence"


def test_read_records_garbage_before_a_record_is_skipped() -> None:
    data = written(gzipped=False)
    assert bodies(b"not a warc at all\r\n" * 3 + data) == BODIES
    assert problems(b"not a warc at all\r\n" * 3 + data) == ["bad_header"]


def test_read_records_too_large_content_is_passed_over() -> None:
    records = list(warc.read_records(io.BytesIO(written(False)), max_content_bytes=100))
    assert [r.problem for r in records if r.type == "response"] == ["too_large"] * len(BODIES)
    assert all(r.content == b"" for r in records if r.type == "response")


def test_read_records_empty_stream_gives_nothing() -> None:
    assert list(warc.read_records(io.BytesIO(b""))) == []


def test_read_records_random_damage_never_raises() -> None:
    import random

    for seed in range(300):
        chance = random.Random(seed)
        data = bytearray(written(gzipped=seed % 2 == 0))
        for _ in range(chance.randrange(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        for record in warc.read_records(io.BytesIO(bytes(data))):
            warc.parse_http(record.content, 1 << 16)


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        (b"Content-Encoding: gzip\r\n", gzip.compress(b"ol\xc3\xa1", mtime=0), b"ol\xc3\xa1"),
        (b"Content-Encoding: deflate\r\n", zlib.compress(b"texto"), b"texto"),
        (b"Content-Encoding: gzip\r\n", b"not gzip", b"not gzip"),
        (b"Transfer-Encoding: chunked\r\n", b"4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\n\r\n", b"abcdefg"),
        (
            b"Transfer-Encoding: chunked\r\n",
            b"<html>undone by the crawler</html>",
            b"<html>undone by the crawler</html>",
        ),
        (b"", b"", b""),
    ],
)
def test_parse_http_undoes_encodings(head: bytes, body: bytes, expected: bytes) -> None:
    response = warc.parse_http(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body, 1 << 20)
    assert (response.status, response.body, response.problem) == (200, expected, "")


def test_parse_http_bomb_is_cut_at_the_limit() -> None:
    bomb = gzip.compress(b"\0" * (50 << 20))
    response = warc.parse_http(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + bomb, 1 << 20)
    assert len(response.body) == 1 << 20
