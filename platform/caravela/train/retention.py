"""Which complete checkpoints stay on storage. Pure: storage is another's affair (train.checkpoint)."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What stays; a checkpoint stays if one of them keeps it."""

    newest: int
    """So many of the latest steps."""
    every_steps: int = 0
    """Multiples of this step; 0 is none."""
    hours: float = 0.0
    """Those that are younger."""

    def __post_init__(self) -> None:
        for name, least in (("newest", 1), ("every_steps", 0), ("hours", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: expected {least} or more")


class Stored(NamedTuple):
    """A complete checkpoint."""

    uri: str
    step: int
    created: str
    """UTC, ISO 8601."""


def superfluous(rules: Rules, stored: Sequence[Stored], now: datetime.datetime) -> list[Stored]:
    """Those that no rule keeps, oldest first.

    A step that was kept by two attempts counts once: the older of the two goes.
    """
    by_age = sorted(stored, key=lambda one: (one.step, one.created, one.uri))
    newest_of_step = {one.step: one for one in by_age}
    newest = {one.uri for one in list(newest_of_step.values())[-rules.newest :]}

    def stays(one: Stored) -> bool:
        if newest_of_step[one.step] is not one:
            return False
        young = (now - datetime.datetime.fromisoformat(one.created)).total_seconds() < 3600 * rules.hours
        milestone = rules.every_steps > 0 and one.step % rules.every_steps == 0
        return one.uri in newest or milestone or young

    return [one for one in by_age if not stays(one)]
