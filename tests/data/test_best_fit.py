"""Best-fit packing against a search through all rows, the optimum by exhaustion, and counting."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caravela import schema
from caravela.data.best_fit import BestFit, best_fit_rows, in_order_of_first, pieces_of
from caravela.data.encoding import Encoded
from caravela.data.rows import RowWriter
from caravela.stages import TableWriter


def rooms(place: list[int], lengths: list[int], width: int) -> list[int]:
    used = [0] * (max(place, default=-1) + 1)
    for row, length in zip(place, lengths, strict=True):
        used[row] += length
    return sorted(width - each for each in used)


def searched(lengths: list[int], width: int) -> list[int]:
    """Best fit, the longest first, by looking at every row."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, free in enumerate(room) if free >= length]
        if fitting:
            room[min(fitting, key=lambda i: room[i])] -= length
        else:
            room.append(width - length)
    return sorted(room)


def first_fit(lengths: list[int], width: int) -> int:
    room: list[int] = []
    for length in lengths:
        for i, free in enumerate(room):
            if free >= length:
                room[i] -= length
                break
        else:
            room.append(width - length)
    return len(room)


def fewest(lengths: list[int], width: int) -> int:
    """The fewest rows possible, by trying all ways."""
    best = len(lengths)

    def place(at: int, room: list[int]) -> None:
        nonlocal best
        if len(room) >= best:
            return
        if at == len(lengths):
            best = len(room)
            return
        for i in range(len(room)):
            if room[i] >= lengths[at]:
                place(at + 1, [*room[:i], room[i] - lengths[at], *room[i + 1 :]])
        place(at + 1, [*room, width - lengths[at]])

    place(0, [])
    return best


def cases(count: int, most: int) -> list[tuple[list[int], int]]:
    chance = random.Random(7)
    found = []
    for _ in range(count):
        width = chance.randint(9, 300)
        longest = chance.choice([width, max(2, width // 2), max(2, width // 5)])
        found.append(([chance.randint(2, longest) for _ in range(chance.randint(1, most))], width))
    return found


@pytest.mark.parametrize(("lengths", "width"), cases(60, 120))
def test_best_fit_leaves_the_room_that_a_search_leaves(lengths: list[int], width: int) -> None:
    place = best_fit_rows(np.array(lengths), width).tolist()
    assert set(place) == set(range(max(place) + 1))
    assert rooms(place, lengths, width) == searched(lengths, width)
    assert min(rooms(place, lengths, width)) >= 0
    assert max(place) + 1 <= first_fit(lengths, width)


@pytest.mark.parametrize(("lengths", "width"), cases(40, 9))
def test_best_fit_needs_few_more_rows_than_the_fewest(lengths: list[int], width: int) -> None:
    rows = int(best_fit_rows(np.array(lengths), width).max()) + 1
    least = fewest(lengths, width)
    assert least <= rows <= least * 11 / 9 + 1


def test_pieces_cut_only_what_is_longer_than_a_row() -> None:
    owner, source, length = pieces_of(np.array([5, 10, 11, 25, 2]), 10)
    assert owner.tolist() == [0, 1, 2, 2, 3, 3, 3, 4]
    assert source.tolist() == [0, 5, 15, 25, 26, 36, 46, 51]
    assert length.tolist() == [5, 10, 10, 1, 10, 10, 5, 2]


def test_rows_are_numbered_in_the_order_of_their_first_documents() -> None:
    assert in_order_of_first(np.array([3, 1, 3, 0, 1, 2])).tolist() == [0, 1, 0, 2, 1, 3]


@pytest.mark.parametrize("window_tokens", [1, 200, 1 << 20])
def test_windows_pack_every_token_once_and_cut_no_document_that_fits(tmp_path: Path, window_tokens: int) -> None:
    width, count = 32, 150
    chance = np.random.default_rng(window_tokens)
    lengths = chance.integers(2, 50, count)
    # Every token names its document and its place in it.
    ids = [np.array([n * 100 + i for i in range(length)], np.uint16) for n, length in enumerate(lengths.tolist())]
    table = TableWriter("train", schema.packed(width, 60_000), str(tmp_path / "rows.parquet"))
    packer = BestFit(RowWriter(table, np.ones(60_000, np.int32), 4, pa.array(map(str, range(count)))), window_tokens)
    for first in range(0, count, 10):
        numbers = np.arange(first, first + 10)
        packer.add(numbers, Encoded(np.concatenate(ids[first : first + 10]), lengths[first : first + 10]))
    packer.close()
    table.close()
    found: dict[int, list[list[int]]] = {}
    for row in pq.read_table(tmp_path / "rows.parquet").to_pylist():
        ends = [*row["document_starts"][1:], width - row["padding"]]
        assert row["tokens"][ends[-1] :] == [2] * row["padding"]
        for start, end, name in zip(row["document_starts"], ends, row["document_ids"], strict=True):
            found.setdefault(int(name), []).append(row["tokens"][start:end])
    for n, length in enumerate(lengths.tolist()):
        assert len(found[n]) == (2 if length > width else 1)
        assert sorted(token for stretch in found[n] for token in stretch) == ids[n].tolist()
    assert packer.documents_cut == int((lengths > width).sum())
    assert packer.rows.rows * width == int(lengths.sum()) + packer.rows.padding
