"""Pretraining on packed rows: DeepSpeed under Ray Train, resumed from the newest complete checkpoint.

With --dry-run: parameters, memory per GPU, time, cost and energy, before there is any data.
"""

import sys
from collections.abc import Sequence

from caravela import command
from forecast import forecast
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, lambda config: [road(config)["pretrain"]], forecast=forecast)


if __name__ == "__main__":
    sys.exit(main())
