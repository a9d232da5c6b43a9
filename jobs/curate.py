"""Crawl files to clean Portuguese documents: read, extract, identify the language, filter by quality."""

import sys
from collections.abc import Sequence

from caravela import command
from caravela.stages import Stage
from road import CURATE_STAGES, RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, curation)


def curation(config: RoadConfig) -> list[Stage]:
    """The stage and, where repeated lines are dropped, those that count them."""
    stages = road(config)
    return [stages[name] for name in CURATE_STAGES if name in stages]


if __name__ == "__main__":
    sys.exit(main())
