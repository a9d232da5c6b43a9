"""Crawl files to clean Portuguese documents: read, extract, identify the language, filter by quality."""

import sys
from collections.abc import Sequence

from caravela import command
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, lambda config: [road(config)["curate"]])


if __name__ == "__main__":
    sys.exit(main())
