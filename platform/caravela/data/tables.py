"""Files of rows: JSONL, Parquet, CSV and TSV; one row, one raw document.

In: JSONL and CSV/TSV, plain, gzip or zstandard, and Parquet, local or remote; ``FieldNames`` says which field is what,
and the others become metadata. Out: a document for every row, or a problem in its place: ``bad_json``, ``bad_row``,
``no_text_field``, ``not_utf8``.

CSV is as RFC 4180 has it: quotes around fields, doubled within, line breaks inside them. Where a row is not well formed
(a quote that is never closed would swallow all that follows) its first line alone is set aside, and reading goes on at
the second. A ``.csv`` may be divided by semicolons, as spreadsheets write it where the comma is the decimal sign. Lines
that are not UTF-8 are read as Windows-1252. Memory: one row, at most ``MAX_LINE_BYTES`` of JSONL and ``MAX_CSV_ROW`` of
CSV; of Parquet, a row group's columns as they are read. Parquet can be had as columns too (``read_parquet_columns``).
"""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow.parquet as pq
import zstandard

from caravela import storage
from caravela.data import charset
from caravela.data.columns import RawColumns
from caravela.data.raw import FieldNames, RawDocument
from caravela.errors import UserError

MAX_LINE_BYTES = 64 << 20
MAX_CSV_ROW = 32 << 20
"""Bytes of a line and characters of a row; Python's parser takes up to eight bytes for each."""
PARQUET_BATCH_ROWS = 1024
PARQUET_BATCH_BYTES = 4 << 20
DELIMITERS = {".csv": ",;", ".tsv": "\t"}

csv.field_size_limit(MAX_CSV_ROW)  # the library's own limit is 128 KiB, less than many a document


def read_jsonl(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
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


def read_parquet(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    """The rows one by one."""
    for columns in read_parquet_columns(spec, names):
        yield from columns.documents()


def read_parquet_columns(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawColumns]:
    """The rows some at a time, as columns: about ``PARQUET_BATCH_BYTES`` of them, never across two row groups."""
    source = storage.name_of(spec["uri"])
    with storage.open_read(spec["uri"]) as stream:
        file = pq.ParquetFile(stream)
        if names.text not in file.schema_arrow.names:
            raise UserError(f"{spec['uri']}: no column {names.text!r}; it has {', '.join(file.schema_arrow.names)}")
        row = sum(file.metadata.row_group(i).num_rows for i in range(spec["start"]))
        for i in range(spec["start"], spec["end"]):
            group = file.metadata.row_group(i)
            fitting = PARQUET_BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
            for batch in file.iter_batches(min(max(1, fitting), PARQUET_BATCH_ROWS), row_groups=[i]):
                yield RawColumns.of_parquet(batch, source, row, names)
                row += batch.num_rows


class _Lines:
    """Decoded lines, with those that the row at hand has taken, which can be given back."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.taken: list[str] = []
        self.back: list[str] = []
        self.size = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.back.pop() if self.back else self._read()
        self.taken.append(line)
        self.size += len(line)
        if self.size > MAX_CSV_ROW:
            raise csv.Error(f"a row of more than {MAX_CSV_ROW} characters")
        return line

    def _read(self) -> str:
        data = self.stream.readline(MAX_CSV_ROW)
        if not data:
            raise StopIteration
        if len(data) == MAX_CSV_ROW and not data.endswith(b"\n"):
            while (more := self.stream.readline(MAX_CSV_ROW)) and not more.endswith(b"\n"):
                pass
            self.taken.append("")
            raise csv.Error(f"a line of more than {MAX_CSV_ROW} bytes")
        return charset.decode(data)[0]

    def begin_row(self) -> None:
        self.taken, self.size = [], 0

    def give_back_all_but_first(self) -> None:
        self.back.extend(reversed(self.taken[1:]))


def read_csv(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    """The rows below the header, which names the fields."""
    source = storage.name_of(spec["uri"])
    with storage.open_read(spec["uri"]) as raw:
        lines = _Lines(_plain(raw, source))
        header, delimiter = _header(lines, source, names)
        # strict: a quote out of place is an error, not a guess that may swallow the rows that follow.
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        number = 0
        while True:
            lines.begin_row()
            try:
                fields, problem = next(rows), ""
                if fields and len(fields) != len(header):
                    problem = f"{len(fields)} fields, where the header has {len(header)}"
            except StopIteration:
                return
            except csv.Error as error:
                fields, problem = [], str(error)
            row_id = f"{source}#{number}"
            if problem:
                lines.give_back_all_but_first()
                yield RawDocument(id=row_id, source=source, problem="bad_row", detail=problem)
            elif fields:
                given = {name: value for name, value in zip(header, fields, strict=True) if value or name == names.text}
                yield _from_fields(given, row_id, source, names)
            number += bool(problem or fields)


def _header(lines: _Lines, source: str, names: FieldNames) -> tuple[Sequence[str], str]:
    """The names of the fields, and the delimiter: the first under which the text's name is among them."""
    ending = source.lower().removesuffix(".gz").removesuffix(".zst")[-4:]
    found: list[str] = []
    for delimiter in DELIMITERS[ending]:
        lines.begin_row()
        try:
            found = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            raise UserError(f"{source}: the header cannot be read: {error}") from error
        if names.text in found or not found:
            break
        lines.back.extend(reversed(lines.taken))
    if found and names.text not in found:
        raise UserError(f"{source}: no column {names.text!r}; the header is {', '.join(found)[:200]}")
    return found, delimiter
