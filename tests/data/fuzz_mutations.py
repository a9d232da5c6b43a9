"""One damage to one file, from a seed and a number: so a failure can be looked at again.

``mutated`` draws a source and a kind of damage that fits its format. Damage to what lies inside a gzip member is done
there and packed again, so that the checksum fits and what is wrong reaches the parser.
"""

import functools
import gzip
import io
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from caravela.data import readers, warc
from tests.data.fuzz_sources import Source, gzipped

LENGTH = re.compile(rb"(?i)content-length:[ \t]*(\d+)")
HEADER_LINE = re.compile(rb"(?m)^[A-Za-z-]{3,30}:[^\r\n]*\r?\n")
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
LENGTHS = (
    *(b"0", b"1", b"-1", b"+5", b"", b"1e3", b"0x10", b"7 7", "٣".encode(), b"99999", b"70000000", b"9999999999"),
    *(b"9" * 18, b"9" * 30, b"9" * 5000, b"18446744073709551615"),
)
GARBAGE = (
    *(b"\r\n\r\n", b"\n", b"\0" * 100, b": \r\n", b"x" * 70_000 + b"\r\n", b"Content-Length: 5\r\n", b"\xff\xfe\r\n"),
    *(b"A: b\r\n" * 5000, b" folded\r\n", b"WARC-Type: response\r\n"),
    *(b"WARC/1.0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Content-Encoding: br, gzip, zstd\r\n", b"HTTP/1.1 200 OK\r\n"),
)
TAGS = (
    *(b"<div>", b"<table><tr><td>", b"<ul><li>", b"<b><p>", b"<a href='x'>", b"<font>", b"<span class=x>", b"<form>"),
    *(b"<select><option>", b"<svg><g>", b"<blockquote>", b"<p>a"),
    *(b"</div>", b"<script>", b"<template>", b"&amp", b"&#x"),
    *(b"<!--", b"-->", b"<![CDATA[", b"<?php ", b"<br>", b"<td rowspan=99999 colspan=9999>x", b"\0", b"\xef\xbf\xbf"),
)
OPENINGS = (
    *(b"<!--", b"<script>", b"<style>", b"<textarea>", b"<title>", b'<a href="', b"<![CDATA[", b"<noscript>"),
    *(b"<meta charset=utf-16>", b"<meta charset=utf-7>", b"<meta charset=unicode_escape>", b"<meta charset=zip>"),
    *(b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"<?xml version='1.0' encoding='utf-16'?>", b"<plaintext>"),
    b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;'>]>&c;",
)
LINES = (
    *(b"{", b"[" * 100_000, b'{"text":' * 900 + b"1" + b"}" * 900, b'{"text": "\\ud800"}'),
    b'{"id": "\\udfff", "text": "a"}',
    b'{"text": "a", "x": ' + b"[" * 970 + b"]" * 970 + b"}",
    *(b'{"text": NaN}', b'{"text": "a", "n": ' + b"9" * 5000 + b"}"),
    *(b'{"text": "a", "text": 1}', b"\xff\xfe{\x00", b"null", b'"a"'),
    *(b"\0" * 50, b'{"text": "\\u0000"}', b"1" * 9000, b"\r"),
    *(b'{"url": {"a": ["\\ud83d"]}, "text": "a", "\\ud83d": 1}', b'{"date": [1, 2], "text": "a", "y": 1e999}'),
)
ROWS = (
    *(b'"', b'""', b'"a', b'a"b', b",", b",,,,,,,,,,,", b"\r", b"\0", b'"\n"\n"', b"x" * 200_000, b'"' + b"y\n" * 5000),
    *(b"\xff", b"\\", b"'", b";", b"\t", "\u2028".encode(), b'a,"b', b'"",""'),
)


@dataclass(frozen=True)
class Mutation:
    """What became of a source."""

    source: Source
    kind: str
    data: bytes

    def span(self) -> tuple[int, int]:
        """The bytes of the source before the first place are in the mutation too, and those from the second on."""
        old, new = self.source.data, self.data
        shorter = min(len(old), len(new))
        first = _common(old[:shorter], new[:shorter])
        behind = min(shorter - first, _common(old[::-1][:shorter], new[::-1][:shorter]))
        return first, len(old) - behind


def _common(a: bytes, b: bytes) -> int:
    """Length of the common beginning of two strings that are equally long."""
    low, high = 0, len(a)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def mutated(sources: Sequence[Source], seed: int, number: int) -> Mutation:
    """The mutation of this number; every source gets its turn."""
    rng = random.Random(f"{seed} {number}")
    source = sources[number % len(sources)]
    kinds = kinds_for(source)
    kind = rng.choice(list(kinds))
    data = kinds[kind](rng, source)
    for _ in range(rng.choice([0, 0, 0, 0, 1])):  # sometimes twice
        data = any_bytes(rng, Source(source.name, data))
    return Mutation(source, kind, data)


Kind = Callable[[random.Random, Source], bytes]


def kinds_for(source: Source) -> dict[str, Kind]:
    """The kinds of damage that make sense for a file, by name."""
    kinds: dict[str, Kind] = {
        "bits": bits,
        "bytes": any_bytes,
        "truncated": truncated,
        "inserted": inserted,
        "deleted": deleted,
        "swapped": swapped,
        "repeated": repeated,
    }
    if source.name.endswith(".html"):
        return {**kinds, "many tags": many_tags, "opened": opened, "many attributes": many_attributes}
    form, packed = readers.format_of(source.name), source.name.endswith((".gz", ".zst"))
    if packed:
        kinds |= {"packed again": packed_again, "bomb": bomb}
    if form == "warc" and not source.name.endswith(".zst"):
        kinds |= {"length": length, "header": header, "no blank line": no_blank_line, "body bomb": body_bomb}
    if form == "jsonl" and not packed:
        kinds["odd line"] = functools.partial(odd_line, LINES)
    if form == "csv" and not packed:
        kinds["odd row"] = functools.partial(odd_line, ROWS)
    if form == "parquet":
        kinds |= {"footer": footer, "odd columns": odd_columns}
    return kinds


# Anywhere


def bits(rng: random.Random, source: Source) -> bytes:
    data = bytearray(source.data)
    for _ in range(rng.choice([1, 1, 1, 2, 8]) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def any_bytes(rng: random.Random, source: Source) -> bytes:
    data = bytearray(source.data)
    at = rng.randrange(len(data) + 1)
    for place in range(at, min(len(data), at + rng.choice([1, 4, 64, 1000]))):
        data[place] = rng.randrange(256)
    return bytes(data)


def truncated(rng: random.Random, source: Source) -> bytes:
    return source.data[: rng.randrange(len(source.data) + 1)]


def inserted(rng: random.Random, source: Source) -> bytes:
    at = rng.randrange(len(source.data) + 1)
    return source.data[:at] + rng.randbytes(rng.choice([1, 3, 50, 5000])) + source.data[at:]


def deleted(rng: random.Random, source: Source) -> bytes:
    at = rng.randrange(len(source.data) + 1)
    return source.data[:at] + source.data[at + rng.choice([1, 2, 30, 3000]) :]


def swapped(rng: random.Random, source: Source) -> bytes:
    """Two blocks of equal size change places."""
    size = rng.choice([16, 512, 4096])
    if len(source.data) < 2 * size:
        return source.data[::-1]
    a = rng.randrange(len(source.data) - 2 * size + 1)
    b = rng.randrange(a + size, len(source.data) - size + 1)
    data = source.data
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


def repeated(rng: random.Random, source: Source) -> bytes:
    """A block comes again somewhere else."""
    at, to = rng.randrange(len(source.data) + 1), rng.randrange(len(source.data) + 1)
    return source.data[:to] + source.data[at : at + rng.choice([10, 700, 20_000])] + source.data[to:]


# Containers


def packed_again(rng: random.Random, source: Source) -> bytes:
    """The whole file, or its end, packed once more."""
    at = rng.choice([0, rng.randrange(len(source.data) + 1)])
    pack = rng.choice([gzipped, zstandard.compress])
    return source.data[:at] + pack(source.data[at:])


def bomb(rng: random.Random, source: Source) -> bytes:
    """A member that stands for much more than memory should hold, before, after or between the others."""
    at = rng.choice([0, len(source.data), *source.starts])
    made = gzip_bomb() if source.name.endswith(".gz") else zstandard_bomb()
    return source.data[:at] + made + source.data[at:]


@functools.cache
def gzip_bomb(megabytes: int = 200) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(megabytes)]) + packer.flush()


@functools.cache
def zstandard_bomb(blocks: int = 1 << 14) -> bytes:
    """Blocks of one byte repeated 131,072 times: four bytes each, two gigabytes in all."""
    run = (1 << 17) << 3 | 1 << 1
    header = warc.ZSTD_MAGIC + bytes([0x00, 0x38])  # a window of 128 KiB, no size, no checksum
    return header + (struct.pack("<I", run)[:3] + b" ") * (blocks - 1) + struct.pack("<I", run | 1)[:3] + b" "


# WARC


def inside_a_member(rng: random.Random, source: Source, change: Callable[[bytes], bytes]) -> bytes:
    """The change made to one record, whatever container it is in."""
    if not source.name.endswith(".gz"):
        return change(source.data)
    if not source.starts:
        try:
            return gzipped(change(gzip.decompress(source.data)))
        except (OSError, EOFError, zlib.error):  # a real file that is damaged already
            return change(source.data)
    i = rng.randrange(len(source.starts))
    begin, end = source.starts[i], (*source.starts, len(source.data))[i + 1]
    return source.data[:begin] + gzipped(change(gzip.decompress(source.data[begin:end]))) + source.data[end:]


def length(rng: random.Random, source: Source) -> bytes:
    """Another Content-Length, of the record or of the page in it."""

    def change(data: bytes) -> bytes:
        places = list(LENGTH.finditer(data))
        if not places:
            return data
        place = rng.choice(places)
        near = [b"%d" % max(0, int(place[1]) + d) for d in (-1000, -2, -1, 1, 2, 4, 5, 1000)]
        return data[: place.start(1)] + rng.choice([*LENGTHS, *near]) + data[place.end(1) :]

    return inside_a_member(rng, source, change)


def header(rng: random.Random, source: Source) -> bytes:
    """A header line replaced by something else, or something else put before it."""

    def change(data: bytes) -> bytes:
        places = [m.span() for m in HEADER_LINE.finditer(data, 0, 20_000)]
        if not places:
            return data
        begin, end = rng.choice(places)
        return data[:begin] + rng.choice(GARBAGE) + data[rng.choice([begin, end]) :]

    return inside_a_member(rng, source, change)


def no_blank_line(rng: random.Random, source: Source) -> bytes:
    def change(data: bytes) -> bytes:
        places = list(BLANK_LINE.finditer(data))
        place = rng.choice(places) if places else None
        return data[: place.start()] + rng.choice([b"", b"\r\n", b"xx"]) + data[place.end() :] if place else data

    return inside_a_member(rng, source, change)


def body_bomb(rng: random.Random, source: Source) -> bytes:
    """One more record, whose page stands for 200 megabytes or more."""
    encoding, body = rng.choice([(b"gzip", gzip_bomb()), (b"zstd", zstandard_bomb()), (b"deflate", gzip_bomb()[10:])])
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: " + encoding + b"\r\n\r\n" + body
    record = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n" % (len(page), page)
    if source.name.endswith(".gz"):
        record = gzipped(record, 1)
    at = rng.choice([0, len(source.data), *source.starts])
    return source.data[:at] + record + source.data[at:]


# Rows


def odd_line(odd: Sequence[bytes], rng: random.Random, source: Source) -> bytes:
    """A line that is none, between two others, or within one."""
    lines = source.data.split(b"\n")
    at = rng.randrange(len(lines) + 1)
    if rng.random() < 0.8:
        lines.insert(at, rng.choice(odd))
        return b"\n".join(lines)
    place = rng.randrange(len(source.data) + 1)
    return source.data[:place] + rng.choice(odd) + source.data[place:]


def footer(rng: random.Random, source: Source) -> bytes:
    """Damage where a Parquet file says what is in it and where."""
    size = int.from_bytes(source.data[-8:-4], "little")
    begin = max(0, len(source.data) - 8 - size)
    kind = rng.choice([bits, any_bytes, deleted, swapped, repeated])
    return source.data[:begin] + kind(rng, Source(source.name, source.data[begin:]))


def odd_columns(rng: random.Random, source: Source) -> bytes:
    """A Parquet file that is whole, and holds what a reader may not expect."""
    texts = pa.array(["um", None, "dois"])
    not_utf8 = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(struct.pack("<2i", 0, 2)), pa.py_buffer(b"\xff\xc3")]
    )
    far = 1 << 62
    choices: list[dict[str, pa.Array]] = [
        {"text": not_utf8},
        {"text": pa.array(["a"]), "id": not_utf8},
        {"text": pa.array(["a"]), "x": not_utf8},
        {"text": pa.array(["a"]), "date": pa.array([far], pa.timestamp("us"))},
        {"text": pa.array(["a"]), "date": pa.array([far], pa.timestamp("ns"))},
        {"text": pa.array(["a"]), "x": pa.array([1 << 40], pa.duration("s"))},
        {"text": pa.array(["a"]), "x": pa.array([-(1 << 30)], pa.date32())},
        {"text": pa.array([b"\xff"], pa.binary()), "id": pa.array([b"\xff"])},
        {"text": pa.array([1.5]), "x": pa.array([float("nan")])},
        {"text": texts, "x": pa.array([{"a": [{"b": 1}, {"b": None}]}, None, {"a": []}])},
        {"text": texts, "x": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64()))},
        {"text": pa.array([["a", "b"]])},
        {"text": pa.nulls(3), "id": texts},
        {"text": pa.array([], pa.string())},
        {"texto": texts},
        {"text": texts.dictionary_encode(), "id": pa.array([None, 0, ""][:1] * 3)},
        {"text": pa.array(["x" * (1 << 20)] * 300)},
    ]
    sink = io.BytesIO()
    pq.write_table(pa.table(rng.choice(choices)), sink)
    return sink.getvalue()


# Pages


def many_tags(rng: random.Random, source: Source) -> bytes:
    at = rng.randrange(len(source.data) + 1)
    return source.data[:at] + rng.choice(TAGS) * rng.choice([100, 3000, 30_000]) + source.data[at:]


def opened(rng: random.Random, source: Source) -> bytes:
    """Something opens that is never closed, or the page is said to be what it is not."""
    at = rng.choice([0, rng.randrange(len(source.data) + 1)])
    return source.data[:at] + rng.choice(OPENINGS) + source.data[at:]


def many_attributes(rng: random.Random, source: Source) -> bytes:
    at = source.data.find(b"<body") + 5
    names = b" ".join(b"a%d='%s'" % (i, b"x" * rng.choice([0, 5])) for i in range(rng.choice([300, 20_000])))
    return source.data[:at] + b" " + names + b" style='" + b"x" * 50_000 + b"'" + source.data[at:]
