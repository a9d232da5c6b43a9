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

from caravela.data import document_fields

YEAR = "year"


def columns_of(names: Sequence[str], present: Sequence[str], where: str) -> list[str]:
    """The columns that hold some groups, each once.

    Raises:
        UserError: a table that lacks one of them.
    """
    columns = document_fields.columns_of(["date" if name == YEAR else name for name in names])
    document_fields.check_columns(columns, present, where, "pack.group_by")
    return columns


def groups_of(batch: pa.RecordBatch, names: Sequence[str]) -> dict[str, pa.Array]:
    """The group of every document, by name, as dictionary arrays of strings without nulls."""
    found = {}
    for name in names:
        if name.startswith(document_fields.METADATA_PREFIX):
            values = pa.array([_text(value) for (value,) in document_fields.values(batch, [name])], pa.string())
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


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
