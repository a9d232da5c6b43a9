"""How well each step did, where the truth is known: the sample crawl comes with a label for every page.

In: ``labels.jsonl`` of the crawl stage (one JSON object a page; record_id, kind, language, register, charset,
declared_charset, cluster, jaccard, keep, junk_reason and text are used) and the tables of ``curate`` and ``dedup``.
Out: plain dicts for report.json. Labels exist for small crawls only: they are held in memory, and so is what became of
each page; the texts of documents are not.
"""

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caravela import storage
from caravela.manifest import Manifest
from caravela.reporting.tables import batches

LABELS_FILE = "labels.jsonl"
PORTUGUESE = "pt"
ALIKE, DIFFERENT = 0.8, 0.5
"""Pairs at or above the first should be joined, pairs below the second should not."""
BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COMPLETE = 0.95
"""Share of a page's words from which it counts as extracted whole."""
UNREAD = "unread"
WORD = re.compile(r"\w+")

Label = Mapping[str, Any]


@dataclass(slots=True)
class Outcome:
    """What became of a labelled page."""

    step: str = ""
    """The step of curation that removed it; empty if none did."""
    reason: str = ""
    language: str = ""
    has_text: bool = False
    words_found: float = 0.0
    """Share of the label's words that are in the extracted text."""
    words_right: float = 0.0
    """Share of the extracted words that are in the label's text."""


def labels_uri(crawl: Manifest | None) -> str | None:
    """Where the labels are, if the run has any."""
    uris = crawl.uris("files") if crawl else []
    return next((uri for uri in uris if storage.name_of(uri) == LABELS_FILE), None)


def score(
    crawl: Manifest | None, curate: Manifest | None, signatures: Manifest | None, dedup: Manifest | None
) -> dict[str, Any] | None:
    """All scores; None without labels or without a curated crawl."""
    uri = labels_uri(crawl)
    if uri is None or curate is None:
        return None
    labels = read_labels(uri)
    outcomes = _outcomes(curate, labels)
    kept_ids = _kept_ids(dedup) if dedup else None
    return {
        "pages": len(labels),
        "unmatched": sum(1 for outcome in outcomes.values() if outcome.step == UNREAD),
        "extraction": extraction(labels, outcomes),
        "language": language(labels, outcomes),
        "quality": quality(labels, outcomes),
        "deduplication": None if dedup is None or kept_ids is None else deduplication(labels, kept_ids, signatures),
    }


def read_labels(uri: str) -> dict[str, Label]:
    """Labels by the id of their record."""
    with storage.open_read(uri) as stream:
        rows = [json.loads(line) for line in stream if line.strip()]
    return {row["record_id"]: row for row in rows}


def _outcomes(curate: Manifest, labels: Mapping[str, Label]) -> dict[str, Outcome]:
    """The fate of every labelled page; one that is in no table was not read."""
    outcomes = {identifier: Outcome(step=UNREAD, reason=UNREAD) for identifier in labels}
    for table, extra in (("documents", ()), ("removed", ("stage", "reason"))):
        for batch in batches(curate, table, ("id", "text", "language", *extra)):
            for row in batch.to_pylist():
                if (label := labels.get(row["id"])) is not None:
                    found, right = shared_words(label.get("text") or "", row["text"] or "")
                    outcomes[row["id"]] = Outcome(
                        step=row.get("stage") or "",
                        reason=row.get("reason") or "",
                        language=row["language"] or "",
                        has_text=bool((row["text"] or "").strip()),
                        words_found=found,
                        words_right=right,
                    )
    return outcomes


def _kept_ids(dedup: Manifest) -> dict[str, str]:
    """For each document that reached deduplication, the id of its cluster's best: its own if it was kept."""
    kept: dict[str, str] = {}
    for batch in batches(dedup, "documents", ("id",)):
        kept.update((identifier, identifier) for identifier in batch["id"].to_pylist())
    for batch in batches(dedup, "removed", ("id", "detail")):
        kept.update(zip(batch["id"].to_pylist(), batch["detail"].to_pylist(), strict=True))
    return kept


def shared_words(truth: str, text: str) -> tuple[float, float]:
    """Words in both, each as often as in both, over the words of the first and over those of the second."""
    expected, found = (Counter(WORD.findall(side.lower())) for side in (truth, text))
    common = (expected & found).total()
    return common / max(1, expected.total()), common / max(1, found.total())


def _articles(labels: Mapping[str, Label]) -> dict[str, Label]:
    """Pages that are texts, or copies of texts, and can be read: junk and broken records have no register or text."""
    return {i: label for i, label in labels.items() if label["register"] and label["text"] and not _is_junk(label)}


def _is_junk(label: Label) -> bool:
    return not label["keep"] and label["junk_reason"] != "language"


def extraction(labels: Mapping[str, Label], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """How much of each article's text came out, and how little else; by what was declared of its encoding."""

    def figures(ids: Sequence[str]) -> dict[str, Any]:
        with_text = [outcomes[i] for i in ids if outcomes[i].has_text]
        return {
            "pages": len(ids),
            "with_text": len(with_text),
            "complete": sum(outcome.words_found >= COMPLETE for outcome in with_text),
            "median_words_found": _median(outcome.words_found for outcome in with_text),
            "median_words_right": _median(outcome.words_right for outcome in with_text),
        }

    articles = _articles(labels)
    return {
        **figures(list(articles)),
        "by_charset": _grouped(articles, lambda label: (label["charset"] or "none", _declaration(label)), figures),
        "by_register": _grouped(articles, lambda label: (label["register"],), figures),
    }


def _declaration(label: Label) -> str:
    if not label["declared_charset"]:
        return "none declared"
    return "declared" if label["declared_charset"] == label["charset"] else f"{label['declared_charset']} declared"


def language(labels: Mapping[str, Label], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Articles with text, by their language: how many were taken for Portuguese."""
    articles = {i: label for i, label in _articles(labels).items() if outcomes[i].has_text}
    passed = {i for i in articles if outcomes[i].step != "language"}
    portuguese = {i for i, label in articles.items() if label["language"] == PORTUGUESE}

    def figures(ids: Sequence[str]) -> dict[str, Any]:
        taken_for = Counter(outcomes[i].language for i in ids if outcomes[i].language)
        return {
            "pages": len(ids),
            "passed": len(passed & set(ids)),
            "identified_as": [[name, pages] for name, pages in sorted(taken_for.items(), key=lambda c: (-c[1], c[0]))],
        }

    return {
        "pages": len(articles),
        "precision": _ratio(len(passed & portuguese), len(passed)),
        "recall": _ratio(len(passed & portuguese), len(portuguese)),
        "by_language": _grouped(articles, lambda label: (label["variant"] or label["language"],), figures),
    }


def quality(labels: Mapping[str, Label], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Portuguese articles that curation kept, and junk that it removed, whichever step did it."""
    good = {i: label for i, label in labels.items() if label["keep"]}
    junk = {i: label for i, label in labels.items() if _is_junk(label)}
    good_kept = sum(not outcomes[i].step for i in good)
    junk_kept = sum(not outcomes[i].step for i in junk)

    def figures(ids: Sequence[str]) -> dict[str, Any]:
        removed = Counter(f"{outcomes[i].step}.{outcomes[i].reason}" for i in ids if outcomes[i].step)
        return {
            "pages": len(ids),
            "removed": removed.total(),
            "reasons": [[reason, pages] for reason, pages in sorted(removed.items(), key=lambda c: (-c[1], c[0]))],
        }

    return {
        "good": len(good),
        "good_kept": good_kept,
        "junk": len(junk),
        "junk_removed": len(junk) - junk_kept,
        "good_kept_recall": _ratio(good_kept, len(good)),
        "good_kept_precision": _ratio(good_kept, good_kept + junk_kept),
        "junk_removed_recall": _ratio(len(junk) - junk_kept, len(junk)),
        "junk_removed_precision": _ratio(len(junk) - junk_kept, len(junk) - junk_kept + len(good) - good_kept),
        "by_junk_reason": _grouped(junk, lambda label: (label["junk_reason"],), figures),
        "by_register": _grouped(good, lambda label: (label["register"],), figures),
    }


def deduplication(
    labels: Mapping[str, Label], kept_ids: Mapping[str, str], signatures: Manifest | None
) -> dict[str, Any]:
    """Each copy against the page of the text it was made from: were the two put into one cluster?"""
    reached = {i: label for i, label in labels.items() if i in kept_ids and label["cluster"]}
    bases = {label["cluster"]: i for i, label in reached.items() if label["kind"] == "text"}
    pairs = [
        (float(label["jaccard"]), kept_ids[i] == kept_ids[bases[label["cluster"]]])
        for i, label in reached.items()
        if label["kind"] != "text" and label["cluster"] in bases
    ]
    texts_of_cluster: dict[str, set[str]] = {}
    for i, label in reached.items():
        texts_of_cluster.setdefault(kept_ids[i], set()).add(label["cluster"])
    bins = []
    for low, high in zip(BINS, [*BINS[1:], None], strict=True):
        inside = [pair for pair in pairs if low <= pair[0] and (high is None or pair[0] < high)]
        bins.append(
            {
                "from": low,
                "to": high,
                "pairs": len(inside),
                "joined": sum(joined for _, joined in inside),
                "expected": _expected((jaccard for jaccard, _ in inside), signatures),
                "mean_jaccard": round(statistics.fmean(j for j, _ in inside), 4) if inside else None,
            }
        )
    return {
        "pairs": len(pairs),
        "alike": _pair_figures(pair for pair in pairs if pair[0] >= ALIKE),
        "between": _pair_figures(pair for pair in pairs if DIFFERENT <= pair[0] < ALIKE),
        "different": _pair_figures(pair for pair in pairs if pair[0] < DIFFERENT),
        "unrelated_joined": sum(len(texts) > 1 for texts in texts_of_cluster.values()),
        "bins": bins,
    }


def join_probability(jaccard: float, bands: int, rows_per_band: int) -> float:
    """The chance that MinHash-LSH joins a pair directly: Leskovec, Rajaraman, Ullman, section 3.4.2."""
    return 1 - (1 - jaccard**rows_per_band) ** bands


def _expected(jaccards: Iterable[float], signatures: Manifest | None) -> float | None:
    """The share of these pairs that should be joined."""
    shape = signatures.config if signatures else {}
    if not shape.get("minhash"):
        return None
    chances = [join_probability(jaccard, shape["bands"], shape["rows_per_band"]) for jaccard in jaccards]
    return round(statistics.fmean(chances), 4) if chances else None


def _pair_figures(pairs: Iterable[tuple[float, bool]]) -> dict[str, int]:
    joined = [was_joined for _, was_joined in pairs]
    return {"pairs": len(joined), "joined": sum(joined)}


def _grouped(
    labels: Mapping[str, Label],
    key: Callable[[Label], tuple[str, ...]],
    figures: Callable[[Sequence[str]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Figures per group; the groups in the order of their names."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for identifier, label in labels.items():
        groups.setdefault(key(label), []).append(identifier)
    return [{"group": list(name), **figures(groups[name])} for name in sorted(groups)]


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(statistics.median(found), 6) if found else None


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
