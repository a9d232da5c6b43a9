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


def test_schedule_without_warm_up_starts_at_the_peak() -> None:
    assert rate(1, schedule="constant", warmup_steps=0) == 2.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps = 0: expected 1 or more"),
        ("warmup_steps", 110, "warmup_steps = 110: expected fewer than steps = 110"),
        ("num_workers", 5, "num_workers = 5: expected at most batch_rows = 4"),
        ("learning_rate", 0.0, "learning_rate = 0.0: expected a number above 0"),
        ("beta2", 1.0, "beta2 = 1.0: expected from 0 to below 1"),
    ],
)
def test_train_config_names_what_is_wrong(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rate(1, **{field: value})
