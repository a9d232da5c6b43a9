"""Which documents a step of training has in its batch, or in which steps a document was trained on.

python jobs/explain.py --config FILE.toml --step 120 [--text]
python jobs/explain.py --config FILE.toml --document ID
"""

import argparse
import sys
from collections.abc import Sequence

from caravela import config
from caravela.data.explain import appearances_as_text, as_text, documents_of_step, steps_of_document
from caravela.data.sources import pack_inputs, training_order
from caravela.data.training_order import TrainingOrder
from caravela.errors import UserError
from caravela.stages import finished
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE.toml", help="settings of the run, local or s3://")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="overrides a setting")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--step", type=int, metavar="N", help="as metrics.jsonl counts them, from 1")
    asked.add_argument("--document", metavar="ID")
    parser.add_argument("--text", action="store_true", help="with --step: the documents' texts too")
    options = parser.parse_args(argv)
    try:
        order = order_of(config.load(RoadConfig, options.config, options.set))
        if options.step is not None:
            print(as_text(documents_of_step(order, options.step, with_text=options.text)))
        else:
            print(appearances_as_text(options.document, list(steps_of_document(order, options.document))))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def order_of(settings: RoadConfig) -> TrainingOrder:
    """The order in which the run trains, or would."""
    packs = pack_inputs(settings.mixture, road(settings)["pack"].as_input())
    return training_order(settings.mixture, [finished(pack) for pack in packs], settings.train)


if __name__ == "__main__":
    sys.exit(main())
