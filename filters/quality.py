"""Quality signals of a text, and what FineWeb-2's Portuguese recipe decides on them.

In: a text and a word splitter (``filters.words``). Out: ``measure`` gives one number per name in ``SIGNALS`` (a float32
column each), defined for every text, the empty one too; ``decide`` gives the first rule that the numbers break, as
``("<filter>.<datatrove's own reason>", detail)``, or None. Decision and reason equal those of datatrove 0.10's
GopherRepetitionFilter, FineWebQualityFilter and GopherQualityFilter, run in this order. A ratio over nothing, where
datatrove divides by zero (no word, and no least number of words set), is 0.

Curation decides on the numbers as they are stored, in 32 bits, under ``as_stored(config)``, so that deciding again on
a finished run decides alike. That is what the unrounded numbers decide, as datatrove's do, unless a value lies beyond
its limit by less than a float32 step: with limits of three decimals, only in a text of more than 16,000 words or lines,
or 30,000 characters. Another ``SignalConfig`` cannot be tried on stored signals.

Sources: Gopher, arXiv 2112.11446, table A1 and appendix A.1.1; FineWeb, arXiv 2406.17557; FineWeb-2, arXiv 2506.20920,
with its configs/por_Latn.yml for the limits.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import numpy as np
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

TOP_N_GRAMS = (2, 3, 4)
DUPLICATED_N_GRAMS = (5, 6, 7, 8, 9, 10)

SIGNALS = (
    "characters",
    "lines",
    "dup_para_frac",
    "dup_para_char_frac",
    "dup_line_frac",
    "dup_line_char_frac",
    *(f"top_{n}_gram" for n in TOP_N_GRAMS),
    *(f"duplicated_{n}_n_grams" for n in DUPLICATED_N_GRAMS),
    "line_punct_ratio",
    "short_line_ratio",
    "char_dup_ratio",
    "list_ratio",
    "words",
    "avg_word_length",
    "hash_ratio",
    "ellipsis_ratio",
    "bullet_lines_ratio",
    "ellipsis_lines_ratio",
    "alpha_words_ratio",
    "stop_words",
)
"""``lines`` counts lines that are not blank; ``words`` those that are not punctuation alone."""


@dataclass(frozen=True, kw_only=True)
class SignalConfig:
    """What the signals themselves depend on: a change means measuring again."""

    stop_words: tuple[str, ...] = (
        *("de", "a", "e", "o", "em", "do", "da", "que"),
        *("um", "no", "uma", "com", "para", "na", "é", "foi"),
    )
    """As written, case and all; the default is FineWeb-2's list."""
    short_line_length: int = 30
    """A line of so many characters or fewer is short."""


@dataclass(frozen=True, kw_only=True)
class GopherRepetition:
    """Repetition within a text, at most. 0 switches a rule off."""

    enabled: bool = True
    dup_para_frac: float = 0.0
    """Paragraphs that repeat an earlier one, over paragraphs."""
    dup_para_char_frac: float = 0.0
    """Characters in such paragraphs, over characters."""
    dup_line_frac: float = 0.287
    """Lines that repeat an earlier one, over lines."""
    dup_line_char_frac: float = 0.0
    """Characters in such lines, over characters."""
    top_2_gram: float = 0.371
    """Characters in all occurrences of the most frequent word pair, over characters."""
    top_3_gram: float = 0.191
    """The same for three words."""
    top_4_gram: float = 0.163
    """The same for four words."""
    duplicated_5_n_grams: float = 0.163
    """Characters of five words that occurred before, over characters, none counted twice."""
    duplicated_6_n_grams: float = 0.153
    """The same for six words."""
    duplicated_7_n_grams: float = 0.141
    """The same for seven words."""
    duplicated_8_n_grams: float = 0.130
    """The same for eight words."""
    duplicated_9_n_grams: float = 0.119
    """The same for nine words."""
    duplicated_10_n_grams: float = 0.108
    """The same for ten words."""

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True, kw_only=True)
class FineWebQuality:
    """How the lines look. 0 switches a rule off."""

    enabled: bool = True
    line_punct_thr: float = 0.077
    """Lines that end in terminal punctuation, over lines, at least."""
    line_punct_exclude_zero: bool = False
    """Whether a text without any such line passes that rule."""
    short_line_thr: float = 999.0
    """Short lines over lines, at most; FineWeb-2 switches the rule off with a limit that no ratio reaches."""
    char_duplicates_ratio: float = 0.1
    """Characters in lines that repeat an earlier one, over characters, at most."""
    new_line_ratio: float = 0.186
    """Line breaks over words, at most."""

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True, kw_only=True)
class GopherQuality:
    """How the words look. 0 switches a rule off."""

    enabled: bool = True
    min_doc_words: int = 50
    """Words that are not punctuation alone, at least."""
    max_doc_words: int = 100_000
    """The same, at most."""
    min_avg_word_length: float = 3.0
    """Mean length in characters of the words that are not punctuation alone, at least."""
    max_avg_word_length: float = 13.0
    """The same, at most."""
    max_hash_ratio: float = 0.1
    """Signs # over words, at most (one setting with the next in datatrove: max_symbol_word_ratio)."""
    max_ellipsis_ratio: float = 0.1
    """Ellipses over words, at most."""
    max_bullet_lines_ratio: float = 0.9
    """Lines that begin with a bullet or a hyphen, over lines, at most."""
    max_ellipsis_lines_ratio: float = 0.3
    """Lines that end in an ellipsis, over lines, at most."""
    min_alpha_words_ratio: float = 0.814
    """Words that hold a letter, over words, at least (datatrove calls it max_non_alpha_words_ratio)."""
    min_stop_words: int = 2
    """Different stop words, at least."""

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """All settings of the quality filters; the defaults are FineWeb-2's for ``por_Latn``."""

    signals: SignalConfig = field(default_factory=SignalConfig)
    gopher_repetition: GopherRepetition = field(default_factory=GopherRepetition)
    fineweb_quality: FineWebQuality = field(default_factory=FineWebQuality)
    gopher_quality: GopherQuality = field(default_factory=GopherQuality)


@dataclass(frozen=True)
class Rule:
    """A text breaks it when ``signal`` lies on the wrong ``side`` of the limit that the config names."""

    filter: Literal["gopher_repetition", "fineweb_quality", "gopher_quality"]
    reason: str
    signal: str
    side: Literal["above", "below"]
    limit: str | None
    """A field of the filter's config; None stands for one, and cannot be switched off."""


_DUPLICATION = (
    *("dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac"),
    *(f"top_{n}_gram" for n in TOP_N_GRAMS),
    *(f"duplicated_{n}_n_grams" for n in DUPLICATED_N_GRAMS),
)
RULES = (
    Rule("gopher_repetition", "empty", "characters", "below", None),
    *(Rule("gopher_repetition", name, name, "above", name) for name in _DUPLICATION),
    Rule("fineweb_quality", "empty", "lines", "below", None),
    Rule("fineweb_quality", "line_punct_ratio", "line_punct_ratio", "below", "line_punct_thr"),
    Rule("fineweb_quality", "short_line_ratio", "short_line_ratio", "above", "short_line_thr"),
    Rule("fineweb_quality", "char_dup_ratio", "char_dup_ratio", "above", "char_duplicates_ratio"),
    Rule("fineweb_quality", "list_ratio", "list_ratio", "above", "new_line_ratio"),
    Rule("gopher_quality", "gopher_short_doc", "words", "below", "min_doc_words"),
    Rule("gopher_quality", "gopher_long_doc", "words", "above", "max_doc_words"),
    Rule("gopher_quality", "gopher_below_avg_threshold", "avg_word_length", "below", "min_avg_word_length"),
    Rule("gopher_quality", "gopher_above_avg_threshold", "avg_word_length", "above", "max_avg_word_length"),
    Rule("gopher_quality", "gopher_too_many_hashes", "hash_ratio", "above", "max_hash_ratio"),
    Rule("gopher_quality", "gopher_too_many_ellipsis", "ellipsis_ratio", "above", "max_ellipsis_ratio"),
    Rule("gopher_quality", "gopher_too_many_bullets", "bullet_lines_ratio", "above", "max_bullet_lines_ratio"),
    Rule("gopher_quality", "gopher_too_many_end_ellipsis", "ellipsis_lines_ratio", "above", "max_ellipsis_lines_ratio"),
    Rule("gopher_quality", "gopher_below_alpha_threshold", "alpha_words_ratio", "below", "min_alpha_words_ratio"),
    Rule("gopher_quality", "gopher_enough_stop_words", "stop_words", "below", "min_stop_words"),
)
REASONS = tuple(f"{rule.filter}.{rule.reason}" for rule in RULES)


def decide(signals: Mapping[str, float], config: QualityConfig) -> tuple[str, str] | None:
    """The first broken rule of a text with these signals, as (reason, detail); None for a text to keep."""
    for rule in RULES:
        limits = getattr(config, rule.filter)
        if not limits.enabled:
            continue
        limit = 1 if rule.limit is None else getattr(limits, rule.limit)
        value = signals[rule.signal]
        if limit == 0 or (value <= limit if rule.side == "above" else value >= limit):
            continue
        if rule.signal == "line_punct_ratio" and value == 0 and limits.line_punct_exclude_zero:
            continue
        return f"{rule.filter}.{rule.reason}", f"{rule.signal} {value:.6g} is {rule.side} {limit:.6g}"
    return None


def as_stored(config: QualityConfig) -> QualityConfig:
    """The same limits rounded as a float32 column rounds its values, for deciding on stored signals."""
    rounded = {}
    for name in dict.fromkeys(rule.filter for rule in RULES):
        limits = getattr(config, name)
        numbers = {key: v for key, v in dataclasses.asdict(limits).items() if isinstance(v, int | float)}
        as_float32 = {key: type(v)(np.float32(v)) for key, v in numbers.items() if not isinstance(v, bool)}
        rounded[name] = dataclasses.replace(limits, **as_float32)
    return dataclasses.replace(config, **rounded)


def measure(text: str, splitter: Callable[[str], Sequence[str]], config: QualityConfig) -> dict[str, float]:
    """One number per name in ``SIGNALS``, unrounded; ``splitter`` is a ``WordSplitter``, which the caller keeps."""
    words = splitter(text)
    measured = {"characters": float(len(text))}
    measured |= _repetition(text, words)
    measured |= _line_signals(text, len(words), config.signals.short_line_length)
    measured |= _word_signals(text, words, config.signals.stop_words)
    return measured


_ELLIPSES = ("...", "…")
_STOP_CHARACTERS = tuple(sorted(TERMINAL_PUNCTUATION))
_PARAGRAPH_BREAK = re.compile(r"\n{2,}")
_LINE_BREAK = re.compile(r"\n+")


def _repetition(text: str, words: Sequence[str]) -> dict[str, float]:
    paragraphs = _PARAGRAPH_BREAK.split(text.strip())
    lines = _LINE_BREAK.split(text)
    dup_paragraphs, dup_paragraph_characters = _duplicates(paragraphs)
    dup_lines, dup_line_characters = _duplicates(lines)
    measured = {
        "dup_para_frac": _ratio(dup_paragraphs, len(paragraphs)),
        "dup_para_char_frac": _ratio(dup_paragraph_characters, len(text)),
        "dup_line_frac": _ratio(dup_lines, len(lines)),
        "dup_line_char_frac": _ratio(dup_line_characters, len(text)),
    }
    # Words cut out of one string: a third faster than joining each n-gram.
    spaced = " ".join(words)
    starts = list(accumulate((len(word) + 1 for word in words), initial=0))
    for n in TOP_N_GRAMS:
        n_grams = [spaced[start : end - 1] for start, end in zip(starts, starts[n:], strict=False)]
        measured[f"top_{n}_gram"] = _ratio(_top_characters(n_grams), len(text))
    # datatrove joins these without blanks, so "a bc" repeats "ab c"; equal decisions need the same.
    compact = "".join(words)
    starts = list(accumulate(map(len, words), initial=0))
    for n in DUPLICATED_N_GRAMS:
        n_grams = [compact[start:end] for start, end in zip(starts, starts[n:], strict=False)]
        measured[f"duplicated_{n}_n_grams"] = _ratio(_repeated_characters(n_grams, n), len(text))
    return measured


def _line_signals(text: str, num_words: int, short_line_length: int) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    all_lines = text.splitlines()
    starts = [line.lstrip()[:1] for line in all_lines]
    newlines = text.count("\n")
    return {
        "lines": float(len(lines)),
        "line_punct_ratio": _ratio(sum(line.endswith(_STOP_CHARACTERS) for line in lines), len(lines)),
        "short_line_ratio": _ratio(sum(len(line) <= short_line_length for line in lines), len(lines)),
        "char_dup_ratio": _ratio(_duplicates(lines)[1], len(text) - newlines),
        "list_ratio": _ratio(newlines, num_words),
        "bullet_lines_ratio": _ratio(starts.count("•") + starts.count("-"), len(all_lines)),
        "ellipsis_lines_ratio": _ratio(sum(line.rstrip().endswith(_ELLIPSES) for line in all_lines), len(all_lines)),
    }


def _word_signals(text: str, words: Sequence[str], stop_words: Collection[str]) -> dict[str, float]:
    counts = Counter(words)
    num_real = real_characters = num_alpha = 0
    for word, count in counts.items():
        # A word of letters alone, as most are, is answered without looking at its characters one by one.
        letters = word.isalpha()
        if letters or not PUNCTUATION_SET.issuperset(word):
            num_real += count
            real_characters += count * len(word)
        if letters or any(map(str.isalpha, word)):
            num_alpha += count
    return {
        "words": float(num_real),
        "avg_word_length": _ratio(real_characters, num_real),
        "hash_ratio": _ratio(text.count("#"), len(words)),
        "ellipsis_ratio": _ratio(text.count("...") + text.count("…"), len(words)),
        "alpha_words_ratio": _ratio(num_alpha, len(words)),
        "stop_words": float(len(counts.keys() & set(stop_words))),
    }


def _duplicates(elements: Sequence[str]) -> tuple[int, int]:
    """How many elements repeat an earlier one, and the characters in them."""
    distinct = set(elements)
    if len(distinct) == len(elements):
        return 0, 0
    return len(elements) - len(distinct), sum(map(len, elements)) - sum(map(len, distinct))


def _top_characters(n_grams: Sequence[str]) -> int:
    """The characters in all occurrences of the most frequent n-gram; of equally frequent ones, the first."""
    if not n_grams:
        return 0
    counts = Counter(n_grams)
    top = max(counts, key=counts.__getitem__)
    return len(top) * counts[top]


def _repeated_characters(n_grams: Sequence[str], n: int) -> int:
    """The characters in n-grams that repeat an earlier one.

    After such a one the search goes on behind its last word, so no character counts twice.
    """
    if len(set(n_grams)) == len(n_grams):
        return 0
    seen: set[str] = set()
    characters = index = 0
    while index < len(n_grams):
        n_gram = n_grams[index]
        if n_gram in seen:
            characters += len(n_gram)
            index += n
        else:
            seen.add(n_gram)
            index += 1
    return characters


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _check_limits(section: GopherRepetition | FineWebQuality | GopherQuality) -> None:
    for name, value in dataclasses.asdict(section).items():
        if not value >= 0:
            raise ValueError(f"{name} = {value}: expected 0 (rule off) or more")
