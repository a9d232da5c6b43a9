"""Exact hashes from UTF-8 buffers against their definition in Python, on every character and on hard texts."""

import random
import sys

import numpy as np
import pyarrow as pa
import pytest

from filters.dedup import exact
from filters.dedup.exact import exact_hash, exact_hashes

EVERY = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]


def assert_equal_to_python(texts: list[str]) -> None:
    found = exact_hashes(pa.array(texts, pa.string()))
    assert found.tolist() == [list(exact_hash(text)) for text in texts]


@pytest.mark.parametrize("around", [("", ""), ("a", "b"), (" ", "\n"), ("Á", " Σ"), ("x \u2003", "\t y ")])
def test_exact_hashes_equal_python_on_every_character(around: tuple[str, str]) -> None:
    before, after = around
    inside = EVERY if around == ("a", "b") else EVERY[: 1 << 16]
    assert_equal_to_python([f"{before}{each}{after}" for each in inside])


def test_exact_hashes_equal_python_on_random_mixtures() -> None:
    chance = random.Random(5)
    white, odd = list(" \t\n\x1c\x85\xa0\u2028\u3000"), list("ΣσςİıKÅẞ😀")
    kinds = (EVERY[:128], EVERY[:0x600], EVERY[0x1E00:0x3100], EVERY, white, odd)
    texts = []
    for _ in range(3000):
        texts.append("".join(chance.choice(chance.choice(kinds)) for _ in range(chance.randrange(40))))
    assert_equal_to_python(texts)
    column = pa.array(["fora", *texts, "fora"], pa.large_string()).slice(1, len(texts))
    assert exact_hashes(column).tolist() == [list(exact_hash(text)) for text in texts]


def test_exact_hashes_equal_python_on_long_stretches_of_ascii() -> None:
    chance, texts = random.Random(6), []
    for _ in range(3000):
        kinds = (EVERY[97:123], EVERY[65:91], EVERY[:128], list("  \t\n\r\x1f"), list("áÇ\xa0Σ"))
        few = chance.choices(kinds, weights=(20, 3, 2, 3, 1), k=chance.randrange(100))
        texts.append("".join(chance.choice(kind) for kind in few))
    assert_equal_to_python(texts)


def test_exact_hashes_whose_lower_case_is_longer_fit() -> None:
    # U+023A takes two bytes and its lower case three: the most that a text can grow.
    assert_equal_to_python(["\u023a" * 5000, "", "\u023a"])


def test_exact_hashes_of_no_texts_and_of_missing_ones() -> None:
    assert exact_hashes(pa.array([], pa.string())).shape == (0, 2)
    assert exact_hashes(pa.array([None, "", " \n"], pa.string())).tolist() == [list(exact_hash(""))] * 3


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("Ação  e\n reação ", "ação e reação", True),
        ("um\u00a0dois", "um dois", True),
        ("Ação", "Acao", False),
        ("um dois", "umdois", False),
        ("um, dois", "um dois", False),
    ],
)
def test_exact_hashes_disregard_case_and_white_space_alone(one: str, other: str, equal: bool) -> None:
    first, second = exact_hashes(pa.array([one, other])).tolist()
    assert (first == second) is equal


def test_few_characters_go_through_python() -> None:
    # What the compiled loop hands back: capital sigma, I with a dot; beyond the plane, only rare scripts have cases.
    table = exact._lower_case()
    marked = np.flatnonzero(table == exact.BY_PYTHON).tolist()
    assert [chr(code) for code in marked if not 0xD800 <= code < 0xE000] == ["İ", "Σ"]
    assert all(c.lower() == c and not c.isspace() for c in EVERY if ord(c) >= exact.AFTER_RARE)
