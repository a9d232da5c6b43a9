"""The learning rate of a step, as a pure function: a resumed run needs nothing but the step.

Warm-up is linear and reaches the peak at its last step: step 1 of 10 has a tenth of it. What follows falls from the
peak to the floor, which the last step has.
"""

import math

from caravela.train.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of the update that makes step ``step``, counted from 1; beyond the last step it stays at the floor."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    floor = config.learning_rate * config.min_learning_rate_ratio
    return floor + (config.learning_rate - floor) * height(config, step)


def height(config: TrainConfig, step: int) -> float:
    """Where the schedule stands after the warm-up, from 1 (peak) down to 0 (floor)."""
    if config.schedule == "constant":
        return 1.0
    first = config.warmup_steps
    if config.schedule == "wsd":
        first = max(first, config.steps - round(config.steps * config.decay_share))
    done = (step - first) / max(1, config.steps - first)
    done = min(1.0, max(0.0, done))
    return (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1 - done
