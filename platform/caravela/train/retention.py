"""Which complete checkpoints stay on storage. Pure: storage is another's affair (train.checkpoint)."""

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from caravela.train.config import TrainConfig


class Stored(NamedTuple):
    """A complete checkpoint."""

    uri: str
    step: int
    created: str
    """UTC, ISO 8601."""


def superfluous(config: TrainConfig, stored: Sequence[Stored], now: datetime.datetime) -> list[Stored]:
    """Those that no rule keeps, oldest first.

    The newest ``keep_checkpoints`` stay; so do those at multiples of ``keep_every_steps``, and those younger than
    ``keep_hours``. A step that was kept by two attempts counts once: the older of the two goes.
    """
    by_age = sorted(stored, key=lambda one: (one.step, one.created, one.uri))
    newest_of_step = {one.step: one for one in by_age}
    newest = {one.uri for one in list(newest_of_step.values())[-config.keep_checkpoints :]}

    def stays(one: Stored) -> bool:
        if newest_of_step[one.step] is not one:
            return False
        young = (now - datetime.datetime.fromisoformat(one.created)).total_seconds() < 3600 * config.keep_hours
        milestone = config.keep_every_steps > 0 and one.step % config.keep_every_steps == 0
        return one.uri in newest or milestone or young

    return [one for one in by_age if not stays(one)]
