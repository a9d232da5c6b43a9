"""What a reader wants to see with their own eyes: some documents of every reason, and two of a cluster side by side.

In: the manifests of the stages ``curate``, ``dedup`` and ``trim``. Out: plain dicts for report.json. Of each table
``parts`` parts are read, lying evenly over it, so that a large run's report costs no more than a small one's.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caravela.manifest import Manifest
from caravela.reporting.tables import FirstByRank, batches

DEDUP = "dedup"
REMOVED_COLUMNS = ("id", "url", "text", "language", "stage", "reason", "detail")
CANDIDATES = 25
"""Pairs of near-duplicates of which the most typical one is shown."""
PAIR_CHARACTERS = 1200
MOST_KEPT_IDS = 200_000
COMPARED_WORDS = 600
WORD = re.compile(r"\S+\s*")

Run = tuple[str, bool]


def removed_by_reason(
    stages: Sequence[Manifest | None], examples: int, excerpt_characters: int, parts: int
) -> list[dict[str, Any]]:
    """Every step and reason with its count and some documents, in the order of the road, most frequent first."""
    found: list[dict[str, Any]] = []
    for stage in stages:
        if stage is None:
            continue
        shown = _examples(stage, examples, excerpt_characters, parts)
        rows = [
            {"step": step, "reason": reason, "documents": documents, "examples": shown.get((step, reason), [])}
            for step, reason, documents in removal_counts(stage)
        ]
        order = list(dict.fromkeys(["read", "extract", "language", "quality", DEDUP, *(row["step"] for row in rows)]))
        found += sorted(rows, key=lambda row: (order.index(row["step"]), -row["documents"], row["reason"]))
    return found


def removal_counts(stage: Manifest) -> Iterator[tuple[str, str, int]]:
    """Step, reason and number of documents: ``removed.<step>.<reason>``; of deduplication ``removed.<reason>``."""
    for key, documents in stage.counters.items():
        if key.startswith("removed."):
            name = key.removeprefix("removed.")
            step, _, reason = (DEDUP, "", name) if stage.stage == DEDUP else name.partition(".")
            yield step, reason, documents


def _examples(
    stage: Manifest, most: int, excerpt_characters: int, parts: int
) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
    chosen: dict[tuple[str, str], FirstByRank[dict[str, Any]]] = {}
    for batch in batches(stage, "removed", REMOVED_COLUMNS, parts):
        keys = zip(*(batch[name].to_pylist() for name in ("id", "stage", "reason")), strict=True)
        for i, (identifier, step, reason) in enumerate(keys):
            first = chosen.setdefault((step, reason), FirstByRank(most))
            if first.wants(identifier):
                first.add(identifier, _example(batch.slice(i, 1).to_pylist()[0], excerpt_characters))
    return {key: first.rows() for key, first in chosen.items()}


def _example(row: Mapping[str, Any], characters: int) -> dict[str, Any]:
    text = row["text"] or ""
    return {
        **{name: row[name] or "" for name in ("id", "url", "language", "detail")},
        "text": excerpt(text, characters),
        "characters": len(text),
    }


def excerpt(text: str, characters: int) -> str:
    """The beginning of a text, cut after a word and marked with an ellipsis where it is not all."""
    text = text.strip()
    if len(text) <= characters:
        return text
    cut = text[: characters + 1]
    blank = max(cut.rfind(" "), cut.rfind("\n"))
    return f"{cut[: blank if blank > characters // 2 else characters].rstrip()} …"


def example_of_near_duplicates(dedup: Manifest, parts: int) -> dict[str, Any] | None:
    """A removed near-duplicate beside the document it lost to: of some pairs the one of median similarity.

    Pairs that differ only behind what fits on the page come last. ``kept_words`` and ``removed_words`` are
    [text, whether it differs] in reading order.
    """
    pairs = []
    for pair in _near_duplicates(dedup, parts):
        texts = (pair[side].pop("text") for side in ("kept", "removed"))
        kept_words, removed_words = (_first_characters(side, PAIR_CHARACTERS) for side in differing_words(*texts))
        pairs.append({**pair, "kept_words": kept_words, "removed_words": removed_words})
    telling = [p for p in pairs if any(differs for _, differs in [*p["kept_words"], *p["removed_words"]])] or pairs
    telling.sort(key=lambda pair: (pair["similarity"], pair["removed"]["id"]))
    return telling[len(telling) // 2] if telling else None


def _near_duplicates(dedup: Manifest, parts: int) -> Iterator[dict[str, Any]]:
    """Pairs of which both documents lie in the parts that are read."""
    clustered: set[str] = set()
    for batch in batches(dedup, "documents", ("id", "cluster_size"), parts):
        sizes = zip(batch["id"].to_pylist(), batch["cluster_size"].to_pylist(), strict=True)
        clustered.update(identifier for identifier, size in sizes if size > 1)
        if len(clustered) > MOST_KEPT_IDS:
            break
    chosen: FirstByRank[dict[str, Any]] = FirstByRank(CANDIDATES)
    for batch in batches(dedup, "removed", REMOVED_COLUMNS, parts):
        keys = zip(*(batch[name].to_pylist() for name in ("id", "reason", "detail")), strict=True)
        for i, (identifier, reason, kept_id) in enumerate(keys):
            if reason == "near_duplicate" and kept_id in clustered and chosen.wants(identifier):
                chosen.add(identifier, batch.slice(i, 1).to_pylist()[0])
    lost = chosen.rows()
    wanted = {row["detail"] for row in lost}
    kept: dict[str, dict[str, Any]] = {}
    if wanted:
        for batch in batches(dedup, "documents", ("id", "url", "text", "language", "cluster_size"), parts):
            for i, identifier in enumerate(batch["id"].to_pylist()):
                if identifier in wanted:
                    kept[identifier] = batch.slice(i, 1).to_pylist()[0]
    sides = ("id", "url", "language", "text")
    for row in lost:
        if (best := kept.get(row["detail"])) is not None:
            yield {
                "similarity": round(similarity(best["text"], row["text"]), 4),
                "cluster_size": int(best["cluster_size"]),
                "kept": {name: best[name] or "" for name in sides},
                "removed": {name: row[name] or "" for name in sides},
            }


def similarity(first: str, second: str, shingle_words: int = 5) -> float:
    """Jaccard index of the sets of five words in a row."""
    sets = []
    for text in (first, second):
        words = re.findall(r"\w+", text.lower())
        sets.append({tuple(words[i : i + shingle_words]) for i in range(max(1, len(words) - shingle_words + 1))})
    union = sets[0] | sets[1]
    return len(sets[0] & sets[1]) / len(union)


def differing_words(first: str, second: str) -> tuple[list[Run], list[Run]]:
    """The beginnings of both texts in runs of words, each marked with whether the other lacks it at that place."""
    words = [WORD.findall(text)[:COMPARED_WORDS] for text in (first, second)]
    bare = [[word.strip() for word in side] for side in words]
    runs: tuple[list[Run], list[Run]] = ([], [])
    for kind, *borders in difflib.SequenceMatcher(None, bare[0], bare[1], autojunk=False).get_opcodes():
        for side, (start, end) in enumerate((borders[:2], borders[2:])):
            if end > start:
                runs[side].append(("".join(words[side][start:end]), kind != "equal"))
    return runs


def _first_characters(runs: Sequence[Run], characters: int) -> list[Run]:
    left = characters
    cut: list[Run] = []
    for text, differs in runs:
        if len(text) > left:
            return [*cut, (excerpt(text, left), differs)] if left > 20 else [*cut, ("…", False)]
        cut.append((text, differs))
        left -= len(text)
    return cut
