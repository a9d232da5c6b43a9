"""A file of many small tables, of which a reader fetches one: what a shuffle leaves for its next round.

In: one Arrow table (or None) per partition, all of one schema. Out: a file that begins with a magic word and the number
of partitions, then 16 bytes for each (where its bytes end, their xxh3 checksum), then each table as an Arrow IPC
stream. Reading one partition costs two range reads and no more bytes than it holds, however many there are: Parquet
and Arrow files carry a footer that grows with the number of partitions and must be read first.

Numbers are little-endian. The same tables give the same bytes.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import xxhash

from caravela import storage
from caravela.storage import StorageError

MAGIC = b"CVLPARTS"
_HEAD = struct.Struct("<8sQ")
_SLOT = struct.Struct("<QQ")


def write(path: str, schema: pa.Schema, tables: Sequence[pa.Table | None]) -> None:
    """Writes a local file with one partition for each of ``tables``; None and an empty table take no bytes."""
    place = _HEAD.size + _SLOT.size * len(tables)
    slots = []
    with open(path, "wb") as file:
        file.seek(place)
        for table in tables:
            data = _encoded(schema, table)
            file.write(data)
            place += len(data)
            slots.append(_SLOT.pack(place, xxhash.xxh3_64_intdigest(data)))
        file.seek(0)
        file.write(_HEAD.pack(MAGIC, len(tables)) + b"".join(slots))


def read(uri: str, partition: int, of: int, schema: pa.Schema) -> pa.Table:
    """The table of one partition.

    Raises:
        StorageError: the file is no such file, has another number of partitions, or is damaged.
    """
    first = max(0, partition - 1)
    head = storage.read_range(uri, 0, _HEAD.size)
    _check_head(uri, head, of)
    start = _HEAD.size + _SLOT.size * first
    slots = storage.read_range(uri, start, _HEAD.size + _SLOT.size * (partition + 1))
    end, checksum = _SLOT.unpack_from(slots, _SLOT.size * (partition - first))
    begin = _SLOT.unpack_from(slots)[0] if partition else _HEAD.size + _SLOT.size * of
    return _decoded(uri, partition, storage.read_range(uri, begin, end), end - begin, checksum, schema)


def read_all(uris: Iterable[str], partition: int, of: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """One partition of every file, in the order of the files."""
    for uri in uris:
        yield read(uri, partition, of, schema)


def read_whole(uri: str, of: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """All partitions of a file, in their order, in one read; memory is that of the file.

    Raises:
        StorageError: the file is no such file, has another number of partitions, or is damaged.
    """
    data = memoryview(storage.read_bytes(uri))
    _check_head(uri, bytes(data[: _HEAD.size]), of)
    begin = _HEAD.size + _SLOT.size * of
    for partition, (end, checksum) in enumerate(_SLOT.iter_unpack(data[_HEAD.size : begin])):
        yield _decoded(uri, partition, data[begin:end], end - begin, checksum, schema)
        begin = end


def _check_head(uri: str, head: bytes, of: int) -> None:
    if len(head) < _HEAD.size or head[:8] != MAGIC:
        raise StorageError(
            f"{storage.shown(uri)}: not a file of partitions; delete its stage's directory and run again"
        )
    count = _HEAD.unpack(head)[1]
    if count != of:
        raise StorageError(f"{storage.shown(uri)}: has {count} partitions, expected {of}")


def _decoded(
    uri: str, partition: int, data: bytes | memoryview, size: int, checksum: int, schema: pa.Schema
) -> pa.Table:
    if len(data) != size or xxhash.xxh3_64_intdigest(data) != checksum:
        raise StorageError(f"{storage.shown(uri)}: partition {partition} is damaged; delete its stage's directory")
    return pa.ipc.open_stream(data).read_all() if size else schema.empty_table()


def _encoded(schema: pa.Schema, table: pa.Table | None) -> bytes:
    if table is None or not table.num_rows:
        return b""
    # A slice is written with what is left of its buffers: a copy makes equal rows equal bytes.
    rows = table.cast(schema).take(pa.array(np.arange(table.num_rows))).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())
