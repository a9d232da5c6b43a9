"""Perplexity, bits per byte and generated text of the trained model."""

import sys
from collections.abc import Sequence

from caravela import command
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, lambda config: [road(config)["evaluate"]])


if __name__ == "__main__":
    sys.exit(main())
