r"""Near-duplicates at a known similarity.

Similarity is the exact Jaccard index of the sets of word 5-shingles (words: ``\w+`` of the lower-cased text; a text of
fewer than five words is one shingle). A near-duplicate is made by laying edits of one kind over a text, in a seeded
order, until the similarity would fall under a target: the number of edits is found by bisection, so that a page costs
about eight Jaccards. A recipe that runs out of edits stays above its target; the label has what came out.

The edits (``edits.toml``) leave sound sentences behind, so that a near-duplicate is as good a text as its base: small
words that can be exchanged, clauses between commas that can go, asides, whole sentences.
"""

import functools
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from caravela.sample.page import load_toml

Item = TypeVar("Item")
Shingles = frozenset[tuple[str, ...]]

SHINGLE_WORDS = 5
MOST_FRAMES = 6  # of 14, so that two framed pages share few of them
WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"\S[^\n]*?(?:[.!?…]+[”»\")]*(?= |$)|$) ?", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[a-zà-ÿ][.!?])(?= [A-ZÀ-Ý])")
# A clause between commas, before something that goes on in lower case.
CLAUSE = re.compile(r"(?<=\w), [^,.;:!?()—\n]{8,60}(?=, [a-zà-ÿ])")
COMMA = re.compile(r"(?<=[a-zà-ÿ])(?=, [a-zà-ÿ])")
NUMBER = re.compile(r"(?<![\w.,:/-])[1-9]\d{0,3}(?![\w.,:/-]|º|ª)")


class Edit(NamedTuple):
    """Replaces ``text[start:end]``."""

    start: int
    end: int
    replacement: str


def shingles(text: str) -> Shingles:
    """The set of runs of five words; empty for a text without words."""
    words = WORD.findall(text.lower())
    if not words:
        return frozenset()
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(tuple(words[i : i + SHINGLE_WORDS]) for i in range(count))


def jaccard(a: Shingles, b: Shingles) -> float:
    """|A ∩ B| / |A ∪ B|; two empty sets are equal."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Lays edits over a text; one that begins inside a longer one is void. Emptied lines and double blanks go."""
    pieces, position = [], 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end > e.start, -e.end)):
        if edit.start >= position:
            pieces += [text[position : edit.start], edit.replacement]
            position = edit.end
    joined = "".join([*pieces, text[position:]])
    lines = (" ".join(line.split()) for line in joined.split("\n"))
    return "\n".join(line for line in lines if line)


def near_duplicate(text: str, recipe: str, target: float, rng: random.Random) -> tuple[str, float]:
    """The text under as many edits as leave a Jaccard index of ``target`` or more (at least one), and that index."""
    edits = RECIPES[recipe](text, rng)
    base = shingles(text)
    low, high = 1, len(edits)
    while low < high:
        middle = (low + high + 1) // 2
        if jaccard(base, shingles(apply_edits(text, edits[:middle]))) >= target:
            low = middle
        else:
            high = middle - 1
    changed = apply_edits(text, edits[:low])
    return changed, jaccard(base, shingles(changed))


def substitutions(text: str, rng: random.Random) -> list[Edit]:
    """Small words for others that mean the same, numbers and dates for other ones."""
    table: Mapping[str, str] = _material()["substitutions"]
    edits = [Edit(m.start(), m.end(), table[m.group()]) for m in _phrases().finditer(text)]
    edits += [Edit(m.start(), m.end(), str(int(m.group()) + rng.randrange(1, 9))) for m in NUMBER.finditer(text)]
    return _shuffled(edits, rng)


def deletions(text: str, rng: random.Random) -> list[Edit]:
    """Clauses between commas and adverbs, gone."""
    words = re.compile(rf" (?:{'|'.join(_material()['deletions']['words'])})(?= [a-zà-ÿ])")
    return _shuffled([Edit(m.start(), m.end(), "") for p in (CLAUSE, words) for m in p.finditer(text)], rng)


def insertions(text: str, rng: random.Random) -> list[Edit]:
    """Short sentences between sentences, and asides at half of the commas (more would read like a parody)."""
    words = _material()["insertions"]
    edits = [Edit(m.start(), m.end(), f", {rng.choice(words['asides'])}") for m in COMMA.finditer(text)]
    edits = _shuffled(edits, rng)[::2]
    edits += [Edit(m.start(), m.end(), f" {rng.choice(words['sentences'])}") for m in SENTENCE_END.finditer(text)]
    return _shuffled(edits, rng)


def sentence_drops(text: str, rng: random.Random) -> list[Edit]:
    """Sentences, gone; one is left."""
    return _shuffled([Edit(m.start(), m.end(), "") for m in SENTENCE.finditer(text)], rng)[:-1]


def frames(text: str, rng: random.Random) -> list[Edit]:
    """Lines before and after, as sites put them around what they take from others."""
    words = _material()["frames"]
    before = [Edit(0, 0, f"{line}\n") for line in words["before"]]
    after = [Edit(len(text), len(text), f"\n{line}") for line in words["after"]]
    return _shuffled(before + after, rng)[:MOST_FRAMES]


def mixture(text: str, rng: random.Random) -> list[Edit]:
    """All kinds in turn, half of them dropped sentences so that low targets can be reached."""
    drops = sentence_drops(text, rng)
    small = [*substitutions(text, rng)[::2], *deletions(text, rng)[::2], *insertions(text, rng)[::4]]
    rng.shuffle(small)
    small = small[: 2 * len(drops)]
    return _shuffled([*drops, *small], rng)


RECIPES: Mapping[str, Callable[[str, random.Random], list[Edit]]] = {
    "substitution": substitutions,
    "deletion": deletions,
    "insertion": insertions,
    "sentence_drop": sentence_drops,
    "prefix_suffix": frames,
    "mixed": mixture,
}


def _material() -> Mapping[str, Any]:
    return load_toml("edits.toml")


@functools.cache
def _phrases() -> re.Pattern[str]:
    """Any phrase of the table, longer ones first, as whole words inside a sentence."""
    phrases = sorted(_material()["substitutions"], key=lambda phrase: (-len(phrase), phrase))
    return re.compile(rf"(?<=[\w,;] )(?:{'|'.join(map(re.escape, phrases))})(?=[ ,;.!?])")


def _shuffled(items: Iterable[Item], rng: random.Random) -> list[Item]:
    result = list(items)
    rng.shuffle(result)
    return result
