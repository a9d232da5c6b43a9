"""The trained model and its tokenizer as a Hugging Face folder, checked before it is committed."""

import sys
from collections.abc import Sequence

from caravela import command
from caravela.config import ConfigError
from caravela.stages import Stage
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, _choose)


def _choose(config: RoadConfig) -> list[Stage]:
    if not config.export.enabled:
        raise ConfigError("export.enabled = false: expected true for this job")
    return [road(config)["export"]]


if __name__ == "__main__":
    sys.exit(main())
