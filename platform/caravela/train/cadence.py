"""How many steps lie between two checkpoints: as configured, by the clock, or by what they and a failure cost.

In: settings, and seconds that this run was seen to need. Out: a number of steps. The ranks must agree on it, so what
they measured is averaged over them before it comes here.

Young's and Daly's interval weighs the stall of a checkpoint against the work that a failure makes lost: Daly, "A higher
order estimate of the optimum checkpoint interval for restart dumps", FGCS 22 (2006), equation 37; its first term is
Young's. Writing goes on beside training and costs nothing here, but only one checkpoint is on its way at a time, so
the interval is never shorter than that takes.
"""

import math
from typing import NamedTuple

from caravela.train.config import TrainConfig

PROBE_STEPS = 8
"""Where the interval is measured, the first checkpoint of an attempt comes after so few steps, to measure it."""


class Measured(NamedTuple):
    """Means over the ranks, in seconds; None before the first checkpoint of an attempt."""

    step: float
    """Of a step."""
    stall: float
    """By which a checkpoint holds training up."""
    writing: float
    """From its snapshot to its metadata, beside training."""


def is_measured(config: TrainConfig) -> bool:
    """Whether the interval depends on the clock."""
    return config.checkpoint_every_minutes > 0 or config.mean_hours_between_failures > 0


def steps_between(config: TrainConfig, measured: Measured | None) -> int:
    """Steps from one checkpoint to the next, at least 1; the settings' own where nothing is measured."""
    if not is_measured(config):
        return config.checkpoint_every_steps
    if measured is None:
        return min(PROBE_STEPS, config.checkpoint_every_steps)
    if config.mean_hours_between_failures > 0:
        seconds = optimal_interval(measured.stall, 3600 * config.mean_hours_between_failures)
    else:
        seconds = 60 * config.checkpoint_every_minutes
    return max(1, round(max(seconds, measured.writing) / max(measured.step, 1e-9)))


def optimal_interval(stall: float, between_failures: float) -> float:
    """Seconds of training between two checkpoints that lose the least time.

    Args:
        stall: seconds that a checkpoint holds training up.
        between_failures: mean seconds between failures of the whole group of workers.
    """
    if stall >= 2 * between_failures:
        return between_failures
    ratio = stall / (2 * between_failures)
    return math.sqrt(2 * stall * between_failures) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - stall


class Cadence:
    """When the next checkpoint is due; all ranks tell it the same."""

    def __init__(self, config: TrainConfig, first_step: int) -> None:
        """Counts from the step that an attempt begins with."""
        self.config = config
        self._next = first_step + steps_between(config, None)

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint of this step is to be made; one of the last step always is."""
        if is_measured(self.config):
            return step >= self._next or step == self.config.steps
        return step % self.config.checkpoint_every_steps == 0 or step == self.config.steps

    def made(self, step: int, measured: Measured) -> None:
        """A checkpoint of this step is on its way."""
        self._next = step + steps_between(self.config, measured)
