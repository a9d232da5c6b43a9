"""Fields of documents that a config names: a column of the table ``documents``, or ``metadata.<field>``.

In: names, a batch of documents. Out: the values, one tuple a document. A field that a document's metadata lacks is
None there; a column that the table lacks is the user's mistake. What is read besides the columns is one JSON object a
document, and only where a name asks for it.
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from caravela import storage
from caravela.errors import UserError

METADATA_PREFIX = "metadata."


def columns_of(names: Sequence[str]) -> list[str]:
    """The columns of documents that hold the fields."""
    return list(dict.fromkeys("metadata" if name.startswith(METADATA_PREFIX) else name for name in names))


def check_columns(columns: Sequence[str], present: Sequence[str], uri: str, purpose: str) -> None:
    """Refuses a shard that lacks a column which the config names.

    Raises:
        UserError: naming the shard, the column, what it is for, and the columns that there are.
    """
    for name in columns:
        if name not in present:
            raise UserError(f"{storage.shown(uri)}: no column {name!r} for {purpose}; it has {', '.join(present)}")


def values(batch: pa.RecordBatch, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The fields of each document, in the order of ``names``."""
    if not names:
        return [()] * batch.num_rows
    metadata: list[Any] = []
    if any(name.startswith(METADATA_PREFIX) for name in names):
        parsed = (json.loads(row or "{}") for row in batch["metadata"].to_pylist())
        metadata = [row if isinstance(row, dict) else {} for row in parsed]
    fields = [
        [row.get(name.removeprefix(METADATA_PREFIX)) for row in metadata]
        if name.startswith(METADATA_PREFIX)
        else batch[name].to_pylist()
        for name in names
    ]
    return list(zip(*fields, strict=True))
