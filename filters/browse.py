"""Stage ``browse``: a page of removed documents by reason, beside the kept ones that were nearest to the same limit.

In: the finished stage ``curate`` and, where there are any, ``dedup`` and ``trim``. Out: ``removed.html``, which needs
nothing but itself and runs no script (``filters.browse_page``). Documents are chosen by a hash of their ids, kept ones
by how near they are to the limit, which is that of the finished stage's own settings.

The driver makes it, from ``parts`` parts of each table that lie evenly over it, so that a large run costs no more.
Memory: of each document that is shown its first ``LOOKED_AT`` characters.
"""

import functools
import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from caravela import config as settings
from caravela.config import ConfigError, to_dict
from caravela.manifest import Input, Manifest
from caravela.reporting.examples import DEDUP, removal_counts
from caravela.reporting.tables import FirstByRank, batches, rank
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters import quality
from filters.browse_page import Group, Limit, render
from filters.language import LanguageConfig, threshold_for
from filters.quality import QualityConfig

PAGE_FILE = "removed.html"
CURATE = "curate"
KEPT_COLUMNS = ("id", "url", "text", "language", "metadata")
REMOVED_COLUMNS = (*KEPT_COLUMNS, "stage", "reason", "detail")
LOOKED_AT = 100_000
"""Characters of a document among which the place of a reason is looked for."""


@dataclass(frozen=True, kw_only=True)
class BrowseConfig:
    """How much the page shows."""

    removed_per_reason: int = 12
    """Removed documents shown for each reason."""
    kept_per_reason: int = 4
    """Kept documents shown beside them, those nearest to the limit."""
    characters: int = 1500
    """Characters shown of each document."""
    parts: int = 16
    """Most parts of a table of documents that are read, spread evenly over it."""

    def __post_init__(self) -> None:
        for name, least in (("removed_per_reason", 1), ("kept_per_reason", 0), ("characters", 100), ("parts", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected {least} or more")


def browse_stage(root: str, config: BrowseConfig, curated: Input, *behind: Input) -> Stage:
    """The stage over a finished curation and the stages behind it that remove documents, if given."""
    inputs = (curated, *behind)
    return Stage(
        name="browse",
        version=1,
        root=root,
        config=to_dict(config),
        inputs=inputs,
        plan=functools.partial(_plan, inputs),
        make_worker=functools.partial(BrowseWorker, config, inputs),
        in_driver=True,
    )


def _plan(inputs: Sequence[Input]) -> list[Shard]:
    for source in inputs:
        finished(source)
    return [Shard(index=0, name=PAGE_FILE, spec={})]


@dataclass(frozen=True)
class BrowseWorker:
    """Collects and renders."""

    config: BrowseConfig
    inputs: Sequence[Input]

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        stages = [finished(source) for source in self.inputs]
        groups = list(itertools.chain.from_iterable(collect(stage, self.config) for stage in stages))
        with open(out.local_path(PAGE_FILE), "w", encoding="utf-8") as file:
            file.write(render(groups, self.config.characters))
        return {"reasons": len(groups), "shown": sum(len(group.removed) for group in groups)}


def limits_of(curate: Manifest) -> dict[tuple[str, str], Limit]:
    """Step and reason → what decides, for those reasons that a number of the document decides."""
    language = settings.build(LanguageConfig, curate.config["language"], curate.uri)
    limits = {("language", "unsure"): Limit("language_score", threshold_for(language.languages[0], language))}
    config = settings.build(QualityConfig, curate.config["quality"], curate.uri)
    for rule in quality.RULES:
        if rule.limit is not None:
            value = float(getattr(getattr(config, rule.filter), rule.limit))
            limits["quality", f"{rule.filter}.{rule.reason}"] = Limit(rule.signal, value)
    return limits


def collect(stage: Manifest, config: BrowseConfig) -> Iterator[Group]:
    """Every reason of a stage with the documents to show: steps in their order, the most frequent reason first."""
    counts = {(step, reason): documents for step, reason, documents in removal_counts(stage)}
    removed = _removed(stage, config)
    kept: dict[tuple[str, str], list[dict[str, Any]]] = {}
    limits: dict[tuple[str, str], Limit] = {}
    if stage.stage == DEDUP:
        keepers = _keepers(stage, {row["detail"] for rows in removed.values() for row in rows}, config.parts)
        kept = {
            key: [dict(keepers[row["detail"]], of=row["id"]) for row in rows if row["detail"] in keepers]
            for key, rows in removed.items()
        }
    elif stage.stage == CURATE:
        limits = {key: limit for key, limit in limits_of(stage).items() if key in counts}
        nearest = _nearest(stage, set(limits.values()), config)
        kept = {key: nearest[limit] for key, limit in limits.items()}
    funnel = [entry["step"] for entry in stage.summary.get("funnel", ())]
    order = {step: place for place, step in enumerate(dict.fromkeys([*funnel, *(step for step, _ in counts)]))}
    for key, documents in sorted(counts.items(), key=lambda item: (order[item[0][0]], -item[1], item[0])):
        yield Group(
            step=key[0],
            reason=key[1],
            documents=documents,
            limit=limits.get(key),
            removed=removed.get(key, []),
            kept=kept.get(key, []),
        )


def _row(batch: pa.RecordBatch, place: int) -> dict[str, Any]:
    """A document with no more of its text than is looked at."""
    row: dict[str, Any] = batch.slice(place, 1).to_pylist()[0]
    text = row["text"] or ""
    return {**row, "text": text[:LOOKED_AT], "characters": len(text)}


def _removed(stage: Manifest, config: BrowseConfig) -> dict[tuple[str, str], list[dict[str, Any]]]:
    chosen: dict[tuple[str, str], FirstByRank[dict[str, Any]]] = {}
    for batch in batches(stage, "removed", REMOVED_COLUMNS, config.parts):
        keys = zip(*(batch[name].to_pylist() for name in ("id", "stage", "reason")), strict=True)
        for i, (identifier, step, reason) in enumerate(keys):
            first = chosen.setdefault((step, reason), FirstByRank(config.removed_per_reason))
            if first.wants(identifier):
                first.add(identifier, _row(batch, i))
    return {key: first.rows() for key, first in chosen.items()}


def _nearest(stage: Manifest, limits: set[Limit], config: BrowseConfig) -> dict[Limit, list[dict[str, Any]]]:
    """For each limit the kept documents whose value is nearest to it, nearest first."""
    heaps: dict[Limit, list[tuple[float, int, str, dict[str, Any]]]] = {limit: [] for limit in limits}
    columns = sorted({limit.column for limit in limits})
    if not columns or not config.kept_per_reason:
        return {limit: [] for limit in limits}
    for batch in batches(stage, "documents", (*KEPT_COLUMNS, *columns), config.parts):
        values = {name: np.asarray(batch[name].to_numpy(zero_copy_only=False), np.float64) for name in columns}
        for limit, heap in heaps.items():
            distance = np.nan_to_num(np.abs(values[limit.column] - limit.value), nan=np.inf)
            for i in np.argsort(distance, kind="stable").tolist():
                if len(heap) == config.kept_per_reason and -float(distance[i]) < heap[0][0]:
                    break
                # The heap's smallest entry is the farthest document; ranks keep ties from depending on the order.
                identifier = batch["id"][i].as_py()
                place = (-float(distance[i]), -rank(identifier), identifier)
                if len(heap) == config.kept_per_reason and place <= heap[0][:3]:
                    continue
                row = {**_row(batch.select(KEPT_COLUMNS), i), "value": float(values[limit.column][i])}
                heapq.heappush(heap, (*place, row))
                if len(heap) > config.kept_per_reason:
                    heapq.heappop(heap)
    return {
        limit: [row for *_, row in sorted(heap, key=lambda e: e[:3], reverse=True)] for limit, heap in heaps.items()
    }


def _keepers(stage: Manifest, wanted: set[str], parts: int) -> dict[str, dict[str, Any]]:
    """The kept documents of these ids, of those parts that are read."""
    found: dict[str, dict[str, Any]] = {}
    for batch in batches(stage, "documents", KEPT_COLUMNS, parts) if wanted else ():
        for i, identifier in enumerate(batch["id"].to_pylist()):
            if identifier in wanted:
                found[identifier] = _row(batch, i)
    return found
