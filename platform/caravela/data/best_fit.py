"""Documents packed into rows so that none is cut unless it is longer than a row.

Best-fit decreasing (Ding et al., "Fewer Truncations Improve Language Modeling", arXiv 2404.10830, section 3): a
document longer than a row gives full rows and a rest; then, the longest first, each goes into the row in which it
leaves the least room, or into a new one. Many rows need at most 11/9 of the fewest possible (Johnson et al. 1974). What
stays free is padding.

Done for ``WINDOW_TOKENS`` at a time, so memory does not grow with the shard. Rows of a window stand in the order of
their first documents, and documents in a row in theirs, so that length is not what orders them. Cost: a document takes
operations on a number of as many bits as a row has tokens, about a microsecond.
"""

import numpy as np

from caravela.data.encoding import Encoded
from caravela.data.rows import Gathered, Numbers, RowWriter, Segments

WINDOW_TOKENS = 1 << 24


class BestFit:
    """Gathers documents to a window and packs it."""

    def __init__(self, rows: RowWriter, window_tokens: int = WINDOW_TOKENS) -> None:
        self.rows = rows
        self.window_tokens = window_tokens
        self.documents_cut = 0
        self.dropped = 0
        """Always: every token is in a row."""
        self.dropped_documents: Numbers = np.empty(0, np.int64)
        self._waiting: list[Gathered] = []
        self._waiting_tokens = 0

    def add(self, documents: Numbers, encoded: Encoded) -> None:
        """Takes documents: their numbers and their ids."""
        if not len(documents):
            return
        self._waiting.append(Gathered(*encoded, documents))
        self._waiting_tokens += len(encoded.ids)
        if self._waiting_tokens >= self.window_tokens:
            self.end_pass()

    def end_pass(self) -> None:
        """Documents may come again from here on: packs what waits, so that no row holds one twice."""
        if not self._waiting:
            return
        ids, lengths, documents = Gathered.of(self._waiting)
        self.documents_cut += int((lengths > self.rows.width).sum())
        owner, source, length = pieces_of(lengths, self.rows.width)
        row = in_order_of_first(best_fit_rows(length, self.rows.width))
        order = np.argsort(row, kind="stable")
        segments = Segments(row[order], length[order], documents[owner[order]], source[order])
        self.rows.write(ids, segments, int(row.max()) + 1)
        self._waiting, self._waiting_tokens = [], 0

    def close(self) -> None:
        """Packs the rest."""
        self.end_pass()
        self.rows.close()


def pieces_of(lengths: Numbers, width: int) -> tuple[Numbers, Numbers, Numbers]:
    """Documents in pieces of at most ``width`` tokens: whose each is, where it begins in all ids, its length."""
    counts = -(-lengths // width)
    owner = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    source = (np.cumsum(lengths) - lengths)[owner] + number * width
    return owner, source, np.minimum(width, lengths[owner] - number * width)


def best_fit_rows(lengths: Numbers, width: int) -> Numbers:
    """The row of each piece; pieces are from 1 to ``width`` tokens long, and no row gets more than ``width``."""
    rows_by_room: list[list[int]] = [[] for _ in range(width + 1)]
    rooms = 0  # bit r is set where a row has room for r more tokens
    place = np.empty(len(lengths), np.int64)
    num_rows = 0
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms ^= 1 << room
        else:
            row, room, num_rows = num_rows, width, num_rows + 1
        place[piece] = row
        if left := room - length:
            rows_by_room[left].append(row)
            rooms |= 1 << left
    return place


def in_order_of_first(row: Numbers) -> Numbers:
    """The same rows, numbered in the order in which the pieces first name them."""
    _, first, number = np.unique(row, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number]
