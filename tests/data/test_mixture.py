"""Shares of a mixture, counted slot by slot against the arithmetic of the weights."""

import random
import time
from fractions import Fraction

import pytest

from caravela.data.mixture import MOST_SLOTS, Schedule

MIXTURES = [
    (60, 30, 10),
    (60.0, 40.0),
    (1.0,),
    (1, 1, 1),
    (0.7, 0.1, 0.1, 0.05, 0.05),
    (0.333, 0.667),
    (1, 1000),
    (5e-3, 1),
]


def drawn(schedule: Schedule, slots: int) -> list[int]:
    """The sources of the first slots; each must give its rows one after the other, none left out."""
    found, given = [], list(schedule.rows_before(0))
    for slot in range(slots):
        assert schedule.rows_before(slot) == tuple(given) or slot % 97, "rows_before counts what was drawn"
        source, row = schedule.draw(slot)
        assert row == given[source]
        given[source] += 1
        found.append(source)
    return found


@pytest.mark.parametrize("weights", MIXTURES)
def test_shares_are_within_one_row_at_every_prefix(weights: tuple[float, ...]) -> None:
    exact = [Fraction(repr(weight)) for weight in weights]
    counts = [0] * len(weights)
    for slot, source in enumerate(drawn(Schedule(weights), 5000), 1):
        counts[source] += 1
        for count, weight in zip(counts, exact, strict=True):
            assert abs(count - weight * slot / sum(exact)) < 1


def test_shares_of_random_weights_are_within_one_row() -> None:
    rng = random.Random(0)
    for _ in range(60):
        weights = [rng.randint(1, rng.choice((3, 50, 400))) for _ in range(rng.randint(1, 9))]
        counts = [0] * len(weights)
        for slot, source in enumerate(drawn(Schedule(weights), sum(weights) + 10), 1):
            counts[source] += 1
            assert all(abs(c * sum(weights) - w * slot) < sum(weights) for c, w in zip(counts, weights, strict=True))


def test_source_that_is_used_up_leaves_its_slots_to_the_others() -> None:
    schedule = Schedule((60, 30, 10), limits=(None, 15, 400))
    sources = drawn(schedule, 5000)
    last_of_second = max(slot for slot, source in enumerate(sources) if source == 1)
    assert sources.count(1) == 15
    assert last_of_second < 55
    start = schedule._segments[1].start
    counts = [0, 0, 0]
    for slot, source in enumerate(sources[start:], 1):
        if counts[2] + sources[:start].count(2) == 400:
            break
        counts[source] += 1
        assert abs(counts[0] - Fraction(6, 7) * slot) < 1
    assert sources.count(2) == 400
    assert sources[-100:] == [0] * 100
    assert schedule.slots is None


def test_sources_that_are_all_used_up_end_the_order() -> None:
    schedule = Schedule((1, 3), limits=(10, 7))
    assert schedule.slots == 17
    assert sorted(drawn(schedule, 17)) == [0] * 10 + [1] * 7
    with pytest.raises(IndexError, match="slot 17: the sources fill 17"):
        schedule.draw(17)


def test_rows_given_before_count_towards_the_limit_and_not_the_shares() -> None:
    schedule = Schedule((1, 1), limits=(5, None), given=(3, 100))
    assert [tuple(schedule.draw(slot)) for slot in range(6)] == [(0, 3), (1, 100), (0, 4), (1, 101), (1, 102), (1, 103)]


def test_source_of_weight_0_rests() -> None:
    schedule = Schedule((3, 0, 1), limits=(None, 5, None), given=(0, 2, 0))
    assert drawn(schedule, 40).count(1) == 0
    assert schedule.rows_before(40) == (30, 2, 10)


@pytest.mark.parametrize(
    ("weights", "limits", "given"),
    [
        ((60, 30, 10), None, None),
        ((60, 30, 10), (None, 15, 400), None),
        ((1, 3), (10, 7), None),
        ((1, 0, 2), (9, 9, None), (4, 3, 0)),
    ],
)
def test_slot_of_a_row_is_where_it_was_drawn(
    weights: tuple[int, ...], limits: tuple[int | None, ...] | None, given: tuple[int, ...] | None
) -> None:
    schedule = Schedule(weights, limits, given)
    slots = range(min(1000, 1000 if schedule.slots is None else schedule.slots))
    where = {tuple(schedule.draw(slot)): slot for slot in slots}
    for source in range(len(weights)):
        for row in range(450):
            expected = where.get((source, row))
            found = schedule.slot_of(source, row)
            assert found == expected or (expected is None and found is not None and found >= 1000), (source, row)


def test_a_slot_far_out_costs_no_more_than_the_first() -> None:
    schedule = Schedule((0.61234, 0.38766), limits=(None, 10**12))
    clock = time.perf_counter()
    draws = [schedule.draw(10**12 + k) for k in range(1000)]
    assert time.perf_counter() - clock < 1
    counts = schedule.rows_before(10**12)
    assert counts == (612340000000, 387660000000)
    assert draws[0].row == counts[draws[0].source]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0, 0), r"weights = \[0, 0\]: expected numbers from 0, one of them above it"),
        ((1.0, -0.5), "expected numbers from 0"),
        ((), "expected as many"),
        ((0.12345678, 0.5), "fewer decimals"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(weights)


def test_period_of_most_slots_is_made_in_seconds() -> None:
    clock = time.perf_counter()
    schedule = Schedule((MOST_SLOTS - 1, 1))
    assert time.perf_counter() - clock < 20
    assert schedule.rows_before(MOST_SLOTS) == (MOST_SLOTS - 1, 1)
