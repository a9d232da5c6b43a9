"""Which source fills which slot of the training order, so that shares are exact at every prefix.

In: the sources' weights and, where a source must not be repeated for ever, how many rows it may give in all. Out: for
any slot, its source and how many rows that source gave before it; a pure function, at the same cost for any slot.

Rows of all sources hold equally many tokens, so weights by rows are weights by tokens. Weights are taken as the exact
decimals that they are written as; they give a period, in which each source has a whole number of rows. Within it rows
are jobs of one slot each: row k of a source with share w is released at slot floor(k / w) and due by ceil((k + 1) / w),
and the released row that is due first comes first. That meets every due time (Baruah, Cohen, Plaxton, Varvel,
"Proportionate progress", Algorithmica 1996), and so each source has, after n slots, less than one row more or less than
w · n.

A source that has given all of its rows leaves, and the others share its slots by their weights from there on, again
within one row. Memory: twelve bytes per slot of a period.
"""

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST_SLOTS = 1_000_000
"""Of a period: six decimals of a share."""


class Draw(NamedTuple):
    """What fills a slot."""

    source: int
    row: int
    """How many rows the source gave before, since the beginning."""


class _Segment(NamedTuple):
    """A stretch of slots with the same sources."""

    start: int
    given: tuple[int, ...]
    """By source: rows before ``start``."""
    shares: tuple[int, ...]
    """By source: rows in a period, 0 for one that has left."""
    source: npt.NDArray[np.int32]
    """[period]: which source fills each slot of a period."""
    rank: npt.NDArray[np.int64]
    """[period]: how many slots before it, in the period, the same source fills."""

    def rows_before(self, slot: int) -> tuple[int, ...]:
        """By source: rows before a slot."""
        periods, at = divmod(slot - self.start, len(self.source))
        inside = np.bincount(self.source[:at], minlength=len(self.shares)).tolist()
        return tuple(
            given + periods * share + more for given, share, more in zip(self.given, self.shares, inside, strict=True)
        )

    def slot_of(self, source: int, row: int) -> int:
        """The slot that a row of a source fills, if the segment goes on for ever."""
        periods, rest = divmod(row - self.given[source], self.shares[source])
        return self.start + periods * len(self.source) + int(np.flatnonzero(self.source == source)[rest])

    def last_slot(self, limits: Sequence[int | None]) -> int | None:
        """The first slot for which the source that is due has no row left; None if that never happens."""
        ends = []
        for source, (limit, given, share) in enumerate(zip(limits, self.given, self.shares, strict=True)):
            if limit is not None and share:
                ends.append(self.slot_of(source, max(limit, given)))
        return min(ends, default=None)


class Schedule:
    """The sources of all slots.

    Args:
        weights: of the sources, 0 for one that gives nothing; what they add up to does not matter.
        limits: the rows that each source may give in all; None for as many as are asked for.
        given: the rows that each source gave before the first slot.

    Raises:
        ValueError: a weight is below 0 or all are 0, weights need a longer period than ``MOST_SLOTS``, or the numbers
            of weights, limits and given rows differ.
    """

    def __init__(
        self, weights: Sequence[float], limits: Sequence[int | None] | None = None, given: Sequence[int] | None = None
    ) -> None:
        self._limits = tuple(limits) if limits is not None else (None,) * len(weights)
        first = tuple(given) if given is not None else (0,) * len(weights)
        if not len(weights) == len(self._limits) == len(first) > 0:
            raise ValueError(
                f"{len(weights)} weights, {len(self._limits)} limits, {len(first)} given: expected as many"
            )
        exact = [Fraction(repr(weight)) for weight in weights]
        if min(exact) < 0 or not any(exact):
            raise ValueError(f"weights = {list(weights)}: expected numbers from 0, one of them above it")
        self._segments: list[_Segment] = []
        self.slots: int | None = None
        """How many slots can be filled; None if there is no end."""
        start: int | None = 0
        while start is not None:
            left = [
                weight > 0 and (limit is None or rows < limit)
                for weight, limit, rows in zip(exact, self._limits, first, strict=True)
            ]
            if not any(left):
                self.slots = start
                break
            shares = _whole([weight if here else Fraction(0) for weight, here in zip(exact, left, strict=True)])
            source, rank = _period(shares)
            self._segments.append(_Segment(start, first, shares, source, rank))
            start = self._segments[-1].last_slot(self._limits)
            if start is not None:
                first = self._segments[-1].rows_before(start)

    def draw(self, slot: int) -> Draw:
        """What fills a slot.

        Raises:
            IndexError: no source has a row left for it.
        """
        if slot < 0 or (self.slots is not None and slot >= self.slots):
            raise IndexError(f"slot {slot}: the sources fill {self.slots}")
        segment = self._segment(slot)
        periods, at = divmod(slot - segment.start, len(segment.source))
        source = int(segment.source[at])
        return Draw(source, segment.given[source] + periods * segment.shares[source] + int(segment.rank[at]))

    def rows_before(self, slot: int) -> tuple[int, ...]:
        """By source: the rows given before a slot, those before the first one included."""
        return self._segment(slot).rows_before(slot)

    def slot_of(self, source: int, row: int) -> int | None:
        """The slot that a row of a source fills, counted as in ``Draw``; None if it fills none."""
        for segment in reversed(self._segments):
            if row >= segment.given[source]:
                found = segment.slot_of(source, row) if segment.shares[source] else None
                inside = found is not None and (self.slots is None or found < self.slots)
                limit = self._limits[source]
                return found if inside and (limit is None or row < limit) else None
        return None

    def _segment(self, slot: int) -> _Segment:
        return next(segment for segment in reversed(self._segments) if segment.start <= slot)


def _whole(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """The smallest whole numbers in the same proportion."""
    scale = math.lcm(*(weight.denominator for weight in weights))
    scaled = [int(weight * scale) for weight in weights]
    shares = tuple(each // math.gcd(*scaled) for each in scaled)
    if sum(shares) > MOST_SLOTS:
        raise ValueError(
            f"weights = {[float(weight) for weight in weights]}: repeat after {sum(shares):,} rows only, expected at "
            f"most {MOST_SLOTS:,}; give them with fewer decimals"
        )
    return shares


def _period(shares: Sequence[int]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Of each slot of a period its source, and how many slots before it that has."""
    slots = sum(shares)
    source, rank = np.empty(slots, np.int32), np.empty(slots, np.int64)
    waiting = [(0, number) for number, share in enumerate(shares) if share]
    released: list[tuple[int, int]] = []
    given = [0] * len(shares)
    for slot in range(slots):
        while waiting and waiting[0][0] <= slot:
            _, number = heapq.heappop(waiting)
            heapq.heappush(released, (-(-(given[number] + 1) * slots // shares[number]), number))
        due, number = heapq.heappop(released)
        assert due > slot, f"slot {slot}: source {number} comes too late"
        source[slot], rank[slot] = number, given[number]
        given[number] += 1
        if given[number] < shares[number]:
            heapq.heappush(waiting, (given[number] * slots // shares[number], number))
    return source, rank
