"""The steps that a document takes through curation, each over a batch of those that are still in.

A step looks at candidates and, for each, adds to its row, changes its text or removes it with a reason. Steps hold what
is dear to make (a model, a memo), so a worker makes them once. Their order and names are those of the funnel.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from caravela.data import extract, readers
from caravela.data.extract import ExtractConfig
from caravela.manifest import Input
from filters import datatrove_blocks, language, personal_data, quality, words
from filters.datatrove_blocks import Block, BlockConfig
from filters.language import LanguageConfig
from filters.personal_data import PersonalDataConfig
from filters.quality import QualityConfig
from filters.quality_batch import measure_batch
from filters.repeated_lines import RepeatedLines, RepeatedLinesConfig, drop_repeated_lines, site_of
from filters.url_rules import UrlConfig, UrlRules
from filters.variant import VariantConfig, identify_variant
from filters.word_table import WordTable


@dataclass(slots=True)
class Candidate:
    """A document on its way: its row so far, and why it was removed, if it was."""

    raw: readers.RawDocument
    row: dict[str, Any]
    metadata: dict[str, Any]
    removed_by: str = ""
    reason: str = ""
    detail: str = ""
    text_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Further counters of the shard that this document adds to."""

    @classmethod
    def of(cls, raw: readers.RawDocument) -> "Candidate":
        known = {"id": raw.id, "url": raw.url, "source": raw.source, "date": raw.date, "title": "", "text": ""}
        return cls(raw, known, dict(raw.metadata))

    def set_text(self, text: str) -> None:
        self.row["text"] = text
        self.text_bytes = len(text.encode("utf-8"))

    def remove(self, step: str, reason: str, detail: str = "") -> None:
        self.removed_by, self.reason, self.detail = step, reason, detail

    def document(self) -> Mapping[str, Any]:
        """The row of table ``documents``; of ``removed`` if the document was."""
        metadata = json.dumps(self.metadata, ensure_ascii=False, sort_keys=True, default=str)
        why = {"stage": self.removed_by, "reason": self.reason, "detail": self.detail} if self.removed_by else {}
        return {**self.row, "metadata": metadata, **why}


class Step(ABC):
    """One step; it is given only candidates that no step before it has removed."""

    name: str

    def begin_shard(self) -> None:  # noqa: B027 - most steps carry nothing over
        """Called before the first batch of a shard: nothing may carry over from one shard to the next."""

    @abstractmethod
    def __call__(self, candidates: Sequence[Candidate]) -> None: ...


class Read(Step):
    """Sets aside what the reader could not make sense of, or what is no page with text."""

    name = "read"

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if candidate.raw.problem:
                candidate.remove(self.name, candidate.raw.problem, candidate.raw.detail)


class Url(Step):
    """Removes by URL alone, before the page is parsed."""

    name = "url"

    def __init__(self, config: UrlConfig) -> None:
        self.rules = UrlRules(config)

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if (decision := self.rules.decide(candidate.row["url"])) is not None:
                candidate.remove(self.name, *decision)


class Extract(Step):
    """HTML to its main text; text to text without mojibake and control characters."""

    name = "extract"

    def __init__(self, config: ExtractConfig) -> None:
        self.config = config

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if candidate.raw.html is None:
                candidate.set_text(extract.clean(candidate.raw.text or ""))
                if not candidate.row["text"].strip():
                    candidate.remove(self.name, "no_text")
                continue
            page = extract.extract(candidate.raw.html, candidate.raw.header_charset, self.config)
            candidate.set_text(page.text)
            candidate.row["title"] = page.title
            candidate.metadata["encoding"] = page.encoding
            if page.reason:
                candidate.remove(self.name, page.reason)


class DropRepeatedLines(Step):
    """Drops the lines that a page shares with many others of its site."""

    name = "repeated lines"

    def __init__(self, config: RepeatedLinesConfig, repeated: Input) -> None:
        self.config = config
        self.lines = RepeatedLines.load(repeated)

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            site = site_of(candidate.row["url"])
            text, dropped = drop_repeated_lines(candidate.row["text"], site, self.lines, self.config)
            if dropped:
                candidate.set_text(text)
                candidate.counts["lines_dropped"] = dropped
            if not text.strip():
                candidate.remove(self.name, "only_repeated_lines")


class Language(Step):
    """Keeps the languages that are wanted; the runners-up are kept as metadata."""

    name = "language"

    def __init__(self, config: LanguageConfig) -> None:
        self.config = config
        self.identifier = language.LanguageIdentifier.from_config(config)

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            ranking = self.identifier.identify(candidate.row["text"])
            candidate.row["language"], candidate.row["language_score"] = ranking[0]
            candidate.metadata["languages"] = {label: round(score, 4) for label, score in ranking}
            if (decision := language.decide(ranking, self.config)) is not None:
                candidate.remove(self.name, *decision)


class Quality(Step):
    """Measures every signal of the whole batch in compiled code, then decides document by document."""

    name = "quality"

    def __init__(self, config: QualityConfig) -> None:
        self.config = config
        self.table = WordTable(words.WordSplitter())

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        text = pa.array([candidate.row["text"] for candidate in candidates], pa.large_string())
        measured = measure_batch(text, self.table, self.config)
        for i, candidate in enumerate(candidates):
            signals = {name: float(values[i]) for name, values in measured.items()}
            candidate.row.update(signals)
            if (decision := quality.decide(signals, self.config)) is not None:
                candidate.remove(self.name, *decision)


class Blocks(Step):
    """datatrove's filters and formatters, or anybody's of that kind, as they are."""

    def __init__(self, configs: Sequence[BlockConfig], name: str) -> None:
        self.name = name
        self.configs = configs
        self.blocks: list[Block] = []

    def begin_shard(self) -> None:
        """Makes the blocks anew: some draw random numbers or count, and would depend on the shards before."""
        self.blocks = datatrove_blocks.load_blocks(self.configs)

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            known = {**candidate.metadata, "url": candidate.row["url"], "language": candidate.row["language"]}
            outcome = datatrove_blocks.apply_all(self.blocks, candidate.row["text"], candidate.row["id"], known)
            candidate.set_text(outcome.text)
            added = {k: v for k, v in outcome.metadata.items() if k not in ("url", "language")}
            candidate.metadata.update(added)
            if outcome.reason:
                candidate.counts["broken"] = int(outcome.broken)
                candidate.remove(self.name, outcome.reason, outcome.detail)
            elif not outcome.text.strip():
                candidate.remove(self.name, "emptied")


class Variant(Step):
    """Labels pt-BR and pt-PT; removes nothing."""

    name = "variant"

    def __init__(self, config: VariantConfig) -> None:
        self.config = config

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            variant, score = identify_variant(candidate.row["text"], self.config)
            candidate.row.update(variant=variant, variant_score=score)
            candidate.counts[f"variant.{variant or 'unsure'}"] = 1


class PersonalData(Step):
    """Replaces personal data by placeholders; removes nothing."""

    name = "personal_data"

    def __init__(self, config: PersonalDataConfig) -> None:
        self.config = config

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            candidate.row["title"] = personal_data.mask(candidate.row["title"], self.config).text
            masked = personal_data.mask(candidate.row["text"], self.config)
            if masked.counts:
                candidate.set_text(masked.text)
                candidate.metadata["personal_data"] = dict(masked.counts)
                candidate.counts.update({f"personal_data.{kind}": count for kind, count in masked.counts.items()})
