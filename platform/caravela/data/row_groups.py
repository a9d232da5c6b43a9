"""Row groups of packed rows, read through storage one request each, by several threads, and kept while they are needed.

In: a finished pack stage and one of its tables. Out: ``RowGroupArrays`` by row group. A row group's columns lie side by
side in the file, so one ranged read brings all of them, and no byte of its neighbours; where they lie is in the file's
footer, read once. Every page is checked against its checksum, every file's size against the manifest.

``Cache`` holds a fixed number of row groups. One that is held for a batch (``hold`` ... ``release``) stays; of the
others the one that was longest unused goes first.
"""

import collections
import functools
import io
import threading
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from caravela import storage
from caravela.data.order import RowGroup
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.outage import outlasting

COLUMNS = ["tokens", "document_starts", "document_ids", "target_bytes", "padding"]
PATIENCE_S = 2.0
"""A read that takes longer is asked anew; a row group is about a megabyte."""
KEPT_FOOTERS = 256
FOOTER_BYTES = 1 << 16
"""Read from the end of a file; a longer footer takes a second read."""


class RowGroupArrays(NamedTuple):
    """The rows of a row group."""

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    """[rows, context + 1]."""
    start_offsets: npt.NDArray[np.int32]
    """[rows + 1]: the starts of row i are ``starts[start_offsets[i]:start_offsets[i + 1]]``."""
    starts: npt.NDArray[np.int32]
    document_ids: pa.ListArray
    target_bytes: npt.NDArray[np.int32]
    """[rows]."""
    padding: npt.NDArray[np.int32]
    """[rows]: tokens at the row's end that are no targets."""

    @property
    def num_rows(self) -> int:
        return len(self.target_bytes)


class PackedTable:
    """One table of a pack stage. Safe to use from several threads."""

    def __init__(self, pack: Manifest, table: str) -> None:
        self.pack = pack
        self.files = pack.files(table)
        self._footers: collections.OrderedDict[int, pq.FileMetaData] = collections.OrderedDict()
        self._lock = threading.Lock()

    def read(self, group: RowGroup, expected_rows: int) -> RowGroupArrays:
        """A row group, which must hold so many rows.

        Raises:
            UserError: the file is missing, corrupt, or not the one that the manifest knows.
        """
        uri = storage.join(self.pack.uri, self.files[group.part].path)
        try:
            footer = self._footer(group.part, uri)
            found = footer.row_group(group.group).num_rows if group.group < footer.num_row_groups else 0
            if found != expected_rows:
                raise UserError(
                    f"{uri}: row group {group.group} holds {found} rows, but the manifest of {self.pack.stage} "
                    f"makes it {expected_rows}; pack again"
                )
            return _read_group(uri, footer, group.group)
        except storage.StorageError:
            raise  # of a server, not of the file
        except FileNotFoundError:
            raise UserError(f"{uri}: named in the manifest of {self.pack.stage}, but missing") from None
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{uri}: row group {group.group} cannot be read: {reason}; pack again") from error

    def _footer(self, part: int, uri: str) -> pq.FileMetaData:
        with self._lock:
            if part in self._footers:
                self._footers.move_to_end(part)
                return self._footers[part]
        size = self.files[part].bytes
        start = max(0, size - FOOTER_BYTES)
        tail = storage.read_range(uri, start, size + 1, PATIENCE_S)  # one byte more than there should be
        if len(tail) != size - start:
            found = storage.stat(uri)["size"]
            raise UserError(f"{uri}: {found} bytes, but the manifest of {self.pack.stage} says {size}")
        footer = _parsed_footer(uri, size, tail)
        with self._lock:
            self._footers[part] = footer
            while len(self._footers) > KEPT_FOOTERS:
                self._footers.popitem(last=False)
        return footer


class Cache:
    """Row groups on their way or here; used from one thread, filled by the threads of ``readers``."""

    def __init__(self, table: PackedTable, most_groups: int, readers: Executor) -> None:
        self.table = table
        self.most_groups = most_groups
        self._readers = readers
        self._groups: collections.OrderedDict[RowGroup, Future[RowGroupArrays]] = collections.OrderedDict()
        self._holders: collections.Counter[RowGroup] = collections.Counter()

    def hold(self, group: RowGroup, expected_rows: int) -> bool:
        """Asks for a row group to be here; False if that needs room that others hold."""
        if group not in self._groups:
            while len(self._groups) >= self.most_groups:
                free = next((each for each in self._groups if each not in self._holders), None)
                if free is None:
                    return False
                del self._groups[free]
            self._groups[group] = self._readers.submit(
                outlasting, functools.partial(self.table.read, group, expected_rows)
            )
        self._groups.move_to_end(group)
        self._holders[group] += 1
        return True

    def release(self, group: RowGroup) -> None:
        """Ends one ``hold``."""
        self._holders[group] -= 1
        if not self._holders[group]:
            del self._holders[group]

    def get(self, group: RowGroup) -> RowGroupArrays:
        """A row group that is held; waits for it."""
        return self._groups[group].result()


class _Range(io.RawIOBase):
    """A stretch of a file that stands for the whole: what lies outside it is not there."""

    def __init__(self, start: int, data: bytes) -> None:
        self._start, self._data, self._at = start, data, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._start + len(self._data)}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        first = self._at - self._start
        if first < 0:
            raise OSError(f"byte {self._at} is outside the row group, which begins at {self._start}")
        data = self._data[first : first + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _parsed_footer(uri: str, size: int, tail: bytes) -> pq.FileMetaData:
    """The footer of a file of so many bytes, from the last of them."""
    if tail[-4:] != b"PAR1":
        raise pa.ArrowInvalid("it does not end as a Parquet file does")
    length = min(size, int.from_bytes(tail[-8:-4], "little") + 8)
    if length > len(tail):
        tail = storage.read_range(uri, size - length, size, PATIENCE_S)
    return pq.read_metadata(_Range(size - len(tail), tail))


def _read_group(uri: str, footer: pq.FileMetaData, group: int) -> RowGroupArrays:
    columns = footer.row_group(group)
    places = []
    for i in range(columns.num_columns):
        column = columns.column(i)
        if column.path_in_schema.partition(".")[0] in COLUMNS:
            first = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            places.append((first, first + column.total_compressed_size))
    start, end = min(first for first, _ in places), max(last for _, last in places)
    data = storage.read_range(uri, start, end, PATIENCE_S)
    if len(data) < end - start:
        raise pa.ArrowInvalid(f"{len(data)} bytes where {end - start} should be")
    file = pq.ParquetFile(_Range(start, data), metadata=footer, page_checksum_verification=True)
    table = file.read_row_group(group, columns=COLUMNS, use_threads=False).combine_chunks()
    tokens, starts, ids, sizes, padding = (table[name].chunk(0) for name in COLUMNS)
    return RowGroupArrays(
        tokens.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, -1),
        starts.offsets.to_numpy(),
        starts.values.to_numpy(zero_copy_only=False),
        ids,
        sizes.to_numpy(),
        padding.to_numpy(),
    )
