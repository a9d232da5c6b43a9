"""Which group a document belongs to: by a column, by a field of its metadata, or by its year.

In: columns of the table ``documents``. A group's name is a column (``source``), ``metadata.<field>``, or ``year`` (the
first four digits of ``date``). Out: one string a document, empty where it has none; numbers that are shares fall into
tenths (``0.3 to 0.4``), so that a group stays a group.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caravela.errors import UserError

METADATA_PREFIX = "metadata."
YEAR = "year"


def column_of(name: str) -> str:
    """The column of documents that holds a group."""
    if name.startswith(METADATA_PREFIX):
        return "metadata"
    return "date" if name == YEAR else name


def columns_of(names: Sequence[str], present: Sequence[str], where: str) -> list[str]:
    """The columns that hold some groups, each once.

    Raises:
        UserError: a table that lacks one of them.
    """
    for name in names:
        if column_of(name) not in present:
            raise UserError(f"{where}: no column {column_of(name)!r} to group by; it has {', '.join(present)}")
    return list(dict.fromkeys(map(column_of, names)))


def groups_of(batch: pa.RecordBatch, names: Sequence[str]) -> dict[str, pa.Array]:
    """The group of every document, by name, as dictionary arrays of strings without nulls."""
    rows: list[dict[str, Any]] = []
    if any(name.startswith(METADATA_PREFIX) for name in names):
        rows = [_fields(text) for text in batch["metadata"].to_pylist()]
    found = {}
    for name in names:
        if name.startswith(METADATA_PREFIX):
            field = name.removeprefix(METADATA_PREFIX)
            values = pa.array([_text(row.get(field)) for row in rows], pa.string())
        elif name == YEAR:
            years = pc.utf8_slice_codeunits(batch["date"], 0, 4)
            values = pc.if_else(pc.match_substring_regex(years, r"^\d{4}$"), years, "")
        elif pa.types.is_floating(batch[name].type):
            values = pa.array([tenth(value) for value in batch[name].to_pylist()], pa.string())
        else:
            values = batch[name].cast(pa.string())
        found[name] = values.fill_null("").dictionary_encode()
    return found


def tenth(value: float | None) -> str:
    """``tenth(0.34) == "0.3 to 0.4"``; 1 belongs to the last of the tenths."""
    if value is None or not math.isfinite(value):
        return ""
    low = math.floor(value * 10 + 1e-6) - (value == 1)
    return f"{low / 10:.1f} to {(low + 1) / 10:.1f}"


def _fields(text: str | None) -> dict[str, Any]:
    found = json.loads(text or "{}")
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
