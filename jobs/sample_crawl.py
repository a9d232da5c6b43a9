"""The sample crawl alone: WARC files made of texts written for this project, with labels kept apart."""

import sys
from collections.abc import Sequence

from caravela import command, storage
from caravela.sample.crawl import crawl_stage
from road import RoadConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(
        argv, __doc__, RoadConfig, lambda config: [crawl_stage(storage.absolute(config.root), config.crawl)]
    )


if __name__ == "__main__":
    sys.exit(main())
