"""The page of stage ``browse``: reasons that open, and below each its documents with the place marked where it lies.

In: the documents of every reason. Out: HTML in the style of the report. Marked is what the rule counts
(``filters.reason_spans``): a repeated line, an n-gram that occurs again, lines without an end; of a URL rule, what it
found in the URL; of a near-duplicate, the words that the other document lacks. A reason without a place (too few words,
another language) is told by its figure. Texts are as they are stored, with personal data replaced.
"""

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from caravela.reporting.examples import differing_words, excerpt
from caravela.reporting.markup import Html, count, element, number, percent
from caravela.reporting.page import document
from caravela.reporting.page_curation import STEP_TITLES
from caravela.reporting.parts import fold, language_tag, passage, plural
from caravela.reporting.reasons import explanation
from filters.reason_spans import Span, spans_of, spans_of_reason, spans_of_words
from filters.words import WordSplitter

BEFORE_FIRST_MARK = 200
"""Characters shown before the first marked place, where it does not lie at the beginning."""
FACT_CHARACTERS = 160
"""What is shown of an id, a URL or a detail."""
RUNNER_UPS = 3


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
    """Those nearest to the limit; for duplicates those that were kept instead, with ``of``, the removed one's id."""


def render(groups: Sequence[Group], characters: int) -> str:
    """The whole page, with at most so many characters of each document."""
    page = _Page(characters)
    total = sum(group.documents for group in groups)
    steps = list(dict.fromkeys(group.step for group in groups))
    lead = (
        f"{plural(total, 'document')} removed, for {plural(len(groups), 'reason')}. Open a reason to read some of "
        "them, with the place marked where it lies; below them, kept documents that were nearest to the same limit."
    )
    sections = []
    for step in steps:
        own = [group for group in groups if group.step == step]
        heading = element("h2", f"{_title(step)} · {count(sum(group.documents for group in own))}")
        sections.append(element("section", heading, *(page.group(each, total) for each in own), id=_anchor(step)))
    links = [(_anchor(step), _title(step)) for step in steps]
    opening = [element("p", lead, class_="lead")]
    return document("Removed documents", opening, links, sections, "Made by Caravela.")


def _title(step: str) -> str:
    return STEP_TITLES.get(step, step)


def _anchor(step: str) -> str:
    return step.replace(" ", "-").replace("_", "-")


class _Page:
    """Draws reasons and their documents."""

    def __init__(self, characters: int) -> None:
        self.characters = characters
        self.splitter = WordSplitter()

    def group(self, group: Group, total: int) -> Html:
        """A reason that opens."""
        meaning = explanation(group.reason)
        name, code = (meaning[0].upper() + meaning[1:], group.reason) if meaning else (group.reason, "")
        figure = f"{count(group.documents)} · {percent(group.documents / max(1, total))}"
        keepers = {row["of"]: row for row in group.kept if "of" in row}
        shown = []
        for row in group.removed:
            if (keeper := keepers.get(row["id"])) is not None:
                shown.append(self._beside(row, keeper))
            else:
                shown.append(self._document(row, group, row["detail"] or ""))
        if not shown:
            shown = [
                element("p", "None of these documents lies in the parts of the table that were read.", class_="note")
            ]
        near = [row for row in group.kept if "of" not in row]
        if near and group.limit is not None:
            shown.append(element("h3", f"Kept, nearest to {group.limit.column} {group.limit.value:g}"))
            shown += [self._document(row, group, f"{group.limit.column} {number(row['value'], 4)}") for row in near]
        return fold(name, code, figure, *shown)

    def _document(self, row: Mapping[str, Any], group: Group, fact: str) -> Html:
        source: list[object] = [_place(row, group)]
        facts = [fact, *([_languages(row)] if group.step == "language" else []), plural(row["characters"], "character")]
        source += [f" · {_short(each)}" for each in facts if each]
        return element("div", element("p", *source, class_="source"), self._marked_text(row, group), class_="example")

    def _marked_text(self, row: Mapping[str, Any], group: Group) -> Html:
        text = row["text"]
        spans: list[Span] = []
        if group.limit:
            spans = spans_of(group.limit.column, text, self.splitter)
        elif group.step in ("c4", "blocks", "blocks before quality"):
            spans = spans_of_reason(group.reason, text)
        if not spans:
            return passage(excerpt(text, self.characters), row["language"] or "")
        start = max(0, spans[0].start - BEFORE_FIRST_MARK) if spans[0].start > self.characters // 2 else 0
        end = min(len(text), start + self.characters)
        pieces: list[object] = ["… "] if start else []
        at = start
        for span in spans:
            if span.start >= end:
                break
            pieces += [text[at : span.start], element("mark", text[span.start : min(span.end, end)])]
            at = min(span.end, end)
        pieces += [text[at:end], " …" if end < row["characters"] else ""]
        return element("blockquote", *pieces, lang=language_tag(row["language"] or ""))

    def _beside(self, row: Mapping[str, Any], keeper: Mapping[str, Any]) -> Html:
        """A duplicate and the document it lost to, with the words marked that the other lacks."""
        kept, lost = differing_words(keeper["text"], row["text"])
        sides = []
        for title, each, runs in (("Removed", row, lost), ("Kept", keeper, kept)):
            pieces: list[object] = []
            left = self.characters
            for text, differs in runs:
                pieces.append(element("mark", text[:left]) if differs else text[:left])
                left -= len(text)
                if left <= 0:
                    pieces.append(" …")
                    break
            source = element("p", _short(each["url"] or each["id"]), class_="source")
            quoted = element("blockquote", *pieces, lang=language_tag(each["language"] or ""))
            sides.append(element("div", element("h4", title), source, quoted))
        return element("div", *sides, class_="beside example")


def _place(row: Mapping[str, Any], group: Group) -> Html:
    """Where a document is from; of a URL rule, with what it found marked."""
    url, found = row["url"] or "", row.get("detail") or ""
    if group.step != "url" or len(url) > FACT_CHARACTERS:
        return element("span", _short(url or row["id"]))
    pieces: list[object] = []
    at = 0
    for start, end in spans_of_words(found.split(", "), url):
        pieces += [url[at:start], element("mark", url[start:end])]
        at = end
    return element("span", *pieces, url[at:])


def _languages(row: Mapping[str, Any]) -> str:
    """What language identification thought of, the likeliest first."""
    ranking = json.loads(row["metadata"] or "{}").get("languages", {})
    best = heapq.nlargest(RUNNER_UPS, ranking.items(), key=lambda item: item[1])
    return f"at first sight {', '.join(f'{label} {score:.2f}' for label, score in best)}" if best else ""


def _short(text: str) -> str:
    return text if len(text) <= FACT_CHARACTERS else f"{text[:FACT_CHARACTERS]}…"
