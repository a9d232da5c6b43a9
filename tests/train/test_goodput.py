"""Goodput and costs over attempts, by hand, and what is left on storage for the next attempt."""

import pytest

from caravela.train.goodput import Ledger, Reached, cost_columns, read, taken_up, write

# 100 s in all: 10 s of starting, 5 s of stalls, so 85 s of work in 20 steps.
LEDGER = Ledger(wall=100, starting=10, stall=5, joules=7.2e6)
BEFORE = Reached(launch="a", step=20, time=1000.0, ledger=LEDGER)


def test_goodput_of_one_attempt() -> None:
    assert LEDGER.good == 85
    assert LEDGER.goodput == 0.85
    assert Ledger().goodput is None


def test_first_attempt_begins_with_nothing() -> None:
    assert taken_up(None, 0, 0.0, "a", 1000.0) == Ledger()


def test_workers_lost_cost_the_work_since_the_checkpoint_and_the_gap() -> None:
    """The checkpoint was at step 16, after 70 s of work; the next attempt begins 25 s after the last sign of life."""
    ledger = taken_up(BEFORE, 16, 70.0, "a", 1025.0)
    assert ledger == Ledger(wall=125, starting=35, stall=5, lost=15, steps_redone=4, joules=7.2e6)
    assert ledger.goodput == 70 / 125
    later = ledger.after(wall=10, starting=4).after(wall=65)
    assert later.goodput == (70 + (10 - 4) + 65) / 200


def test_a_run_taken_up_by_another_driver_does_not_count_the_time_between() -> None:
    for launch, before in (("b", "a"), ("", "")):
        reached = Reached(launch=before, step=20, time=1000.0, ledger=LEDGER)
        ledger = taken_up(reached, 16, 70.0, launch, 90_000.0)
        assert ledger == Ledger(wall=100, starting=10, stall=5, lost=15, steps_redone=4, joules=7.2e6)


def test_without_a_checkpoint_all_work_is_lost() -> None:
    ledger = taken_up(BEFORE, 0, 0.0, "b", 0.0)
    assert ledger.lost == 85
    assert ledger.goodput == 0


def test_a_checkpoint_beyond_the_last_sign_of_life_loses_nothing() -> None:
    ledger = taken_up(BEFORE, 24, 90.0, "b", 0.0)
    assert (ledger.lost, ledger.steps_redone) == (0, 0)


def test_sign_of_life_comes_back_as_it_was(root: str) -> None:
    assert read(root) is None
    write(root, BEFORE)
    assert read(root) == BEFORE


def test_costs_by_hand() -> None:
    """2 kWh at 0.05 kg each; 4 workers for 1/36 hour at 3.6 each."""
    columns = cost_columns(LEDGER, metered=True, co2_kg_per_kwh=0.05, workers=4, cost_per_worker_hour=3.6)
    expected = {"seconds_wall": 100, "goodput": 0.85, "energy_kwh": 2.0, "co2_kg": 0.1, "cost": 0.4}
    assert columns == pytest.approx(expected)


def test_what_has_no_factor_or_meter_is_absent() -> None:
    columns = cost_columns(LEDGER, metered=False, co2_kg_per_kwh=0.05, workers=4, cost_per_worker_hour=0.0)
    assert set(columns) == {"seconds_wall", "goodput"}
