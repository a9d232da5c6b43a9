"""The columns of a batch: what is set for some documents, and the two tables that come out."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from caravela import schema
from caravela.data.columns import RawColumns
from caravela.data.raw import RawDocument
from filters.batch import Batch


def batch_of(*texts: str, first_row: int = 0) -> Batch:
    documents = [RawDocument(id=f"d{i}", text=text, metadata={"n": i}) for i, text in enumerate(texts)]
    batch = Batch(RawColumns.of(documents), first_row)
    batch.set_texts(batch.still_in(), list(texts))
    return batch


def rows(batch: Batch, signals: tuple[str, ...] = (), *, removed: bool = False) -> list[dict[str, Any]]:
    form = schema.removed(signals) if removed else schema.documents(signals)
    found: list[dict[str, Any]] = batch.table(form, removed=removed).to_pylist()
    return found


def test_table_holds_what_was_set_and_null_elsewhere() -> None:
    batch = batch_of("um", "dois", "três", first_row=40)
    batch.set("language", [0, 2], ["pt", "gl"])
    batch.set("words", np.array([0, 2]), np.array([1.5, 2.5], np.float32))
    batch.set("words", [2], np.array([7], np.float32))
    batch.set("variant", [1], [None])
    batch.metadata[2]["a"] = "é"
    found = rows(batch, ("words",))
    assert [row["language"] for row in found] == ["pt", None, "gl"]
    assert [row["words"] for row in found] == [1.5, None, 7.0]
    assert [row["row"] for row in found] == [40, 41, 42]
    assert [row["title"] for row in found] == ["", "", ""]
    assert found[2]["metadata"] == '{"a": "é", "n": 2}'
    assert found[0]["variant"] is None


def test_removed_documents_go_to_their_table_with_the_reason() -> None:
    batch = batch_of("um", "dois", "três")
    batch.remove(1, "quality", "short", "2 words")
    assert [row["id"] for row in rows(batch)] == ["d0", "d2"]
    (gone,) = rows(batch, removed=True)
    assert (gone["id"], gone["text"], gone["row"]) == ("d1", "dois", 1)
    assert (gone["stage"], gone["reason"], gone["detail"]) == ("quality", "short", "2 words")


def test_texts_are_set_for_some_and_read_in_order() -> None:
    batch = batch_of("um", "dois", "três", "quatro")
    batch.set_texts([1, 3], ["2", "quá\ud800"])
    batch.set_texts([], [])
    assert batch.texts(np.array([0, 1, 3])).to_pylist() == ["um", "2", "quá?"]
    assert batch.text_bytes.tolist() == [2, 1, 5, 5]


def test_past_keeps_those_that_a_later_step_removed() -> None:
    batch = batch_of("um", "dois", "três")
    batch.remove(0, "language", "other_language")
    batch.close_step("language")
    batch.remove(2, "quality", "short")
    batch.close_step("quality")
    assert batch.past("language").tolist() == [1, 2]
    assert batch.past("quality").tolist() == batch.still_in().tolist() == [1]


def test_removing_twice_and_unknown_columns_are_our_mistakes() -> None:
    batch = batch_of("um")
    batch.remove(0, "a", "b")
    with pytest.raises(AssertionError, match="removed before"):
        batch.remove(0, "c", "d")
    batch.set("nothing", [0], ["x"])
    with pytest.raises(AssertionError, match="nothing"):
        rows(batch)


def test_metadata_with_a_lone_surrogate_can_be_stored() -> None:
    batch = Batch(RawColumns.of([RawDocument(id="a", text="x", metadata={"t": "\ud800"})]))
    assert json.loads(rows(batch)[0]["metadata"]) == {"t": "?"}


def test_empty_batch_gives_empty_tables() -> None:
    batch = Batch(RawColumns.of([]))
    assert rows(batch) == rows(batch, removed=True) == []
    assert batch.table(schema.documents(), removed=False).schema == pa.schema(schema.DOCUMENT_FIELDS)
