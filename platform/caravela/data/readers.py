"""Input files to a stream of raw documents: planning of shards, and reading one.

In: what ``caravela.data.inputs`` names: WARC, WET, JSONL, CSV, TSV (plain, gzip, zstandard) and Parquet files; and the
records that ``caravela.data.common_crawl`` picks by an index.
Out: ``RawDocument``s, or ``RawColumns`` of many. Everything that is in a file comes out as a document or as a named
problem, so that in = kept + removed holds from the first byte.

A shard is a WARC file, a CSV file, a compressed JSONL file, a byte range of a plain JSONL file, a run of Parquet row
groups, or a run of picked records. What storage cannot bring, after all its retries, is no property of the file: it
ends the shard with an error, and a rerun goes on there.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from caravela import storage
from caravela.data import common_crawl, crawl_files, tables
from caravela.data.columns import RawColumns
from caravela.data.inputs import COMPRESSIONS, expand, fingerprint_inputs, format_of, in_parallel
from caravela.data.raw import FieldNames, RawDocument
from caravela.errors import UserError
from caravela.stages import Shard
from caravela.storage import StorageError

__all__ = [
    "FieldNames",
    "RawColumns",
    "RawDocument",
    "expand",
    "fingerprint_inputs",
    "format_of",
    "plan_index",
    "plan_shards",
    "read",
    "read_columns",
]

BATCH_DOCUMENTS = 1024
BATCH_BYTES = 8 << 20

Read = TypeVar("Read")

READERS = {
    "warc": crawl_files.read_warc,
    "jsonl": tables.read_jsonl,
    "csv": tables.read_csv,
    "parquet": tables.read_parquet,
    "records": common_crawl.read_records,
}


def plan_shards(uris: Sequence[str], shard_bytes: int) -> list[Shard]:
    """Shards in input order. ``shard_bytes`` bounds a byte range of JSONL and a run of row groups (uncompressed)."""
    specs = [spec for specs in in_parallel(lambda uri: _specs(uri, shard_bytes), uris) for spec in specs]
    return [Shard(index=i, name=name, spec=spec) for i, (name, spec) in enumerate(specs)]


def _specs(uri: str, shard_bytes: int) -> list[tuple[str, dict[str, Any]]]:
    kind, name = format_of(uri), storage.name_of(uri)
    spec = {"uri": uri, "kind": kind}
    if kind == "jsonl" and not name.lower().endswith(COMPRESSIONS):
        size = storage.stat(uri)["size"]
        starts = range(0, max(size, 1), shard_bytes)
        return [
            (f"{name}@{start}", {**spec, "start": start, "end": min(size, start + shard_bytes)}) for start in starts
        ]
    if kind == "parquet":
        runs = _row_group_runs(uri, shard_bytes)
        return [(f"{name}@{first}", {**spec, "start": first, "end": last}) for first, last in runs]
    return [(name, spec)]


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


def plan_index(config: common_crawl.IndexConfig, shard_bytes: int) -> list[Shard]:
    """Shards of the records that an index picks, at most ``shard_bytes`` of them each; the same ones on every call."""
    specs = common_crawl.plan(config, shard_bytes)
    return [Shard(index=i, name=name, spec=spec) for i, (name, spec) in enumerate(specs)]


def read(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    """The raw documents of a shard. A file that cannot be read to its end gives a last one that says so.

    Raises:
        StorageError: the storage failed for good, which says nothing of the file.
    """
    return _to_the_end(spec, READERS[spec["kind"]](spec, names), lambda _: 1, lambda problem: problem)


def read_columns(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawColumns]:
    """The same documents, some at a time and column by column: at most ``BATCH_DOCUMENTS``, about ``BATCH_BYTES``."""
    if spec["kind"] == "parquet":
        batches = tables.read_parquet_columns(spec, names)
        return _to_the_end(spec, batches, len, lambda problem: RawColumns.of([problem]))
    return map(RawColumns.of, _gathered(read(spec, names)))


def _gathered(documents: Iterable[RawDocument]) -> Iterator[list[RawDocument]]:
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.html or document.text or "")
        if len(batch) >= BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _to_the_end(
    spec: Mapping[str, Any],
    reader: Iterator[Read],
    count: Callable[[Read], int],
    as_read: Callable[[RawDocument], Read],
) -> Iterator[Read]:
    """What a reader gives; and a last document for what ends it before its time, or for an input without any."""
    name = storage.name_of(str(spec["uri"]))
    seen = 0
    try:
        for each in reader:
            seen += count(each)
            yield each
    except StorageError:
        raise
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, pa.ArrowException, UserError) as error:
        detail = " ".join(str(error).split())[:300]
        yield as_read(RawDocument(id=f"{name}#broken{seen}", problem="broken_file", detail=detail))
        return
    if seen == 0 and spec.get("start", 0) == 0:
        yield as_read(RawDocument(id=f"{name}#empty", problem="empty_file"))
