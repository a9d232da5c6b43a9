"""Tables of finished stages, read in batches, and a choice from them that does not depend on their order."""

import bisect
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from caravela import storage
from caravela.manifest import Manifest

BATCH_ROWS = 512

Row = TypeVar("Row")


def batches(
    stage: Manifest,
    table: str,
    columns: Sequence[str],
    most_parts: int | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """The named columns of a table, of ``most_parts`` parts that lie evenly over it. Memory is that of one batch."""
    uris = stage.uris(table)
    chosen = len(uris) if most_parts is None else min(len(uris), most_parts)
    for i in range(chosen):
        with storage.open_read(uris[i * len(uris) // chosen]) as stream:
            yield from pq.ParquetFile(stream).iter_batches(batch_rows, columns=list(columns))


def rank(identifier: str) -> int:
    """A number that orders documents at random, the same way every time."""
    return xxhash.xxh3_64_intdigest(identifier.encode("utf-8"))


class FirstByRank(Generic[Row]):
    """Keeps the few documents with the smallest ranks of all that pass by."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._ranked: list[tuple[int, str]] = []
        self._rows: dict[tuple[int, str], Row] = {}

    def wants(self, identifier: str) -> bool:
        """Whether a document would be among the first, so that the others' texts need not be unpacked."""
        place = (rank(identifier), identifier)
        if len(self._ranked) < self.most:
            return place not in self._rows
        return bool(self._ranked) and place < self._ranked[-1] and place not in self._rows

    def add(self, identifier: str, row: Row) -> None:
        """Takes a document that is wanted."""
        place = (rank(identifier), identifier)
        bisect.insort(self._ranked, place)
        self._rows[place] = row
        if len(self._ranked) > self.most:
            del self._rows[self._ranked.pop()]

    def rows(self) -> list[Row]:
        return [self._rows[place] for place in self._ranked]
