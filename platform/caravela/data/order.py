"""Which packed row is trained on when: a pure function of (seed, the manifest's row counts, position).

In: how many rows each part holds, the rows of a row group, a seed. Out: for any position of the endless training order,
the epoch, part, row group and row that stand there, and the other way round. It knows nothing of workers, of steps or
of restarts.

Block shuffle: an epoch permutes all row groups, takes them ``window_groups`` at a time, and shuffles the rows of such a
window. So a reader fetches whole row groups one after the other and holds one window, which is what object storage
wants. Price: two rows of one row group are never further apart than a window. Every row comes once an epoch.

Permutations are ``argsort`` of hashed indices, not a library's generator, whose streams may change with its version.
Memory: a few numbers per row group, and one window of rows. Cost of any position: one sort of the row groups, kept per
epoch, and one of a window.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
WORD = (1 << 64) - 1


class RowGroup(NamedTuple):
    """The unit of reading."""

    part: int
    """Index of the part in the manifest's order."""
    group: int
    """Index of the row group in the part."""


class Row(NamedTuple):
    """What stands at a position of the order."""

    epoch: int
    group: RowGroup
    row: int
    """Index of the row in its row group."""


def rank_slice(batch_rows: int, rank: int, num_ranks: int) -> range:
    """The slots of a global batch that a rank takes: contiguous, all covered once, sizes differ by at most one."""
    if not 0 <= rank < num_ranks:
        raise ValueError(f"rank = {rank}: expected 0 to {num_ranks - 1}")
    return range(rank * batch_rows // num_ranks, (rank + 1) * batch_rows // num_ranks)


class BlockShuffle:
    """The endless order over the rows of one source."""

    def __init__(self, part_rows: Sequence[int], row_group_rows: int, seed: int, window_groups: int) -> None:
        """Lays out the row groups.

        Args:
            part_rows: rows of each part, in the manifest's order.
            row_group_rows: rows of every row group but a part's last, which may hold fewer.
            seed: another seed, another order.
            window_groups: row groups that are shuffled together.
        """
        if row_group_rows < 1 or window_groups < 1:
            raise ValueError(f"row_group_rows = {row_group_rows}, window_groups = {window_groups}: expected at least 1")
        self.seed = seed
        self.window_groups = window_groups
        rows = np.asarray(part_rows, np.int64)
        counts = -(-rows // row_group_rows)
        starts = np.cumsum(counts) - counts
        self._part = np.repeat(np.arange(len(rows)), counts)
        self._group = np.arange(int(counts.sum())) - starts[self._part]
        self._rows = np.minimum(row_group_rows, rows[self._part] - self._group * row_group_rows)
        self.rows_per_epoch = int(rows.sum())
        if self.rows_per_epoch == 0:
            raise ValueError("part_rows: expected at least one row to put in order")
        # Per instance, as the layout is the instance's; a reader is in one window, or on its way to the next.
        self._epoch = functools.lru_cache(maxsize=2)(self._lay_out_epoch)
        self._window = functools.lru_cache(maxsize=2)(self._shuffle_window)

    def row(self, position: int) -> Row:
        """What stands at one position."""
        epoch, offset = divmod(position, self.rows_per_epoch)
        _, ends = self._epoch(epoch)
        window = int(np.searchsorted(ends, offset, side="right"))
        groups, rows = self._window(epoch, window)
        slot = offset - (int(ends[window - 1]) if window else 0)
        index = groups[slot]
        return Row(epoch, RowGroup(int(self._part[index]), int(self._group[index])), int(rows[slot]))

    def rows(self, where: range) -> list[Row]:
        """What stands at many positions."""
        return [self.row(position) for position in where]

    def position(self, epoch: int, group: RowGroup, row: int) -> int:
        """Where a row stands in an epoch, counted from the beginning of the order: the other way round than ``row``."""
        index = self._index(group)
        order, ends = self._epoch(epoch)
        window = int(np.flatnonzero(order == index)[0]) // self.window_groups
        groups, rows = self._window(epoch, window)
        slot = int(np.flatnonzero((groups == index) & (rows == row))[0])
        return epoch * self.rows_per_epoch + (int(ends[window - 1]) if window else 0) + slot

    def group_rows(self, group: RowGroup) -> int:
        """How many rows a row group must hold."""
        return int(self._rows[self._index(group)])

    def _index(self, group: RowGroup) -> int:
        return int(np.searchsorted(self._part, group.part)) + group.group

    def _lay_out_epoch(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The row groups in the order of an epoch, and at which offset each window of them ends."""
        order = permutation(len(self._rows), self.seed, epoch)
        totals = np.cumsum(self._rows[order])
        lasts = np.arange(self.window_groups - 1, len(order), self.window_groups)
        if len(lasts) == 0 or lasts[-1] != len(order) - 1:
            lasts = np.append(lasts, len(order) - 1)
        return order, totals[lasts]

    def _shuffle_window(self, epoch: int, window: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each slot of a window: index of the row group, and of the row in it."""
        order, _ = self._epoch(epoch)
        groups = order[window * self.window_groups : (window + 1) * self.window_groups]
        sizes = self._rows[groups]
        owner = np.repeat(groups, sizes)
        row = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        shuffled = permutation(len(owner), self.seed, epoch, window + 1)
        return owner[shuffled], row[shuffled]


def permutation(length: int, *key: int) -> npt.NDArray[np.int64]:
    """A permutation of ``range(length)`` that depends on the key alone, the same on every machine for ever."""
    state = 0
    for part in key:
        state = int(_mixed(np.array([(state + part * GOLDEN_GAMMA + GOLDEN_GAMMA) & WORD], np.uint64))[0])
    counters = np.arange(length, dtype=np.uint64) * np.uint64(GOLDEN_GAMMA) + np.uint64(state)
    return np.argsort(_mixed(counters), kind="stable").astype(np.int64)


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection of 64-bit words."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
