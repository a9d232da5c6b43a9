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
    """The page over curation and, if it is finished, deduplication."""
    stages = road(config)
    curated, unique = stages["curate"].as_input(), stages["dedup"].as_input()
    dedup = unique if manifest.read(unique.uri) is not None else None
    return [browse_stage(stages["curate"].root, config.browse, curated, dedup)]


if __name__ == "__main__":
    sys.exit(main())
