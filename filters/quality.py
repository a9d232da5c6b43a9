"""Quality signals of a text, and what FineWeb-2's Portuguese recipe, or one of our own, decides on them.

In: a text and a word splitter (``filters.words``). Out: ``measure`` gives one number per name in
``signals_of(config)`` (a float32 column each), defined for every text, the empty one too; ``decide`` gives the first
rule that the numbers break, as ``("<filter>.<datatrove's own reason>", detail)``, or None. Decision and reason equal
those of datatrove 0.10's GopherRepetitionFilter, FineWebQualityFilter and GopherQualityFilter, run in this order. A
ratio over nothing, where datatrove divides by zero (no word, and no least number of words set), is 0.

Behind them come the rules of section ``portuguese_quality``, on the signals of ``filters.portuguese_quality``; those
are measured only where a rule has a limit (one that no text reaches, as 1.0, stores them and drops nothing). A limit
that is not set is that of the preset: ``fineweb2_por_latn``, which leaves our own rules off, or ``portuguese``, whose
limits ``benchmarks/fit_quality.py`` chose; ``quality_presets.toml`` holds both.

Curation decides on the numbers as they are stored, in 32 bits, under ``as_stored(config)``, so that deciding again on
a finished run decides alike. That is what the unrounded numbers decide, as datatrove's do, unless a value lies beyond
its limit by less than a float32 step: with limits of three decimals, only in a text of more than 16,000 words or lines,
or 30,000 characters. Another ``SignalConfig`` cannot be tried on stored signals.

Sources: Gopher, arXiv 2112.11446, table A1 and appendix A.1.1; FineWeb, arXiv 2406.17557; FineWeb-2, arXiv 2506.20920,
with its configs/por_Latn.yml for the limits.
"""

import dataclasses
import functools
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

from filters import portuguese_quality

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
"""The signals of datatrove's rules. ``lines`` counts lines that are not blank; ``words`` those that are not punctuation
alone."""


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
    """Repetition within a text, at most. 0 switches a rule off; what is not set is as in the preset."""

    enabled: bool = True
    dup_para_frac: float | None = None
    """Paragraphs that repeat an earlier one, over paragraphs."""
    dup_para_char_frac: float | None = None
    """Characters in such paragraphs, over characters."""
    dup_line_frac: float | None = None
    """Lines that repeat an earlier one, over lines."""
    dup_line_char_frac: float | None = None
    """Characters in such lines, over characters."""
    top_2_gram: float | None = None
    """Characters in all occurrences of the most frequent word pair, over characters."""
    top_3_gram: float | None = None
    """The same for three words."""
    top_4_gram: float | None = None
    """The same for four words."""
    duplicated_5_n_grams: float | None = None
    """Characters of five words that occurred before, over characters, none counted twice."""
    duplicated_6_n_grams: float | None = None
    """The same for six words."""
    duplicated_7_n_grams: float | None = None
    """The same for seven words."""
    duplicated_8_n_grams: float | None = None
    """The same for eight words."""
    duplicated_9_n_grams: float | None = None
    """The same for nine words."""
    duplicated_10_n_grams: float | None = None
    """The same for ten words."""

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True, kw_only=True)
class FineWebQuality:
    """How the lines look. 0 switches a rule off; what is not set is as in the preset."""

    enabled: bool = True
    line_punct_thr: float | None = None
    """Lines that end in terminal punctuation, over lines, at least."""
    line_punct_exclude_zero: bool | None = None
    """Whether a text without any such line passes that rule."""
    short_line_thr: float | None = None
    """Short lines over lines, at most; FineWeb-2 switches the rule off with a limit that no ratio reaches."""
    char_duplicates_ratio: float | None = None
    """Characters in lines that repeat an earlier one, over characters, at most."""
    new_line_ratio: float | None = None
    """Line breaks over words, at most."""

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True, kw_only=True)
class GopherQuality:
    """How the words look. 0 switches a rule off; what is not set is as in the preset."""

    enabled: bool = True
    min_doc_words: int | None = None
    """Words that are not punctuation alone, at least."""
    max_doc_words: int | None = None
    """The same, at most."""
    min_avg_word_length: float | None = None
    """Mean length in characters of the words that are not punctuation alone, at least."""
    max_avg_word_length: float | None = None
    """The same, at most."""
    max_hash_ratio: float | None = None
    """Signs # over words, at most (one setting with the next in datatrove: max_symbol_word_ratio)."""
    max_ellipsis_ratio: float | None = None
    """Ellipses over words, at most."""
    max_bullet_lines_ratio: float | None = None
    """Lines that begin with a bullet or a hyphen, over lines, at most."""
    max_ellipsis_lines_ratio: float | None = None
    """Lines that end in an ellipsis, over lines, at most."""
    min_alpha_words_ratio: float | None = None
    """Words that hold a letter, over words, at least (datatrove calls it max_non_alpha_words_ratio)."""
    min_stop_words: int | None = None
    """Different stop words, at least."""

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True, kw_only=True)
class PortugueseQuality:
    """What tells Portuguese prose and verse from menus, code and data; see ``filters.portuguese_quality``.

    0 switches a rule off; what is not set is as in the preset.
    """

    enabled: bool = True
    min_function_word_ratio: float | None = None
    """Words that are articles, prepositions, pronouns, conjunctions and the like, over words, at least."""
    max_capital_ratio: float | None = None
    """Words with a capital, but for the first of each line, over words, at most."""
    max_label_ratio: float | None = None
    """Words in lines like items of a menu, over words, at most."""
    max_fragment_ratio: float | None = None
    """Lines that are no part of a sentence, each by its words and ten more, over the same of all lines, at most."""
    min_letter_ratio: float | None = None
    """Letters over characters that are no white space, at least."""
    max_long_chunk_ratio: float | None = None
    """Characters in chunks of more than 40 without a blank, over characters that are no white space, at most."""
    max_broken_ratio: float | None = None
    """Words with a broken character, over words, at most."""
    max_cut_lines_ratio: float | None = None
    """Lines that break off in an ellipsis, the last one aside, over lines, at most."""

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """All settings of the quality filters. Made, it holds every limit: those not set are filled in from the preset."""

    preset: Literal["fineweb2_por_latn", "portuguese"] = "fineweb2_por_latn"
    """Where the limits come from that are not set: FineWeb-2's for Portuguese, or ours."""
    signals: SignalConfig = field(default_factory=SignalConfig)
    gopher_repetition: GopherRepetition = field(default_factory=GopherRepetition)
    fineweb_quality: FineWebQuality = field(default_factory=FineWebQuality)
    gopher_quality: GopherQuality = field(default_factory=GopherQuality)
    portuguese_quality: PortugueseQuality = field(default_factory=PortugueseQuality)

    def __post_init__(self) -> None:
        limits_of_presets = presets()
        if self.preset not in limits_of_presets:
            raise ValueError(f"preset = {self.preset!r}: expected one of {', '.join(limits_of_presets)}")
        for name, limits in limits_of_presets[self.preset].items():
            section = getattr(self, name)
            unset = {key: limit for key, limit in limits.items() if getattr(section, key) is None}
            object.__setattr__(self, name, dataclasses.replace(section, **unset))

    @property
    def measures_portuguese(self) -> bool:
        """Whether a rule of our own has a limit, so that our signals are needed."""
        limits = dataclasses.asdict(self.portuguese_quality)
        return limits.pop("enabled") and any(limits.values())


FILTERS = ("gopher_repetition", "fineweb_quality", "gopher_quality", "portuguese_quality")


@functools.cache
def presets() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Every limit by preset, filter and name."""
    found = tomllib.loads((resources.files("filters") / "quality_presets.toml").read_text("utf-8"))
    for preset, sections in found.items():
        for name, section in zip(
            FILTERS, (GopherRepetition, FineWebQuality, GopherQuality, PortugueseQuality), strict=True
        ):
            expected = {each.name for each in dataclasses.fields(section)} - {"enabled"}
            assert sections[name].keys() == expected, f"{preset}.{name}: {sections[name].keys() ^ expected}"
    return found


@dataclass(frozen=True)
class Rule:
    """A text breaks it when ``signal`` lies on the wrong ``side`` of the limit that the config names."""

    filter: Literal["gopher_repetition", "fineweb_quality", "gopher_quality", "portuguese_quality"]
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
_PORTUGUESE: tuple[tuple[str, Literal["above", "below"]], ...] = (
    ("broken_ratio", "above"),
    ("long_chunk_ratio", "above"),
    ("letter_ratio", "below"),
    ("capital_ratio", "above"),
    ("function_word_ratio", "below"),
    ("cut_lines_ratio", "above"),
    ("label_ratio", "above"),
    ("fragment_ratio", "above"),
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
    *(
        Rule("portuguese_quality", signal, signal, side, f"{'min' if side == 'below' else 'max'}_{signal}")
        for signal, side in _PORTUGUESE
    ),
)
REASONS = tuple(f"{rule.filter}.{rule.reason}" for rule in RULES)


def signals_of(config: QualityConfig) -> tuple[str, ...]:
    """The names of the signals that are measured."""
    return (*SIGNALS, *portuguese_quality.SIGNALS) if config.measures_portuguese else SIGNALS


def decide(signals: Mapping[str, float], config: QualityConfig) -> tuple[str, str] | None:
    """The first broken rule of a text with these signals, as (reason, detail); None for a text to keep."""
    for rule in RULES:
        limits = getattr(config, rule.filter)
        if not limits.enabled:
            continue
        limit = 1 if rule.limit is None else getattr(limits, rule.limit)
        if limit == 0:
            continue
        value = signals[rule.signal]
        if value <= limit if rule.side == "above" else value >= limit:
            continue
        if rule.signal == "line_punct_ratio" and value == 0 and limits.line_punct_exclude_zero:
            continue
        return f"{rule.filter}.{rule.reason}", f"{rule.signal} {value:.6g} is {rule.side} {limit:.6g}"
    return None


def as_stored(config: QualityConfig) -> QualityConfig:
    """The same limits rounded as a float32 column rounds its values, for deciding on stored signals."""
    rounded = {}
    for name in FILTERS:
        limits = getattr(config, name)
        numbers = {key: v for key, v in dataclasses.asdict(limits).items() if isinstance(v, int | float)}
        as_float32 = {key: type(v)(np.float32(v)) for key, v in numbers.items() if not isinstance(v, bool)}
        rounded[name] = dataclasses.replace(limits, **as_float32)
    return dataclasses.replace(config, **rounded)


def measure(text: str, splitter: Callable[[str], Sequence[str]], config: QualityConfig) -> dict[str, float]:
    """One number per name in ``signals_of(config)``; ``splitter`` is a ``WordSplitter``, which the caller keeps."""
    words = splitter(text)
    measured = {"characters": float(len(text))}
    measured |= _repetition(text, words)
    measured |= _line_signals(text, len(words), config.signals.short_line_length)
    measured |= _word_signals(text, words, config.signals.stop_words)
    if config.measures_portuguese:
        measured |= portuguese_quality.measure(text, words)
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


def _check_limits(section: GopherRepetition | FineWebQuality | GopherQuality | PortugueseQuality) -> None:
    for name, value in dataclasses.asdict(section).items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} = {value}: expected 0 (rule off) or more")
