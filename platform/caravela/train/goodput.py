"""How much of a run's time went into steps that count, over all its attempts.

``goodput = 1 - (starting + stall + lost) / wall``:

* wall: from the start of each attempt's workers to its last sign of life. Time between two attempts counts where one
  driver started both: it is the time that the loss took to be noticed and the workers to come back. A run that somebody
  took up again later does not count the night.
* starting: those gaps, and in every attempt, the first too, what comes before its first step.
* stall: training stood still for snapshots of checkpoints.
* lost: work that was done after the checkpoint that the next attempt began from, and so was done again.

Rank 0 leaves a sign of life (``Reached``) in the stage's directory every ``SIGN_INTERVAL_S`` and with every checkpoint;
what was done after the last one is not known to be lost, but then falls into the gap. No torch, no clock.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from caravela import storage
from caravela.config import build

FILE = "reached.json"
SIGN_INTERVAL_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Seconds, except for the last two fields."""

    wall: float = 0.0
    starting: float = 0.0
    stall: float = 0.0
    lost: float = 0.0
    steps_redone: int = 0
    joules: float = 0.0

    @property
    def good(self) -> float:
        return self.wall - self.starting - self.stall - self.lost

    @property
    def goodput(self) -> float | None:
        return self.good / self.wall if self.wall > 0 else None

    def after(self, **more: float) -> "Ledger":
        """The ledger with amounts added to its fields."""
        return dataclasses.replace(self, **{name: getattr(self, name) + amount for name, amount in more.items()})


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far an attempt was when it last gave a sign of life."""

    launch: str
    """The driver that started it; several attempts have one driver where workers were lost."""
    step: int
    time: float
    """Seconds since 1970."""
    ledger: Ledger = field(default_factory=Ledger)


def taken_up(before: Reached | None, kept_step: int, kept_good: float, launch: str, now: float) -> Ledger:
    """What an attempt begins with.

    Args:
        before: last sign of life of the attempt before; None if this is the first.
        kept_step: that this attempt goes on from.
        kept_good: ``Ledger.good`` as it was at that step.
        launch: driver of this attempt; empty for one that is not known.
        now: seconds since 1970.
    """
    if before is None:
        return Ledger()
    ledger = before.ledger.after(
        lost=max(0.0, before.ledger.good - kept_good), steps_redone=max(0, before.step - kept_step)
    )
    if not launch or launch != before.launch:
        return ledger
    gap = max(0.0, now - before.time)
    return ledger.after(wall=gap, starting=gap)


def read(stage_uri: str) -> Reached | None:
    """The last sign of life in a stage's directory."""
    where = storage.join(stage_uri, FILE)
    try:
        table: dict[str, Any] = json.loads(storage.read_text(where))
    except FileNotFoundError:
        return None
    return build(Reached, table, where)


def write(stage_uri: str, reached: Reached) -> None:
    storage.write_text(storage.join(stage_uri, FILE), json.dumps(dataclasses.asdict(reached)))


JOULES_PER_KWH = 3.6e6


def cost_columns(
    ledger: Ledger, metered: bool, co2_kg_per_kwh: float, workers: int, cost_per_worker_hour: float
) -> dict[str, float]:
    """Goodput, energy, CO2 and cost of the run so far; what is not metered or has no factor is absent."""
    columns: dict[str, float] = {"seconds_wall": round(ledger.wall, 3)}
    if ledger.goodput is not None:
        columns["goodput"] = round(ledger.goodput, 6)
    if ledger.steps_redone:
        columns["steps_redone"] = ledger.steps_redone
    if metered:
        columns["energy_kwh"] = ledger.joules / JOULES_PER_KWH
        if co2_kg_per_kwh:
            columns["co2_kg"] = columns["energy_kwh"] * co2_kg_per_kwh
    if cost_per_worker_hour:
        columns["cost"] = round(ledger.wall / 3600 * workers * cost_per_worker_hour, 6)
    return columns
