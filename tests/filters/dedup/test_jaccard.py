"""Sets of shingles, their exact similarity and the choice of keepers, against Python's sets and a naive loop."""

import itertools
import random
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from caravela.data.columns import utf8_buffers
from filters.dedup import jaccard, kernels
from filters.dedup.folded_words import folding_table

HARD = [
    "",
    "!!! ... ???",
    "um",
    "Um, dois!",
    "um dois três quatro cinco",
    "um dois três quatro cinco seis",
    "Ação, PÃO e maçã: a acao do pao e da maca, e de novo a ação do pão e da maçã",
    "a a a a a a a",
    "a a a a a",
    "custa 10 reais e 50 centavos, ou 11 reais e 50 centavos por quilo",
    "custa 99 reais e 40 centavos, ou 77 reais e 40 centavos por quilo",
    "x 😀 y d'água São-João e\u0301 só cafe\u0301 com leite e pão",
]


def shingles(text: str, size: int, fold_digits: bool = False) -> set[tuple[object, ...]]:
    """The definition: words without case and accents, so many in a row; a word repeated is told by its number."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    words = re.findall(r"[^\W_]+", re.sub(r"\d", "0", plain) if fold_digits else plain)
    if len(set(words)) == 1:
        return {(words[0], len(words))}
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))} if words else set()


def overlap(one: set[object], other: set[object]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def sets_of(texts: list[str], size: int = 5, fold_digits: bool = False) -> list[np.ndarray]:
    data, offsets = utf8_buffers(pa.array(texts, pa.string()))
    out, ends = np.empty(kernels.most_words(offsets), np.uint64), np.empty(len(texts), np.int64)
    kernels.shingle_sets(data, offsets, folding_table(fold_digits), size, out, ends)
    return np.split(out[: ends[-1]], ends[:-1])


def edited(words: list[str], share: float, chance: random.Random) -> list[str]:
    return [f"novo{chance.randrange(40)}" if chance.random() < share else word for word in words]


@pytest.mark.parametrize(("size", "fold_digits"), [(5, False), (5, True), (1, False), (3, False)])
def test_similarity_of_texts_equals_that_of_python_sets(size: int, fold_digits: bool) -> None:
    chance = random.Random(4)
    base = [f"Palavra{chance.randrange(60)}é" for _ in range(120)]
    texts = [*HARD, *(" ".join(edited(base, share, chance)) for share in (0, 0.01, 0.05, 0.2, 0.6) for _ in range(3))]
    found, expected = sets_of(texts, size, fold_digits), [shingles(text, size, fold_digits) for text in texts]
    assert [len(each) for each in found] == [len(each) for each in expected]
    assert all((np.diff(each.astype(object)) > 0).all() for each in found)
    for (a, b), (c, d) in zip(itertools.product(found, found), itertools.product(expected, expected), strict=True):
        assert jaccard.similarity(a, b, 0.0) == overlap(c, d)


def test_similarity_stops_early_only_below_the_least() -> None:
    chance = random.Random(5)
    for _ in range(3000):
        one, other = ({chance.randrange(14) for _ in range(chance.randrange(12))} for _ in range(2))
        exact = overlap(one, other)
        # Thresholds on the border too, where a wrong rounding would show.
        for least in (exact, np.nextafter(exact, 2.0), 0.3, 0.5, 2 / 3, 1.0):
            found = jaccard.similarity(*(np.array(sorted(s), np.uint64) for s in (one, other)), least)
            assert found == (exact if exact >= least else 0.0), (one, other, least)


def naive_keepers(groups: list[list[set[int]]], stays: set[int], least: float, most: int) -> list[int]:
    """Best first: each is removed for the first keeper that it is like, of the first ``most`` of its cluster."""
    keeper, number = [], itertools.count()
    for group in groups:
        known: list[tuple[int, set[int]]] = []
        for own in group:
            i = next(number)
            alike = [k for k, other in known[:most] if overlap(own, other) >= least and i not in stays]
            keeper.append(alike[0] if alike else i)
            known += [] if alike else [(i, own)]
    return keeper


@pytest.mark.parametrize("most", [1, 2, 100])
def test_keepers_equal_a_naive_loop(most: int) -> None:
    chance = random.Random(6)
    groups = [
        [{chance.randrange(9) for _ in range(chance.randrange(1, 8))} for _ in range(chance.randrange(1, 25))]
        for _ in range(40)
    ]
    flat = [sorted(own) for group in groups for own in group]
    ends = np.cumsum([len(own) for own in flat])
    opens = np.concatenate([np.arange(len(group)) == 0 for group in groups])
    stays = np.array([chance.random() < 0.05 for _ in flat])
    values, begin = np.concatenate([np.array(own, np.uint64) for own in flat]), ends - [len(own) for own in flat]
    with_first, with_keeper, keeper = np.zeros(len(flat)), np.empty(len(flat)), np.empty(len(flat), np.int64)
    jaccard.similarity_with_first(values, begin, ends, opens, with_first)
    jaccard.keepers(values, begin, ends, opens, stays, with_first, 0.5, most, keeper, with_keeper)
    assert keeper.tolist() == naive_keepers(groups, set(np.flatnonzero(stays).tolist()), 0.5, most)
    assert with_keeper.tolist() == [overlap(set(flat[i]), set(flat[k])) for i, k in enumerate(keeper)]
