"""Input files to a stream of raw documents: planning of shards, and reading one.

In: paths, globs or ``s3://`` prefixes of WARC, WET, JSONL (plain, gzip, zstandard) and Parquet files.
Out: ``RawDocument``: a page's bytes or a text, its id and what is known of it; or the ``problem`` why it cannot be had.
Everything that is in a file comes out as one or the other, so that in = kept + removed holds from the first byte.

A shard is a WARC file, a compressed JSONL file, a byte range of a plain JSONL file, or a run of Parquet row groups.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from caravela import storage
from caravela.data import charset, warc
from caravela.errors import UserError
from caravela.manifest import Input
from caravela.stages import Shard

FORMATS = {
    ".warc": "warc",
    ".wet": "warc",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
COMPRESSIONS = (".gz", ".zst")
HTML_TYPES = ("text/html", "application/xhtml+xml")
UNTOLD_TYPES = ("", "application/octet-stream", "text/plain", "unknown")
MAX_LINE_BYTES = 64 << 20
PARQUET_BATCH_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class FieldNames:
    """What JSONL keys and Parquet columns are called; the others are kept as metadata."""

    id: str = "id"
    """The document's own id; where it is absent, ``<input>#<row>`` serves."""
    text: str = "text"
    """The text, in UTF-8."""
    url: str = "url"
    """Where the document is from."""
    date: str = "date"
    """When it was written or fetched."""
    source: str = "source"
    """What collection it belongs to; where it is absent, the input's file name."""


@dataclass(frozen=True, slots=True)
class RawDocument:
    """One document as it stands in the input: ``html`` or ``text``, or a ``problem``."""

    id: str
    url: str = ""
    source: str = ""
    date: str = ""
    html: bytes | None = None
    header_charset: str = ""
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why there is neither: ``corrupt``, ``truncated``, ``http_status``, ``not_html``, ``bad_json`` ..."""
    detail: str = ""

    @property
    def broken(self) -> bool:
        """Whether the input is damaged, rather than not of the kind that is wanted."""
        return self.problem not in ("", "http_status", "not_html", "empty_body", "revisit")


def expand(patterns: Sequence[str]) -> list[str]:
    """The files that the patterns name, sorted, each once.

    Raises:
        UserError: a pattern matches nothing, or a file's format is not known.
    """
    found: list[str] = []
    for pattern in patterns:
        files = storage.glob(storage.absolute(pattern))
        if not files:
            raise UserError(f"{pattern}: no such input (curate.inputs)")
        found.extend(files)
    for uri in found:
        format_of(uri)
    return sorted(set(found))


def format_of(uri: str) -> str:
    """``format_of("a/b.warc.gz") == "warc"``."""
    name = storage.name_of(uri).lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    for ending, kind in FORMATS.items():
        if name.endswith(ending):
            return kind
    raise UserError(f"{uri}: format not known by its name; expected {', '.join(FORMATS)}, plain or with .gz or .zst")


def fingerprint_inputs(uris: Sequence[str]) -> list[Input]:
    """What identifies each input file: size, and ETag (S3) or modification time (disk)."""
    inputs = []
    for uri in uris:
        info = storage.stat(uri)
        inputs.append(Input(name=storage.name_of(uri), fingerprint=f"{info['size']}-{info['version']}", uri=uri))
    return inputs


def plan_shards(uris: Sequence[str], shard_bytes: int) -> list[Shard]:
    """Shards in input order. ``shard_bytes`` bounds a byte range of JSONL and a run of row groups (uncompressed)."""
    specs: list[tuple[str, dict[str, Any]]] = []
    for uri in uris:
        kind, name = format_of(uri), storage.name_of(uri)
        if kind == "jsonl" and not uri.lower().endswith(COMPRESSIONS):
            size = storage.stat(uri)["size"]
            for start in range(0, max(size, 1), shard_bytes):
                specs.append((f"{name}@{start}", {"start": start, "end": min(size, start + shard_bytes)}))
                specs[-1][1].update(uri=uri, kind=kind)
        elif kind == "parquet":
            for first, last in _row_group_runs(uri, shard_bytes):
                specs.append((f"{name}@{first}", {"uri": uri, "kind": kind, "start": first, "end": last}))
        else:
            specs.append((name, {"uri": uri, "kind": kind}))
    return [Shard(index=i, name=name, spec=spec) for i, (name, spec) in enumerate(specs)]


def _row_group_runs(uri: str, shard_bytes: int) -> list[tuple[int, int]]:
    try:
        with storage.open_read(uri) as file:
            metadata = pq.ParquetFile(file).metadata
            sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    except (pa.ArrowInvalid, OSError):
        return [(0, 0)]  # read() reports it as a broken file
    runs, first, total = [], 0, 0
    for i, size in enumerate(sizes):
        if total and total + size > shard_bytes:
            runs.append((first, i))
            first, total = i, 0
        total += size
    return [*runs, (first, len(sizes))]


def read(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    """The raw documents of a shard. A file that cannot be read to its end gives a last one that says so."""
    uri = str(spec["uri"])
    readers = {"warc": _read_warc, "jsonl": _read_jsonl, "parquet": _read_parquet}
    seen = 0
    try:
        for document in readers[spec["kind"]](spec, names):
            seen += 1
            yield document
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, pa.ArrowException, UserError) as error:
        detail = " ".join(str(error).split())[:300]
        yield RawDocument(id=f"{storage.name_of(uri)}#broken{seen}", problem="broken_file", detail=detail)
        return
    if seen == 0 and spec.get("start", 0) == 0:
        yield RawDocument(id=f"{storage.name_of(uri)}#empty", problem="empty_file")


def _read_warc(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    source = storage.name_of(spec["uri"])
    with storage.open_read(spec["uri"]) as stream:
        for row, record in enumerate(warc.read_records(stream)):
            document = _from_record(record, f"{source}#{row}", source)
            if document is not None:
                yield document


def _from_record(record: warc.WarcRecord, row_id: str, source: str) -> RawDocument | None:
    """A WARC record as a document; None for records that hold none (request, metadata, warcinfo)."""
    if record.type not in ("response", "resource", "conversion", "revisit") and not record.problem:
        return None
    known: dict[str, Any] = {
        "id": record.headers.get("warc-record-id", "") or row_id,
        "url": record.headers.get("warc-target-uri", "").strip("<>"),
        "date": record.headers.get("warc-date", ""),
        "source": source,
    }
    if record.problem:
        return RawDocument(**known, problem=record.problem, detail=row_id)
    if record.type == "revisit":
        return RawDocument(**known, problem="revisit")
    if record.type == "conversion":
        return RawDocument(**known, text=charset.decode(record.content)[0])
    if record.type == "resource":
        return _page(known, record.headers.get("content-type", ""), record.content)
    if not record.headers.get("content-type", "application/http").lower().startswith("application/http"):
        return RawDocument(**known, problem="not_html", detail=record.headers["content-type"][:100])
    response = warc.parse_http(record.content, warc.MAX_CONTENT_BYTES)
    if response.problem and (response.status == 0 or not response.body):
        return RawDocument(**known, problem=response.problem)
    if response.status != 200:
        return RawDocument(**known, problem="http_status", detail=str(response.status))
    return _page(known, response.headers.get("content-type", ""), response.body)


def _page(known: Mapping[str, Any], content_type: str, body: bytes) -> RawDocument:
    if not body.strip():
        return RawDocument(**known, problem="empty_body")
    kind = content_type.split(";")[0].strip().lower()
    looks_like_html = b"<html" in body[:4096].lower() or b"<!doctype html" in body[:4096].lower()
    if kind not in HTML_TYPES and not (kind in UNTOLD_TYPES and looks_like_html):
        return RawDocument(**known, problem="not_html", detail=kind)
    return RawDocument(**known, html=body, header_charset=charset.header_charset(content_type))


def _read_jsonl(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    source, start = storage.name_of(spec["uri"]), int(spec.get("start", 0))
    with storage.open_read(spec["uri"]) as raw:
        stream = _plain(raw, source)
        if start:
            # The line that crosses the border belongs to the range in which it begins.
            raw.seek(start - 1)
            raw.readline()
        row = 0
        while "end" not in spec or raw.tell() < spec["end"]:
            offset = raw.tell() if "end" in spec else row
            line = stream.readline(MAX_LINE_BYTES)
            if not line:
                return
            row += 1
            if not line.strip():
                continue
            yield _from_json(line, f"{source}#{offset}", source, names)


def _plain(raw: IO[bytes], name: str) -> IO[bytes]:
    if name.lower().endswith(".gz"):
        return gzip.open(raw)  # type: ignore[return-value]
    if name.lower().endswith(".zst"):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return raw


def _from_json(line: bytes, row_id: str, source: str, names: FieldNames) -> RawDocument:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return RawDocument(id=row_id, source=source, problem="bad_json", detail=str(error)[:200])
    if not isinstance(row, dict):
        return RawDocument(id=row_id, source=source, problem="bad_json", detail="not an object")
    return _from_fields(row, row_id, source, names)


def _from_fields(row: Mapping[str, Any], row_id: str, source: str, names: FieldNames) -> RawDocument:
    text = row.get(names.text)
    known: dict[str, Any] = {
        "id": str(row.get(names.id) or row_id),
        "url": str(row.get(names.url) or ""),
        "date": str(row.get(names.date) or ""),
        "source": str(row.get(names.source) or source),
    }
    if not isinstance(text, str):
        return RawDocument(**known, problem="no_text_field", detail=f"{names.text}: {type(text).__name__}")
    used = (names.id, names.text, names.url, names.date, names.source)
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate from \ud800 cannot be stored
    return RawDocument(**known, text=text, metadata={k: v for k, v in row.items() if k not in used and v is not None})


def _read_parquet(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    source = storage.name_of(spec["uri"])
    with storage.open_read(spec["uri"]) as stream:
        file = pq.ParquetFile(stream)
        if names.text not in file.schema_arrow.names:
            raise UserError(f"{spec['uri']}: no column {names.text!r}; it has {', '.join(file.schema_arrow.names)}")
        groups = list(range(spec["start"], spec["end"]))
        row = sum(file.metadata.row_group(i).num_rows for i in range(spec["start"]))
        for batch in file.iter_batches(PARQUET_BATCH_ROWS, row_groups=groups):
            for fields in batch.to_pylist():
                yield _from_fields(fields, f"{source}#{row}", source, names)
                row += 1
