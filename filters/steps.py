"""The steps that a document takes through curation, each over a batch of those that are still in.

A step looks at candidates and, for each, adds to its row, changes its text or removes it with a reason. Steps hold what
is dear to make (a model, a memo), so a worker makes them once. Their order and names are those of the funnel.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from caravela.data import extract, readers
from caravela.data.extract import ExtractConfig
from filters import language, quality, words
from filters.language import LanguageConfig
from filters.quality import QualityConfig


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


class Step(Protocol):
    """One step; it is given only candidates that no step before it has removed."""

    @property
    def name(self) -> str: ...

    def __call__(self, candidates: Sequence[Candidate]) -> None: ...


class Read:
    """Sets aside what the reader could not make sense of, or what is no page with text."""

    name = "read"

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if candidate.raw.problem:
                candidate.remove(self.name, candidate.raw.problem, candidate.raw.detail)


class Extract:
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


class Language:
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


class Quality:
    """Measures every signal, then decides."""

    name = "quality"

    def __init__(self, config: QualityConfig) -> None:
        self.config = config
        self.splitter = words.WordSplitter()

    def __call__(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            signals = quality.measure(candidate.row["text"], self.splitter, self.config)
            candidate.row.update(signals)
            if (decision := quality.decide(signals, self.config)) is not None:
                candidate.remove(self.name, *decision)
