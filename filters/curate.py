"""Curation: crawl files to Portuguese documents of good quality, in one pass per shard.

In: WARC, WET, JSONL or Parquet files. Out: table ``documents`` (kept) and table ``removed`` (every other, with the step
that removed it, the reason and the signals measured so far); ``row`` is a document's number in its shard. The steps, in
order: ``read``, ``url``, ``extract`` (HTML to text, encoding repaired), ``repeated lines``, ``language``, ``blocks
before quality``, ``quality``, ``c4``, ``blocks`` (of datatrove), ``decontamination`` (of evaluation items),
``personal_data`` (replaced by placeholders in all that passed ``language``), ``classifiers`` (of one's own), and for
what is kept ``variant`` (pt-BR or pt-PT). Signals are stored for both tables; thresholds are in the config.

What each step costs: ``benchmarks/curation.py``.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from caravela import manifest, schema
from caravela.config import ConfigError, to_dict
from caravela.data import common_crawl, readers
from caravela.data.common_crawl import IndexConfig
from caravela.data.extract import ExtractConfig
from caravela.data.inputs import COMMON_CRAWL
from caravela.errors import MissingInputError, UserError
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, TableWriter, finished
from filters import decontamination, quality, steps, text_classifier
from filters.batch import Batch
from filters.c4 import C4Config
from filters.datatrove_blocks import BlockConfig
from filters.decide_again import decide_again_where_possible
from filters.decontamination import DecontaminationConfig, item_inputs
from filters.language import LanguageConfig
from filters.near_languages import NearLanguagesConfig
from filters.personal_data import PersonalDataConfig
from filters.quality import QualityConfig
from filters.repeated_lines import RepeatedLinesConfig, pages_by_extraction, repeated_lines_stage, site_lines_stage
from filters.text_classifier import ClassifierConfig
from filters.url_rules import UrlConfig, list_inputs
from filters.variant import VariantConfig

FUNNEL = (
    *("read", "url", "extract", "repeated lines", "language", "blocks before quality", "quality", "c4", "blocks"),
    *("decontamination", "classifiers"),
)
"""The steps that may remove documents."""
SHARD_MB = 128


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """What is read, and what of it is kept."""

    inputs: tuple[str, ...] = ()
    """Files or globs: .warc, .warc.wet, .jsonl, .csv, .tsv, .parquet; .gz and .zst too; .paths listings of such files.
    Local, s3://, https:// or hf://datasets/owner/name/. Empty: the index below, else the sample crawl."""
    paths_prefix: str = COMMON_CRAWL
    """What stands before the relative paths in a .paths listing."""
    index: IndexConfig = field(default_factory=IndexConfig)
    fields: readers.FieldNames = field(default_factory=readers.FieldNames)
    url: UrlConfig = field(default_factory=UrlConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    repeated_lines: RepeatedLinesConfig = field(default_factory=RepeatedLinesConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    near_languages: NearLanguagesConfig = field(default_factory=NearLanguagesConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    c4: C4Config = field(default_factory=C4Config)
    blocks: tuple[BlockConfig, ...] = ()
    """Filters and formatters of datatrove, run as they are, in this order."""
    decontamination: DecontaminationConfig = field(default_factory=DecontaminationConfig)
    classifiers: tuple[ClassifierConfig, ...] = ()
    """fastText models of your own whose scores become signals, in this order."""
    variant: VariantConfig = field(default_factory=VariantConfig)
    personal_data: PersonalDataConfig = field(default_factory=PersonalDataConfig)
    max_broken_share: float = 0.1
    """Share of records that may be damaged (not merely unwanted) before the stage refuses to finish."""
    shard_mb: int = SHARD_MB
    """Size that plain JSONL and Parquet files are cut into."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_broken_share <= 1:
            raise ConfigError(f"max_broken_share = {self.max_broken_share}: expected between 0 and 1")
        if self.inputs and self.index.files:
            raise ConfigError("index.files: expected none beside inputs; a run reads files or an index")
        if self.shard_mb < 1:
            raise ConfigError(f"shard_mb = {self.shard_mb}: expected 1 or more")
        text_classifier.check_names(self.classifiers)

    @property
    def signals(self) -> tuple[str, ...]:
        """Columns of the tables, one for each signal that is measured."""
        contamination = [decontamination.SIGNAL] if self.decontamination.enabled else []
        return (
            *quality.signals_of(self.quality),
            *contamination,
            *(classifier.signal for classifier in self.classifiers),
        )


def curate_stages(root: str, config: CurateConfig, crawl: Input | None = None) -> list[Stage]:
    """The stage ``curate``, behind those that count each site's lines if repeated ones are to be dropped.

    The input is ``config.inputs``, the records that ``config.index`` picks, or else the WARC files of a crawl stage.

    Raises:
        UserError: no input, an input that is not there, or one whose format is not known.
    """
    inputs, plan = _sources(config, crawl)
    before: list[Stage] = []
    if config.repeated_lines.enabled:
        pages = functools.partial(pages_by_extraction, names=config.fields, config=config.extract)
        settings = {"fields": to_dict(config.fields), "extract": to_dict(config.extract)}
        lines = site_lines_stage(root, config.repeated_lines, inputs, plan, pages, settings)
        before = [lines, repeated_lines_stage(root, config.repeated_lines, lines.as_input())]
    repeated = before[-1].as_input() if before else None
    stage = Stage(
        name="curate",
        version=5,
        root=root,
        config=_settings(config),
        inputs=(
            *inputs,
            *list_inputs(config.url),
            *item_inputs(config.decontamination),
            *text_classifier.model_inputs(config.classifiers),
            *([repeated] if repeated else []),
        ),
        plan=plan,
        make_worker=functools.partial(CurateWorker, config, repeated),
        actors=True,
        finish=functools.partial(_finish, config),
        shortcut=functools.partial(decide_again_where_possible, config.quality, config.variant),
    )
    return [*before, stage]


def _settings(config: CurateConfig) -> dict[str, Any]:
    """What the output depends on: not where files lie, which are inputs and known by their content."""
    settings = to_dict(config)
    for place in ("inputs", "paths_prefix", "max_broken_share"):
        del settings[place]
    for place in ("files", "paths_prefix"):
        del settings["index"][place]
    for found in (*settings["url"]["lists"], *settings["decontamination"]["items"]):
        del found["uri"]
    del settings["decontamination"]["folder"]
    del settings["repeated_lines"]["partitions"]
    if config.language.model_sha256:
        del settings["language"]["model_uri"]
    for classifier in settings["classifiers"]:
        del classifier["model_uri"], classifier["model_sha256"]
    if not settings["classifiers"]:
        del settings["classifiers"]  # so that runs from before there were any are still found
    return settings


def _sources(config: CurateConfig, crawl: Input | None) -> tuple[tuple[Input, ...], Callable[[], Sequence[Shard]]]:
    """What identifies the input, and how it is cut into shards."""
    shard_bytes = config.shard_mb << 20
    if config.inputs:
        uris = readers.expand(config.inputs, config.paths_prefix)
        return tuple(readers.fingerprint_inputs(uris)), functools.partial(readers.plan_shards, uris, shard_bytes)
    if config.index.files:
        index = tuple(readers.fingerprint_inputs(common_crawl.index_files(config.index)))
        return index, functools.partial(readers.plan_index, config.index, shard_bytes)
    if crawl is not None:
        return (crawl,), functools.partial(_plan_crawl, crawl, shard_bytes)
    raise MissingInputError("curate.inputs = []: expected at least one file or glob (or crawl.enabled = true)")


def _plan_crawl(crawl: Input, shard_bytes: int) -> Sequence[Shard]:
    uris = [uri for uri in finished(crawl).uris("files") if ".warc" in uri]
    return readers.plan_shards(sorted(uris), shard_bytes)


class CurateWorker:
    """Holds the steps with their models and memos, and does one shard after the other."""

    def __init__(self, config: CurateConfig, repeated: Input | None = None) -> None:
        self.config = config
        self.steps = steps_of(config, repeated)

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        kept = out.table("documents", schema.documents(self.config.signals))
        removed = out.table("removed", schema.removed(self.config.signals))
        counters = collections.Counter({"documents_in": 0, "documents_kept": 0, "bytes_kept": 0, "broken": 0})
        for step in self.steps:
            step.begin_shard()
        for batch in self.batches(shard):
            steps.take_through(self.steps, batch, functools.partial(_count, counters))
            self.write(batch, kept, removed)
            sizes, stay = batch.text_bytes, batch.still_in()
            counters.update(batch.counts)
            counters.update(f"removed.{each.step}.{each.reason}" for each in batch.removals.values())
            counters["documents_in"] += len(batch)
            counters["bytes_in"] += batch.raw.num_bytes
            counters["documents_kept"] += len(stay)
            counters["bytes_kept"] += int(sizes[stay].sum())
            out.progress.add(documents=len(batch), bytes=int(sizes.sum()))
        return dict(counters)

    def batches(self, shard: Shard) -> Iterator[Batch]:
        """The documents of a shard, in its order."""
        first_row = 0
        for raw in readers.read_columns(shard.spec, self.config.fields):
            yield Batch(raw, first_row)
            first_row += len(raw)

    def write(self, batch: Batch, kept: TableWriter, removed: TableWriter) -> None:
        """Every document of a batch to one of the tables."""
        kept.add_columns(batch.table(kept.schema, removed=False))
        removed.add_columns(batch.table(removed.schema, removed=True))


def _count(counters: dict[str, int], step: str, batch: Batch) -> None:
    """What a step lets through, into the counters."""
    if step in FUNNEL:
        left = batch.still_in()
        counters[f"after.{step}.documents"] += len(left)
        counters[f"after.{step}.bytes"] += int(batch.text_bytes[left].sum())


def steps_of(config: CurateConfig, repeated: Input | None = None) -> list[steps.Step]:
    """The steps in their order, those that are switched off left out; makes their models and memos."""
    before = [block for block in config.blocks if block.place == "before_quality"]
    after = [block for block in config.blocks if block.place == "after_quality"]
    wanted: list[tuple[bool, Callable[[], steps.Step]]] = [
        (True, steps.Read),
        (config.url.enabled, lambda: steps.Url(config.url)),
        (True, lambda: steps.Extract(config.extract)),
        (repeated is not None, lambda: steps.DropRepeatedLines(config.repeated_lines, cast(Input, repeated))),
        (True, lambda: steps.Language(config.language, config.near_languages)),
        (bool(before), lambda: steps.Blocks(before, "blocks before quality")),
        (True, lambda: steps.Quality(config.quality)),
        (config.c4.enabled, lambda: steps.C4(config.c4)),
        (bool(after), lambda: steps.Blocks(after, "blocks")),
        (config.decontamination.enabled, lambda: steps.Decontamination(config.decontamination)),
        (config.personal_data.enabled, lambda: steps.PersonalData(config.personal_data)),
        (bool(config.classifiers), lambda: steps.Classifiers(config.classifiers)),
        (config.variant.enabled, lambda: steps.Variant(config.variant)),
    ]
    return [make() for on, make in wanted if on]


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
    for step in FUNNEL:
        if f"after.{step}.documents" in total:
            counts = {kind: total[f"after.{step}.{kind}"] for kind in ("documents", "bytes")}
            funnel.append({"step": step, **counts})
    return {"funnel": funnel, "broken_share": share}
