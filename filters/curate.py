"""Curation: crawl files to Portuguese documents of good quality, in one pass per shard.

In: WARC, WET, JSONL or Parquet files. Out: table ``documents`` (kept) and table ``removed`` (every other, with the step
that removed it, the reason and the signals measured so far). The steps, in order: ``read``, ``extract`` (HTML to text,
encoding repaired), ``language``, ``quality``. Signals are stored for both tables; thresholds are in the config.

Cost on one core: extraction about 70 pages/s; language and quality about 1 MB/s of text.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caravela import manifest, schema
from caravela.config import ConfigError, to_dict
from caravela.data import extract, readers
from caravela.data.extract import ExtractConfig
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters import language, quality, words
from filters.language import LanguageConfig
from filters.quality import QualityConfig

STEPS = ("read", "extract", "language", "quality")
SHARD_MB = 128


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """What is read, and what of it is kept."""

    inputs: tuple[str, ...] = ()
    """Files or globs, local or s3://: .warc, .warc.wet, .jsonl, .parquet; .gz and .zst too. Empty: the sample crawl."""
    fields: readers.FieldNames = field(default_factory=readers.FieldNames)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    max_broken_share: float = 0.1
    """Share of records that may be damaged (not merely unwanted) before the stage refuses to finish."""
    shard_mb: int = SHARD_MB
    """Size that plain JSONL and Parquet files are cut into."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_broken_share <= 1:
            raise ConfigError(f"max_broken_share = {self.max_broken_share}: expected between 0 and 1")
        if self.shard_mb < 1:
            raise ConfigError(f"shard_mb = {self.shard_mb}: expected 1 or more")


def curate_stage(root: str, config: CurateConfig, crawl: Input | None = None) -> Stage:
    """The stage over ``config.inputs``, or over the WARC files of a crawl stage where there are none.

    Raises:
        UserError: no input, an input that is not there, or one whose format is not known.
    """
    if config.inputs:
        uris = readers.expand(config.inputs)
        inputs = tuple(readers.fingerprint_inputs(uris))
        plan: Callable[[], Sequence[Shard]] = functools.partial(readers.plan_shards, uris, config.shard_mb << 20)
    elif crawl is not None:
        inputs = (crawl,)
        plan = functools.partial(_plan_crawl, crawl, config.shard_mb << 20)
    else:
        raise UserError("curate.inputs = []: expected at least one file or glob (or crawl.enabled = true)")
    settings = to_dict(config)
    for place in ("inputs", "max_broken_share"):  # identified by their content; without influence on the output
        del settings[place]
    if config.language.model_sha256:
        del settings["language"]["model_uri"]
    return Stage(
        name="curate",
        version=1,
        root=root,
        config=settings,
        inputs=inputs,
        plan=plan,
        make_worker=functools.partial(CurateWorker, config),
        actors=True,
        finish=functools.partial(_finish, config),
    )


def _plan_crawl(crawl: Input, shard_bytes: int) -> Sequence[Shard]:
    uris = [uri for uri in finished(crawl).uris("files") if ".warc" in uri]
    return readers.plan_shards(sorted(uris), shard_bytes)


@dataclass(slots=True)
class Candidate:
    """A document on its way through the steps: its row so far, and why it was removed, if it was."""

    row: dict[str, Any]
    removed_by: str = ""
    reason: str = ""
    detail: str = ""

    def remove(self, step: str, reason: str, detail: str = "") -> None:
        self.removed_by, self.reason, self.detail = step, reason, detail


class CurateWorker:
    """Holds the language model and the word memo, and does one shard after the other."""

    def __init__(self, config: CurateConfig) -> None:
        self.config = config
        self.identifier = language.LanguageIdentifier.from_config(config.language)
        self.splitter = words.WordSplitter()

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        kept = out.table("documents", schema.documents(quality.SIGNALS))
        removed = out.table("removed", schema.removed(quality.SIGNALS))
        counters = {"documents_in": 0, "documents_kept": 0, "bytes_in": 0, "bytes_kept": 0, "broken": 0}
        for raw in readers.read(shard.spec, self.config.fields):
            candidate = self.judge(raw)
            size = len(candidate.row["text"].encode("utf-8"))
            counters["documents_in"] += 1
            counters["bytes_in"] += len(raw.html) if raw.html is not None else size
            counters["broken"] += raw.broken
            for step in _steps_passed(candidate):
                counters[f"after.{step}.documents"] = counters.get(f"after.{step}.documents", 0) + 1
                counters[f"after.{step}.bytes"] = counters.get(f"after.{step}.bytes", 0) + size
            if candidate.removed_by:
                why = {"stage": candidate.removed_by, "reason": candidate.reason, "detail": candidate.detail}
                removed.add({**candidate.row, **why})
                key = f"removed.{candidate.removed_by}.{candidate.reason}"
                counters[key] = counters.get(key, 0) + 1
            else:
                kept.add(candidate.row)
                counters["documents_kept"] += 1
                counters["bytes_kept"] += size
            out.progress.add(documents=1, bytes=size)
        return counters

    def judge(self, raw: readers.RawDocument) -> Candidate:
        """Takes one raw document through the steps; stops at the first that removes it."""
        known = {"id": raw.id, "url": raw.url, "source": raw.source, "date": raw.date, "title": "", "text": ""}
        candidate = Candidate(known)
        metadata = dict(raw.metadata)
        if raw.problem:
            candidate.remove("read", raw.problem, raw.detail)
        else:
            self._extract(raw, candidate, metadata)
        if not candidate.removed_by:
            self._language(candidate, metadata)
        if not candidate.removed_by:
            self._quality(candidate)
        candidate.row["metadata"] = json.dumps(metadata, ensure_ascii=False, sort_keys=True, default=str)
        return candidate

    def _extract(self, raw: readers.RawDocument, candidate: Candidate, metadata: dict[str, Any]) -> None:
        if raw.html is None:
            candidate.row["text"] = extract.clean(raw.text or "")
            if not candidate.row["text"].strip():
                candidate.remove("extract", "no_text")
            return
        page = extract.extract(raw.html, raw.header_charset, self.config.extract)
        candidate.row.update(text=page.text, title=page.title)
        metadata["encoding"] = page.encoding
        if page.reason:
            candidate.remove("extract", page.reason)

    def _language(self, candidate: Candidate, metadata: dict[str, Any]) -> None:
        ranking = self.identifier.identify(candidate.row["text"])
        best, score = ranking[0]
        candidate.row.update(language=best, language_score=score)
        metadata["languages"] = {label: round(value, 4) for label, value in ranking}
        if (decision := language.decide(ranking, self.config.language)) is not None:
            candidate.remove("language", *decision)

    def _quality(self, candidate: Candidate) -> None:
        signals = quality.measure(candidate.row["text"], self.splitter, self.config.quality)
        candidate.row.update(signals)
        if (decision := quality.decide(signals, self.config.quality)) is not None:
            candidate.remove("quality", *decision)


def _steps_passed(candidate: Candidate) -> Iterator[str]:
    for step in STEPS:
        if step == candidate.removed_by:
            return
        yield step


def _finish(config: CurateConfig, records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    """The funnel; refuses when too much of the input was damaged."""
    total = manifest.sum_counters(records)
    share = total["broken"] / max(1, total["documents_in"])
    if share > config.max_broken_share:
        worst = max(records, key=lambda r: r.counters["broken"])
        raise UserError(
            f"curate: {total['broken']} of {total['documents_in']} records are damaged ({share:.0%}), more than "
            f"curate.max_broken_share = {config.max_broken_share} allows; most in {worst.name}; see {uri}/removed"
        )
    funnel = [{"step": "in", "documents": total["documents_in"], "bytes": total["bytes_in"]}]
    for step in STEPS:
        counts = {kind: total.get(f"after.{step}.{kind}", 0) for kind in ("documents", "bytes")}
        funnel.append({"step": step, **counts})
    return {"funnel": funnel, "broken_share": share}
