"""Batches of packed rows for training, read ahead of need from the parts of one or more pack stages.

In: a training order, a rank. Out: for each step, this rank's rows. Its state is the number of the next step and nothing
else, so resuming anywhere costs the reading of one window of each source.

One thread plans the steps to come and collates; ``READERS`` threads fetch the row groups that they need, in the order
in which they need them. Of each source ``CACHE_WINDOWS`` windows are kept, which bounds both memory and how far ahead
is read. Price: each rank reads the whole window that its rows are spread over, so storage serves every row once per
rank.
"""

import collections
import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.data.order import Row, RowGroup, rank_slice
from caravela.data.row_groups import Cache, PackedTable, RowGroupArrays
from caravela.data.training_order import Sample, TrainingOrder
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.outage import outlasting

CACHE_WINDOWS = 2
PREFETCH_BATCHES = 2
PLANNED_BATCHES = 64
READERS = 8


class BatchRows(NamedTuple):
    """Rows of one length."""

    tokens: npt.NDArray[np.int64]
    """[rows, context + 1]."""
    document_starts: list[list[int]]
    padding: npt.NDArray[np.int64]
    """[rows]: targets at each row's end that do not count."""
    sources: list[int]
    """Of each row the number of its source."""


@dataclass(frozen=True)
class Batch:
    """Some rows, in order. Inputs are ``tokens[:, :-1]``, targets ``tokens[:, 1:]``."""

    tokens: npt.NDArray[np.int64]
    """[rows, context + 1]."""
    document_starts: list[list[int]]
    target_bytes: int
    """UTF-8 bytes that all the targets stand for."""
    padding: npt.NDArray[np.int64]
    """[rows]: tokens at each row's end that are no targets."""
    sources: list[int]
    """Of each row the number of its source."""
    _ids: list[tuple[pa.ListArray, int]]

    @property
    def document_ids(self) -> list[list[str]]:
        """Of each row its documents; made when it is asked for."""
        return [ids[row].as_py() for ids, row in self._ids]

    @property
    def num_targets(self) -> int:
        """Targets that count."""
        return self.tokens[:, 1:].size - int(self.padding.sum())

    def rows(self, first: int, last: int, context: int) -> BatchRows:
        """Some rows, each divided into rows of a shorter context.

        Args:
            first: row to begin with.
            last: row to stop before.
            context: divides the rows' own; every target stays, once.
        """
        tokens, starts, padding = self.tokens[first:last], self.document_starts[first:last], self.padding[first:last]
        sources = self.sources[first:last]
        whole = tokens.shape[1] - 1
        if context == whole:
            return BatchRows(tokens, starts, padding, sources)
        windows = np.lib.stride_tricks.sliding_window_view(tokens, context + 1, axis=1)[:, ::context]
        cuts = range(0, whole, context)
        divided = [[start - cut for start in row if cut <= start <= cut + context] for row in starts for cut in cuts]
        counted = whole - padding[:, None] - np.arange(0, whole, context)
        uncounted = (context - counted.clip(0, context)).ravel()
        sources = [source for source in sources for _ in cuts]
        return BatchRows(windows.reshape(-1, context + 1), divided, uncounted, sources)


class _Plan(NamedTuple):
    """A batch to come: the rows, and the row groups that are held for it."""

    samples: list[Sample]
    groups: list[tuple[int, RowGroup]]


class Loader:
    """One rank's stream of batches; ``with Loader(...) as loader: loader.batches(first_step)``.

    Raises:
        UserError: the windows of all sources need more memory than ``memory_mb``.
    """

    def __init__(self, order: TrainingOrder, rank: int = 0, num_ranks: int = 1, memory_mb: float = 4096) -> None:
        self.order = order
        self.slots = rank_slice(order.batch_rows, rank, num_ranks)
        groups = CACHE_WINDOWS * max(shuffle.window_groups for shuffle in order.shuffles)
        needed = groups * sum(_group_bytes(source.pack, order.row_context) for source in order.sources)
        if needed > memory_mb * 1e6:
            raise UserError(
                f"train.loader_memory_mb = {memory_mb:g}: {groups} row groups of each source take up to "
                f"{needed / 1e6:,.0f} MB; raise it, or lower train.shuffle_row_groups or pack.row_group_rows"
            )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="loader-reader")
        self._caches = [Cache(PackedTable(source.pack, "train"), groups, self._readers) for source in order.sources]
        self._plans: collections.deque[_Plan] = collections.deque()
        self._next_planned = 1

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._readers.shutdown(wait=True, cancel_futures=True)

    def batches(self, first_step: int) -> Iterator[Batch]:
        """This rank's rows of steps ``first_step``, ``first_step + 1`` ... to the last. Called once.

        Raises:
            UserError: a part is missing, corrupt or not what the manifest says; named when its batch is due.
        """
        self._next_planned = first_step
        waiting: collections.deque[Future[Batch]] = collections.deque()
        for step in range(first_step, self.order.steps + PREFETCH_BATCHES + 1):
            if step <= self.order.steps:
                waiting.append(self._thread.submit(self._next))
            if waiting and (len(waiting) > PREFETCH_BATCHES or step > self.order.steps):
                yield waiting.popleft().result()

    def _next(self) -> Batch:
        """The next batch; first asks for the row groups of those that come after it."""
        while len(self._plans) < PLANNED_BATCHES and self._next_planned <= self.order.steps:
            plan = self._planned(self._next_planned)
            if not self._hold(plan, must=not self._plans):
                break
            self._plans.append(plan)
            self._next_planned += 1
        plan = self._plans.popleft()
        batch = collated(plan.samples, [self._caches[source].get(row.group) for source, row in plan.samples])
        for source, group in plan.groups:
            self._caches[source].release(group)
        return batch

    def _planned(self, step: int) -> _Plan:
        samples = [self.order.sample(step, slot) for slot in self.slots]
        return _Plan(samples, list(dict.fromkeys((source, row.group) for source, row in samples)))

    def _hold(self, plan: _Plan, must: bool) -> bool:
        """Asks for a plan's row groups; False, and none is held, where the caches have no room for them."""
        for count, (source, group) in enumerate(plan.groups):
            rows = self.order.shuffles[source].group_rows(group)
            if self._caches[source].hold(group, rows):
                continue
            if must:  # a batch of more than two windows: no other is held, and the cache grows with it
                self._caches[source].most_groups = len(plan.groups)
                self._caches[source].hold(group, rows)
                continue
            for held_source, held in plan.groups[:count]:
                self._caches[held_source].release(held)
            return False
        return True


def collated(samples: Sequence[tuple[int, Row]], groups: Sequence[RowGroupArrays]) -> Batch:
    """A batch of rows, each from the arrays of its row group."""
    tokens = np.empty((len(samples), groups[0].tokens.shape[1] if groups else 0), np.int64)
    starts, size = [], 0
    for slot, ((_, row), group) in enumerate(zip(samples, groups, strict=True)):
        tokens[slot] = group.tokens[row.row]
        first, last = group.start_offsets[row.row : row.row + 2].tolist()
        starts.append(group.starts[first:last].tolist())
        size += int(group.target_bytes[row.row])
    ids = [(group.document_ids, row.row) for (_, row), group in zip(samples, groups, strict=True)]
    padding = np.array([group.padding[row.row] for (_, row), group in zip(samples, groups, strict=True)], np.int64)
    return Batch(tokens, starts, size, padding, [source for source, _ in samples], ids)


def num_held_out_batches(pack: Manifest, max_rows: int, batch_rows: int) -> int:
    """Of how many batches ``held_out_batches`` gives every rank its share."""
    return -(-min(max_rows, sum(file.rows for file in pack.files("validation"))) // batch_rows)


def held_out_batches(pack: Manifest, max_rows: int, batch_rows: int, rank: int, num_ranks: int) -> Iterator[Batch]:
    """At most ``max_rows`` validation rows, spread evenly over the table, in batches; each rank gets whole batches.

    So the batches are the same for any number of ranks; those of a rank are contiguous.
    """
    files = pack.files("validation")
    total = sum(file.rows for file in files)
    wanted = min(total, max_rows)
    size = int(pack.config["row_group_rows"])
    ends = np.cumsum([file.rows for file in files])
    table = PackedTable(pack, "validation")
    last: tuple[RowGroup, RowGroupArrays] | None = None
    for batch in rank_slice(num_held_out_batches(pack, max_rows, batch_rows), rank, num_ranks):
        rows: list[Row] = []
        groups: list[RowGroupArrays] = []
        for i in range(batch * batch_rows, min((batch + 1) * batch_rows, wanted)):
            at = i * total // wanted
            part = int(np.searchsorted(ends, at, side="right"))
            group, row = divmod(at - (int(ends[part - 1]) if part else 0), size)
            where = RowGroup(part, group)
            if last is None or last[0] != where:
                read = functools.partial(table.read, where, min(size, files[part].rows - group * size))
                last = where, outlasting(read)
            rows.append(Row(0, where, row))
            groups.append(last[1])
        yield collated([Sample(0, row) for row in rows], groups)


def _group_bytes(pack: Manifest, context: int) -> int:
    """Most bytes that a row group takes in memory: tokens, and room for starts and ids of its documents."""
    per_token = 2 if int(pack.summary["vocabulary_size"]) <= 1 << 16 else 4
    return int(pack.config["row_group_rows"]) * ((context + 1) * per_token + 512)
