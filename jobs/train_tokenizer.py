"""SentencePiece trained on the deduplicated documents, measured on those held out, beside other tokenizers."""

import sys
from collections.abc import Mapping, Sequence

from caravela import command
from caravela.data import tokenizer_report
from caravela.manifest import Manifest
from caravela.stages import Stage
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, _stages, _table)


def _stages(config: RoadConfig) -> list[Stage]:
    stages = road(config)
    return [stages["tokenizer"], stages["tokenizer_report"]]


def _table(config: RoadConfig, manifests: Mapping[str, Manifest]) -> str:
    return tokenizer_report.as_text(manifests["tokenizer_report"].summary)


if __name__ == "__main__":
    sys.exit(main())
