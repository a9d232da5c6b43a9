"""A page of removed documents by reason, each with the place marked where its reason lies, beside those just kept."""

import sys
from collections.abc import Sequence

from caravela import command, manifest
from caravela.stages import Stage
from filters.browse import browse_stage
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, _choose)


def _choose(config: RoadConfig) -> list[Stage]:
    """The page over curation and, as far as it is finished, deduplication."""
    stages = road(config)
    inputs = [stages[name].as_input() for name in ("curate", "dedup", "trim") if name in stages]
    done = [one for one in inputs[1:] if manifest.read(one.uri) is not None]
    return [browse_stage(stages["curate"].root, config.browse, inputs[0], *done)]


if __name__ == "__main__":
    sys.exit(main())
