"""Tells a loss or a gradient that jumps from the noise of training.

In: the loss and the gradient's norm of each step. Out: whether this one is a spike. The rule is robust: a value is a
spike when it lies more than ``spike_deviations`` scaled median absolute deviations above the median of the last
``spike_window`` steps (1.4826 times the deviation is the standard deviation of a normal distribution: Leys and others,
Journal of Experimental Social Psychology 49, 2013). Medians are not moved by the spike itself, nor by one before it.
"""

import collections
import statistics

from caravela.train.config import TrainConfig

SCALE = 1.4826
LEAST_DEVIATION = 0.01
"""Of the median: where the last values are nearly equal, no change below a few percent is a spike."""


class SpikeDetector:
    """Remembers the last steps; the same on all ranks, as what it is told is."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self._losses: collections.deque[float] = collections.deque(maxlen=config.spike_window)
        self._norms: collections.deque[float] = collections.deque(maxlen=config.spike_window)

    def judge(self, loss: float, grad_norm: float) -> str:
        """Why this step is a spike, or an empty text; only a step that is none is remembered."""
        for name, value, history in (("loss", loss, self._losses), ("gradient norm", grad_norm, self._norms)):
            if len(history) < self.config.spike_window:
                continue
            middle = statistics.median(history)
            deviation = SCALE * statistics.median(abs(each - middle) for each in history)
            deviation = max(deviation, LEAST_DEVIATION * abs(middle))
            if value > middle + self.config.spike_deviations * deviation:
                far = (value - middle) / deviation
                return f"{name} {value:.4g} is {far:.1f} deviations above the median {middle:.4g} of the last steps"
        self._losses.append(loss)
        self._norms.append(grad_norm)
        return ""
