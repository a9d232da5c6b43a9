"""The learning rate of a step, as a pure function: a resumed run needs nothing but the step.

Warm-up is linear and reaches the peak at its last step: step 1 of 10 has a tenth of it. What follows falls from the
peak to the floor, which the step ``floor_at`` (by default the last) has, and all after it.

A schedule that starts again (``restart_after_steps``) is the same once more over each stretch, but that it climbs from
the floor, where the stretch before ended, and not from 0: re-warming and re-decaying (arXiv 2403.08763).
"""

import itertools
import math

from caravela.train.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of the update that makes step ``step``, counted from 1; beyond the last step it stays at the floor."""
    begin, end = stretch(config, step)
    step, length = step - begin, end - begin
    floor = config.learning_rate * config.min_learning_rate_ratio
    if step <= config.warmup_steps:
        bottom = floor if begin else 0.0
        return bottom + (config.learning_rate - bottom) * step / config.warmup_steps
    return floor + (config.learning_rate - floor) * height(config, step, length)


def stretch(config: TrainConfig, step: int) -> tuple[int, int]:
    """The steps between which the schedule runs once, the first of them not counted; a run has one without restarts."""
    borders = [0, *config.restart_after_steps, config.steps]
    return next((pair for pair in itertools.pairwise(borders) if step <= pair[1]), (borders[-2], borders[-1]))


def height(config: TrainConfig, step: int, length: int) -> float:
    """Where the schedule of a stretch stands after its warm-up, from 1 (peak) down to 0 (floor)."""
    if config.schedule == "constant":
        return 1.0
    first, last = config.warmup_steps, round(length * config.floor_at)
    if config.schedule == "wsd":
        first = max(first, last - round(length * config.decay_share))
    done = (step - first) / max(1, last - first)
    done = min(1.0, max(0.0, done))
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - (math.sqrt(done) if config.schedule == "wsd" and config.decay_shape == "one_minus_sqrt" else done)
