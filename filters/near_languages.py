"""A second look at texts that language identification may confuse: Portuguese, or a language that is near to it.

In: a text and its ranking by a fastText model (lid.176, or another with its labels or GlotLID's). Out:
``NearLanguages.second_look`` gives a label and its probability, to go before the ranking's best. ``is_wanted`` says
which texts need it: those in whose ranking Portuguese stands, unless it stands first, sure, over a long text.

A text's words are cut into patterns: every run of one to five letters, with the borders of the word as letters, and
the word itself. So "unha", "_ll", "ción_" and "l'" are patterns. Each has a weight per language in
``near_languages_weights.json``, fitted by ``benchmarks/fit_near_languages.py`` on labelled text; what a text's patterns
weigh together, damped by a power of its number of words, is one opinion and the model's ranking is the other. Both are
weighed into one probability for each language, which was calibrated on texts of sources that the weights had not seen.

Weights are whole numbers, so that a sum is the same in any order; words are remembered, which changes no result. Only
``max_characters`` of a text are read: all, or the beginning, the middle and the end.

What it gets wrong: two or three words; Galician in the spelling that follows Portuguese; a page of two languages is
given the one that it has more of. Figures by cross-validation over unseen sources are in the weights file.
"""

import functools
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from caravela.config import ConfigError

PORTUGUESE = "pt"
OTHER = "other"
LANGUAGES = ("pt", "gl", "es", "ast", "mwl", "an", "ca", "oc", "it", "fr", "ro", "la", "en", OTHER)
"""Languages that are told apart, by their labels in lid.176; every other label counts as the last."""
GLOTLID = {
    "por_Latn": "pt", "glg_Latn": "gl", "spa_Latn": "es", "ast_Latn": "ast", "mwl_Latn": "mwl", "arg_Latn": "an",
    "cat_Latn": "ca", "oci_Latn": "oc", "ita_Latn": "it", "fra_Latn": "fr", "ron_Latn": "ro", "lat_Latn": "la",
    "eng_Latn": "en",
}  # fmt: skip
TO_GLOTLID = {language: label for label, language in GLOTLID.items()}
LONGEST_PATTERN = 5
LONGEST_WORD = 24  # letters of a longer one are left out: it is an address or a number in letters
MEMO_WORDS = 200_000
UNIT = 1000  # a weight of 1 in the file is a thousandth of log odds
LEAST_SCORE = 1e-3  # what a label counts as that is not in the ranking

TOKEN = re.compile(r"[^\W\d_]+(?:[-'·][^\W\d_]+)*'?|[¿¡]")
SIGNS_OF_NO_PROSE = ("@", "#", "://", "www.")
NOT_PROSE = re.compile(r"(?:https?://|www\.)\S+|(?<!\S)[^\s@]*+@\S*|#\w+")


@dataclass(frozen=True, kw_only=True)
class NearLanguagesConfig:
    """Which texts get a second look, and at how much of them."""

    enabled: bool = True
    """Whether curation asks for a second look."""
    least_portuguese: float = 0.02
    """A text is looked at whose ranking gives Portuguese at least this score, first or not."""
    sure: float = 0.95
    """A text that the ranking gives to Portuguese with at least this score is not looked at if it is long."""
    sure_characters: int = 400
    """How long it must be for that."""
    max_characters: int = 2000
    """How much of a text is read."""

    def __post_init__(self) -> None:
        for name in ("least_portuguese", "sure"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected between 0 and 1")
        if self.sure_characters < 0:
            raise ConfigError(f"sure_characters = {self.sure_characters}: expected 0 or more")
        if self.max_characters < 100:
            raise ConfigError(f"max_characters = {self.max_characters}: expected 100 or more")


class Weights(NamedTuple):
    """What was fitted: see ``NearLanguages.log_odds`` and ``NearLanguages.probabilities`` for how it is used."""

    patterns: Mapping[str, Sequence[int]]
    """Per pattern a weight for each of LANGUAGES, in thousandths of log odds."""
    length_power: float
    """The sum over a text's words is divided by their number to this power."""
    text_slope: float
    """How much what the patterns say counts."""
    ranking_slope: float
    """How much the ranking's log scores count."""
    constants: Sequence[float]
    """What each language is given before anything is known."""

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Weights":
        assert tuple(table["languages"]) == LANGUAGES, f"weights are for {table['languages']}"
        return cls(*(table[name] for name in cls._fields))


class NearLanguages:
    """Holds the weights and a memo of words; make one per process."""

    def __init__(self, weights: Weights, config: NearLanguagesConfig) -> None:
        self.config = config
        self.weights = weights
        self._places = {pattern: place for place, pattern in enumerate(weights.patterns)}
        self._rows = np.array(list(weights.patterns.values()), np.int64).reshape(-1, len(LANGUAGES))
        self._memo: dict[str, int] = {}
        self._sums = np.zeros((1024, len(LANGUAGES)), np.int64)

    @classmethod
    def load(cls, config: NearLanguagesConfig | None = None) -> "NearLanguages":
        """With the weights that lie beside this module."""
        return cls(shipped_weights(), config or NearLanguagesConfig())

    def is_wanted(self, num_characters: int, ranking: Sequence[tuple[str, float]]) -> bool:
        """Whether a text of this length and with this ranking should get a second look."""
        score = portuguese_score(ranking)
        if score < self.config.least_portuguese:
            return False
        return score < self.config.sure or num_characters < self.config.sure_characters

    def second_look(self, text: str, ranking: Sequence[tuple[str, float]]) -> tuple[str, float]:
        """The likeliest language with its probability, its label spelt as the ranking spells labels.

        Where that is a language beyond LANGUAGES, the ranking's best label of these, with the probability of them all.
        Where neither the text nor the ranking says anything, the ranking's best, unchanged.
        """
        return self.second_looks([text], [ranking])[0]

    def second_looks(
        self, texts: Sequence[str], rankings: Sequence[Sequence[tuple[str, float]]]
    ) -> list[tuple[str, float]]:
        """The same for several texts, each for itself."""
        return [
            self._decided(log_odds, ranking) if num_words and ranking else (ranking[0] if ranking else ("und", 0.0))
            for (log_odds, num_words), ranking in zip(self._log_odds_of(texts), rankings, strict=True)
        ]

    def _decided(self, log_odds: Sequence[float], ranking: Sequence[tuple[str, float]]) -> tuple[str, float]:
        found = self.probabilities(log_odds, ranking)
        best = max(range(len(LANGUAGES)), key=found.__getitem__)
        if LANGUAGES[best] == OTHER:
            beyond = (label for label, _ in ranking if language_of(label) == OTHER)
            return next(beyond, ranking[0][0]), found[best]
        in_glotlid = "_" in ranking[0][0]
        return TO_GLOTLID[LANGUAGES[best]] if in_glotlid else LANGUAGES[best], found[best]

    def log_odds(self, text: str) -> tuple[list[float], int]:
        """What the text's patterns say for each of LANGUAGES, and on how many words that rests."""
        return self._log_odds_of([text])[0]

    def _log_odds_of(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        words_of_texts = [words_of(excerpt(text, self.config.max_characters)) for text in texts]
        counts = [len(words) for words in words_of_texts]
        words = list(itertools.chain.from_iterable(words_of_texts))
        if len(self._memo) + len(words) > MEMO_WORDS:
            self._memo = {}
        for word in set(words).difference(self._memo):
            self._remember(word)
        places = np.fromiter(map(self._memo.__getitem__, words), np.intp, len(words))
        # The sum up to each border; weights are whole numbers, so that differences are exact.
        totals = np.zeros((len(words) + 1, len(LANGUAGES)), np.int64)
        np.cumsum(self._sums[places], axis=0, out=totals[1:])
        sums = np.diff(totals[np.cumsum([0, *counts])], axis=0)
        scales = [1 / (UNIT * max(count, 1) ** self.weights.length_power) for count in counts]
        return [
            ([total * scale for total in row], count)
            for row, scale, count in zip(sums.tolist(), scales, counts, strict=True)
        ]

    def _remember(self, word: str) -> None:
        place = len(self._memo)
        if place == len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        known = [self._places[pattern] for pattern in patterns_of(word) if pattern in self._places]
        self._sums[place] = self._rows[known].sum(axis=0)
        self._memo[word] = place

    def probabilities(self, log_odds: Sequence[float], ranking: Sequence[tuple[str, float]]) -> list[float]:
        """The probability of each of LANGUAGES, from what the text's patterns say and from the ranking."""
        _, _, text_slope, ranking_slope, constants = self.weights
        scores = log_scores(ranking)
        totals = [
            constant + text_slope * odds + ranking_slope * score
            for constant, odds, score in zip(constants, log_odds, scores, strict=True)
        ]
        highest = max(totals)
        powers = [math.exp(total - highest) for total in totals]
        whole = math.fsum(powers)
        return [power / whole for power in powers]


def language_of(label: str) -> str:
    """The one of LANGUAGES that a label of lid.176 or of GlotLID stands for."""
    language = GLOTLID.get(label, label)
    return language if language in LANGUAGES else OTHER


def portuguese_score(ranking: Sequence[tuple[str, float]]) -> float:
    """The score that a ranking gives Portuguese; 0 where it is not named."""
    return next((score for label, score in ranking if language_of(label) == PORTUGUESE), 0.0)


def log_scores(ranking: Sequence[tuple[str, float]]) -> list[float]:
    """The logarithm of the score of each of LANGUAGES, the sum of its labels; none is less than LEAST_SCORE."""
    scores = dict.fromkeys(LANGUAGES, 0.0)
    for label, score in ranking:
        scores[language_of(label)] += score
    return [math.log(max(score, LEAST_SCORE)) for score in scores.values()]


def excerpt(text: str, max_characters: int) -> str:
    """The text, or of a longer one thirds of the length from its beginning, its middle and its end."""
    if len(text) <= max_characters:
        return text
    third = max_characters // 3
    middle = (len(text) - third) // 2
    return "\n".join((text[:third], text[middle : middle + third], text[-third:]))


def words_of(text: str) -> list[str]:
    """The words in small letters with hyphens and apostrophes, and ¿ and ¡; no addresses, no names of accounts."""
    prose = unicodedata.normalize("NFC", text)
    if any(sign in prose for sign in SIGNS_OF_NO_PROSE):
        prose = NOT_PROSE.sub(" ", prose)
    return TOKEN.findall(prose.lower().replace("’", "'"))


def patterns_of(word: str) -> list[str]:
    """The different patterns of a word, in the order in which they begin; none of a very long one."""
    if len(word) > LONGEST_WORD:
        return []
    bordered = f"_{word}_"
    runs = (
        bordered[start:end]
        for start in range(len(bordered))
        for end in range(start + 1, min(start + LONGEST_PATTERN, len(bordered)) + 1)
    )
    return list(dict.fromkeys([*runs, bordered]))


@functools.cache
def shipped_weights() -> Weights:
    """What ``benchmarks/fit_near_languages.py`` wrote beside this module."""
    return Weights.of(json.loads((resources.files(__package__) / "near_languages_weights.json").read_text("utf-8")))
