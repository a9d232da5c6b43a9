"""A sample of documents by strata: the same texts in the same order, however the documents are cut into parts.

In: parts of a table ``documents``, the fields that make strata (document_fields), a budget of bytes, a seed. Out: the
texts in the order of a hash of their ids, and what each stratum has and gave.

The parts are read twice, batch by batch: once to count, once to take. Shares follow from the counts: a stratum of b
bytes gets b^temper, scaled so that all fill the budget; one that has less than that gives all it has, and the others
share the rest. Within a stratum, documents come by their hash until its share is reached; the one that reaches it is
the last.

The second pass cannot sort a stratum that does not fit in memory. It takes each document whose hash is below a limit,
which is set so that what lies below it is too little once in 30,000 times; then those few are sorted and cut. They wait
in a local file. Memory: 40 bytes a candidate and some 300 a stratum; disk: a little over the budget.
"""

import itertools
import json
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from caravela import storage
from caravela.data import document_fields
from caravela.errors import UserError

BATCH_ROWS = 1024
MOST_STRATA = 100_000
DEVIATIONS = 4
"""Of what lies below a hash limit, in standard deviations: how much more than the share is expected there."""
HASHES = 1 << 64

Stratum = tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class SampleOf:
    """What is to be taken."""

    uris: Sequence[str]
    """Parts of the table."""
    fields: tuple[str, ...]
    """What makes the strata."""
    setting: str
    """The setting that names the fields, for errors."""
    size: int
    """Bytes of text."""
    temper: float
    """1: strata get what they have in proportion; 0: all the same; between, the smaller get more."""
    seed: int
    """Chooses the documents."""
    wanted: Callable[[str], bool]
    """By id: whether a document takes part at all."""


@dataclass
class Counts:
    """Of one stratum."""

    documents: int = 0
    bytes: int = 0
    squares: int = 0
    """Sum of the squares of the documents' sizes."""
    taken_documents: int = 0
    taken_bytes: int = 0


@dataclass(frozen=True)
class Sample:
    """What was taken; the texts wait in a local file."""

    path: str
    strata: dict[Stratum, Counts]
    _order: npt.NDArray[np.int64] = field(repr=False)
    """[documents, 3]: where the text begins, its bytes, the number of its stratum."""

    @classmethod
    def nothing(cls) -> Self:
        """No texts."""
        return cls("", {}, np.empty((0, 3), np.int64))

    def __len__(self) -> int:
        return len(self._order)

    @property
    def bytes(self) -> int:
        return int(self._order[:, 1].sum())

    def __iter__(self) -> Iterator[tuple[Stratum, str]]:
        """Each text with its stratum, in the order of the hash."""
        names = list(self.strata)
        with open(self.path, "rb") as file:
            for start, size, stratum in self._order.tolist():
                file.seek(start)
                yield names[stratum], file.read(size).decode("utf-8")


def take(what: SampleOf, path: str, progress: Callable[[pa.RecordBatch], None] = lambda batch: None) -> Sample:
    """Reads the documents twice and leaves the chosen texts in the file ``path``; ``progress`` sees every batch.

    Raises:
        UserError: a field that the documents lack, or one with more values than strata can be.
    """
    strata = _counted(what, progress)
    shares = quotas({name: counts.bytes for name, counts in strata.items()}, what.size, what.temper)
    limits = {name: _hash_limit(counts, shares[name]) for name, counts in strata.items()}
    numbers = {name: i for i, name in enumerate(strata)}
    columns = [array(kind) for kind in "QQqqq"]  # hash, hash of the text, where it begins, its bytes, stratum
    at = 0
    with open(path, "wb") as file:
        for batch, sizes, names in _batches(what, progress):
            texts = batch["text"]
            for i, (identifier, size, name) in enumerate(zip(batch["id"].to_pylist(), sizes, names, strict=True)):
                if (place := _hash(identifier, what.seed)) < limits[name] and what.wanted(identifier):
                    data = memoryview(texts[i].as_buffer() or b"")
                    file.write(data)
                    row = (place, xxhash.xxh3_64_intdigest(data), at, size, numbers[name])
                    for column, value in zip(columns, row, strict=True):
                        column.append(value)
                    at += size
    return Sample(path, strata, _cut(columns, strata, shares))


def quotas(sizes: dict[Stratum, int], budget: int, temper: float) -> dict[Stratum, int]:
    """How many bytes each stratum gives: ``scale * size**temper``, at most its size, together the budget."""
    if sum(sizes.values()) <= budget:
        return dict(sizes)
    weights = {name: float(size) ** temper for name, size in sizes.items() if size}
    # Those that run out first, first: what they lack for their share is left for the others.
    order = sorted(weights, key=lambda name: (sizes[name] / weights[name], _sort_key(name)))
    weight_from = list(itertools.accumulate(weights[name] for name in reversed(order)))[::-1]
    left, result = budget, dict.fromkeys(sizes, 0)
    for place, name in enumerate(order):
        scale = left / weight_from[place]
        if sizes[name] > scale * weights[name]:
            return result | {other: round(scale * weights[other]) for other in order[place:]}
        result[name] = sizes[name]
        left -= sizes[name]
    return result


def _counted(what: SampleOf, progress: Callable[[pa.RecordBatch], None]) -> dict[Stratum, Counts]:
    """What there is, by stratum, in an order that does not depend on the parts."""
    strata: dict[Stratum, Counts] = {}
    for batch, sizes, names in _batches(what, progress):
        for identifier, size, name in zip(batch["id"].to_pylist(), sizes, names, strict=True):
            counts = strata.get(name)
            if counts is None:
                counts = strata[name] = Counts()
                if len(strata) > MOST_STRATA:
                    raise UserError(
                        f"{what.setting} = {list(what.fields)}: more than {MOST_STRATA:,} different values; expected "
                        "fields that many documents share"
                    )
            if what.wanted(identifier):
                counts.documents += 1
                counts.bytes += size
                counts.squares += size * size
    return {name: strata[name] for name in sorted(strata, key=_sort_key)}


def _batches(
    what: SampleOf, progress: Callable[[pa.RecordBatch], None]
) -> Iterator[tuple[pa.RecordBatch, list[int], list[Stratum]]]:
    """Ids and texts, the texts' sizes, and their strata."""
    needed = document_fields.columns_of(what.fields)
    for uri in what.uris:
        with storage.open_read(uri) as stream:
            file = pq.ParquetFile(stream)
            document_fields.check_columns(needed, file.schema_arrow.names, uri, what.setting)
            for batch in file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(["id", "text", *needed]))):
                sizes = pc.fill_null(pc.binary_length(batch["text"]), 0).to_pylist()
                names = [tuple(map(_label, row)) for row in document_fields.values(batch, what.fields)]
                yield batch, sizes, names
                progress(batch)


def _cut(
    columns: Sequence["array[int]"], strata: dict[Stratum, Counts], shares: dict[Stratum, int]
) -> npt.NDArray[np.int64]:
    """Of all candidates those within their stratum's share, in the order of the hash; counts them."""
    place, content, at, size, stratum = (np.frombuffer(c, c.typecode) if len(c) else np.zeros(0, int) for c in columns)
    by_stratum = np.lexsort((content, place, stratum))
    borders = np.searchsorted(stratum[by_stratum], np.arange(len(strata) + 1))
    kept = np.zeros(len(place), bool)
    for i, (name, counts) in enumerate(strata.items()):
        own = by_stratum[borders[i] : borders[i + 1]]
        before = np.cumsum(size[own]) - size[own]
        taken = own[before < shares[name]]
        kept[taken] = True
        counts.taken_documents, counts.taken_bytes = len(taken), int(size[taken].sum())
    order = np.lexsort((stratum, content, place))
    order = order[kept[order]]
    return np.stack([at[order], size[order], stratum[order]], axis=1).astype(np.int64)


def _hash_limit(counts: Counts, share: int) -> int:
    """Below which hash there are ``share`` bytes, almost surely: the rate r at which r·b − 4·√(r·Σsize²) = share."""
    if share >= counts.bytes:
        return HASHES
    spread = DEVIATIONS * math.sqrt(counts.squares)
    root = (spread + math.sqrt(spread * spread + 4 * counts.bytes * share)) / (2 * counts.bytes)
    return min(HASHES, math.ceil(root * root * HASHES))


def _hash(identifier: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(identifier.encode("utf-8"), seed)


def _label(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _sort_key(name: Stratum) -> list[str]:
    """None before every string."""
    return ["" if part is None else f"={part}" for part in name]
