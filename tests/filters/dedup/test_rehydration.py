"""Repeats by cluster size, against the table read by hand."""

import numpy as np
import pytest

from caravela.config import ConfigError
from filters.dedup.rehydration import PRESETS, RehydrationConfig, repeats


def test_repeats_follow_the_table_between_its_sizes() -> None:
    sizes = np.array([1, 2, 3, 4, 5, 7, 9, 10, 14, 15, 21, 22, 176, 177, 100_000], np.uint32)
    counts = repeats(sizes, RehydrationConfig(preset="por_latn_up_to_10").table)
    assert counts.tolist() == [1, 3, 4, 5, 6, 7, 8, 9, 9, 10, 10, 9, 2, 1, 1]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_begin_with_one_and_never_drop_a_document(preset: str) -> None:
    table = PRESETS[preset]
    assert list(table) == sorted(table)
    assert table[1] == 1
    assert min(table.values()) >= 1


def test_own_table_goes_before_the_preset() -> None:
    config = RehydrationConfig(preset="por_latn_up_to_3", sizes=(1, 5), repeats=(1, 0))
    assert repeats(np.array([4, 5], np.uint32), config.table).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("sizes", "counts", "message"),
    [
        ((1, 2), (1,), "repeats has 1 numbers, expected 2"),
        ((2,), (1,), "expected ascending numbers that begin with 1"),
        ((1, 3, 3), (1, 2, 3), "expected ascending"),
        ((1,), (300,), "expected numbers from 0 to 255"),
    ],
)
def test_bad_tables_are_refused(sizes: tuple[int, ...], counts: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RehydrationConfig(sizes=sizes, repeats=counts)
