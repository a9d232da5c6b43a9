"""Rows of tokens made from segments of documents, and written in full row groups.

In: token ids end to end, and where which stretch of them goes. Out: a table of schema.packed whose row groups hold
``row_group_rows`` rows each, the last one of the shard what is left; readers find a row by this alone.

What a row does not fill is padding at its end: the id that ends a document, 0 bytes of text, no target
(``counted_targets``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.data import tokenizer as tokenizers
from caravela.data.encoding import Ids
from caravela.stages import TableWriter

BUILT_TOKENS = 1 << 18
"""Rows are built so many tokens at a time, at least a row group of them."""
Numbers = npt.NDArray[np.int64]


class Segments(NamedTuple):
    """Stretches of documents in the order in which they stand: by row, then from left to right, without gaps."""

    row: Numbers
    length: Numbers
    document: Numbers
    """Its number in the shard."""
    source: Numbers
    """Where the stretch begins in the ids."""


class RowWriter:
    """Builds rows and writes them as soon as they fill a row group."""

    def __init__(
        self,
        table: TableWriter,
        sizes: npt.NDArray[np.int32],
        row_group_rows: int,
        ids: pa.Array,
        filler: int = tokenizers.END,
    ) -> None:
        self.table = table
        self.filler = filler
        self.sizes = sizes
        self.width = int(table.schema.field("tokens").type.list_size)
        self.row_group_rows = row_group_rows
        self.document_ids = ids
        """Of all documents of the shard, by number."""
        self.rows = self.padding = 0
        self.first_documents: list[Numbers] = []
        """Number of the document that each row begins with."""
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def write(self, ids: Ids, segments: Segments, num_rows: int) -> None:
        """Adds rows ``0 … num_rows - 1`` of the segments."""
        borders = np.searchsorted(segments.row, np.arange(num_rows + 1))
        at_once = self.row_group_rows * max(1, BUILT_TOKENS // (self.width * self.row_group_rows))
        for first in range(0, num_rows, at_once):
            last = min(num_rows, first + at_once)
            here = slice(int(borders[first]), int(borders[last]))
            offsets = borders[first : last + 1] - borders[first]
            self._add(self._rows(ids, Segments(*(column[here] for column in segments)), offsets, first))

    def close(self) -> None:
        """Writes the last, smaller row group."""
        if self._waiting_rows:
            self.table.add_batch(pa.concat_tables(self._waiting).combine_chunks(), self.row_group_rows)
        self._waiting, self._waiting_rows = [], 0

    def _rows(self, ids: Ids, segments: Segments, offsets: Numbers, first: int) -> pa.Table:
        """``offsets``: where each row's segments begin among these, and where the last row's end."""
        num_rows = len(offsets) - 1
        ends = np.cumsum(segments.length)
        starts = ends - segments.length
        used = np.diff(np.concatenate([[0], ends])[offsets])
        columns = starts - np.repeat(starts[offsets[:-1]], np.diff(offsets))
        tokens = np.full(num_rows * self.width, self.filler, ids.dtype)
        places = (segments.row - first) * self.width + columns
        for at, source, length in zip(places.tolist(), segments.source.tolist(), segments.length.tolist(), strict=True):
            tokens[at : at + length] = ids[source : source + length]
        padding = self.width - used
        self.padding += int(padding.sum())
        self.rows += num_rows
        self.first_documents.append(segments.document[offsets[:-1]])
        matrix = tokens.reshape(num_rows, self.width)
        lists = pa.array(offsets, pa.int32())
        made = {
            "tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens), self.width),
            "document_starts": pa.ListArray.from_arrays(lists, pa.array(columns, pa.int32())),
            "document_ids": pa.ListArray.from_arrays(lists, self.document_ids.take(pa.array(segments.document))),
            "target_bytes": pa.array(self.sizes[matrix[:, 1:]].sum(axis=1), pa.int32()),
            "padding": pa.array(padding, pa.int32()),
        }
        return pa.table(made, schema=self.table.schema)

    def _add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        if full := self._waiting_rows // self.row_group_rows * self.row_group_rows:
            whole = pa.concat_tables(self._waiting)
            # In one piece: Parquet's pages end where a piece ends.
            self.table.add_batch(whole.slice(0, full).combine_chunks(), self.row_group_rows)
            rest = whole.slice(full)
            self._waiting, self._waiting_rows = [rest] if rest.num_rows else [], rest.num_rows


class Gathered(NamedTuple):
    """Documents that wait for their rows."""

    ids: Ids
    """Of all of them, end to end."""
    lengths: Numbers
    documents: Numbers
    """Their numbers in the shard."""

    @classmethod
    def of(cls, parts: "Sequence[Gathered]") -> "Gathered":
        """All in one."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def counted_targets(padding: npt.NDArray[np.integer], context: int) -> npt.NDArray[np.bool_]:
    """Which targets count, [rows, context]: all but padding. Target ``i`` is token ``i + 1`` of the row."""
    counted: npt.NDArray[np.bool_] = np.arange(1, context + 1) < (context + 1 - np.asarray(padding))[:, None]
    return counted
