"""Which checkpoints stay, case by case."""

import datetime
from typing import Any

import pytest

from caravela.train.retention import Rules, Stored, superfluous

NOW = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)


def stored(*steps: int, hours_apart: float = 1.0) -> list[Stored]:
    """Made one after the other, the last one an hour ago."""
    count = len(steps)
    times = [NOW - datetime.timedelta(hours=1 + hours_apart * (count - 1 - i)) for i in range(count)]
    return [Stored(f"c{step}", step, when.isoformat()) for step, when in zip(steps, times, strict=True)]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"newest": 2}, [50, 60]),
        ({"newest": 1, "every_steps": 30}, [30, 60]),
        ({"newest": 1, "every_steps": 20}, [20, 40, 60]),
        ({"newest": 1, "hours": 3.5}, [40, 50, 60]),
        ({"newest": 9}, [10, 20, 30, 40, 50, 60]),
    ],
)
def test_retention_keeps_the_newest_the_milestones_and_the_young(settings: dict[str, Any], kept: list[int]) -> None:
    every = stored(10, 20, 30, 40, 50, 60)
    gone = superfluous(Rules(**settings), every, NOW)
    assert [one.step for one in every if one not in gone] == kept
    assert gone == sorted(gone, key=lambda one: one.step)


def test_retention_of_a_step_that_two_attempts_kept_counts_it_once() -> None:
    early, late = Stored("a", 20, "2026-11-30T10:00:00+00:00"), Stored("b", 20, "2026-11-30T11:00:00+00:00")
    before = Stored("c", 10, "2026-11-30T09:00:00+00:00")
    assert superfluous(Rules(newest=2), [late, before, early], NOW) == [early]
