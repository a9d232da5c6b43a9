"""Documents of an input file, column by column.

In: raw documents gathered by a reader, or the columns of a Parquet file as they are. Out: ``RawColumns``: Arrow arrays
for what every document has, lists for what few have. A Parquet text never becomes a Python string on the way.

What a Parquet column may hold that a document may not: an id, URL, date or source that is no string becomes one, as
``str`` writes it; a text that is no string, or not UTF-8, is set aside under its reason, as in the other formats.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from caravela.data.raw import FieldNames, RawDocument

KNOWN = ("id", "url", "source", "date")


@dataclass(frozen=True, kw_only=True)
class RawColumns:
    """Some documents in input order; a column that is None holds nothing for any of them."""

    known: Mapping[str, pa.Array]
    """By name in ``KNOWN``: strings, never null."""
    text: pa.Array
    """large_string; null where a document has none."""
    html: Sequence[bytes | None] | None = None
    header_charset: Sequence[str] | None = None
    metadata: Sequence[Mapping[str, Any]] | None = None
    problems: Mapping[int, tuple[str, str]]
    """By place: the problem and its detail."""
    broken: int = 0
    """How many of the problems are damage."""

    def __len__(self) -> int:
        return len(self.text)

    @property
    def num_bytes(self) -> int:
        """Of HTML and text."""
        html = sum(len(each) for each in self.html if each is not None) if self.html else 0
        return html + int(pc.sum(pc.binary_length(self.text)).as_py() or 0)

    @classmethod
    def of(cls, documents: Sequence[RawDocument]) -> Self:
        """The columns of documents that came one by one."""
        any_html = any(document.html is not None for document in documents)
        any_metadata = any(document.metadata for document in documents)
        return cls(
            known={name: strings([getattr(document, name) for document in documents]) for name in KNOWN},
            text=strings([document.text for document in documents], pa.large_string()),
            html=[document.html for document in documents] if any_html else None,
            header_charset=[document.header_charset for document in documents] if any_html else None,
            metadata=[document.metadata for document in documents] if any_metadata else None,
            problems={i: (each.problem, each.detail) for i, each in enumerate(documents) if each.problem},
            broken=sum(document.broken for document in documents),
        )

    @classmethod
    def of_parquet(cls, batch: pa.RecordBatch, source: str, first_row: int, names: FieldNames) -> Self:
        """The rows of a Parquet file from ``first_row`` on; ``source`` is the file's name."""
        by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
        text, problems = _texts(by_name[names.text], names.text)
        rows = range(first_row, first_row + batch.num_rows)
        known = {name: _known(by_name.get(getattr(names, name)), batch.num_rows) for name in KNOWN}
        known["id"] = _filled(known["id"], lambda: strings([f"{source}#{row}" for row in rows]))
        known["source"] = _filled(known["source"], lambda: strings([source] * batch.num_rows))
        used = {names.text, *(getattr(names, name) for name in KNOWN)}
        others = {name: _values(column) for name, column in by_name.items() if name not in used}
        metadata = [
            {name: value for name, value in zip(others, row, strict=True) if value is not None}
            for row in zip(*others.values(), strict=True)
        ]
        return cls(
            known=known, text=text, metadata=metadata if others else None, problems=problems, broken=len(problems)
        )

    def documents(self) -> Iterator[RawDocument]:
        """The same, one by one."""
        known = {name: column.to_pylist() for name, column in self.known.items()}
        for i, text in enumerate(self.text.to_pylist()):
            problem, detail = self.problems.get(i, ("", ""))
            yield RawDocument(
                **{name: values[i] for name, values in known.items()},
                html=self.html[i] if self.html else None,
                header_charset=self.header_charset[i] if self.header_charset else "",
                text=text,
                metadata=self.metadata[i] if self.metadata else {},
                problem=problem,
                detail=detail,
            )


def strings(values: Sequence[str | None], kind: pa.DataType | None = None) -> pa.Array:
    """A column of strings; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    kind = kind or pa.string()
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([v if v is None else v.encode("utf-8", "replace").decode("utf-8") for v in values], kind)


def utf8_buffers(text: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of a string column and the ``len(text) + 1`` borders in them, without a copy of the text."""
    large = text.fill_null("").cast(pa.large_string())
    _, offsets, data = large.buffers()
    if not len(large):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    borders = np.frombuffer(offsets, np.int64)[large.offset : large.offset + len(large) + 1]
    return np.frombuffer(data or b"", np.uint8), borders


def _texts(column: pa.Array, name: str) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
    """The text column, and by place what is no text."""
    column = _plain(column)
    if not _is_string(column.type):
        kinds = [type(value).__name__ for value in _values(column)]
        nothing = pa.nulls(len(column), pa.large_string())
        return nothing, {i: ("no_text_field", f"{name}: {kind}") for i, kind in enumerate(kinds)}
    problems = {}
    if column.null_count:
        places = pc.indices_nonzero(column.is_null()).to_pylist()
        problems = dict.fromkeys(places, ("no_text_field", f"{name}: NoneType"))
    text = column.cast(pa.large_string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        read = [_utf8(each) for each in text.cast(pa.large_binary()).to_pylist()]
        bad = {i: str(each) for i, each in enumerate(read) if isinstance(each, UnicodeDecodeError)}
        problems.update({i: ("not_utf8", f"{name}: {why}"[:200]) for i, why in bad.items()})
        text = pa.array([None if i in bad else each for i, each in enumerate(read)], pa.large_string())
    return text, problems


def _utf8(data: bytes | None) -> str | UnicodeDecodeError | None:
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error


def _known(column: pa.Array | None, num_rows: int) -> pa.Array:
    """A column as strings; empty where it has no value."""
    if column is None:
        return strings([""] * num_rows)
    column = _plain(column)
    if _is_string(column.type):
        text = column.cast(pa.string())
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:
            text = strings(_values(text))
        return text.fill_null("")
    return strings([str(value or "") for value in _values(column)])


def _filled(column: pa.Array, instead: Any) -> pa.Array:
    """The column with ``instead()`` where it is empty."""
    empty = pc.equal(column, "")
    return pc.if_else(empty, instead(), column) if pc.any(empty).as_py() else column


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _values(column: pa.Array) -> list[Any]:
    """Python values; what has none (a string that is not UTF-8, a day beyond the year 9999) as it can be written."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if _is_string(scalar.type):
            return scalar.as_buffer().to_pybytes().decode("utf-8", "replace")
        return repr(scalar.type)
    except (ValueError, OverflowError):
        try:
            return str(scalar.cast(pa.string()).as_py())
        except pa.ArrowNotImplementedError:  # a time within a list or a struct
            return repr(scalar.type)
