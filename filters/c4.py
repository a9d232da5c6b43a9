"""C4's rules for lines and pages, as datatrove's C4QualityFilter applies them to Portuguese; off by default.

In: a text, a word splitter and the config. Out: the lines that pass, joined, or the reason why the text goes. Decision,
reason and resulting text equal those of datatrove 0.10's C4QualityFilter with ``language="por_Latn"``.

A text of five kept lines or more has five sentences, so sentences are counted only where fewer lines are kept. They are
those of spaCy's sentencizer: one begins at the first token after a full stop, a question or an exclamation mark that is
neither punctuation nor such a mark.

Source: C4, arXiv 1910.10683, section 2.2.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from caravela.config import ConfigError

REASONS = ("lorem_ipsum", "curly_bracket", "too_few_sentences")
CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
END_PUNCTUATION = (".", "?", "!", '"', "'")
ELLIPSIS = "..."
POLICY_PHRASES = (
    *("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
)
# To spaCy, one blank behind a word belongs to the word; all other white space is a token.
ODD_SPACE = re.compile(r"\A\s+|(?<=\S)(?: \s+|(?! )\s+)")
_OFF = -1


@dataclass(frozen=True, kw_only=True)
class C4Config:
    """Which of C4's rules hold; the defaults are C4's own, made for English pages."""

    enabled: bool = False
    split_paragraph: bool = True
    """Judge lines; false: judge sentences, and join them by blanks."""
    remove_citations: bool = True
    """Remove [1], [edit] and [citation needed]."""
    filter_no_terminal_punct: bool = True
    """Drop lines that do not end in . ? ! " or ', and those that end in three dots. FineWeb leaves this out."""
    min_num_sentences: int = 5
    """Texts with fewer sentences left go. -1: none goes."""
    min_words_per_line: int = 3
    """Lines with fewer words are dropped. -1: none is."""
    max_word_length: int = 1000
    """Lines with a longer word are dropped. -1: none is."""
    filter_lorem_ipsum: bool = True
    """Texts with "lorem ipsum" go."""
    filter_javascript: bool = True
    """Lines with "javascript" are dropped."""
    filter_curly_bracket: bool = True
    """Texts with an opening brace go."""
    filter_policy: bool = True
    """Lines with "privacy policy", "use cookies" and the like (in English) are dropped."""

    def __post_init__(self) -> None:
        for name in ("min_num_sentences", "min_words_per_line", "max_word_length"):
            if getattr(self, name) < _OFF:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected -1 (off) or more")


@dataclass(frozen=True, slots=True)
class C4Outcome:
    """The text that is left; with a ``reason`` of ``REASONS``, the text as it was."""

    text: str
    reason: str = ""
    detail: str = ""
    lines_dropped: int = 0


Splitter = Callable[[str], Sequence[str]]


def apply(text: str, splitter: Splitter, config: C4Config) -> C4Outcome:
    """The lines of ``text`` that pass, or why it goes; ``splitter`` is a ``WordSplitter``, which the caller keeps."""
    lines = text.splitlines() if config.split_paragraph else list(sentences(text, splitter))
    kept: list[str] = []
    for line in lines:
        passed = _passed(line.strip(), config)
        if passed is None:
            continue
        lowered = passed.lower()
        if config.filter_lorem_ipsum and "lorem ipsum" in lowered:
            return C4Outcome(text, "lorem_ipsum", passed[:100])
        if config.filter_javascript and "javascript" in lowered:
            continue
        if config.filter_curly_bracket and "{" in passed:
            return C4Outcome(text, "curly_bracket", passed[:100])
        if config.filter_policy and any(phrase in lowered for phrase in POLICY_PHRASES):
            continue
        kept.append(passed)
    found = _count(kept, splitter, config)
    if found < config.min_num_sentences:
        return C4Outcome(text, "too_few_sentences", f"{found} sentences are below {config.min_num_sentences}")
    joined = ("\n" if config.split_paragraph else " ").join(kept).strip()
    return C4Outcome(joined, lines_dropped=len(lines) - len(kept))


def _passed(line: str, config: C4Config) -> str | None:
    """The line without citations, or None where its words or its end are not those of prose."""
    longest = config.max_word_length
    if longest != _OFF and len(line) > longest and any(len(word) > longest for word in line.split()):
        return None
    passed = CITATION.sub("", line) if config.remove_citations and "[" in line else line
    if config.filter_no_terminal_punct and (not passed.endswith(END_PUNCTUATION) or passed.endswith(ELLIPSIS)):
        return None
    least = config.min_words_per_line
    return passed if least <= 0 or len(line.split(None, least - 1)) >= least else None


def _count(kept: Sequence[str], splitter: Splitter, config: C4Config) -> int:
    """How many sentences the kept lines have; where it is enough, not how many more."""
    if not config.split_paragraph or config.min_num_sentences <= len(kept):
        return len(kept)
    count = 0
    for line in kept:
        count += max(1, sum(1 for _ in sentence_starts(line, splitter)))
        if count >= config.min_num_sentences:
            break
    return count


def sentences(text: str, splitter: Splitter) -> Iterator[str]:
    """The sentences of a text, as ``datatrove.utils.text.split_into_sentences(text, "por_Latn")``, but for blanks."""
    starts = [*sentence_starts(text, splitter), len(text)]
    yield text[: starts[1]] if len(starts) > 1 else ""
    for start, end in itertools.pairwise(starts[1:]):
        yield text[start:end]


def sentence_starts(text: str, splitter: Splitter) -> Iterator[int]:
    """Where sentences begin, at a word or at white space that is a token; nothing in an empty text."""
    ends, is_first, after_end = _sentence_ends(), True, False
    for start, token in _tokens(text, splitter):
        is_end = token in ends
        if is_first or (after_end and not is_end and not _is_punctuation(token)):
            yield start
            is_first, after_end = False, is_end
        elif is_end:
            after_end = True


def _tokens(text: str, splitter: Splitter) -> Iterator[tuple[int, str]]:
    """The tokens that spaCy finds and their places, white space included."""
    begin = 0
    for match in (*ODD_SPACE.finditer(text), None):
        end = match.start() if match else len(text)
        at = begin
        for word in splitter(text[begin:end]):
            at = text.index(word, at)
            yield at, word
            at += len(word)
        if match:
            begin = match.end()
            blank = 1 if end and text[end] == " " else 0
            yield end + blank, text[end + blank : begin]


@functools.cache
def _sentence_ends() -> frozenset[str]:
    from spacy.pipeline.sentencizer import Sentencizer  # takes seconds, and planning a run needs no sentences

    return frozenset(Sentencizer.default_punct_chars)


def _is_punctuation(token: str) -> bool:
    return all(unicodedata.category(character)[0] == "P" for character in token)
