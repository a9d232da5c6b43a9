"""A batch of documents on its way through curation: what is known of each, column by column.

A step is given the batch and the places of the documents that it is to see (ascending), and

* reads ``batch.texts(places)``, an Arrow array in the order of ``places``, ``batch.strings(name, places)`` or
  ``batch.metadata[place]``;
* writes ``batch.set(name, places, values)`` for a column of the tables, ``batch.set_texts(places, texts)``,
  ``batch.metadata[place][key] = value``;
* takes documents out with ``batch.remove(place, step, reason, detail)``;
* adds to counters of the shard with ``batch.counts[name] += number``.

What it gives a document must depend on that document alone, and neither on its place nor on the others beside it:
borders of batches depend on the file, and the output must not.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from caravela.data.columns import RawColumns, strings

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# One encoder for all: json.dumps would make one for each document.
_AS_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str).encode


class Removal(NamedTuple):
    """Which step removed a document, and why."""

    step: str
    reason: str
    detail: str


class Batch:
    """Documents of one shard, in input order.

    Args:
        raw: as the reader gave them.
        first_row: the number of the first of them in the shard.
    """

    def __init__(self, raw: RawColumns, first_row: int = 0) -> None:
        count = len(raw)
        self.raw = raw
        self.text: pa.Array = strings([""] * count, pa.large_string())
        """Empty until a step has set it."""
        self.metadata: list[dict[str, Any]] = [dict(each) for each in raw.metadata or [{}] * count]
        self.removals: dict[int, Removal] = {}
        self.counts: Counter[str] = Counter()
        self._is_in = np.ones(count, np.bool_)
        self._passed: dict[str, Mask] = {}
        rows = np.arange(first_row, first_row + count, dtype=np.int32)
        self._columns: dict[str, pa.Array] = {**raw.known, "title": strings([""] * count), "row": pa.array(rows)}

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def text_bytes(self) -> Places:
        """The UTF-8 bytes of each text."""
        return sizes_of(self.text)

    def still_in(self) -> Places:
        """The documents that no step has removed."""
        return np.flatnonzero(self._is_in)

    def past(self, step: str) -> Places:
        """The documents that were in after that step, removed since then or not."""
        return np.flatnonzero(self._passed[step])

    def close_step(self, step: str) -> None:
        """Notes who is in after a step."""
        self._passed[step] = self._is_in.copy()

    def remove(self, place: int, step: str, reason: str, detail: str = "") -> None:
        assert self._is_in[place], f"{step}: document {place} was removed before, by {self.removals[place]}"
        self._is_in[place] = False
        self.removals[int(place)] = Removal(step, reason, detail)

    def texts(self, places: Places) -> pa.Array:
        """The texts of these documents, as large_string."""
        return self.text if len(places) == len(self) else self.text.take(pa.array(places))

    def set_texts(self, places: Places | Sequence[int], texts: pa.Array | Sequence[str]) -> None:
        if len(places):
            new = texts if isinstance(texts, pa.Array) else strings(texts, pa.large_string())
            self.text = self._replaced(self.text, places, new)

    def strings(self, name: str, places: Places) -> list[str]:
        """Values of another column, as Python strings."""
        return list(self._columns[name].take(pa.array(places)).to_pylist())

    def set(self, name: str, places: Places | Sequence[int], values: Any) -> None:
        """Sets a column of the tables: values (a numpy array, strings or None) for these documents.

        The others keep what they have, or null.
        """
        if isinstance(values, np.ndarray | pa.Array):
            new = pa.array(values)
        else:
            new = pa.array(values) if any(isinstance(v, float) for v in values) else strings(values)
        if len(places) == len(self):
            self._columns[name] = new
        elif len(places):
            old = self._columns.get(name)
            self._columns[name] = self._replaced(pa.nulls(len(self), new.type) if old is None else old, places, new)

    def table(self, schema: pa.Schema, *, removed: bool) -> pa.RecordBatch:
        """The rows of table ``documents``, or of ``removed`` with stage, reason and detail."""
        places = np.flatnonzero(~self._is_in if removed else self._is_in)
        columns = {**self._columns, "text": self.text}
        if unknown := set(columns) - set(schema.names):
            raise AssertionError(f"no column for {sorted(unknown)} in the schema")
        rows = pa.array(places)
        ready = {name: column if len(places) == len(self) else column.take(rows) for name, column in columns.items()}
        ready["metadata"] = strings([_AS_JSON(self.metadata[place]) for place in places.tolist()])
        if removed:
            gone = [self.removals[place] for place in places.tolist()]
            ready["stage"] = strings([each.step for each in gone])
            ready["reason"] = strings([each.reason for each in gone])
            ready["detail"] = strings([each.detail for each in gone])
        arrays = [
            ready[field.name].cast(field.type) if field.name in ready else pa.nulls(len(places), field.type)
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _replaced(self, column: pa.Array, places: Places | Sequence[int], new: pa.Array) -> pa.Array:
        if len(places) == len(self):
            return new
        mask = np.zeros(len(self), np.bool_)
        mask[places] = True
        return pc.replace_with_mask(column, pa.array(mask), new.cast(column.type))


def sizes_of(text: pa.Array) -> Places:
    """Bytes of each value of a large_string column."""
    if not len(text):
        return np.zeros(0, np.int64)
    borders = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    return np.diff(borders)
