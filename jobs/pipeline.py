"""The whole road, from crawl files to an exported model and a report; finished stages are left as they are."""

import os
import sys
from collections.abc import Mapping, Sequence

from caravela import command, storage
from caravela.data.sources import require_sources
from caravela.manifest import Manifest
from caravela.stages import Stage
from forecast import forecast
from road import RoadConfig, road


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(argv, __doc__, RoadConfig, _choose, _what_next, forecast=forecast)


def _choose(config: RoadConfig) -> list[Stage]:
    require_sources(config.mixture)
    return list(road(config).values())


def _what_next(config: RoadConfig, manifests: Mapping[str, Manifest]) -> str:
    """Where the results are, and what to do with them."""
    report = storage.join(manifests["report"].uri, "report.html")
    model = manifests["export"].uri if "export" in manifests else ""
    python = min(os.path.relpath(sys.executable), sys.executable, key=len)
    inputs = "--set 'curate.inputs=[\"my-crawl/*.warc.gz\"]'"
    return "\n".join(
        [
            f"Report:  {report}",
            *([f"Model:   {model}"] if model else []),
            "",
            "Next:",
            *([f"  {python} jobs/generate.py --model {model} --prompt 'Era uma vez'"] if model else []),
            f"  {python} jobs/pipeline.py --config jobs/configs/demo.toml --set root={config.root} --dry-run",
            f"  {python} jobs/pipeline.py --config jobs/configs/local.toml {inputs}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
