"""Deduplicated documents to fixed rows of tokens; with --preview, some rows of a finished pack as text.

python jobs/pack.py --config FILE.toml --preview 5
"""

import sys
from collections.abc import Mapping, Sequence

from caravela import command
from caravela.data import packing, preview, tokenizer
from caravela.manifest import Manifest
from caravela.stages import finished
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    look = command.Look[RoadConfig](
        name="preview",
        help="run nothing; print N rows (10) of the finished pack, decoded, with the borders of documents",
        default=10,
        show=_preview,
    )
    return command.run_stages(argv, __doc__, RoadConfig, lambda config: [road(config)["pack"]], _figures, look)


def _figures(config: RoadConfig, manifests: Mapping[str, Manifest]) -> str:
    return packing.as_text(manifests["pack"].summary)


def _preview(config: RoadConfig, count: int) -> str:
    stages = road(config)
    pack = finished(stages["pack"].as_input())
    processor = tokenizer.load(stages["tokenizer"].uri)
    rows = preview.shown_rows(pack, "train", preview.scattered(pack, "train", count), processor)
    return preview.as_text(pack, rows)


if __name__ == "__main__":
    sys.exit(main())
