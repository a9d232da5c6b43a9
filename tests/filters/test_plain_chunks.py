"""Chunks that are divided without spaCy, held against spaCy itself."""

import itertools
import random

import numpy as np
import pytest

from filters.plain_chunks import MOST_TOKENS, plain_tokens
from filters.words import WordSplitter

WORDS = (
    *(
        "casa",
        "Casa",
        "SA",
        "s",
        "A",
        "p",
        "cm",
        "km",
        "n",
        "Dr",
        "etc",
        "a9",
        "É",
        "ÉÃ",
        "são",
        "vê-lo",
        "guarda-chuva",
    ),
    *("d'água", "d'Água", "co-d'a", "l's", "12", "3,5", "1.000", "10:30", "1/2", "2026", "1.2.3", "9%", "R2D2"),
)
MARKS = (*"()[]\",;:!?.…«»“”–—%'’-/", "...", "..", "……")


@pytest.fixture(scope="module")
def splitter() -> WordSplitter:
    return WordSplitter()


def ours(chunk: str, special: frozenset[str]) -> tuple[str, ...] | None:
    """The tokens of a plain chunk that has no special case in it."""
    encoded, borders = chunk.encode(), np.zeros(MOST_TOKENS + 1, np.int64)
    count, word = plain_tokens(np.frombuffer(encoded + bytes(16), np.uint8), 0, len(encoded), borders)
    tokens = tuple(encoded[a:b].decode() for a, b in itertools.pairwise(borders[: count + 1]))
    for a in range(count):
        for b in range(a + 1, count + 1):
            if (a + 1 < b or a == word) and "".join(tokens[a:b]) in special:
                return None
    return tokens or None


def some_chunks(seed: int) -> list[str]:
    """Words with marks around them, and letters and marks in any order."""
    draw = random.Random(seed)
    around = [
        "".join(draw.choices(MARKS, k=draw.choice((0, 0, 1, 1, 2)))) + draw.choice(WORDS) + tail
        for tail in ("".join(draw.choices(MARKS, k=draw.randint(0, 4))) for _ in range(30_000))
    ]
    letters = [*"aàbsSdAÉ901", *MARKS]
    return sorted({*around, *("".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(30_000))})


def test_plain_chunks_are_divided_as_spacy_divides_them(splitter: WordSplitter) -> None:
    chunks, special = some_chunks(0), frozenset(splitter.special_cases)
    divided = {chunk: tokens for chunk in chunks if (tokens := ours(chunk, special)) is not None}
    theirs, _ = splitter.tokens_of(list(divided))
    assert len(divided) > 5000
    assert {chunk: (tokens, theirs[chunk]) for chunk, tokens in divided.items() if tokens != theirs[chunk]} == {}


@pytest.mark.parametrize(
    ("chunk", "tokens"),
    [
        ("ontem...", ("ontem", "...")),
        ("(“casa”).", None),
        ("“casa”).", ("“", "casa", "”", ")", ".")),
        ("1.234,56%.", ("1.234,56", "%", ".")),
        ("d'água,", ("d'água", ",")),
        ("—Filho", ("—", "Filho")),
        ("SA.", ("SA", ".")),
        ("A.", None),
        ("casa—.", None),
        ("l's", None),
        ("hors-d'oeuvre", None),
        ("……", None),
        ("", None),
    ],
)
def test_tokens_of_a_chunk(chunk: str, tokens: tuple[str, ...] | None) -> None:
    assert ours(chunk, frozenset()) == tokens
