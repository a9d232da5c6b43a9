"""One HTML file and one JSON file that show what a run did, or has done so far."""

import sys
from collections.abc import Sequence

from caravela import command
from caravela.report import report_stage
from caravela.stages import Stage
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, _choose)


def _choose(config: RoadConfig) -> list[Stage]:
    """The report on those stages that are finished."""
    whole = road(config)["report"]
    return [report_stage(config.root, config.report, whole.inputs, partial=True)]


if __name__ == "__main__":
    sys.exit(main())
