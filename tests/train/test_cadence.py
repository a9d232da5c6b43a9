"""When checkpoints are made, against arithmetic by hand and a search for the best interval."""

import math

import pytest

from caravela.train.cadence import PROBE_STEPS, Cadence, Measured, optimal_interval, steps_between
from tests.train.conftest import config


def test_cadence_by_steps_needs_no_clock() -> None:
    assert steps_between(config(checkpoint_every_steps=50), None) == 50
    assert steps_between(config(checkpoint_every_steps=50), Measured(1.0, 9.0, 9.0)) == 50


def test_cadence_by_minutes_follows_the_measured_step() -> None:
    every = config(checkpoint_every_steps=100, checkpoint_every_minutes=5)
    assert steps_between(every, None) == PROBE_STEPS
    assert steps_between(every, Measured(step=2.0, stall=0.1, writing=1.0)) == 150
    assert steps_between(every, Measured(step=2.0, stall=0.1, writing=400.0)) == 200  # one is on its way at a time
    assert steps_between(every, Measured(step=1e9, stall=0.1, writing=1.0)) == 1


def lost_share(interval: float, stall: float, between_failures: float) -> float:
    """Mean seconds to get one second of work done, by Daly's model with restarts that cost nothing, less 1.

    Failures are a Poisson process: a segment of interval + stall is done again until none falls into it.
    """
    segment = interval + stall
    return between_failures * math.expm1(segment / between_failures) / interval - 1


@pytest.mark.parametrize(("stall", "hours"), [(0.5, 1), (10, 1), (120, 1), (30, 24)])
def test_cadence_loses_as_little_time_as_the_best_interval(stall: float, hours: float) -> None:
    failures = 3600.0 * hours
    best = min(lost_share(stall * 1.01**k, stall, failures) for k in range(-200, 600))
    assert lost_share(optimal_interval(stall, failures), stall, failures) < 1.001 * best + 1e-6


def test_cadence_first_term_is_young_s() -> None:
    assert optimal_interval(0.1, 36000.0) == pytest.approx(math.sqrt(2 * 0.1 * 36000), rel=2e-3)


def test_cadence_by_failures_is_never_less_than_a_step() -> None:
    assert steps_between(config(mean_hours_between_failures=1e-6), Measured(5.0, 1.0, 1.0)) == 1
    auto = steps_between(config(mean_hours_between_failures=10), Measured(step=2.0, stall=0.5, writing=3.0))
    assert auto == pytest.approx(math.sqrt(2 * 0.5 * 36000) / 2.0, rel=0.01)


def test_cadence_by_steps_does_not_depend_on_where_an_attempt_begins() -> None:
    for first in (0, 3):
        cadence = Cadence(config(steps=22, checkpoint_every_steps=8), first)
        assert [step for step in range(first + 1, 23) if cadence.is_due(step)] == [8, 16, 22]


def test_cadence_by_minutes_begins_with_a_probe_and_then_follows_the_clock() -> None:
    cadence = Cadence(config(steps=100, checkpoint_every_minutes=1), 10)
    kept = []
    for step in range(11, 101):
        if cadence.is_due(step):
            kept.append(step)
            cadence.made(step, Measured(step=2.0, stall=0.0, writing=0.0))
    assert kept == [18, 48, 78, 100]
