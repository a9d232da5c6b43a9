"""Documents put one after the other and cut into rows.

Nothing is padded; what is left at the end of a shard is too short for a row and dropped: less than one row, counted.
Price: a document is cut wherever a row ends, one in every row. Memory: the tokens of one row group.
"""

import numpy as np

from caravela.data.encoding import Encoded
from caravela.data.rows import Gathered, Numbers, RowWriter, Segments


class Concatenation:
    """Fills rows with documents as they come."""

    def __init__(self, rows: RowWriter) -> None:
        self.rows = rows
        self.dropped = self.documents_cut = 0
        self.dropped_documents: Numbers = np.empty(0, np.int64)
        """Numbers of those of which, at the end, no token came into a row."""
        self._waiting: list[Gathered] = []
        self._waiting_tokens = 0
        self._continued = False
        """Whether the first waiting document has tokens in rows that are written."""

    def add(self, documents: Numbers, encoded: Encoded) -> None:
        """Takes documents: their numbers and their ids."""
        if not len(documents):
            return
        self._waiting.append(Gathered(*encoded, documents))
        self._waiting_tokens += len(encoded.ids)
        if self._waiting_tokens >= self.rows.width * self.rows.row_group_rows:
            self._write(self._waiting_tokens // self.rows.width)

    def end_pass(self) -> None:
        """Documents may come again from here on; the row goes on."""

    def close(self) -> None:
        """Writes full rows and drops what is left."""
        self._write(self._waiting_tokens // self.rows.width)
        self.dropped = self._waiting_tokens
        if self.dropped:
            self.dropped_documents = Gathered.of(self._waiting).documents[int(self._continued) :]
            self.documents_cut += self._continued
        self.rows.close()

    def _write(self, num_rows: int) -> None:
        if num_rows == 0:
            return
        ids, lengths, documents = Gathered.of(self._waiting)
        width, total = self.rows.width, num_rows * self.rows.width
        ends = np.cumsum(lengths)
        starts = ends - lengths
        borders = np.unique(np.concatenate([starts[starts < total], np.arange(0, total, width)]))
        owners = np.searchsorted(starts, borders, side="right") - 1
        stretches = np.diff(np.append(borders, total))
        self.rows.write(ids, Segments(borders // width, stretches, documents[owners], borders), num_rows)
        crossing = starts // width != (ends - 1) // width
        crossing[0] |= self._continued
        self.documents_cut += int((crossing & (ends <= total)).sum())
        left = int(np.searchsorted(ends, total, side="right"))
        self._continued = left < len(ends) and (int(starts[left]) < total or (left == 0 and self._continued))
        self._waiting_tokens = len(ids) - total
        rest = Gathered(ids[total:], ends[left:] - np.maximum(starts[left:], total), documents[left:])
        self._waiting = [rest] if self._waiting_tokens else []
