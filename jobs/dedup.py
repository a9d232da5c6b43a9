"""Exact and near-duplicates out of the curated documents; the best of each cluster stays. If set, repeated text too."""

import sys
from collections.abc import Sequence

from caravela import command
from caravela.stages import Stage
from filters.dedup.road import DEDUP_STAGES, SPAN_STAGES
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, deduplication)


def deduplication(config: RoadConfig) -> list[Stage]:
    """The stages, with those that verify removals and take out repeated spans where they are asked for."""
    stages = road(config)
    return [stages[name] for name in (*DEDUP_STAGES, *SPAN_STAGES) if name in stages]


if __name__ == "__main__":
    sys.exit(main())
