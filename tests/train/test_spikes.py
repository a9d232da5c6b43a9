"""What is a spike and what is noise, by hand and on random walks."""

import random

from caravela.train.spikes import SpikeDetector
from tests.train.conftest import config


def detector(**changed: float) -> SpikeDetector:
    return SpikeDetector(config(**{"spike_window": 8, "spike_deviations": 10.0, **changed}))


def test_spikes_the_limit_is_where_it_was_computed_by_hand() -> None:
    # Median 2.05, deviations from it 0.05 throughout: limit 2.05 + 10 · 1.4826 · 0.05 = 2.7913.
    losses = [2.0, 2.1] * 4
    for loss, spike in ((2.79, False), (2.80, True)):
        one = detector()
        assert [one.judge(each, 1.0) for each in losses] == [""] * 8
        assert bool(one.judge(loss, 1.0)) == spike


def test_spikes_of_the_gradient_alone_are_seen_and_named() -> None:
    one = detector()
    for each in range(8):
        one.judge(2.0, 1.0 + 0.01 * each)
    assert one.judge(2.0, 9.0).startswith("gradient norm 9 is")


def test_spikes_do_not_change_what_the_next_step_is_compared_with() -> None:
    one = detector()
    for each in range(8):
        one.judge(2.0 + 0.01 * each, 1.0)
    assert all(one.judge(9.0, 1.0) for _ in range(20))
    assert not one.judge(2.05, 1.0)


def test_spikes_are_not_seen_in_noise_that_falls_as_a_loss_does() -> None:
    chance = random.Random(5)
    one = detector(spike_window=100)
    found = [
        one.judge(3 + 8 / (1 + step / 50) + chance.gauss(0, 0.05), abs(chance.gauss(1, 0.1))) for step in range(5000)
    ]
    assert not any(found)


def test_spikes_before_the_window_is_full_are_not_judged() -> None:
    one = detector()
    assert not any(one.judge(loss, 1.0) for loss in (11.0, 2.0, 90.0, 1.0, 5.0, 2.0, 3.0, 2.0))
