"""One shard of documents, read to be packed: what must be known of all of them, and their texts pass by pass.

In: a part of a table ``documents`` and how many rows its manifest gives it. A part that is missing, shorter or longer,
or of which a page fails its checksum is one line of error: nothing is packed of it. Memory: ids and sources of the
shard, and one batch of texts.
"""

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caravela import storage
from caravela.data import groups
from caravela.data.rows import Numbers
from caravela.errors import UserError

BATCH_DOCUMENTS = 256
REPEATS = "repeats"


class ShardDocuments:
    """``with ShardDocuments(...) as documents: documents.batches(0)``."""

    def __init__(
        self, uri: str, num_rows: int, fields: Sequence[str], optional: Sequence[str], rehydrate: bool
    ) -> None:
        """Names what is read.

        Args:
            uri: of the part.
            num_rows: that the manifest gives it.
            fields: what documents are grouped by; a missing one is an error.
            optional: more of them, each left out where the table has no such column.
            rehydrate: whether the column ``repeats`` counts, where there is one.
        """
        self.uri = uri
        self.num_rows = num_rows
        self.fields = tuple(fields)
        self.optional = tuple(optional)
        self.rehydrate = rehydrate
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with reading(self.uri):
            stream = self._open.enter_context(storage.open_read(self.uri))
            self._file = pq.ParquetFile(stream, page_checksum_verification=True)
        if self._file.metadata.num_rows != self.num_rows:
            raise UserError(
                f"{self.uri}: {self._file.metadata.num_rows} rows, but its manifest says {self.num_rows}; "
                f"delete the stage's folder and run it again"
            )
        present = self._file.schema_arrow.names
        self.fields += tuple(name for name in self.optional if name in present)
        self._columns = ["text", *groups.columns_of(self.fields, present, storage.shown(self.uri))]
        counted = self.rehydrate and REPEATS in present
        with reading(self.uri):
            known = self._file.read(["id", "source", *([REPEATS] if counted else [])]).combine_chunks()
        self.ids = _one_array(known["id"])
        """Of every document, by its number in the shard."""
        self.sources = _one_array(known["source"].fill_null("")).dictionary_encode()
        self.copies: Numbers = np.ones(self.num_rows, np.int64)
        """How often each is packed."""
        if counted:
            self.copies = known[REPEATS].fill_null(1).to_numpy().astype(np.int64)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def batches(self, more_than: int) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """Documents that are packed more than so often: their numbers, their texts and what they are grouped by."""
        batches = self._file.iter_batches(BATCH_DOCUMENTS, columns=self._columns)
        first = 0
        while True:
            with reading(self.uri):
                batch = next(batches, None)
            if batch is None:
                return
            wanted = self.copies[first : first + batch.num_rows] > more_than
            if wanted.any():
                yield first + np.flatnonzero(wanted), batch if wanted.all() else batch.filter(pa.array(wanted))
            first += batch.num_rows

    @property
    def passes(self) -> int:
        """The most copies of a document."""
        return int(self.copies.max(initial=0))


@contextlib.contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turns what pyarrow raises for a bad file into one line."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        why = "missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {' '.join(str(error).split())}"
        raise UserError(f"{storage.shown(uri)}: {why}; delete its stage's folder and run the stage again") from error


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], column.type)
    )


def text_bytes(batch: pa.RecordBatch) -> Numbers:
    """UTF-8 bytes of every text."""
    sizes: Numbers = pc.binary_length(batch["text"]).fill_null(0).to_numpy().astype(np.int64)
    return sizes
