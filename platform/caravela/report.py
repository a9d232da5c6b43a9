"""Stage ``report``: what a run did, as one HTML file to read, one JSON file with the same figures, and a dataset card.

In: the stages before it, by their manifests. Out: ``report.html``, which needs nothing but itself, ``report.json``,
and, where there are documents, ``dataset_card.md`` for those who publish them. The driver makes them, without Ray. The
same stages give the same bytes.

A stage that is not part of the run (a run from JSONL has no crawl) is left out. A report of a run that is still under
way is another report, in another directory, that says what is missing: ``partial=True``.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caravela import manifest
from caravela.config import ConfigError, to_dict
from caravela.manifest import Input
from caravela.reporting.collect import Limits, collect
from caravela.reporting.dataset_card import dataset_card
from caravela.reporting.page import render
from caravela.stages import Shard, ShardOutput, Stage, finished

HTML_FILE, JSON_FILE, CARD_FILE = "report.html", "report.json", "dataset_card.md"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How much the report shows."""

    title: str = ""
    """Heading of the page; empty for the name of the run's folder."""
    examples_per_reason: int = 3
    """Removed documents that are shown for each reason."""
    excerpt_characters: int = 300
    """Characters that are shown of each."""
    example_parts: int = 16
    """Most parts of a table of documents that are read to find examples, spread evenly over it."""

    def __post_init__(self) -> None:
        for name, least in (("examples_per_reason", 0), ("excerpt_characters", 20), ("example_parts", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected {least} or more")


def report_stage(root: str, config: ReportConfig, inputs: Sequence[Input], *, partial: bool = False) -> Stage:
    """The stage over all of ``inputs``, which must be finished when it runs.

    With ``partial``, over those of them that are finished now.
    """
    there = [source for source in inputs if not partial or manifest.read(source.uri) is not None]
    missing = [source.name for source in inputs if source not in there]
    return Stage(
        name="report",
        version=7,
        root=root,
        config={**to_dict(config), "missing": missing},
        inputs=tuple(there),
        plan=functools.partial(_plan, there),
        make_worker=functools.partial(ReportWorker, root, config, tuple(there), tuple(missing)),
        in_driver=True,
    )


def _plan(inputs: Sequence[Input]) -> list[Shard]:
    for source in inputs:
        finished(source)
    return [Shard(index=0, name="report", spec={})]


@dataclass(frozen=True)
class ReportWorker:
    """Collects and renders."""

    root: str
    config: ReportConfig
    inputs: tuple[Input, ...]
    missing: tuple[str, ...]

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        stages = {source.name: finished(source) for source in self.inputs}
        limits = Limits(
            examples=self.config.examples_per_reason,
            excerpt_characters=self.config.excerpt_characters,
            parts=self.config.example_parts,
        )
        figures = {"title": self.config.title, **collect(self.root, stages, self.missing, limits)}
        with open(out.local_path(JSON_FILE), "w", encoding="utf-8") as file:
            json.dump(figures, file, ensure_ascii=False, indent=1)
        with open(out.local_path(HTML_FILE), "w", encoding="utf-8") as file:
            file.write(render(figures))
        if (card := dataset_card(stages, figures)) is not None:
            with open(out.local_path(CARD_FILE), "w", encoding="utf-8") as file:
                file.write(card)
        return {"stages": len(stages)}
