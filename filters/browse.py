"""Stage ``browse``: a page of removed documents by reason, beside the kept ones that were nearest to the same limit.

In: the finished stage ``curate`` and, where there is one, ``dedup``. Out: ``removed.html``, which needs nothing but
itself and runs no script. In each removed text the place is marked where its reason lies (``filters.reason_spans``): a
repeated line, an n-gram that occurs again, lines without an end; of a near-duplicate, the words that the kept document
lacks. Documents are chosen by a hash of their ids, kept ones by how near they are to the limit.

The driver makes it, from ``parts`` parts of each table that lie evenly over it, so that a large run costs no more.
"""

import functools
import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from caravela.config import ConfigError, to_dict
from caravela.manifest import Input, Manifest
from caravela.reporting.examples import DEDUP, differing_words, excerpt, removal_counts
from caravela.reporting.markup import Html, count, element, joined, number, percent
from caravela.reporting.page import POLICY
from caravela.reporting.parts import fold, language_tag, passage, plural
from caravela.reporting.reasons import explanation
from caravela.reporting.tables import FirstByRank, batches, rank
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters import quality
from filters.language import LanguageConfig
from filters.quality import QualityConfig
from filters.reason_spans import spans_of
from filters.words import WordSplitter

PAGE_FILE = "removed.html"
REMOVED_COLUMNS = ("id", "url", "text", "language", "stage", "reason", "detail")
KEPT_COLUMNS = ("id", "url", "text", "language")
BEFORE_FIRST_MARK = 200
"""Characters shown before the first marked place, where it does not lie at the beginning."""


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


class Limit(NamedTuple):
    """What a reason is decided by: a column of the table of documents, and the value that a kept document reaches."""

    column: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """What the page shows of one reason."""

    step: str
    reason: str
    documents: int
    limit: Limit | None
    removed: Sequence[Mapping[str, Any]]
    kept: Sequence[Mapping[str, Any]]


def browse_stage(
    root: str,
    config: BrowseConfig,
    language: LanguageConfig,
    quality_config: QualityConfig,
    curated: Input,
    dedup: Input | None = None,
) -> Stage:
    """The stage over a finished curation and, if given, deduplication; limits are those of the two configs."""
    inputs = (curated, dedup) if dedup else (curated,)
    limits = limits_of(language, quality_config)
    return Stage(
        name="browse",
        version=1,
        root=root,
        config=to_dict(config),
        inputs=inputs,
        plan=functools.partial(_plan, inputs),
        make_worker=functools.partial(BrowseWorker, config, limits, inputs),
        in_driver=True,
    )


def _plan(inputs: Sequence[Input]) -> list[Shard]:
    for source in inputs:
        finished(source)
    return [Shard(index=0, name=PAGE_FILE, spec={})]


def limits_of(language: LanguageConfig, quality_config: QualityConfig) -> dict[tuple[str, str], Limit]:
    """Step and reason → what decides, for those reasons that a number of the document decides."""
    least_score = Limit("language_score", language.threshold)
    limits = {("language", "unsure"): least_score, ("language", "other_language"): least_score}
    for rule in quality.RULES:
        value = 1.0 if rule.limit is None else getattr(getattr(quality_config, rule.filter), rule.limit)
        limits["quality", f"{rule.filter}.{rule.reason}"] = Limit(rule.signal, float(value))
    return limits


@dataclass(frozen=True)
class BrowseWorker:
    """Collects and renders."""

    config: BrowseConfig
    limits: Mapping[tuple[str, str], Limit]
    inputs: Sequence[Input]

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        stages = [finished(source) for source in self.inputs]
        groups = list(itertools.chain.from_iterable(collect(stage, self.config, self.limits) for stage in stages))
        with open(out.local_path(PAGE_FILE), "w", encoding="utf-8") as file:
            file.write(render(groups, self.config.characters))
        return {"reasons": len(groups), "shown": sum(len(group.removed) for group in groups)}


def collect(
    stage: Manifest, config: BrowseConfig, limits: Mapping[tuple[str, str], Limit] | None = None
) -> Iterator[Group]:
    """Every reason of a stage with the documents to show, most frequent first."""
    counts = {(step, reason): documents for step, reason, documents in removal_counts(stage)}
    own_limits = {key: limit for key, limit in (limits or {}).items() if key in counts}
    removed = _removed(stage, config)
    if stage.stage == DEDUP:
        keepers = _keepers(stage, {row["detail"] for rows in removed.values() for row in rows}, config.parts)
        kept = {
            key: [dict(keepers[row["detail"]], of=row["id"]) for row in rows if row["detail"] in keepers]
            for key, rows in removed.items()
        }
    else:
        nearest = _nearest(stage, set(own_limits.values()), config)
        kept = {key: nearest[limit] for key, limit in own_limits.items()}
    for (step, reason), documents in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        key = (step, reason)
        yield Group(
            step=step,
            reason=reason,
            documents=documents,
            limit=own_limits.get(key),
            removed=removed.get(key, []),
            kept=kept.get(key, []),
        )


def _removed(stage: Manifest, config: BrowseConfig) -> dict[tuple[str, str], list[dict[str, Any]]]:
    chosen: dict[tuple[str, str], FirstByRank[dict[str, Any]]] = {}
    for batch in batches(stage, "removed", REMOVED_COLUMNS, config.parts):
        keys = zip(*(batch[name].to_pylist() for name in ("id", "stage", "reason")), strict=True)
        for i, (identifier, step, reason) in enumerate(keys):
            first = chosen.setdefault((step, reason), FirstByRank(config.removed_per_reason))
            if first.wants(identifier):
                first.add(identifier, batch.slice(i, 1).to_pylist()[0])
    return {key: first.rows() for key, first in chosen.items()}


def _nearest(stage: Manifest, limits: set[Limit], config: BrowseConfig) -> dict[Limit, list[dict[str, Any]]]:
    """For each limit the kept documents whose value is nearest to it, nearest first."""
    heaps: dict[Limit, list[tuple[float, int, dict[str, Any]]]] = {limit: [] for limit in limits}
    columns = sorted({limit.column for limit in limits})
    if not columns or not config.kept_per_reason:
        return {limit: [] for limit in limits}
    for batch in batches(stage, "documents", (*KEPT_COLUMNS, *columns), config.parts):
        values = {name: np.asarray(batch[name].to_numpy(zero_copy_only=False), np.float64) for name in columns}
        for limit, heap in heaps.items():
            distance = np.nan_to_num(np.abs(values[limit.column] - limit.value), nan=np.inf)
            for i in np.argsort(distance, kind="stable")[: config.kept_per_reason].tolist():
                # The heap's smallest entry is the farthest document; ranks keep ties from depending on the order.
                place = (-float(distance[i]), -rank(batch["id"][i].as_py()))
                if len(heap) == config.kept_per_reason and place <= heap[0][:2]:
                    continue
                row = batch.slice(i, 1).select(KEPT_COLUMNS).to_pylist()[0]
                row["value"] = float(values[limit.column][i])
                heapq.heappush(heap, (*place, row))
                if len(heap) > config.kept_per_reason:
                    heapq.heappop(heap)
    return {
        limit: [row for *_, row in sorted(heap, key=lambda e: e[:2], reverse=True)] for limit, heap in heaps.items()
    }


def _keepers(stage: Manifest, wanted: set[str], parts: int) -> dict[str, dict[str, Any]]:
    """The kept documents of these ids, of those parts that are read."""
    found: dict[str, dict[str, Any]] = {}
    for batch in batches(stage, "documents", KEPT_COLUMNS, parts) if wanted else ():
        for i, identifier in enumerate(batch["id"].to_pylist()):
            if identifier in wanted:
                found[identifier] = batch.slice(i, 1).to_pylist()[0]
    return found


def render(groups: Sequence[Group], characters: int) -> str:
    """The whole page."""
    splitter = WordSplitter()
    total = sum(group.documents for group in groups)
    steps = list(dict.fromkeys(group.step for group in groups))
    title = "Removed documents"
    style = resources.files("caravela.reporting").joinpath("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · Caravela"),
        element("style", Html(style)),
    )
    links = element("nav", *(element("a", step, href=f"#{_anchor(step)}") for step in steps), aria_label="Steps")
    lead = (
        f"{plural(total, 'document')} removed, for {plural(len(groups), 'reason')}. Open a reason to read some of "
        "them, with the place marked where it lies; below them, kept documents that were nearest to the same limit."
    )
    sections = []
    for step in steps:
        own = [group for group in groups if group.step == step]
        folds = [_group(group, total, characters, splitter) for group in own]
        heading = element("h2", f"{step} · {count(sum(group.documents for group in own))}")
        sections.append(element("section", heading, *folds, id=_anchor(step)))
    body = element(
        "body",
        element("header", element("h1", title), element("p", lead, class_="lead"), links),
        element("main", *sections),
        element("footer", "Made by Caravela."),
    )
    return joined([Html("<!doctype html>\n"), element("html", head, body, lang="en"), Html("\n")])


def _anchor(step: str) -> str:
    return step.replace(" ", "-").replace("_", "-")


def _group(group: Group, total: int, characters: int, splitter: WordSplitter) -> Html:
    meaning = explanation(group.reason)
    name, code = (meaning[0].upper() + meaning[1:], group.reason) if meaning else (group.reason, "")
    figure = f"{count(group.documents)} · {percent(group.documents / max(1, total))}"
    keepers = {row["of"]: row for row in group.kept if "of" in row}
    shown = []
    for row in group.removed:
        if (keeper := keepers.get(row["id"])) is not None:
            shown.append(_beside(row, keeper, characters))
        else:
            shown.append(_document(row, row["detail"] or "", _marked_text(row, group, characters, splitter)))
    if not shown:
        shown = [element("p", "None of these documents lies in the parts of the table that were read.", class_="note")]
    near = [row for row in group.kept if "of" not in row]
    if near and group.limit is not None:
        shown.append(element("h3", f"Kept, nearest to {group.limit.column} {group.limit.value:g}"))
        shown += [
            _document(
                row, f"{group.limit.column} {number(row['value'], 4)}", _marked_text(row, group, characters, splitter)
            )
            for row in near
        ]
    return fold(name, code, figure, *shown)


def _document(row: Mapping[str, Any], fact: str, text: Html) -> Html:
    facts = [row["url"] or row["id"], fact, plural(len(row["text"] or ""), "character")]
    return element("div", element("p", " · ".join(filter(None, facts)), class_="source"), text, class_="example")


def _marked_text(row: Mapping[str, Any], group: Group, characters: int, splitter: WordSplitter) -> Html:
    text = row["text"] or ""
    spans = spans_of(group.limit.column, text, splitter) if group.limit and text.strip() else []
    if not spans:
        return passage(excerpt(text, characters), row["language"] or "")
    start = max(0, spans[0].start - BEFORE_FIRST_MARK) if spans[0].start > characters // 2 else 0
    end = min(len(text), start + characters)
    pieces: list[object] = ["… "] if start else []
    at = start
    for span in spans:
        if span.start >= end:
            break
        pieces += [text[at : span.start], element("mark", text[span.start : min(span.end, end)])]
        at = min(span.end, end)
    pieces += [text[at:end], " …" if end < len(text) else ""]
    return element("blockquote", *pieces, lang=language_tag(row["language"] or ""))


def _beside(row: Mapping[str, Any], keeper: Mapping[str, Any], characters: int) -> Html:
    """A duplicate and the document it lost to, with the words marked that the other lacks."""
    kept, lost = differing_words(keeper["text"], row["text"])
    sides = []
    for title, document, runs in (("Removed", row, lost), ("Kept", keeper, kept)):
        pieces: list[object] = []
        left = characters
        for text, differs in runs:
            pieces.append(element("mark", text[:left]) if differs else text[:left])
            left -= len(text)
            if left <= 0:
                pieces.append(" …")
                break
        source = element("p", document["url"] or document["id"], class_="source")
        quoted = element("blockquote", *pieces, lang=language_tag(document["language"] or ""))
        sides.append(element("div", element("h4", title), source, quoted))
    return element("div", *sides, class_="beside example")
