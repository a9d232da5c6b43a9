"""The order of rows: every row once an epoch, the same for any number of ranks, from any step."""

import time
from collections import Counter

import numpy as np
import pytest

from caravela.data.order import BlockShuffle, RowGroup, permutation, rank_slice

PARTS, GROUP_ROWS = [20, 7, 0, 33, 1], 8
ROWS = sum(PARTS)


def order(seed: int = 0, window: int = 3) -> BlockShuffle:
    return BlockShuffle(PARTS, GROUP_ROWS, seed, window)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_order_every_row_comes_once_an_epoch(window: int) -> None:
    shuffle = order(window=window)
    everything = Counter((part, row) for part, rows in enumerate(PARTS) for row in range(rows))
    for epoch in range(3):
        rows = shuffle.rows(range(epoch * ROWS, (epoch + 1) * ROWS))
        assert {row.epoch for row in rows} == {epoch}
        assert Counter((r.group.part, r.group.group * GROUP_ROWS + r.row) for r in rows) == everything


def test_order_epochs_and_seeds_differ() -> None:
    def epoch(shuffle: BlockShuffle, number: int) -> list[tuple[RowGroup, int]]:
        return [(row.group, row.row) for row in shuffle.rows(range(number * ROWS, (number + 1) * ROWS))]

    assert epoch(order(), 0) != epoch(order(), 1)
    assert epoch(order(0), 0) != epoch(order(1), 0)
    assert epoch(order(7), 5) == epoch(order(7), 5)


def test_order_reads_one_window_of_row_groups_at_a_time() -> None:
    shuffle = order(window=3)
    groups = [row.group for row in shuffle.rows(range(ROWS))]
    opened: list[RowGroup] = list(dict.fromkeys(groups))
    for start in range(0, len(opened), 3):
        window = set(opened[start : start + 3])
        where = [i for i, group in enumerate(groups) if group in window]
        assert where == list(range(where[0], where[-1] + 1))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("batch_rows", [5, 8, 16])
def test_order_union_over_ranks_is_the_order_of_one(num_ranks: int, batch_rows: int) -> None:
    slices = [rank_slice(batch_rows, rank, num_ranks) for rank in range(num_ranks)]
    assert [slot for each in slices for slot in each] == list(range(batch_rows))
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_order_resumed_anywhere_equals_the_unbroken_one() -> None:
    unbroken = order().rows(range(4 * ROWS))
    for start in (0, 1, 30, ROWS - 1, ROWS, 3 * ROWS + 11):
        assert order().rows(range(start, start + 20)) == unbroken[start : start + 20]


@pytest.mark.parametrize("window", [1, 3, 100])
def test_order_position_of_a_row_is_where_it_stands(window: int) -> None:
    shuffle = order(window=window)
    for position, row in enumerate(shuffle.rows(range(3 * ROWS))):
        assert shuffle.position(*row) == position


def test_order_of_many_rows_opens_fast_and_reaches_any_position() -> None:
    begun = time.process_time()
    shuffle = BlockShuffle([100_000] * 100, 256, seed=1, window_groups=8)
    shuffle.row(123_456_789)
    assert time.process_time() - begun < 10  # 0.1 on an ordinary core; to list ten million rows takes a minute there
    assert shuffle.rows_per_epoch == 10_000_000


def test_order_knows_the_size_of_every_row_group() -> None:
    sizes = {group: order().group_rows(group) for group in {row.group for row in order().rows(range(ROWS))}}
    assert [sizes[RowGroup(0, i)] for i in range(3)] == [8, 8, 4]
    assert sizes[RowGroup(1, 0)] == 7
    assert sizes[RowGroup(4, 0)] == 1
    assert sum(sizes.values()) == ROWS


def test_permutation_is_fixed_for_ever() -> None:
    """Checkpoints of old runs rely on it: these numbers must not change with the code, nor with numpy."""
    assert permutation(10, 0, 0).tolist() == [1, 8, 9, 3, 6, 5, 0, 7, 4, 2]
    assert permutation(10, 42, 3, 1).tolist() == [3, 8, 5, 6, 7, 4, 2, 9, 0, 1]


def test_permutation_is_even() -> None:
    """Each of 6 orders of 3 comes about as often as the others; 0.001 quantile of chi-square with 5 degrees: 20.5."""
    counts = Counter(tuple(permutation(3, seed, 9)) for seed in range(6000))
    assert len(counts) == 6
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 20.5


def test_order_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        BlockShuffle([0, 0], 8, 0, 2)
    with pytest.raises(ValueError, match="rank = 2"):
        rank_slice(8, 2, 2)
    assert np.array_equal(permutation(0, 1), [])
