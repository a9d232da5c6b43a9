"""Figures of training as arithmetic: operations per token, shares of a machine's rate, means over a window.

In: shapes, seconds, tokens. Out: numbers, or None where there is nothing to divide by. No torch, no clock.

Convention: a token costs ``6 N + 12 L d T`` operations, N being all parameters (embeddings too, a tied matrix once), L
layers, d the width of all heads together and T the context; attention is counted in full, not halved for causality
(PaLM, arXiv 2204.02311, appendix B). MFU is that rate over the peak of the hardware in dense bfloat16; the matmul share
is the same over the rate that the machine was measured to multiply matrices at.
"""

import collections
from typing import NamedTuple

from caravela.model.config import ModelConfig, num_parameters

WINDOW_STEPS = 20

PEAK_TFLOPS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H200", 989.0),
    ("GH200", 989.0),
    ("H800", 989.0),
    ("H20", 148.0),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("A40", 149.7),
    ("RTX A6000", 154.8),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    ("MI300X", 1307.4),
    ("MI250X", 191.5),
)
"""Part of a device's name, and its peak in dense bfloat16 with sums in float32, in TFLOP/s, from the makers' data
sheets (where they give the figure for sparse matrices alone: half of it). Of an MI250X, one of the two dies that are
devices."""


def peak_tflops(device_name: str) -> float | None:
    """Peak of a GPU by its name; None for one that is not in the table."""
    words = device_name.replace("-", " ").split()
    for name, peak in PEAK_TFLOPS:
        wanted = name.split()
        if any(words[i : i + len(wanted)] == wanted for i in range(len(words))):
            return peak
    return None


def flops_per_token(model: ModelConfig, context: int) -> float:
    """Floating-point operations of one token's forward and backward pass, by the convention above."""
    return 6.0 * num_parameters(model) + 12.0 * model.num_layers * model.query_size * context


class Rates(NamedTuple):
    """What all workers together can reach, in operations a second."""

    peak: float
    peak_name: str
    """Where the peak comes from, for people."""
    matmul: float
    """As measured on this machine."""


class StepTime(NamedTuple):
    """Where a step's time went."""

    tokens: int
    flops: float
    seconds: float
    """Of the whole step, the two below included."""
    seconds_data: float
    """Waiting for rows."""
    seconds_checkpoint: float
    """Taking the snapshot of the step before."""


class Window:
    """The latest steps. A mean over several readings of the clock: one of them alone may be 0."""

    def __init__(self, steps: int = WINDOW_STEPS) -> None:
        self._steps: collections.deque[StepTime] = collections.deque(maxlen=steps)
        self._sums = StepTime(0, 0.0, 0.0, 0.0, 0.0)

    def add(self, step: StepTime) -> None:
        self._steps.append(step)
        self._sums = StepTime(*map(sum, zip(*self._steps, strict=True)))

    def tokens_per_second(self) -> float | None:
        return _ratio(self._sums.tokens, self._sums.seconds)

    def flops_per_second(self) -> float | None:
        return _ratio(self._sums.flops, self._sums.seconds)

    def data_share(self) -> float | None:
        """Share of the time that went into waiting for rows."""
        return _ratio(self._sums.seconds_data, self._sums.seconds)

    def seconds_per_step(self) -> float | None:
        return _ratio(self._sums.seconds, len(self._steps))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def speed_columns(window: Window, rates: Rates) -> dict[str, float]:
    """Columns of a step's row; those that cannot be computed are absent."""
    tokens, flops = window.tokens_per_second(), window.flops_per_second()
    columns: dict[str, float] = {}
    if tokens is not None:
        columns["tokens_per_second"] = round(tokens, 1)
    if flops is not None and rates.peak > 0:
        columns["mfu"] = round(flops / rates.peak, 6)
    if flops is not None and rates.matmul > 0:
        columns["matmul_share"] = round(flops / rates.matmul, 6)
    return columns
