"""What other quality limits would drop, rule by rule, from the signals of a finished curation; a table and a page.

python jobs/what_if.py --config FILE.toml --set curate.quality.gopher_quality.min_doc_words=80
"""

import json
import sys
from collections.abc import Mapping, Sequence

from caravela import command, storage
from caravela.manifest import Manifest
from caravela.stages import Stage
from filters.what_if import JSON_FILE, PAGE_FILE, as_text, what_if_stage
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, _choose, _figures)


def _choose(config: RoadConfig) -> list[Stage]:
    return [what_if_stage(road(config)["curate"], config.curate.quality)]


def _figures(config: RoadConfig, manifests: Mapping[str, Manifest]) -> str:
    directory = manifests["what_if"].uri
    text = as_text(json.loads(storage.read_text(storage.join(directory, JSON_FILE))))
    return f"{text}\n\nwith curves: {storage.join(directory, PAGE_FILE)}"


if __name__ == "__main__":
    sys.exit(main())
