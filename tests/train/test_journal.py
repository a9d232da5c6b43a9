"""Rows of metrics on their way to storage with checkpoints that may fail."""

import json

from caravela import storage
from caravela.train import journal
from caravela.train.journal import Journal


def written(texts: dict[str, str]) -> None:
    for uri, text in texts.items():
        storage.write_text(uri, text)


def test_journal_segments_hold_what_was_known_when_the_checkpoint_began(root: str) -> None:
    kept = Journal(root, 0)
    kept.add(1, {"loss": 3.0})
    kept.add(2, {"loss": 2.0})
    first = kept.hand_over()
    kept.add(2, {"validation_loss": 2.5})
    kept.add(3, {"loss": 1.0})
    written(first)
    assert journal.stored_rows(root) == {1: {"step": 1, "loss": 3.0}, 2: {"step": 2, "loss": 2.0}}
    assert journal.stored_row(root, 2) == {"step": 2, "loss": 2.0}
    assert journal.stored_row(root, 9) == {}
    kept.settle(2)
    second = kept.hand_over()
    assert [storage.name_of(uri) for uri in second] == ["00000003.jsonl"]
    written(second)
    assert journal.stored_rows(root)[2] == {"step": 2, "loss": 2.0, "validation_loss": 2.5}
    journal.forget_after(root, 2)
    assert list(journal.stored_rows(root)) == [1, 2]
    assert "validation_loss" not in journal.stored_rows(root)[2]


def test_journal_rows_of_a_checkpoint_that_failed_go_with_the_next(root: str) -> None:
    kept = Journal(root, 0)
    kept.add(1, {"loss": 3.0})
    kept.hand_over()  # and it never gets there
    kept.add(2, {"loss": 2.0})
    kept.settle(0)
    (segment,) = kept.hand_over().items()
    assert storage.name_of(segment[0]) == "00000001.jsonl"
    assert [json.loads(line)["step"] for line in segment[1].splitlines()] == [1, 2]
