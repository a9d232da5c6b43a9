"""What a packed set is made of: documents, tokens and bytes by group and by length, and some rows of each source.

In: the shard's documents with their groups and tokens. Out: per shard a table ``composition`` of at most
``MOST_VALUES`` values a field (the rest of them as one), and for the whole set the largest values of every field.
Everything is counted with a document's repeats, and before what is dropped at a shard's end.

Sums over a field's values, the rest with them, are those of the set. A value that is among the rest in some shards is
counted too low by so much; with fewer values than the limits all numbers are exact.
"""

import collections
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from caravela import storage
from caravela.data.rows import Numbers

COMPOSITION = pa.schema(
    [
        ("field", pa.string()),
        ("value", pa.string()),
        ("is_rest", pa.bool_()),
        ("documents", pa.int64()),
        ("tokens", pa.int64()),
        ("validation_tokens", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
"""``value`` is empty for documents that have none; ``tokens`` of training and validation together."""
SAMPLES = pa.schema([("source", pa.string()), ("rank", pa.uint64()), ("row", pa.int32())])
"""Rows of ``train`` that begin with a document of a source; of each those with the smallest ranks."""
MEASURES = ("documents", "tokens", "validation_tokens", "bytes")
MOST_VALUES = 1000
MOST_VALUES_HELD = 100_000
SHOWN_VALUES = 20
VALUE_CHARACTERS = 120
READERS = 16
SAMPLED_SOURCES, SAMPLED_ROWS = 32, 10
"""Of each shard: sources, and rows of each."""
REST = None
"""The key of what is not named."""

Sums = dict[str | None, npt.NDArray[np.int64]]


def row_samples(first_documents: Numbers, sources: pa.DictionaryArray, shard: int) -> pa.Table:
    """Rows chosen at random for each source of which the most rows begin with a document.

    Args:
        first_documents: number of the document that each row begins with.
        sources: of all documents of the shard, by number.
        shard: its index, which the ranks depend on.
    """
    ranks = np.array([xxhash.xxh3_64_intdigest(f"{shard} {row}") for row in range(len(first_documents))], np.uint64)
    source_of_row = sources.indices.to_numpy()[first_documents]
    counts = np.bincount(source_of_row, minlength=len(sources.dictionary))
    chosen = []
    for source in np.argsort(-counts, kind="stable")[:SAMPLED_SOURCES].tolist():
        rows = np.flatnonzero(source_of_row == source)
        rows = rows[np.argsort(ranks[rows])][:SAMPLED_ROWS]
        name = sources.dictionary[source].as_py()[:VALUE_CHARACTERS]
        chosen += [{"source": name, "rank": int(ranks[row]), "row": row} for row in rows.tolist()]
    return pa.Table.from_pylist(chosen, schema=SAMPLES)


class Composition:
    """Sums of one shard."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.sums: dict[str, Sums] = {field: {} for field in fields}

    def add(self, groups: Mapping[str, pa.DictionaryArray], measures: Mapping[str, Numbers]) -> None:
        """Adds documents: the group of each by field, and numbers by ``MEASURES``."""
        added = np.stack([measures[name] for name in MEASURES], axis=1)
        for field, column in groups.items():
            by_value = np.zeros((len(column.dictionary), len(MEASURES)), np.int64)
            np.add.at(by_value, column.indices.to_numpy(), added)
            for value, numbers in zip(column.dictionary.to_pylist(), by_value, strict=True):
                add_to(self.sums[field], value[:VALUE_CHARACTERS], numbers)

    def table(self) -> pa.Table:
        """The largest values of every field, and the rest."""
        rows = [
            {"field": field, "value": value or "", "is_rest": value is REST}
            | dict(zip(MEASURES, numbers.tolist(), strict=True))
            for field, sums in self.sums.items()
            for value, numbers in largest(sums, MOST_VALUES).items()
        ]
        return pa.Table.from_pylist(rows, schema=COMPOSITION)


def add_to(sums: Sums, value: str | None, numbers: npt.NDArray[np.int64]) -> None:
    """Adds to the sums of a value."""
    sums[value] = sums[value] + numbers if value in sums else numbers


def largest(sums: Sums, most: int) -> Sums:
    """The values of the most tokens, most first, and the sum of the others where there are any."""
    named = [(value, numbers) for value, numbers in sums.items() if value is not REST]
    named.sort(key=lambda item: (-int(item[1][MEASURES.index("tokens")]), item[0] or ""))
    found: Sums = dict(named[:most])
    others = [numbers for _, numbers in named[most:]]
    if REST in sums:
        others.append(sums[REST])
    if others:
        found[REST] = np.sum(others, axis=0)
    return found


def whole(uris: Sequence[str]) -> dict[str, Any]:
    """The composition of a set from those of its shards: by field ``values``, most tokens first, and the ``rest``."""
    fields: dict[str, Sums] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for rows in pool.map(_read, uris):
            for row in rows:
                sums = fields.setdefault(row["field"], {})
                add_to(sums, REST if row["is_rest"] else row["value"], np.array([row[name] for name in MEASURES]))
            for field, sums in fields.items():
                if len(sums) > MOST_VALUES_HELD:
                    fields[field] = largest(sums, MOST_VALUES_HELD // 2)
    found = {}
    for field, sums in fields.items():
        shown = largest(sums, SHOWN_VALUES)
        rest = shown.pop(REST, None)
        found[field] = {
            "values": [{"value": value} | _named(numbers) for value, numbers in shown.items()],
            "rest": None if rest is None else _named(rest),
        }
    return found


def _named(numbers: npt.NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(MEASURES, numbers.tolist(), strict=True))


def _read(uri: str) -> list[dict[str, Any]]:
    with storage.open_read(uri) as stream:
        rows: list[dict[str, Any]] = pq.read_table(stream).to_pylist()
    return rows


def length_counters(lengths: Numbers, copies: Numbers) -> dict[str, int]:
    """Documents and tokens by length: ``length.<power>.documents``, for ``2^power`` tokens and fewer than twice so."""
    power = np.frexp(lengths.astype(np.float64))[1] - 1
    counters: collections.Counter[str] = collections.Counter()
    for each in np.unique(power[copies > 0]).tolist():
        here = power == each
        counters[f"length.{each:02d}.documents"] = int(copies[here].sum())
        counters[f"length.{each:02d}.tokens"] = int((copies * lengths)[here].sum())
    return dict(counters)


def histogram(counters: Mapping[str, int]) -> list[dict[str, int]]:
    """The bins of ``length_counters``, from the shortest to the longest, empty ones between them included."""
    powers = [int(name.split(".")[1]) for name in counters if name.startswith("length.")]
    return [
        {
            "from": 1 << power,
            "to": (2 << power) - 1,
            "documents": counters.get(f"length.{power:02d}.documents", 0),
            "tokens": counters.get(f"length.{power:02d}.tokens", 0),
        }
        for power in range(min(powers, default=0), max(powers, default=-1) + 1)
    ]
