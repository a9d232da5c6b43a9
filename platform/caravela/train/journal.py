"""The rows of metrics by step, and their way to storage together with checkpoints.

In: columns by step. Out: ``metrics/00000001.jsonl`` ..., one segment for each checkpoint, named for its first step.

A segment is stored before the metadata of the checkpoint that ends it, and holds what was known when that began; what
is measured at a step after its checkpoint began (validation) goes with the next one. So storage never holds metrics
that a resumed run would not write again, and a resumed run writes again what it does again.
"""

import json
from typing import Any

from caravela import storage

FOLDER = "metrics"

Row = dict[str, Any]


class Journal:
    """Rows since the last checkpoint, and those on their way with one."""

    def __init__(self, stage_uri: str, kept_step: int) -> None:
        """Begins after a step.

        Args:
            stage_uri: directory of the pretrain stage.
            kept_step: whose checkpoint was the last to be complete.
        """
        self.stage_uri = stage_uri
        self.kept_step = kept_step
        self._rows: dict[int, Row] = {}
        self._on_their_way: dict[int, Row] = {}

    def add(self, step: int, columns: Row) -> None:
        """Columns of a step, beside those that it has."""
        self._rows.setdefault(step, {"step": step}).update(columns)

    def hand_over(self) -> dict[str, str]:
        """What a checkpoint that begins now takes along: texts by URI. ``settle`` must have been called."""
        assert not self._on_their_way, "rows are on their way with another checkpoint"
        self._on_their_way, self._rows = self._rows, {}
        segment = storage.join(self.stage_uri, FOLDER, f"{self.kept_step + 1:08d}.jsonl")
        return {segment: to_jsonl(self._on_their_way)}

    def settle(self, committed_step: int) -> None:
        """Says which checkpoint is complete; rows that did not come home go with the next."""
        if committed_step > self.kept_step:
            self.kept_step = committed_step
        else:
            self._rows = merged(self._on_their_way, self._rows)
        self._on_their_way = {}

    def all_rows(self) -> dict[int, Row]:
        """Those on storage and those that are not there yet."""
        return merged(stored_rows(self.stage_uri), self._rows)


def stored_rows(stage_uri: str) -> dict[int, Row]:
    """The rows of all segments."""
    rows: dict[int, Row] = {}
    for uri in _segments(stage_uri):
        for line in storage.read_text(uri).splitlines():
            row: Row = json.loads(line)
            rows.setdefault(row["step"], {}).update(row)
    return rows


def stored_row(stage_uri: str, step: int) -> Row:
    """Columns of a step that ends a segment; empty if there is none. Costs the reading of one segment."""
    before = [uri for uri in _segments(stage_uri) if _first_step(uri) <= step]
    rows = map(json.loads, storage.read_text(before[-1]).splitlines()) if before else ()
    found: Row = next((row for row in rows if row["step"] == step), {})
    return found


def forget_after(stage_uri: str, step: int) -> None:
    """Removes segments of steps that are done again."""
    for uri in _segments(stage_uri):
        if _first_step(uri) > step:
            storage.delete_tree(uri)


def _segments(stage_uri: str) -> list[str]:
    return storage.list_files(storage.join(stage_uri, FOLDER))


def _first_step(uri: str) -> int:
    return int(storage.name_of(uri).partition(".")[0])


def merged(rows: dict[int, Row], more: dict[int, Row]) -> dict[int, Row]:
    """Rows of both; a step that is in both gets the columns of both."""
    return {step: rows.get(step, {}) | more.get(step, {}) for step in sorted(rows.keys() | more.keys())}


def to_jsonl(rows: dict[int, Row]) -> str:
    """Rows in the order of their steps, one line each."""
    return "".join(json.dumps(rows[step]) + "\n" for step in sorted(rows))
