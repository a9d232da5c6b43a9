"""Curation: crawl files to Portuguese documents of good quality, in one pass per shard.

In: WARC, WET, JSONL or Parquet files. Out: table ``documents`` (kept) and table ``removed`` (every other, with the step
that removed it, the reason and the signals measured so far). The steps, in order: ``read``, ``extract`` (HTML to text,
encoding repaired), ``language``, ``quality``. Signals are stored for both tables; thresholds are in the config.

Cost on one core: extraction about 70 pages/s; language and quality about 1 MB/s of text.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caravela import manifest, schema
from caravela.config import ConfigError, to_dict
from caravela.data import readers
from caravela.data.extract import ExtractConfig
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters import quality, steps
from filters.language import LanguageConfig
from filters.quality import QualityConfig
from filters.steps import Candidate

STEPS = ("read", "extract", "language", "quality")
SHARD_MB = 128
BATCH_DOCUMENTS = 64
BATCH_BYTES = 32 << 20


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


class CurateWorker:
    """Holds the steps with their models and memos, and does one shard after the other."""

    def __init__(self, config: CurateConfig) -> None:
        self.config = config
        self.steps = steps_of(config)

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        kept = out.table("documents", schema.documents(quality.SIGNALS))
        removed = out.table("removed", schema.removed(quality.SIGNALS))
        counters = collections.Counter({"documents_in": 0, "documents_kept": 0, "bytes_kept": 0, "broken": 0})
        for batch in _batches(readers.read(shard.spec, self.config.fields)):
            self._take_through(batch, counters)
            for candidate in batch:
                size, html = candidate.text_bytes, candidate.raw.html
                counters["bytes_in"] += size if html is None else len(html)
                counters["broken"] += candidate.raw.broken
                counters.update(candidate.counts)
                if candidate.removed_by:
                    removed.add(candidate.document())
                    counters[f"removed.{candidate.removed_by}.{candidate.reason}"] += 1
                else:
                    kept.add(candidate.document())
                    counters["documents_kept"] += 1
                    counters["bytes_kept"] += size
                out.progress.add(documents=1, bytes=size)
            counters["documents_in"] += len(batch)
        return dict(counters)

    def _take_through(self, batch: list[Candidate], counters: dict[str, int]) -> None:
        """All steps over a batch, and what each lets through into the counters."""
        for step in self.steps:
            step(batch)
            batch = [candidate for candidate in batch if not candidate.removed_by]
            counters[f"after.{step.name}.documents"] += len(batch)
            counters[f"after.{step.name}.bytes"] += sum(candidate.text_bytes for candidate in batch)


def _batches(raws: Iterable[readers.RawDocument]) -> Iterator[list[Candidate]]:
    """Some candidates at a time, bounded in number and in bytes."""
    batch, size = [], 0
    for raw in raws:
        batch.append(Candidate.of(raw))
        size += len(raw.html or raw.text or "")
        if len(batch) >= BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def steps_of(config: CurateConfig) -> tuple[steps.Step, ...]:
    """The steps in their order; makes their models and memos."""
    return (
        steps.Read(),
        steps.Extract(config.extract),
        steps.Language(config.language),
        steps.Quality(config.quality),
    )


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
