"""Chooses the limits of the quality preset ``portuguese`` on labelled texts, and says how they do on unseen ones.

``python benchmarks/fit_quality.py DOCS.jsonl.gz JUNK.jsonl.gz KEEP_HARD.jsonl.gz [--out FIGURES.json]``
(then ``benchmarks/quality_presets.py FIGURES.json``)

Each file holds one object a line with a ``text``, its kind in the field that ``--kinds`` names, and, if it has them, a
``group`` (``group_merged``) that texts of one work or site share, and a ``source``. DOCS are documents to keep, by
register; JUNK is to be dropped, by reason; KEEP_HARD is good text that crude rules drop. Texts are cleaned first, as
the pipeline does; junk that the cleaning mends (text in the wrong encoding) is junk no longer, and counted apart.

The search goes over round limits only. From every rule off, and from ``STARTS`` - 1 random places, it moves one limit
at a time to where the score is best, to the middle of the stretch that is as good within ``PLATEAU``, until nothing
moves. The score: twice the share of junk dropped (half by text, half by reason, so that rare kinds count), plus the
mean share kept over the registers (of texts of 50 words or more), plus a quarter of the share of hard texts kept, less
``PENALTY`` times what each aim is missed by. The aims that the search is given are stricter by ``MARGIN`` than ours.

Unseen is said in two ways, limits fitted anew without what they are judged on: in five parts, texts of one group
together; and, harder, one source after the other left out, of good text and junk alike, which for most reasons of junk
means that nothing of the kind was seen. A source's texts keep their name in all three files.
"""

import argparse
import dataclasses
import gzip
import json
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from caravela import storage
from caravela.data.extract import MOJIBAKE, clean
from caravela.progress import table
from filters import quality
from filters.quality import RULES, QualityConfig
from filters.quality_batch import first_broken_rules, measure_batch
from filters.word_table import WordTable
from filters.words import WordSplitter

Mask = NDArray[np.bool_]
BATCH = 512
FOLDS = 5
REGISTER_WORDS, FRAGMENT_WORDS = 50, 20
AIM_REGISTERS, AIM_HARD, AIM_JUNK = 0.95, 0.75, 0.96
MARGIN, PENALTY, PLATEAU, MOST_ROUNDS, STARTS = 0.01, 20.0, 0.0002, 6, 8
AIMED = ("news", "literary", "legal", "technical", "political_speech", "parliament")

CANDIDATES: Mapping[str, Sequence[float]] = {
    "gopher_quality.min_doc_words": (0, 10, 14, 16, 18, 20, 22, 25, 30, 40, 50),
    "portuguese_quality.max_broken_ratio": (0, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005),
    "portuguese_quality.max_long_chunk_ratio": (0, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1),
    "portuguese_quality.min_letter_ratio": (0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8),
    "portuguese_quality.max_capital_ratio": (0, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25),
    "portuguese_quality.min_function_word_ratio": (0, 0.1, 0.14, 0.16, 0.18, 0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.32),
    "portuguese_quality.max_cut_lines_ratio": (0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2),
    "gopher_repetition.dup_line_frac": (0, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2),
    "gopher_repetition.duplicated_10_n_grams": (0, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1),
    "portuguese_quality.max_fragment_ratio": (0, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3),
    "portuguese_quality.max_label_ratio": (0, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2),
}
"""Loosest first; 0 is off. Limits of the preset that are not here stay as they are."""


class Text(NamedTuple):
    """``label`` is good, hard or junk; ``kind`` its register, what makes it hard, or the reason to drop it."""

    label: str
    kind: str
    group: str
    source: str
    text: str


class Labelled(NamedTuple):
    """All texts, column by column: signals, and names and numbers of their classes."""

    texts: Sequence[Text]
    signals: Mapping[str, NDArray[np.float64]]
    classes: Sequence[tuple[str, str]]
    """(label, kind); texts that are too short to be aimed at have kinds of their own, ending in SHORT."""
    class_of: NDArray[np.int64]


SHORT = " (short)"
Limits = dict[str, float]


def main() -> None:
    """Prints the tables and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", help="JSONL, plain or gzip")
    parser.add_argument("junk")
    parser.add_argument("keep_hard")
    parser.add_argument(
        "--kinds", nargs=3, default=("register", "reason", "why_hard"), help="fields of the three files"
    )
    parser.add_argument("--aim", nargs="+", default=AIMED, help="registers of which 95 %% should be kept")
    parser.add_argument("--out", default="", help="JSON file for the figures")
    parser.add_argument("--show", type=int, default=0, help="texts to print that are wrongly kept or dropped, a kind")
    options = parser.parse_args()

    clock = time.perf_counter()
    files = zip(("good", "junk", "hard"), (options.docs, options.junk, options.keep_hard), options.kinds, strict=True)
    labelled, mended = measured([text for label, uri, field in files for text in read(uri, label, field)])
    print(f"{len(labelled.texts):,} texts measured in {time.perf_counter() - clock:.0f} s; {mended} of junk mended")
    clock = time.perf_counter()
    search = Search(labelled, options.aim)
    shipped = search.shipped()
    found = search.fit(search.every)
    print(f"one search: {time.perf_counter() - clock:.1f} s\n\n{limits_table(found, shipped)}\n")
    print(ablation_table(search, shipped), end="\n\n")
    dropped = {
        "fineweb2_por_latn": first_broken_rules(labelled.signals, QualityConfig()) >= 0,
        "portuguese": search.dropped(shipped),
        "unseen_group": search.out_of_part([zlib.crc32(text.group.encode()) % FOLDS for text in labelled.texts]),
        "unseen_source": search.out_of_part([text.source for text in labelled.texts]),
    }
    rows = figures(labelled, dropped, options.aim)
    print(figures_table(rows))
    print(f"{len({text.source for text in labelled.texts})} sources; {time.perf_counter() - clock:.0f} s")
    if options.out:
        about = {"about": "shares kept; made by benchmarks/fit_quality.py", "mended": mended, "aim": list(options.aim)}
        storage.write_text(options.out, json.dumps({**about, "rows": rows}, ensure_ascii=False, indent=1) + "\n")
    show(labelled, options.show)


def read(uri: str, label: str, field: str) -> Iterator[Text]:
    """The texts of a file."""
    raw = storage.read_bytes(uri)
    for number, line in enumerate((gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).splitlines()):
        row: dict[str, Any] = json.loads(line)
        group = row.get("group_merged") or row.get("group") or f"{uri}:{number}"
        yield Text(label, str(row[field]), str(group), str(row.get("source") or uri), row["text"])


def measured(texts: Sequence[Text]) -> tuple[Labelled, int]:
    """Signals of the cleaned texts, and how many junk texts the cleaning mended."""
    kept, mended = [], 0
    for text in texts:
        cleaned = text._replace(text=clean(text.text))
        broken = MOJIBAKE.search(cleaned.text) or "\ufffd" in cleaned.text
        if text.label == "junk" and MOJIBAKE.search(text.text) and not broken:
            mended += 1
        else:
            kept.append(cleaned)
    words, config, parts = WordTable(WordSplitter()), QualityConfig(preset="portuguese"), []
    for start in range(0, len(kept), BATCH):
        column = pa.array([text.text for text in kept[start : start + BATCH]], pa.large_string())
        parts.append(measure_batch(column, words, config))
    signals = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    least = {"good": REGISTER_WORDS, "hard": FRAGMENT_WORDS, "junk": 0}
    names = [(t.label, t.kind + (SHORT if len(t.text.split()) < least[t.label] else "")) for t in kept]
    classes = sorted(set(names))
    return Labelled(kept, signals, classes, np.array([classes.index(name) for name in names])), mended


class Search:
    """Finds limits for some of the texts."""

    def __init__(self, labelled: Labelled, aim: Sequence[str]) -> None:
        self.labelled = labelled
        labels = np.array([label for label, _ in labelled.classes])
        long_enough = np.array([not kind.endswith(SHORT) for _, kind in labelled.classes])
        self.registers, self.hard = (labels == "good") & long_enough, (labels == "hard") & long_enough
        self.aimed = np.array([label == "good" and kind in aim for label, kind in labelled.classes])
        self.junk = labels == "junk"
        self.every = long_enough[labelled.class_of]
        self.broken = {place: [self.breaks(place, limit) for limit in each] for place, each in CANDIDATES.items()}
        preset = QualityConfig(preset="portuguese")
        fixed = {}
        for name in quality.FILTERS:
            off = {each: 0 for each in dataclasses.asdict(getattr(preset, name)) if f"{name}.{each}" in CANDIDATES}
            fixed[name] = dataclasses.replace(getattr(preset, name), **off)
        self.always = first_broken_rules(labelled.signals, dataclasses.replace(preset, **fixed)) >= 0

    def breaks(self, place: str, limit: float) -> Mask:
        """Which texts break one rule with this limit."""
        name, _, field = place.partition(".")
        rule = next(rule for rule in RULES if (rule.filter, rule.limit) == (name, field))
        values = self.labelled.signals[rule.signal]
        if limit == 0:
            return np.zeros(len(values), np.bool_)
        return values > limit if rule.side == "above" else values < limit

    def shipped(self) -> Limits:
        """The limits of the preset as it is."""
        preset = QualityConfig(preset="portuguese")
        return {place: getattr(getattr(preset, place.split(".")[0]), place.split(".")[1]) for place in CANDIDATES}

    def dropped(self, limits: Limits) -> Mask:
        """Which texts these limits drop."""
        broken: Mask = np.logical_or.reduce([self.always, *(self.breaks(place, c) for place, c in limits.items())])
        return broken

    def score(self, kept: NDArray[np.int64], totals: NDArray[np.int64]) -> float:
        """What the search makes large: from the number kept, and of all, of each class."""
        there = totals > 0
        shares = kept / np.maximum(1, totals)
        hard = kept[self.hard].sum() / max(1, totals[self.hard].sum())
        junk = 1 - kept[self.junk].sum() / max(1, totals[self.junk].sum())
        by_reason = 1 - shares[self.junk & there].mean()
        missed = np.maximum(0, AIM_REGISTERS + MARGIN - shares[self.aimed & there]).sum()
        missed += max(0.0, AIM_HARD + MARGIN - hard) + max(0.0, AIM_JUNK + MARGIN - junk)
        return float(junk + by_reason + shares[self.registers & there].mean() + hard / 4 - PENALTY * missed)

    def fit(self, seen: Mask, without: Sequence[str] = ()) -> Limits:
        """The best limits that the search ends at, seeing these texts only."""
        classes = self.labelled.class_of[seen]
        broken = {place: [each[seen] for each in self.broken[place]] for place in CANDIDATES if place not in without}
        best, chosen = -np.inf, dict.fromkeys(broken, 0)
        for start in range(STARTS):
            rng = np.random.default_rng(start)
            places = [*broken] if start == 0 else [[*broken][k] for k in rng.permutation(len(broken))]
            begin = {place: 0 if start == 0 else int(rng.integers(len(broken[place]))) for place in places}
            score, found = self._descent(classes, self.always[seen], broken, begin)
            if score > best:
                best, chosen = score, found
        return {place: CANDIDATES[place][chosen[place]] for place in broken}

    def _descent(
        self, classes: NDArray[np.int64], always: Mask, broken: Mapping[str, Sequence[Mask]], chosen: dict[str, int]
    ) -> tuple[float, dict[str, int]]:
        number = len(self.labelled.classes)
        totals = np.bincount(classes, minlength=number)
        count = always + np.sum([masks[chosen[place]] for place, masks in broken.items()], axis=0, dtype=np.int16)
        for _ in range(MOST_ROUNDS):
            moved = False
            for place in chosen:
                masks = broken[place]
                others = count - masks[chosen[place]]
                passing = others == 0
                left = classes[passing]
                scores = [self.score(np.bincount(left[~mask[passing]], minlength=number), totals) for mask in masks]
                choice = _middle_of_plateau(scores)
                moved |= choice != chosen[place]
                chosen[place], count = choice, others + masks[choice]
            if not moved:
                break
        return self.score(np.bincount(classes[count == 0], minlength=number), totals), chosen

    def out_of_part(self, parts: Sequence[Any]) -> Mask:
        """Which texts are dropped by limits fitted without their part."""
        dropped = np.zeros(len(parts), np.bool_)
        names = np.array([str(part) for part in parts])
        for part in sorted(set(names.tolist())):
            own = names == part
            dropped[own] = self.dropped(self.fit(self.every & ~own))[own]
        return dropped


def _middle_of_plateau(scores: Sequence[float]) -> int:
    best = max(scores)
    low = high = scores.index(best)
    while low > 0 and scores[low - 1] >= best - PLATEAU:
        low -= 1
    while high + 1 < len(scores) and scores[high + 1] >= best - PLATEAU:
        high += 1
    return (low + high) // 2


def limits_table(found: Limits, shipped: Limits) -> str:
    """What the search finds on all texts beside what the preset says."""
    rows = [(place, f"{found[place]:g}", f"{shipped[place]:g}") for place in CANDIDATES]
    return table(("limit", "found on all texts", "in the preset"), rows)


def ablation_table(search: Search, shipped: Limits) -> str:
    """What each rule of the preset drops, what it alone drops, and what the search reaches without it."""
    every = search.every
    is_junk, is_hard, is_aimed = (
        each[search.labelled.class_of] & every for each in (search.junk, search.hard, search.aimed)
    )

    def reached(limits: Limits) -> list[str]:
        dropped = search.dropped(limits)
        kept = [1 - dropped[one].mean() for one in (is_hard, is_aimed)]
        return [f"{share:.1%}" for share in (dropped[is_junk].mean(), *kept)]

    rows = []
    for place, limit in shipped.items():
        if limit:
            own = search.breaks(place, limit)
            alone = own & ~search.dropped(shipped | {place: 0})
            counts = [f"{(each & one).sum():,}" for each in (own, alone) for one in (is_junk, is_hard | is_aimed)]
            rows.append((place, f"{limit:g}", *counts, *reached(search.fit(every, without=[place]))))
    rows.append(("none left out", *[""] * 5, *reached(search.fit(every))))
    counts = ["of junk it drops", "of good", "alone of junk", "alone of good"]
    return table(("rule", "limit", *counts, "fitted without it: junk dropped", "hard kept", "aimed kept"), rows)


def figures(labelled: Labelled, dropped: Mapping[str, Mask], aim: Sequence[str]) -> list[dict[str, Any]]:
    """A row per class, and one for all of each label: number of texts, share kept by each preset."""
    rows = []
    wholes = {"good": "registers that are aimed at", "hard": "all", "junk": "all"}
    for label, whole in wholes.items():
        numbers = [k for k, (other, _) in enumerate(labelled.classes) if other == label]
        aimed = [k for k in numbers if label == "junk" or not labelled.classes[k][1].endswith(SHORT)]
        aimed = [k for k in aimed if label != "good" or labelled.classes[k][1] in aim]
        for name, members in [*((labelled.classes[k][1], [k]) for k in numbers), (whole, aimed)]:
            inside = np.isin(labelled.class_of, members)
            shares = {preset: round(float(1 - each[inside].mean()), 4) for preset, each in dropped.items()}
            rows.append({"label": label, "kind": name, "texts": int(inside.sum()), **shares})
    return rows


def figures_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Both presets side by side."""
    shares = ("fineweb2_por_latn", "portuguese", "unseen_group", "unseen_source")
    body = [(row["label"], row["kind"], f"{row['texts']:,}", *(f"{row[each]:.1%}" for each in shares)) for row in rows]
    headings = ("kept", "kind", "texts", "fineweb2_por_latn", "portuguese", "unseen group", "unseen source")
    return table(headings, body)


def show(labelled: Labelled, most: int) -> None:
    """Good texts that the preset drops, junk that it keeps."""
    first = first_broken_rules(labelled.signals, QualityConfig(preset="portuguese"))
    shown: Counter[tuple[str, str]] = Counter()
    for k in np.random.default_rng(0).permutation(len(labelled.texts)).tolist():
        text, name = labelled.texts[k], labelled.classes[labelled.class_of[k]]
        if (first[k] >= 0) == (text.label == "junk") or shown[name] >= most or name[1].endswith(SHORT):
            continue
        shown[name] += 1
        why = "kept" if first[k] < 0 else f"{RULES[first[k]].reason} {labelled.signals[RULES[first[k]].signal][k]:.3f}"
        print(f"\n[{name[0]}/{name[1]}/{text.source}] {why}\n{text.text[:600]!r}")


if __name__ == "__main__":
    main()
