"""Parquet as columns: whatever kind of columns a file has, every row is a document or a named problem."""

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caravela.data import readers, tables
from caravela.data.columns import RawColumns
from caravela.data.raw import FieldNames, RawDocument

TEXTS = ["um", "dois\n", "", "três ção"]
BAD_UTF8 = pa.Array.from_buffers(
    pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\5\0\0\0\7\0\0\0"), pa.py_buffer(b"um\xff\xc3zab")]
)


def written(path: Path, columns: dict[str, Any], **options: Any) -> dict[str, Any]:
    pq.write_table(pa.table(columns), path, store_schema=True, **options)
    (shard,) = readers.plan_shards([str(path)], 1 << 30)
    return dict(shard.spec)


def documents(spec: dict[str, Any], names: FieldNames | None = None) -> list[RawDocument]:
    return list(readers.read(spec, names or FieldNames()))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_every_kind_of_string_is_a_text(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(TEXTS).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(TEXTS, kind)
    spec = written(tmp_path / "a.parquet", {"text": column, "url": column})
    (columns,) = readers.read_columns(spec, FieldNames())
    assert columns.text.type == pa.large_string()
    assert columns.text.to_pylist() == TEXTS
    assert columns.known["url"].to_pylist() == TEXTS


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        (pa.array([b"a", b"b"], pa.binary()), ["bytes", "bytes"]),
        (pa.array([1, None]), ["int", "NoneType"]),
        (pa.nulls(2), ["NoneType", "NoneType"]),
        (pa.array([["x"], None]), ["list", "NoneType"]),
    ],
)
def test_text_that_is_none_is_set_aside_with_its_kind(tmp_path: Path, values: pa.Array, kinds: list[str]) -> None:
    found = documents(written(tmp_path / "a.parquet", {"text": values}))
    assert [(each.problem, each.detail) for each in found] == [("no_text_field", f"text: {kind}") for kind in kinds]
    assert all(each.broken for each in found)


def test_text_that_is_not_utf8_is_set_aside_and_its_neighbours_are_read(tmp_path: Path) -> None:
    found = documents(written(tmp_path / "a.parquet", {"text": BAD_UTF8, "url": BAD_UTF8, "nota": BAD_UTF8}))
    assert [(each.text, each.problem) for each in found] == [("um", ""), (None, "not_utf8"), ("ab", "")]
    assert "0xff" in found[1].detail
    assert [each.url for each in found] == ["um", "\ufffd\ufffdz", "ab"]
    assert [each.metadata["nota"] for each in found] == ["um", "\ufffd\ufffdz", "ab"]


def test_other_kinds_of_known_fields_are_written_as_strings(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 31)
    found = documents(
        written(
            tmp_path / "a.parquet",
            {
                "text": ["a", "b", "c"],
                "id": [7, None, 9],
                "date": [day, None, day],
                "source": ["x", None, ""],
                "when": pa.array([1, None, 2_000_000_001], pa.timestamp("ns")),
                "nested": [{"k": [1]}, None, {"k": []}],
            },
        )
    )
    assert [each.id for each in found] == ["7", "a.parquet#1", "9"]
    assert [each.date for each in found] == ["2026-01-31", "", "2026-01-31"]
    assert [each.source for each in found] == ["x", "a.parquet", "a.parquet"]
    assert found[0].metadata["nested"] == {"k": [1]}
    assert found[1].metadata == {}
    assert json.dumps(found[2].metadata, default=str).count("1970-01-01") == 1


@pytest.mark.parametrize("batch_bytes", [1, 1000, 1 << 20])
def test_batches_of_any_size_give_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    monkeypatch.setattr(tables, "PARQUET_BATCH_BYTES", batch_bytes)
    texts = [f"texto {i} " * (i % 11) for i in range(300)]
    spec = written(tmp_path / "a.parquet", {"text": texts, "n": list(range(300))}, row_group_size=70)
    batches = list(readers.read_columns(spec, FieldNames()))
    assert (len(batches) == 300) if batch_bytes == 1 else (5 <= len(batches) < 300)
    found = [document for batch in batches for document in batch.documents()]
    assert [each.text for each in found] == texts
    assert [each.metadata for each in found] == [{"n": i} for i in range(300)]
    assert [each.id for each in found] == [f"a.parquet#{i}" for i in range(300)]


def test_batches_are_bounded_by_the_bytes_of_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "BATCH_BYTES", 100)
    monkeypatch.setattr(readers, "BATCH_DOCUMENTS", 7)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * (60 if i > 20 else 1)}) + "\n" for i in range(30)))
    (shard,) = readers.plan_shards([str(path)], 1 << 30)
    sizes = [len(batch) for batch in readers.read_columns(shard.spec, FieldNames())]
    assert sizes == [7, 7, 7, 2, 2, 2, 2, 1]


def test_columns_of_documents_give_the_documents_back() -> None:
    given = [
        RawDocument(id="a", url="http://a.example", html=b"<p>", header_charset="utf-8", source="s", date="d"),
        RawDocument(id="b", text="texto", metadata={"k": 1}),
        RawDocument(id="c", problem="bad_json", detail="why"),
        RawDocument(id="d", problem="not_html"),
    ]
    columns = RawColumns.of(given)
    assert list(columns.documents()) == given
    assert (columns.broken, columns.num_bytes) == (1, 8)


def test_lone_surrogates_in_any_field_become_question_marks() -> None:
    columns = RawColumns.of([RawDocument(id="\ud800", url="a\udfffb", text="c\ud800")])
    (document,) = columns.documents()
    assert (document.id, document.url, document.text) == ("?", "a?b", "c?")


def test_file_that_breaks_off_keeps_what_was_read_before(tmp_path: Path) -> None:
    spec = written(tmp_path / "a.parquet", {"text": ["palavra " * 999] * 40}, row_group_size=10, use_dictionary=False)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    third = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(2).column(0).data_page_offset
    data[third : third + 40] = bytes(40)
    (tmp_path / "a.parquet").write_bytes(data)
    found = documents(spec)
    assert [each.problem for each in found] == [""] * 20 + ["broken_file"]
    assert found[-1].id == "a.parquet#broken20"
