"""Tells a loss or a gradient that jumps from the noise of training, and which steps are left out after it.

In: the loss and the gradient's norm of each step. Out: whether this one is a spike. The rule is robust: a value is a
spike when it lies more than ``spike_deviations`` scaled median absolute deviations above the median of the last
``spike_window`` steps (1.4826 times the deviation is the standard deviation of a normal distribution: Leys and others,
Journal of Experimental Social Psychology 49, 2013). Medians are not moved by the spike itself, nor by one before it.

Steps that are left out are a file of the stage, ``skipped.json``; they make no update, so that every other step keeps
its batch, its rate and its number. What was left out is told with its documents by ``jobs/explain.py --step N``.
"""

import collections
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from caravela import storage
from caravela.config import build
from caravela.train.config import TrainConfig

SKIPPED = "skipped.json"
SCALE = 1.4826
LEAST_DEVIATION = 0.01
"""Of the median: where the last values are nearly equal, no change below a few percent is a spike."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Steps that were left out together, and why."""

    first: int
    last: int
    reason: str
    document_ids: tuple[str, ...] = ()
    """Of the batch of the step that jumped."""

    def __contains__(self, step: int) -> bool:
        return self.first <= step <= self.last


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


def read_skipped(stage_uri: str) -> list[Skipped]:
    """What this run leaves out; nothing where there is no such file."""
    uri = storage.join(stage_uri, SKIPPED)
    try:
        return [build(Skipped, each, uri) for each in json.loads(storage.read_text(uri))]
    except FileNotFoundError:
        return []


def write_skipped(stage_uri: str, skipped: Sequence[Skipped]) -> None:
    """Replaces the list as a whole."""
    storage.write_text(storage.join(stage_uri, SKIPPED), json.dumps([asdict(each) for each in skipped], indent=1))
