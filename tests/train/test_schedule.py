"""The learning rate, by hand."""

import math

import pytest

from caravela.train.config import TrainConfig
from caravela.train.schedule import learning_rate


def rate(step: int, **changed: object) -> float:
    usual = {"steps": 110, "batch_rows": 4, "learning_rate": 2.0, "min_learning_rate_ratio": 0.1, "warmup_steps": 10}
    return learning_rate(TrainConfig(**{**usual, **changed}), step)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_schedule_warm_up_climbs_linearly_to_the_peak(schedule: str) -> None:
    assert [rate(step, schedule=schedule) for step in (1, 5, 10)] == pytest.approx([0.2, 1.0, 2.0])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", {60: 1.1, 35: 0.2 + 1.8 * (1 + math.sqrt(0.5)) / 2, 110: 0.2, 200: 0.2}),
        ("linear", {60: 1.1, 35: 2.0 - 1.8 / 4, 110: 0.2, 200: 0.2}),
        ("wsd", {60: 2.0, 99: 2.0, 110: 0.2, 200: 0.2}),
        ("constant", {11: 2.0, 110: 2.0}),
    ],
)
def test_schedule_after_the_warm_up(schedule: str, expected: dict[int, float]) -> None:
    assert {step: rate(step, schedule=schedule) for step in expected} == pytest.approx(expected)


def test_schedule_wsd_falls_over_its_share() -> None:
    assert rate(88, schedule="wsd", decay_share=0.4) == pytest.approx(2.0 - 1.8 * 22 / 44)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 110 steps, the first 10 of warm-up: the floor is reached at step 99, 89 after the warm-up
        (
            "cosine",
            {
                10: 2.0,
                54: 0.2 + 0.9 * (1 + math.cos(math.pi * 44 / 89)),
                98: 0.2 + 0.9 * (1 + math.cos(math.pi * 88 / 89)),
            },
        ),
        ("linear", {10: 2.0, 54: 2.0 - 1.8 * 44 / 89, 98: 2.0 - 1.8 * 88 / 89}),
        ("wsd", {88: 2.0, 94: 2.0 - 1.8 * 6 / 11, 98: 2.0 - 1.8 * 10 / 11}),
    ],
)
def test_schedule_reaches_its_floor_before_the_end_and_stays(schedule: str, expected: dict[int, float]) -> None:
    found = {step: rate(step, schedule=schedule, floor_at=0.9) for step in expected}
    assert found == pytest.approx(expected)
    assert [rate(step, schedule=schedule, floor_at=0.9) for step in (99, 100, 110, 999)] == pytest.approx([0.2] * 4)


def test_schedule_is_that_of_nanogpt_with_its_lr_decay_iters() -> None:
    """Tucano's trainer has nanoGPT's rule with ``lr_decay_iters`` = 0.9 of the steps; here at its 630M's numbers."""
    settings = {"steps": 400_000, "batch_rows": 256, "learning_rate": 6e-4, "min_learning_rate_ratio": 0.1}
    config = TrainConfig(**settings, warmup_steps=1000, floor_at=0.9)  # type: ignore[arg-type]
    decay_iters, low = 0.9 * 400_000, 6e-5
    for step in (1, 500, 1000, 1001, 180_500, 359_999, 360_000, 360_001, 400_000):
        if step <= 1000:
            expected = 6e-4 * step / 1000
        elif step > decay_iters:
            expected = low
        else:
            share = (step - 1000) / (decay_iters - 1000)
            expected = low + 0.5 * (1.0 + math.cos(math.pi * share)) * (6e-4 - low)
        assert learning_rate(config, step) == pytest.approx(expected)


def test_schedule_wsd_falls_by_one_minus_square_root() -> None:
    shape = {"schedule": "wsd", "decay_share": 0.4, "decay_shape": "one_minus_sqrt"}
    steps = {66: 2.0, 77: 0.2 + 1.8 * 0.5, 88: 0.2 + 1.8 * (1 - math.sqrt(0.5)), 110: 0.2}  # 44 steps: a quarter, half
    assert {step: rate(step, **shape) for step in steps} == pytest.approx(steps)


def test_schedule_of_btlm_falls_in_a_line_over_159541_steps() -> None:
    """Cerebras' config: 95 steps up to 1.2e-2, then linear to 1.0198e-4 over 159,541."""
    settings = {"steps": 159_636, "batch_rows": 480, "learning_rate": 1.2e-2, "schedule": "linear", "warmup_steps": 95}
    config = TrainConfig(**settings, min_learning_rate_ratio=1.0198e-4 / 1.2e-2)  # type: ignore[arg-type]
    for done in (0, 1, 80_000, 159_541):
        expected = 1.2e-2 + (1.0198e-4 - 1.2e-2) * done / 159_541
        assert learning_rate(config, 95 + done) == pytest.approx(expected)


def test_schedule_starts_again_from_the_floor() -> None:
    again = {"steps": 160, "restart_after_steps": (60, 110)}
    # stretches of 60, 50 and 50 steps, each with 10 of warm-up
    expected = {1: 0.2, 10: 2.0, 35: 1.1, 60: 0.2, 61: 0.2 + 0.18, 65: 1.1, 70: 2.0, 90: 1.1, 110: 0.2, 111: 0.38}
    expected |= {120: 2.0, 140: 1.1, 160: 0.2, 500: 0.2}
    for schedule in ("cosine", "linear"):  # they meet halfway
        found = {step: rate(step, schedule=schedule, **again) for step in expected}
        assert found == pytest.approx(expected)


def test_schedule_that_starts_again_takes_shares_of_each_stretch() -> None:
    again = {"steps": 160, "restart_after_steps": (60,), "schedule": "wsd", "decay_share": 0.2, "floor_at": 0.9}
    # 60 steps: falls from 42 to 54; 100 steps: from 60 + 70 to 60 + 90
    expected = {42: 2.0, 48: 1.1, 54: 0.2, 60: 0.2, 70: 2.0, 130: 2.0, 140: 1.1, 150: 0.2, 160: 0.2}
    assert {step: rate(step, **again) for step in expected} == pytest.approx(expected)


def test_schedule_without_warm_up_starts_again_at_the_peak() -> None:
    assert rate(56, schedule="linear", warmup_steps=0, restart_after_steps=(55,)) == pytest.approx(2.0 - 1.8 / 55)


def test_schedule_without_warm_up_starts_at_the_peak() -> None:
    assert rate(1, schedule="constant", warmup_steps=0) == 2.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps = 0: expected 1 or more"),
        ("warmup_steps", 110, "warmup_steps = 110: expected fewer than steps = 110"),
        ("num_workers", 5, "num_workers = 5: expected at most batch_rows = 4"),
        ("learning_rate", 0.0, "learning_rate = 0.0: expected a number above 0"),
        ("floor_at", 1.1, "floor_at = 1.1: expected from 0 to 1"),
        ("floor_at", 0.05, "floor_at = 0.05: expected a share of 110 steps above warmup_steps = 10"),
        (
            "restart_after_steps",
            (105,),
            r"restart_after_steps = \[105\]: expected more than warmup_steps = 10 .*105 to 110",
        ),
        ("restart_after_steps", (50, 40), r"restart_after_steps = \[50, 40\]: expected .*; 50 to 40 are fewer"),
        ("beta2", 1.0, "beta2 = 1.0: expected from 0 to below 1"),
    ],
)
def test_train_config_names_what_is_wrong(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rate(1, **{field: value})
