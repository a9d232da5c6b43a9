"""Fits the weights of filters/near_languages.py to labelled text, and says how well they do on unseen sources.

``python benchmarks/fit_near_languages.py LABELLED.jsonl[.gz] [...] --out filters/near_languages_weights.json``

Each line is an object with a text, its language (``lang``, as lid.176 spells it; ``mul``, a page of several, is passed
over), its source, and if there is one a ``group`` that texts of one work share. The ranking comes from lid.176.

Two fits. First the patterns: multinomial logistic regression over the words of short pieces of the texts, some of them
a second time without accents, drawn to nothing by squares; the patterns are those that tell most about the language and
occur in several sources. Then how much the patterns and the ranking count, and a constant per language, on the opinions
of pattern weights that had not seen the text's source. These are what the tables show: a source is left out in all its
languages together; only a language whose sources all came to one part is split by groups of texts.

``mwl`` is learnt from the sentences in near_languages_mirandese.txt, which were written for it.
"""

import argparse
import gzip
import json
import os
import random
import re
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from fit_variant import minimum
from numpy.typing import NDArray

from caravela import storage
from caravela.progress import table
from filters.language import LanguageConfig, LanguageIdentifier
from filters.near_languages import (
    LANGUAGES,
    OTHER,
    PORTUGUESE,
    UNIT,
    NearLanguages,
    NearLanguagesConfig,
    Weights,
    language_of,
    log_scores,
    patterns_of,
    portuguese_score,
    words_of,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MIRANDESE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "near_languages_mirandese.txt")
CANDIDATES = 3
FOLDS = 6
MOST_OF_SOURCE = 400  # texts of one source and language that are read
READ_CHARACTERS = 8_000  # of each text, to cut pieces from
PIECES = (6, 12, 25, 50)  # words
WITHOUT_ACCENTS = 0.2  # share of pieces that come a second time without accents
LENGTH_POWER = 0.6
LANGUAGE_POWER, SOURCE_POWER = 0.5, 0.5  # a language or source of 100 times the text counts 10 times as much
LEAST_TEXTS = 4  # pieces that a pattern must occur in
LEAST_GAIN = 1e-3  # of the loss in a round of fitting patterns; less changes no figure
LENGTHS = ("short", "sentence", "paragraph", "document")


@dataclass(frozen=True)
class Labelled:
    """A text with its truth, where it is from and what lid.176 says."""

    text: str
    language: str
    source: str
    group: str
    length: str
    ranking: Sequence[tuple[str, float]]

    @property
    def place(self) -> int:
        """Of its language in LANGUAGES."""
        return LANGUAGES.index(language_of(self.language))


class Sparse(NamedTuple):
    """A matrix of counts by rows."""

    starts: Ints
    columns: Ints
    amounts: Floats

    @classmethod
    def of(cls, rows: Iterable[Mapping[int, float]]) -> "Sparse":
        starts, columns, amounts = [0], [], []
        for row in rows:
            columns.extend(row.keys())
            amounts.extend(row.values())
            starts.append(len(columns))
        return cls(np.array(starts, np.int64), np.array(columns, np.int64), np.array(amounts, np.float64))


@numba.njit(cache=True)
def times(starts: Ints, columns: Ints, amounts: Floats, dense: Floats) -> Floats:
    """The sparse matrix by a dense one."""
    result = np.zeros((len(starts) - 1, dense.shape[1]))
    for row in range(len(starts) - 1):
        for cell in range(starts[row], starts[row + 1]):
            for k in range(dense.shape[1]):
                result[row, k] += amounts[cell] * dense[columns[cell], k]
    return result


@numba.njit(cache=True)
def turned_times(starts: Ints, columns: Ints, amounts: Floats, dense: Floats, num_columns: int) -> Floats:
    """The turned sparse matrix by a dense one."""
    result = np.zeros((num_columns, dense.shape[1]))
    for row in range(len(starts) - 1):
        for cell in range(starts[row], starts[row + 1]):
            for k in range(dense.shape[1]):
                result[columns[cell], k] += amounts[cell] * dense[row, k]
    return result


def main() -> None:
    """Prints the tables and writes the weights with the figures beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelled", nargs="+", help="JSONL files, plain or gzip")
    parser.add_argument("--patterns", type=int, default=6000, help="how many patterns get weights")
    parser.add_argument("--pull", type=float, default=0.3, help="how much the weights are drawn to nothing")
    parser.add_argument("--out", default="", help="JSON file for the weights")
    options = parser.parse_args()

    clock = time.perf_counter()
    texts = list(read(options.labelled))
    print(f"{len(texts):,} texts read and ranked in {time.perf_counter() - clock:.0f} s", flush=True)
    folds = folds_of(texts)
    pieces = Pieces.of(texts)
    opinions = cross_validate(texts, pieces, folds, options.patterns, options.pull)
    print(f"cross-validated in {time.perf_counter() - clock:.0f} s")
    config = NearLanguagesConfig()
    # The second fit is cross-validated too: 16 numbers, but they see every source.
    judged: list[tuple[str, float]] = [("", 0.0)] * len(texts)
    for fold in range(FOLDS):
        found = combined(texts, opinions, [place for place, other in enumerate(folds) if other != fold])
        for place in (place for place, other in enumerate(folds) if other == fold):
            judged[place] = judge(texts[place], opinions[place], found, config)
    print(confusion_table(texts, judged))
    print()
    print(threshold_table(texts, judged))
    if options.out:
        weights = combined(texts, opinions, range(len(texts)))
        patterns = fit_patterns(pieces, [True] * len(texts), options.patterns, options.pull)
        write(options.out, weights._replace(patterns=patterns), texts, judged)


def read(uris: Sequence[str]) -> Iterator[Labelled]:
    """The texts of the files, each source and language capped, and the Mirandese sentences; ranked by lid.176."""
    identifier = LanguageIdentifier.from_config(LanguageConfig(candidates=CANDIDATES))
    for uri in uris:
        raw = storage.read_bytes(uri)
        rows = [json.loads(line) for line in (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).splitlines()]
        rows = [row for row in rows if row["lang"] != "mul" and row["text"].strip()]
        # The order of a checksum picks the same texts each time, from all parts of a source.
        rows.sort(key=lambda row: zlib.crc32(str(row["id"]).encode()))
        taken: Counter[tuple[str, str]] = Counter()
        for row in rows:
            source = source_of(row.get("source") or storage.name_of(uri))
            taken[row["lang"], source] += 1
            if "length" in row or taken[row["lang"], source] <= MOST_OF_SOURCE:
                length = row.get("length") or "document"
                group = str(row.get("group") or row["id"])
                yield Labelled(row["text"], row["lang"], source, group, length, identifier.identify(row["text"]))
    for line in storage.read_text(MIRANDESE).splitlines():
        yield Labelled(line, "mwl", "own", line, "sentence", identifier.identify(line))


def source_of(name: str) -> str:
    """The name without what only says the language: ``UD_Portuguese-PUD`` and ``UD_Galician-PUD`` are one source."""
    parts = re.split(r"[\W_]+", re.sub(r"^ud_(?:[a-z]+-)?", "", name.lower()))
    return parts[0] if len(parts) == 2 else "_".join(parts)


def folds_of(texts: Sequence[Labelled]) -> list[int]:
    """The part of each text: sources by falling size in turn.

    A language that would lie in one part alone goes by its groups: what nothing was learnt of says nothing.
    """
    sources: dict[str, set[str]] = {}
    for text in texts:
        sources.setdefault(text.language, set()).add(text.source)
    sizes = Counter(text.source for text in texts if len(sources[text.language]) > 1)
    turn = {
        source: place % FOLDS for place, (source, _) in enumerate(sorted(sizes.items(), key=lambda i: (-i[1], i[0])))
    }
    spread = {language for language, own in sources.items() if len({turn.get(source) for source in own}) > 1}
    return [turn[text.source] if text.language in spread else zlib.crc32(text.group.encode()) % FOLDS for text in texts]


def pieces_of(text: Labelled) -> list[list[str]]:
    """Short pieces of a text, as lists of words: the same each time."""
    chance = random.Random(zlib.crc32(text.text.encode()))
    words = words_of(text.text[:READ_CHARACTERS])
    pieces = [words] if len(words) <= PIECES[-1] else []
    for _ in range(0 if pieces else 1 + (text.language != PORTUGUESE) + (len(words) > 200)):
        size = chance.choice(PIECES)
        start = chance.randrange(len(words) - size)
        pieces.append(words[start : start + size])
    bare = [[without_accents(word) for word in piece] for piece in pieces if chance.random() < WITHOUT_ACCENTS]
    return [piece for piece in pieces + bare if piece]


def without_accents(word: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter))


@dataclass(frozen=True)
class Pieces:
    """The pieces of all texts: their text, damped counts of words, the words' patterns, languages."""

    texts: Ints
    words: Sparse
    patterns: Sparse
    names: Sequence[str]
    places: Ints
    sources: Sequence[str]

    @classmethod
    def of(cls, texts: Sequence[Labelled]) -> "Pieces":
        # A text whose ranking names no near language is never looked at.
        near = [
            number for number, text in enumerate(texts) if any(language_of(name) != OTHER for name, _ in text.ranking)
        ]
        pieces = [(number, piece) for number in near for piece in pieces_of(texts[number])]
        frequency = Counter(word for _, piece in pieces for word in set(piece))
        vocabulary = {word: place for place, word in enumerate(sorted(frequency))}
        found = [patterns_of(word) for word in vocabulary]
        often: Counter[str] = Counter()
        for word, each in zip(vocabulary, found, strict=True):
            for name in each:
                often[name] += frequency[word]
        names = sorted(name for name, times_seen in often.items() if times_seen >= LEAST_TEXTS and name != "_")
        column = {name: place for place, name in enumerate(names)}
        rows = [
            {vocabulary[word]: count / len(piece) ** LENGTH_POWER for word, count in Counter(piece).items()}
            for _, piece in pieces
        ]
        return cls(
            np.array([number for number, _ in pieces]),
            Sparse.of(rows),
            Sparse.of({column[name]: 1.0 for name in each if name in column} for each in found),
            names,
            np.array([texts[number].place for number, _ in pieces]),
            [texts[number].source for number, _ in pieces],
        )

    def counts(self, is_learnt: Sequence[bool]) -> Floats:
        """What each piece counts: languages and their sources by powers of their size; others than learnt nothing."""
        cells = list(zip(self.places.tolist(), self.sources, strict=True))
        learnt = [is_learnt[number] for number in self.texts]
        sizes = Counter(cell for cell, is_in in zip(cells, learnt, strict=True) if is_in)
        of_language: Counter[int] = Counter()
        for (place, _), size in sizes.items():
            of_language[place] += size
        num_sources = Counter(place for place, _ in sizes)
        counts = np.zeros(len(cells))
        for row, (place, source) in enumerate(cells):
            if learnt[row]:
                share = sizes[place, source] * num_sources[place] / of_language[place]
                counts[row] = of_language[place] ** (LANGUAGE_POWER - 1) * share ** (SOURCE_POWER - 1)
        return counts * (sum(learnt) / counts.sum())

    def telling(self, counts: Floats, most: int) -> Ints:
        """The patterns that tell most about the language: by their share of the information between both."""
        truth = np.zeros((len(self.places), len(LANGUAGES)))
        truth[np.arange(len(self.places)), self.places] = counts
        by_word = turned_times(*self.words, truth, len(self.patterns.starts) - 1)
        by_pattern = turned_times(*self.patterns, by_word, len(self.names))
        shares = truth.sum(axis=0) / truth.sum()
        # As if each pattern had been seen a few times more, in all languages alike.
        rates = by_pattern + 2.0 * shares
        portions = rates / rates.sum(axis=1, keepdims=True)
        seen = shares > 0  # a language may lie wholly in the part that is left out
        surprise = portions[:, seen] * np.log(portions[:, seen] / shares[seen])
        information = rates.sum(axis=1) * surprise.sum(axis=1)
        return np.sort(np.argsort(-information, kind="stable")[:most])

    def of_patterns(self, chosen: Ints) -> Sparse:
        """The words' patterns, with only the chosen ones."""
        column = np.full(len(self.names), -1)
        column[chosen] = np.arange(len(chosen))
        stays = column[self.patterns.columns] >= 0
        starts = np.concatenate([[0], np.cumsum(stays)])[self.patterns.starts]
        return Sparse(starts, column[self.patterns.columns][stays], self.patterns.amounts[stays])


def fit_patterns(pieces: Pieces, is_learnt: Sequence[bool], num_patterns: int, pull: float) -> dict[str, list[int]]:
    """A weight for each pattern and language."""
    counts = pieces.counts(is_learnt)
    chosen = pieces.telling(counts, num_patterns)
    patterns = pieces.of_patterns(chosen)
    truth = np.zeros((len(pieces.places), len(LANGUAGES)))
    truth[np.arange(len(pieces.places)), pieces.places] = 1
    num_words = len(patterns.starts) - 1

    def loss(point: Floats) -> tuple[float, Floats]:
        weights = point[: -len(LANGUAGES)].reshape(len(chosen), len(LANGUAGES))
        totals = times(*pieces.words, times(*patterns, weights)) + point[-len(LANGUAGES) :]
        value, slope = soft_loss(totals, truth, counts)
        by_pattern = turned_times(*patterns, turned_times(*pieces.words, slope, num_words), len(chosen))
        value += pull / 2 * float((weights * weights).sum())
        return value, np.concatenate([(by_pattern + pull * weights).ravel(), slope.sum(axis=0)])

    point = minimum(loss, np.zeros((len(chosen) + 1) * len(LANGUAGES)), LEAST_GAIN)
    weights = point[: -len(LANGUAGES)].reshape(len(chosen), len(LANGUAGES))
    rounded = np.rint((weights - weights.mean(axis=1, keepdims=True)) * UNIT).astype(int)
    return {pieces.names[place]: row.tolist() for place, row in zip(chosen, rounded, strict=True)}


def soft_loss(totals: Floats, truth: Floats, counts: Floats) -> tuple[float, Floats]:
    """Cross entropy, and its slope along the totals."""
    totals = totals - totals.max(axis=1, keepdims=True)
    powers = np.exp(totals)
    whole = powers.sum(axis=1, keepdims=True)
    value = float((counts * (np.log(whole[:, 0]) - (totals * truth).sum(axis=1))).sum())
    return value, counts[:, None] * (powers / whole - truth)


def cross_validate(
    texts: Sequence[Labelled], pieces: Pieces, folds: Sequence[int], num_patterns: int, pull: float
) -> list[list[float]]:
    """What patterns say of every text whose weights were fitted without its part."""
    opinions: list[list[float]] = [[]] * len(texts)
    for fold in range(FOLDS):
        print(f"part {fold + 1} of {FOLDS} is left out ...", flush=True)
        patterns = fit_patterns(pieces, [other != fold for other in folds], num_patterns, pull)
        looking = NearLanguages(
            Weights(patterns, LENGTH_POWER, 1.0, 1.0, [0.0] * len(LANGUAGES)), NearLanguagesConfig()
        )
        for place, (text, other) in enumerate(zip(texts, folds, strict=True)):
            if other == fold:
                opinions[place] = looking.log_odds(text.text)[0]
    return opinions


def combined(texts: Sequence[Labelled], opinions: Sequence[Sequence[float]], among: Iterable[int]) -> Weights:
    """The two slopes and the constants, fitted to texts that would be looked at."""
    config = NearLanguagesConfig()
    chosen = [place for place in among if portuguese_score(texts[place].ranking) >= config.least_portuguese]
    odds = np.array([opinions[place] for place in chosen])
    scores = np.array([log_scores(texts[place].ranking) for place in chosen])
    cells = [(texts[place].place, texts[place].source) for place in chosen]
    sizes = Counter(cells)
    # Portuguese and all else count alike, in each of them sources by the root of their size.
    counts = np.array([sizes[cell] ** (SOURCE_POWER - 1) for cell in cells])
    places = np.array([place for place, _ in cells])
    for side in (places == 0, places != 0):
        counts[side] *= len(chosen) / 2 / max(counts[side].sum(), 1e-9)
    truth = np.zeros((len(chosen), len(LANGUAGES)))
    truth[np.arange(len(chosen)), places] = 1

    def loss(point: Floats) -> tuple[float, Floats]:
        totals = point[0] * odds + point[1] * scores + point[2:]
        value, slope = soft_loss(totals, truth, counts)
        value += float(point[2:] @ point[2:]) / 2
        return value, np.concatenate([[(slope * odds).sum(), (slope * scores).sum()], slope.sum(axis=0) + point[2:]])

    point = minimum(loss, np.r_[1.0, 0.5, np.zeros(len(LANGUAGES))])
    text_slope, ranking_slope, *constants = (round(float(number), 4) for number in point)
    return Weights({}, LENGTH_POWER, text_slope, ranking_slope, constants)


def judge(text: Labelled, opinion: Sequence[float], weights: Weights, config: NearLanguagesConfig) -> tuple[str, float]:
    """The label and score that curation would go by."""
    looking = NearLanguages(weights, config)
    if not any(opinion) or not looking.is_wanted(len(text.text), text.ranking):
        return text.ranking[0]
    found = looking.probabilities(opinion, text.ranking)
    best = max(range(len(LANGUAGES)), key=found.__getitem__)
    return LANGUAGES[best], found[best]


def kept(judged: tuple[str, float], threshold: float) -> bool:
    """Whether a text with this label and score is taken for Portuguese."""
    return judged[0] == PORTUGUESE and judged[1] >= threshold


def confusion_table(texts: Sequence[Labelled], judged: Sequence[tuple[str, float]]) -> str:
    """A row per language and length: share taken for Portuguese by lid.176 alone, and with the second look."""
    rows = []
    languages = Counter(text.language for text in texts)
    near = [language for language in LANGUAGES if language in languages]
    for language in [*near, *sorted(languages.keys() - set(near))]:
        for length in LENGTHS:
            places = [p for p, t in enumerate(texts) if (t.language, t.length) == (language, length)]
            ways = [[kept(texts[place].ranking[0], threshold) for place in places] for threshold in (0.65, 0.799)] + [
                [kept(judged[place], threshold) for place in places] for threshold in (0.5, 0.65, 0.799)
            ]
            if places and (language in near or any(map(sum, ways))):
                rows.append((f"{language} {length}", f"{len(places):,}", *(f"{np.mean(way):.1%}" for way in ways)))
    headings = ("taken for Portuguese", "texts", "lid.176 0.65", "0.799", "second look 0.5", "0.65", "0.799")
    return table(headings, rows)


def threshold_table(texts: Sequence[Labelled], judged: Sequence[tuple[str, float]]) -> str:
    """A row per threshold: sentences lost and taken."""
    rows = []
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.799, 0.9, 0.95):
        row = [f"{threshold}"]
        for language, length in (("pt", "sentence"), ("gl", "sentence"), ("pt", "paragraph"), ("gl", "paragraph")):
            places = [p for p, t in enumerate(texts) if (t.language, t.length) == (language, length)]
            for found in ([texts[p].ranking[0] for p in places], [judged[p] for p in places]):
                share = float(np.mean([kept(each, threshold) for each in found]))
                row.append(f"{1 - share if language == 'pt' else share:.1%}")
        rows.append(tuple(row))
    names = ("pt sentences lost", "gl sentences taken", "pt paragraphs lost", "gl paragraphs taken")
    return table(("threshold", *(f"{n}{way}" for n in names for way in (", lid.176", ", second look"))), rows)


def summary(texts: Sequence[Labelled], judged: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Shares taken for Portuguese at 0.65, by language and length."""
    found: dict[str, Any] = {}
    for language in LANGUAGES[:-1]:
        for length in LENGTHS:
            places = [p for p, t in enumerate(texts) if (t.language, t.length) == (language, length)]
            if places:
                found[f"{language} {length}"] = {
                    "texts": len(places),
                    "lid_alone": round(float(np.mean([kept(texts[p].ranking[0], 0.65) for p in places])), 4),
                    "second_look": round(float(np.mean([kept(judged[p], 0.65) for p in places])), 4),
                }
    return found


def write(uri: str, weights: Weights, texts: Sequence[Labelled], judged: Sequence[tuple[str, float]]) -> None:
    """The weights file: a line for each pattern."""
    head = {
        "about": "thousandths of log odds per pattern and language; made by benchmarks/fit_near_languages.py",
        "texts": len(texts),
        "unseen_sources_at_0.65": summary(texts, judged),
        "languages": list(LANGUAGES),
        "length_power": weights.length_power,
        "text_slope": weights.text_slope,
        "ranking_slope": weights.ranking_slope,
        "constants": list(weights.constants),
    }
    lines = ",\n".join(
        f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(row, separators=(',', ':'))}"
        for name, row in weights.patterns.items()
    )
    opening = json.dumps(head, ensure_ascii=False, indent=1)[:-2]
    storage.write_text(uri, f'{opening},\n "patterns": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
