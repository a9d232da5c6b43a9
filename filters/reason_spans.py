"""Where in a text the reason for its removal lies, for a page that shows removed documents.

In: the signal of the rule that a text broke (a name in ``quality.SIGNALS``), the text and a word splitter. Out: spans
of characters, in order, not touching one another; none where a reason has no place (too short, words too long).

The rules are those of ``filters.quality``: what is marked here is what is counted there. Meant for some hundred texts
on a page, not for a corpus: 1 MB/s.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from datatrove.utils.text import TERMINAL_PUNCTUATION

from filters.quality import DUPLICATED_N_GRAMS, TOP_N_GRAMS

Splitter = Callable[[str], Sequence[str]]
_STOP_CHARACTERS = tuple(sorted(TERMINAL_PUNCTUATION))
_ELLIPSIS = re.compile(r"\.\.\.|…")
_PARAGRAPH = re.compile(r"[^\n]+(?:\n[^\n]+)*")
_LINE = re.compile(r"[^\n]+")
_BULLET_LINE = re.compile(r"^[^\S\n]*[•-].*$", re.MULTILINE)
_STOPPED_AT = {"lorem_ipsum": re.compile("lorem ipsum", re.IGNORECASE), "curly_bracket": re.compile(r"\{")}
_ELLIPSIS_END = re.compile(r"(?:\.\.\.|…)[^\S\n]*$", re.MULTILINE)


class Span(NamedTuple):
    """Characters ``start`` to ``end``, the last one not included."""

    start: int
    end: int


def spans_of(signal: str, text: str, splitter: Splitter) -> list[Span]:
    """What of ``text`` counts for ``signal``; no span for a signal that speaks of the text as a whole."""
    n_gram = re.fullmatch(r"top_(\d+)_gram|duplicated_(\d+)_n_grams", signal)
    if n_gram is not None:
        words = list(_places(text, splitter(text)))
        n = int(n_gram[1] or n_gram[2])
        found = _top_n_gram(text, words, n) if n_gram[1] else _duplicated_n_grams(text, words, n)
        return _merged(found)
    if signal == "alpha_words_ratio":
        words = list(_places(text, splitter(text)))
        return _merged(word for word in words if not any(map(str.isalpha, text[word.start : word.end])))
    find = _FINDERS.get(signal)
    return _merged(find(text)) if find else []


def spans_of_reason(reason: str, text: str) -> list[Span]:
    """What of ``text`` a rule of C4 stopped at, ours or datatrove's; no span for any other reason."""
    pattern = _STOPPED_AT.get(reason.rpartition(".")[2])
    return _merged(Span(*match.span()) for match in pattern.finditer(text)) if pattern else []


def spans_of_words(words: Iterable[str], text: str) -> list[Span]:
    """Where any of these words stands in ``text``, in capitals or not."""
    patterns = [re.compile(re.escape(word), re.IGNORECASE) for word in words if word]
    return _merged(Span(*match.span()) for pattern in patterns for match in pattern.finditer(text))


def _places(text: str, words: Iterable[str]) -> Iterator[Span]:
    """Where each word stands; a word that the text does not hold as it is (a normalised one) is passed over."""
    begin = 0
    for word in words:
        start = text.find(word, begin)
        if start >= 0:
            begin = start + len(word)
            yield Span(start, begin)


def _top_n_gram(text: str, words: Sequence[Span], n: int) -> Iterator[Span]:
    """All occurrences of the most frequent n-gram; of equally frequent ones, the first.

    In a short text that may be one that occurs once: the rule counts it, and so drops short texts.
    """
    n_grams = _n_grams(text, words, n)
    counts = Counter(n_grams)
    if counts:
        top = max(counts, key=counts.__getitem__)
        yield from (Span(words[i].start, words[i + n - 1].end) for i, gram in enumerate(n_grams) if gram == top)


def _duplicated_n_grams(text: str, words: Sequence[Span], n: int) -> Iterator[Span]:
    """N-grams that occurred before; after such a one the search goes on behind its last word."""
    n_grams = _n_grams(text, words, n)
    seen: set[tuple[str, ...]] = set()
    i = 0
    while i < len(n_grams):
        if n_grams[i] in seen:
            yield Span(words[i].start, words[i + n - 1].end)
            i += n
        else:
            seen.add(n_grams[i])
            i += 1


def _n_grams(text: str, words: Sequence[Span], n: int) -> list[tuple[str, ...]]:
    spelled = [text[start:end] for start, end in words]
    return [tuple(spelled[i : i + n]) for i in range(len(spelled) - n + 1)]


def _repeated(piece: re.Pattern[str]) -> Callable[[str], Iterator[Span]]:
    """Finds pieces that repeat an earlier one."""

    def find(text: str) -> Iterator[Span]:
        seen: set[str] = set()
        for match in piece.finditer(text):
            if match[0] in seen and not match[0].isspace():
                yield Span(*match.span())
            seen.add(match[0])

    return find


def _matches(pattern: re.Pattern[str]) -> Callable[[str], Iterator[Span]]:
    def find(text: str) -> Iterator[Span]:
        return (Span(*match.span()) for match in pattern.finditer(text))

    return find


def _lines_without_stop(text: str) -> Iterator[Span]:
    for match in _LINE.finditer(text):
        if not match[0].isspace() and not match[0].endswith(_STOP_CHARACTERS):
            yield Span(*match.span())


_FINDERS: dict[str, Callable[[str], Iterator[Span]]] = {
    **dict.fromkeys(("dup_line_frac", "dup_line_char_frac", "char_dup_ratio"), _repeated(_LINE)),
    **dict.fromkeys(("dup_para_frac", "dup_para_char_frac"), _repeated(_PARAGRAPH)),
    "line_punct_ratio": _lines_without_stop,
    "hash_ratio": _matches(re.compile("#")),
    "ellipsis_ratio": _matches(_ELLIPSIS),
    "bullet_lines_ratio": _matches(_BULLET_LINE),
    "ellipsis_lines_ratio": _matches(_ELLIPSIS_END),
}
MARKED = frozenset(
    {
        *_FINDERS,
        "alpha_words_ratio",
        *(f"top_{n}_gram" for n in TOP_N_GRAMS),
        *(f"duplicated_{n}_n_grams" for n in DUPLICATED_N_GRAMS),
    }
)
"""Signals whose reason has a place."""


def _merged(spans: Iterable[Span]) -> list[Span]:
    """In order, with those that overlap or touch as one."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(span.end, merged[-1].end))
        elif span.end > span.start:
            merged.append(span)
    return merged
