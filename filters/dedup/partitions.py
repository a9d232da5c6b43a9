"""A file of many small tables, of which a reader fetches one: what a shuffle leaves for its next round.

In: one Arrow table (or None) per partition, all of one schema. Out: a file that begins with a magic word and the number
of partitions, then 16 bytes for each (where its bytes end, their xxh3 checksum), then each table as an Arrow IPC
stream. Reading one partition costs two range reads (three from the thousandth on) and at most 16 kB more than it holds,
however many there are: Parquet and Arrow files carry a footer that grows with their number and must be read first.

Numbers are little-endian. The same tables give the same bytes.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from caravela import storage
from caravela.storage import StorageError

MAGIC = b"CVLPARTS"
_HEAD = struct.Struct("<8sQ")
_SLOT = struct.Struct("<QQ")
NEAR_BYTES = 1 << 14
"""Up to here what says where partitions lie is read along with the magic word."""
_NUMBERED = "{}part-{:05d}.parts"


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
    first, after = max(0, partition - 1), _HEAD.size + _SLOT.size * (partition + 1)
    start = _HEAD.size + _SLOT.size * first
    head = storage.read_range(uri, 0, after if after <= NEAR_BYTES else _HEAD.size)
    _check_head(uri, head[: _HEAD.size], of)
    slots = head[start:] if after <= NEAR_BYTES else storage.read_range(uri, start, after)
    end, checksum = _SLOT.unpack_from(slots, _SLOT.size * (partition - first))
    begin = _SLOT.unpack_from(slots)[0] if partition else _HEAD.size + _SLOT.size * of
    return _decoded(uri, partition, storage.read_range(uri, begin, end), end - begin, checksum, schema)


def files(uris: Sequence[str]) -> dict[str, Any]:
    """The files of all shards of a stage, for the description of a shard that reads a partition of each.

    It is as long for a hundred thousand files as for one: with a list of them in the description of every shard, what
    the driver holds would grow with the square of the corpus.
    """
    found = {"prefix": uris[0].removesuffix(_NUMBERED.format("", 0)) if uris else "", "count": len(uris)}
    assert uris_of(found) == list(uris), f"{uris[:3]}: expected part-00000.parts, part-00001.parts ..."
    return found


def uris_of(found: Mapping[str, Any]) -> list[str]:
    """The files that ``files`` described."""
    return [_NUMBERED.format(found["prefix"], number) for number in range(found["count"])]


def read_all(found: Mapping[str, Any], partition: int, of: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """One partition of every file that ``files`` described, in the order of the files."""
    for uri in uris_of(found):
        yield read(uri, partition, of, schema)


def read_whole(uri: str, of: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """All partitions of a file, in their order, in one read; memory is that of the file.

    Raises:
        StorageError: the file is no such file, has another number of partitions, or is damaged.
    """
    data = memoryview(storage.read_bytes(uri))
    _check_head(uri, bytes(data[: _HEAD.size]), of)
    begin = _HEAD.size + _SLOT.size * of
    if len(data) < begin:
        raise StorageError(f"{storage.shown(uri)}: is cut short; delete its stage's directory and run again")
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
