"""Batches of packed rows for training, read ahead of need from the parts of one or more pack stages.

In: finished pack stages (schema.packed) with their weights, a seed, a rank. Out: for each global batch, this rank's
rows. Its state is the number of the next batch and nothing else, so resuming anywhere costs the reading of one window
of each source.

A thread reads row groups through storage, keeps the last few decoded (``CACHE_WINDOWS`` windows of each source), and
stays ``PREFETCH_BATCHES`` ahead. Price: each rank reads the whole window that its rows are spread over, so storage
serves every row once per rank.
"""

import collections
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from caravela import storage
from caravela.data.mixture import Mixture
from caravela.data.order import BlockShuffle, Row, RowGroup, positions
from caravela.errors import UserError
from caravela.manifest import Manifest

CACHE_WINDOWS = 2
PREFETCH_BATCHES = 2
OPEN_PARTS = 64
COLUMNS = ["tokens", "document_starts", "document_ids", "target_bytes"]


class Source(NamedTuple):
    """Rows to draw from."""

    name: str
    """Tells sources apart; the order of a source's rows depends on it."""
    pack: Manifest
    weight: float = 1.0
    """Its share of tokens, beside the others' weights."""
    max_epochs: float | None = None
    """How often its rows may come; None for as often as asked."""


class Batch(NamedTuple):
    """Some rows, in order. Inputs are ``tokens[:, :-1]``, targets ``tokens[:, 1:]``."""

    tokens: npt.NDArray[np.int64]
    """[rows, context + 1]."""
    document_ids: list[list[str]]
    document_starts: list[list[int]]
    target_bytes: int
    """UTF-8 bytes that all the targets stand for."""
    sources: list[int]
    """Of each row the number of its source."""


class Parts:
    """The row groups of one table of a pack stage, decoded and kept while they are likely to be wanted again."""

    def __init__(self, pack: Manifest, table: str, cached_groups: int) -> None:
        self.pack = pack
        self.files = pack.files(table)
        self.cached_groups = cached_groups
        self._open: collections.OrderedDict[int, pq.ParquetFile] = collections.OrderedDict()
        self._groups: collections.OrderedDict[RowGroup, pa.Table] = collections.OrderedDict()

    def table(self, group: RowGroup, expected_rows: int) -> pa.Table:
        """A row group, which must hold so many rows."""
        if group in self._groups:
            self._groups.move_to_end(group)
            return self._groups[group]
        uri = storage.join(self.pack.uri, self.files[group.part].path)
        try:
            table = self._part(group.part, uri).read_row_group(group.group, columns=COLUMNS).combine_chunks()
        except FileNotFoundError:
            raise UserError(f"{uri}: named in the manifest of {self.pack.stage}, but missing") from None
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{uri}: row group {group.group} cannot be read: {reason}; pack again") from error
        if table.num_rows != expected_rows:
            raise UserError(
                f"{uri}: row group {group.group} holds {table.num_rows} rows, but the manifest of {self.pack.stage} "
                f"makes it {expected_rows}; pack again"
            )
        self._groups[group] = table
        while len(self._groups) > self.cached_groups:
            self._groups.popitem(last=False)
        return table

    def _part(self, part: int, uri: str) -> pq.ParquetFile:
        if part not in self._open:
            size, record = storage.stat(uri)["size"], self.files[part]
            if size != record.bytes:
                raise UserError(f"{uri}: {size} bytes, but the manifest of {self.pack.stage} says {record.bytes}")
            self._open[part] = pq.ParquetFile(storage.open_read(uri), page_checksum_verification=True)
            while len(self._open) > OPEN_PARTS:
                self._open.popitem(last=False)[1].close(force=True)
        self._open.move_to_end(part)
        return self._open[part]

    def close(self) -> None:
        for part in self._open.values():
            part.close(force=True)
        self._open.clear()
        self._groups.clear()


def _collated(draws: Sequence[tuple[int, Row]], tables: Sequence[pa.Table]) -> Batch:
    """A batch of rows, each from the table of its row group."""
    tokens = np.empty((len(draws), tables[0].schema.field("tokens").type.list_size if tables else 0), np.int64)
    ids, starts, size = [], [], 0
    for slot, ((_, row), table) in enumerate(zip(draws, tables, strict=True)):
        tokens[slot] = table["tokens"].chunk(0)[row.row].values.to_numpy(zero_copy_only=False)
        ids.append(table["document_ids"][row.row].as_py())
        starts.append(table["document_starts"][row.row].as_py())
        size += table["target_bytes"][row.row].as_py()
    return Batch(tokens, ids, starts, size, [source for source, _ in draws])


class Loader:
    """One rank's stream of batches; ``with Loader(...) as loader: loader.batches(first)``.

    Raises:
        ValueError: weights or epochs of the sources cannot be, see ``caravela.data.mixture``.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        seed: int,
        batch_rows: int,
        window_groups: int,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.batch_rows = batch_rows
        self.rank = rank
        self.num_ranks = num_ranks
        self.order = mixture_of(sources, seed, window_groups)
        self._parts = [Parts(source.pack, "train", CACHE_WINDOWS * window_groups) for source in sources]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        for parts in self._parts:
            parts.close()

    def batches(self, first: int) -> Iterator[Batch]:
        """This rank's rows of global batches ``first``, ``first + 1`` ...

        Raises:
            UserError: a part is missing, corrupt or not what the manifest says; named when its batch is due.
        """
        waiting: collections.deque[Future[Batch]] = collections.deque()
        last = None if self.order.schedule.slots is None else self.order.schedule.slots // self.batch_rows
        number = first
        while True:
            while len(waiting) <= PREFETCH_BATCHES and (last is None or number < last):
                waiting.append(self._thread.submit(self._read, number))
                number += 1
            if not waiting:
                return
            yield waiting.popleft().result()

    def _read(self, number: int) -> Batch:
        draws = [self.order.row(p) for p in positions(number, self.batch_rows, self.rank, self.num_ranks)]
        tables = [
            self._parts[source].table(row.group, self.order.shuffles[source].group_rows(row.group))
            for source, row in draws
        ]
        return _collated(draws, tables)


def mixture_of(sources: Sequence[Source], seed: int, window_groups: int) -> Mixture:
    """The training order of some sources.

    Raises:
        UserError: their rows are not of one length, or not of one tokenizer.
    """
    for name in ("context", "tokenizer"):
        found = {source.name: source.pack.summary.get(name) for source in sources}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{source}: {value}" for source, value in found.items())
            raise UserError(f"sources are packed with different {name}s ({said}); pack them alike")
    shuffles = [
        BlockShuffle(
            [file.rows for file in source.pack.files("train")],
            int(source.pack.config["row_group_rows"]),
            xxhash.xxh3_64_intdigest(f"{seed} {source.name}".encode()),
            window_groups,
        )
        for source in sources
    ]
    return Mixture(shuffles, [source.weight for source in sources], [source.max_epochs for source in sources])


def held_out_batches(pack: Manifest, max_rows: int, batch_rows: int, rank: int, num_ranks: int) -> Iterator[Batch]:
    """At most ``max_rows`` validation rows, spread evenly over the table; each rank gets a contiguous share."""
    files = pack.files("validation")
    total = sum(file.rows for file in files)
    if total == 0:
        return
    wanted = min(total, max_rows)
    size = int(pack.config["row_group_rows"])
    ends = np.cumsum([file.rows for file in files])
    rows, expected = [], {}
    for i in positions(0, wanted, rank, num_ranks):
        at = i * total // wanted
        part = int(np.searchsorted(ends, at, side="right"))
        group, row = divmod(at - (int(ends[part - 1]) if part else 0), size)
        where = RowGroup(part, group)
        expected[where] = min(size, files[part].rows - group * size)
        rows.append(Row(0, where, row))
    parts = Parts(pack, "validation", cached_groups=1)
    for start in range(0, len(rows), batch_rows):
        some = rows[start : start + batch_rows]
        yield _collated([(0, row) for row in some], [parts.table(row.group, expected[row.group]) for row in some])
    parts.close()
