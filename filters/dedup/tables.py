"""What the stages of deduplication hand to one another, and the number that names a document.

A document is the number ``shard << 32 | row`` of its place in the manifest; shards of an index come before those of the
run. All tables lie in files of partitions (``filters.dedup.partitions``).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]

ROW_BITS = np.uint64(32)
ROW_MASK = np.uint64(0xFFFFFFFF)

KEYS = pa.schema([("key", pa.uint64()), ("row", pa.uint32())])
"""By range of the key, sorted: equal keys are equal texts, or texts that share a MinHash band."""

EDGES = pa.schema([("node", pa.uint64()), ("neighbour", pa.uint64())])
"""By a hash of ``node``."""

LABELS = pa.schema([("row", pa.uint32()), ("root", pa.uint64())])
"""By shard, sorted by row: the smallest document of each clustered document's cluster."""

DECISIONS = pa.schema(
    [
        ("row", pa.uint32()),
        ("keep", pa.bool_()),
        ("cluster", pa.uint64()),
        ("cluster_size", pa.uint32()),
        ("kept_id", pa.string()),
        ("similarity", pa.float32()),
        ("reason", pa.string()),
    ]
)
"""By shard: every document of the run that is in a cluster."""

SPANS = pa.schema([("key", pa.uint64()), ("check", pa.uint32()), ("row", pa.uint32()), ("unit", pa.uint32())])
"""By range of the key, sorted by key, row and unit: equal keys and checks are equal spans of sentences or lines.
``unit`` is the number, in its document, of the sentence or line with which the span begins."""

REPEATS = pa.schema([("row", pa.uint32()), ("unit", pa.uint32())])
"""By shard, sorted: the spans that go."""


CANDIDATES = pa.schema([("row", pa.uint32()), ("root", pa.uint64())])
"""By shard, those of the index first: documents whose texts are to be compared with others of their cluster."""

SHINGLES = pa.schema([("node", pa.uint64()), ("shingles", pa.list_(pa.uint64()))])
"""By a hash of the root: the set of shingles of each candidate, as ascending hashes."""


def attributes(sketch_bytes: int) -> pa.Schema:
    """One row a document, in the order of the shard; a single partition.

    ``sketch`` holds the lowest byte of each MinHash, from which the similarity of two documents is estimated.
    """
    return pa.schema(
        [
            ("id", pa.string()),
            ("exact_high", pa.uint64()),
            ("exact_low", pa.uint64()),
            ("length", pa.uint32()),
            ("quality", pa.float32()),
            ("date", pa.string()),
            ("source", pa.string()),
            ("sketch", pa.binary(sketch_bytes)),
        ]
    )


def members(sketch_bytes: int) -> pa.Schema:
    """By a hash of ``root``: the clustered documents with their attributes.

    ``removed_before``: a run of the index removed the document, so that it can be nobody's keeper.
    """
    own = [("node", pa.uint64()), ("root", pa.uint64()), ("removed_before", pa.bool_())]
    return pa.schema([*own, *attributes(sketch_bytes)])


def nodes_of(shard: int, rows: npt.NDArray[np.integer[Any]]) -> U64:
    """The numbers of a shard's documents."""
    return rows.astype(np.uint64) | np.uint64(shard) << ROW_BITS


def spread(values: U64) -> U64:
    """A bijection that spreads every bit (the finalizer of SplitMix64): neighbours land in different partitions."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def by_partition(table: pa.Table, place: npt.NDArray[np.integer[Any]], partitions: int) -> list[pa.Table]:
    """The rows of each partition, in their order; ``place`` names each row's partition."""
    # Numbers of 16 bits are sorted by counting them.
    order = np.argsort(place.astype(np.uint16) if partitions <= 1 << 16 else place, kind="stable")
    borders = np.searchsorted(place[order], np.arange(partitions + 1))
    sorted_rows = table.take(pa.array(order)) if table.num_rows else table
    return [sorted_rows.slice(a, b - a) for a, b in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)]
