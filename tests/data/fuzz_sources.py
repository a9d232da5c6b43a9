"""Whole files to damage: windows of real ones, and their rows in every format that is read.

In: files by name and bytes. Out: ``Source``: a name, the bytes, and where the parts begin that a reader can find by
itself. The same files give the same sources in the same order.
"""

import csv
import gzip
import io
import json
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from caravela.data import readers, warc
from caravela.data.raw import FieldNames, RawDocument

WINDOW_BYTES = 160 << 10
ROWS = 60
RECORD_LINE = re.compile(rb"^WARC/1\.[01]\r?\n", re.MULTILINE)
TAG = re.compile(r"<[^>]*>")
FRAME_START = re.compile(re.escape(warc.ZSTD_MAGIC))


@dataclass(frozen=True)
class Source:
    """A whole file that can be read, before anything is done to it."""

    name: str
    data: bytes
    starts: tuple[int, ...] = ()
    """Where the parts begin that a reader can find by itself after damage; none where it cannot."""
    overlap: int = 0
    """So many bytes before its start a part needs to be found."""


def gzipped(data: bytes, level: int = 9) -> bytes:
    """The same bytes at any time of day."""
    return gzip.compress(data, level, mtime=0)


def documents(name: str, data: bytes) -> list[RawDocument]:
    """What curation reads from a file of this name."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        shards = readers.plan_shards([str(path)], 1 << 20)
        return [document for shard in shards for document in readers.read(shard.spec, FieldNames())]


def sources(files: Mapping[str, bytes]) -> list[Source]:
    """Windows of the files, and tables of their texts in every format."""
    found: list[Source] = []
    for name, data in sorted(files.items()):
        kind = readers.format_of(name)
        if kind == "warc":
            found += warc_windows(name, data)
        elif kind == "jsonl":
            found += tables(name.partition(".jsonl")[0], _rows(name, data))
        else:
            found.append(Source(name, data))
    texts, pages = _texts_and_pages(found)
    found += tables("texts", [{"id": f"p{i}", "text": text} for i, text in enumerate(texts[:ROWS])])
    return found + [Source(f"page{i}.html", page) for i, page in enumerate(pages)]


def warc_windows(name: str, data: bytes) -> list[Source]:
    """Runs of whole records, and the first of them in the other containers."""
    if data.startswith(warc.GZIP_MAGIC):
        starts = member_starts(data)
    elif data.startswith(warc.ZSTD_MAGIC):
        starts = [match.start() for match in FRAME_START.finditer(data)]
    elif data.startswith(b"WARC/"):
        starts = [match.start() for match in RECORD_LINE.finditer(data)]
    else:
        starts = []
    if len(starts) < 3:
        return [Source(name, data[: 4 * WINDOW_BYTES])]
    plain = data.startswith(b"WARC/")
    windows = [
        Source(name, data[begin:end], tuple(s - begin for s in starts if begin <= s < end), 4 * plain)
        for begin, end in _runs(starts, len(data))
    ]
    if not plain and len(windows) > 1:
        whole = gzip.decompress(windows[0].data) if data.startswith(warc.GZIP_MAGIC) else b""
        if whole:
            records = tuple(match.start() for match in RECORD_LINE.finditer(whole))
            stem = name.removesuffix(".gz")
            frames = [zstandard.compress(whole[a:b]) for a, b in zip(records, (*records[1:], len(whole)), strict=True)]
            places = tuple(sum(map(len, frames[:i])) for i in range(len(frames)))
            windows += [
                Source(stem, whole, records, 4),
                Source(f"one-{stem}.gz", gzipped(whole)),
                Source(f"{stem}.zst", b"".join(frames), places),
                Source(f"one-{stem}.zst", zstandard.compress(whole)),
            ]
    return windows


def member_starts(data: bytes) -> list[int]:
    """Offsets of the gzip members of a file that is whole, found by inflating one after the other; else none."""
    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            piece = data[at : at + (1 << 14)]
            at += len(piece)
            try:
                member.decompress(piece)
            except zlib.error:
                return []
            if not piece:
                return []
        at -= len(member.unused_data)
    return starts


def _runs(starts: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    begin = starts[0]
    for start, end in zip(starts, (*starts[1:], size), strict=True):
        if end - begin > WINDOW_BYTES and start > begin:
            yield begin, start
            begin = start
    yield begin, size


def tables(stem: str, rows: list[dict[str, str]]) -> list[Source]:
    """The same rows as lines, as CSV and as Parquet."""
    if not rows:
        return []
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
    starts = tuple(sum(map(len, lines[:i])) for i in range(len(lines)))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    made = [
        Source(f"{stem}.jsonl", b"".join(lines), starts, 1),
        Source(f"{stem}.jsonl.gz", gzipped(b"".join(lines))),
        Source(f"{stem}.jsonl.zst", zstandard.compress(b"".join(lines))),
        Source(f"{stem}.csv", text.getvalue().encode()),
        Source(f"{stem}.csv.gz", gzipped(text.getvalue().encode())),
    ]
    for compression, checksum in (("zstd", True), ("snappy", False), ("none", False)):
        sink = io.BytesIO()
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, sink, row_group_size=16, compression=compression, write_page_checksum=checksum)
        made.append(Source(f"{stem}-{compression}.parquet", sink.getvalue()))
    return made


def _rows(name: str, data: bytes) -> list[dict[str, str]]:
    if name.endswith(".gz"):
        data = zlib.decompressobj(wbits=31).decompress(data, WINDOW_BYTES)
    elif name.endswith(".zst"):
        data = warc.unzstandard(data, WINDOW_BYTES)
    lines = data[:WINDOW_BYTES].split(b"\n")[:-1]
    rows = [row for line in lines[:ROWS] if isinstance(row := json.loads(line), dict)]
    return [{str(key): str(value) for key, value in row.items()} for row in rows]


def _without_tags(page: bytes) -> str:
    return TAG.sub(" ", page.decode("utf-8", errors="replace")).strip()


def _texts_and_pages(found: Sequence[Source]) -> tuple[list[str], list[bytes]]:
    """Texts for tables, and a page of each file, none twice."""
    texts: dict[str, None] = {}
    pages: dict[bytes, None] = {}
    for source in found:
        if readers.format_of(source.name) == "warc":
            read = documents(source.name, source.data)
            texts |= dict.fromkeys(text[:3000] for d in read if (text := d.text or _without_tags(d.html or b"")))
            pages |= dict.fromkeys([d.html for d in read if d.html and len(d.html) < 300_000][:1])
    return list(texts), list(pages)
