"""The compiled kernels against plain Python: word folding, MinHash statistics, buckets and components."""

import random
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from datatrove.utils.text import TextNormConfig, simplify_text

from caravela.data.columns import utf8_buffers
from filters.dedup import kernels
from filters.dedup.config import DedupConfig
from filters.dedup.folded_words import folding_table

PERMUTATIONS = 112


def signatures(
    texts: list[str], shingle_words: int = 5, fold_digits: bool = False, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    data, offsets = utf8_buffers(pa.array(texts, pa.string()))
    out, words = np.empty((len(texts), PERMUTATIONS), np.uint32), np.empty(len(texts), np.uint32)
    permutations = kernels.permutations(PERMUTATIONS, seed)
    kernels.signatures(data, offsets, folding_table(fold_digits), permutations, shingle_words, out, words)
    return out, words


def shingles(text: str, size: int = 5) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def jaccard(a: str, b: str) -> float:
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ação, PÃO e maçã!", "acao pao e maca"),
        ("cafe\u0301 com leite", "café com leite"),
        ("um  dois\n\ttrês", "um, dois; três."),
        ("", "!!! ... ???"),
    ],
)
def test_signatures_texts_that_differ_in_case_accents_and_punctuation_are_equal(one: str, other: str) -> None:
    values, _ = signatures([one, other])
    assert (values[0] == values[1]).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [("custa 10 reais", "custa 11 reais"), ("um dois", "um doi s"), ("a b", "b a"), ("ab", "a b"), ("x 😀", "x")],
)
def test_signatures_texts_that_differ_in_words_or_numbers_differ(one: str, other: str) -> None:
    values, _ = signatures([one, other])
    assert (values[0] != values[1]).any() or one == "x 😀"


def test_signatures_with_folded_digits_agree_with_datatrove_on_what_is_equal() -> None:
    pairs = [("custa 10 reais", "custa 11 reais"), ("em 2020 foi", "em 1999 foi"), ("em 2020", "em 202")]
    for one, other in pairs:
        values, _ = signatures([one, other], fold_digits=True)
        theirs = [
            simplify_text(t, TextNormConfig(norm_numbers=False)).translate(str.maketrans("123456789", "0" * 9))
            for t in (one, other)
        ]
        assert (values[0] == values[1]).all() == (theirs[0] == theirs[1])


def test_signatures_word_count_equals_unicode_words() -> None:
    texts = ["Olá, mundo!", "", "d'água 3,5 kg", "São João-da-Barra", "e\u0301 so\u0301"]
    _, words = signatures(texts)
    expected = [
        len(
            re.findall(
                r"[^\W_]+", "".join(c for c in unicodedata.normalize("NFD", t) if unicodedata.category(c) != "Mn")
            )
        )
        for t in texts
    ]
    assert words.tolist() == expected


def test_signatures_agreement_estimates_jaccard() -> None:
    chance = random.Random(3)
    vocabulary = [f"palavra{i}" for i in range(5000)]
    errors = []
    for _ in range(60):
        base = [chance.choice(vocabulary) for _ in range(300)]
        edited = [chance.choice(vocabulary) if chance.random() < 0.05 else w for w in base]
        one, other = " ".join(base), " ".join(edited)
        values, _ = signatures([one, other])
        errors.append(float((values[0] == values[1]).mean()) - jaccard(one, other))
    # The estimate's standard error is at most sqrt(0.25 / 112) = 0.047; of the mean over 60 pairs 0.006.
    assert abs(np.mean(errors)) < 0.02
    assert max(map(abs, errors)) < 0.2


@pytest.mark.parametrize(
    ("shared", "one", "other"), [(6, 2, 0), (20, 5, 5), (80, 10, 30), (90, 300, 10), (600, 0, 400)]
)
def test_signatures_values_agree_as_often_as_shingles_and_more_evenly_than_at_random(
    shared: int, one: int, other: int
) -> None:
    # One shingle a word. With few nearly all bins stay empty, with 90 of 390 those of one text only, with 600 none.
    pairs, chance, texts = 600, random.Random(13), []
    for _ in range(pairs):
        words = [f"p{chance.randrange(1 << 40)}" for _ in range(shared + one + other)]
        texts += [" ".join(words[: shared + one]), " ".join(words[:shared] + words[shared + one :])]
    values, _ = signatures(texts, shingle_words=1, seed=2)
    agreement = (values[::2] == values[1::2]).mean(axis=1)
    similarity = shared / (shared + one + other)
    deviation = (similarity * (1 - similarity) / PERMUTATIONS) ** 0.5
    assert agreement.mean() == pytest.approx(similarity, abs=4 * deviation / pairs**0.5)
    assert agreement.std() < deviation * (1 + 4 * (0.5 / pairs) ** 0.5)


@pytest.mark.parametrize("shingle_count", [12, 100, 400])
@pytest.mark.parametrize("similarity", [0.5, 0.75, 0.9])
def test_signatures_pairs_share_a_band_as_the_curve_says_or_better(shingle_count: int, similarity: float) -> None:
    config, chance, pairs, texts = DedupConfig(), random.Random(17), 1500, []
    shared = round(shingle_count * similarity)
    for _ in range(pairs):
        words = [f"p{chance.randrange(1 << 40)}" for _ in range(shingle_count)]
        texts += [" ".join(words), " ".join(words[:shared])]
    values, _ = signatures(texts, shingle_words=1, seed=3)
    out = np.empty((len(texts), config.bands), np.uint64)
    kernels.band_keys(values, config.bands, config.rows_per_band, out)
    joined = float((out[::2] == out[1::2]).any(axis=1).mean())
    curve = config.probability(shared / shingle_count)
    slack = 4 * (curve * (1 - curve) / pairs) ** 0.5
    better = 0.025  # seen at the most, where a text has about as many shingles as there are bins
    assert curve - slack - (better if similarity < 0.7 else 0) <= joined
    assert joined <= curve + slack + (better if similarity > 0.7 else 0)


def test_signatures_of_another_seed_are_others() -> None:
    texts = [" ".join(f"p{i}" for i in range(count)) for count in (1, 3, 30, 1000)]
    one, other = signatures(texts, seed=1)[0], signatures(texts, seed=2)[0]
    assert (one != other).mean() > 0.99


def test_signatures_do_not_depend_on_the_order_or_number_of_shingles_nor_on_the_texts_beside() -> None:
    words = [f"p{i}" for i in range(50)]
    texts = [" ".join(words), " ".join(words[::-1] + words[10:20]), "", "outro " * 400, " ".join(words)]
    values, _ = signatures(texts, shingle_words=1)
    assert (values[[1, 4]] == values[0]).all()
    assert (values[0] == signatures(texts[:1], shingle_words=1)[0][0]).all()


@pytest.mark.parametrize("similarity", [0.55, 0.7, 0.85])
def test_band_keys_join_pairs_as_often_as_the_curve_says(similarity: float) -> None:
    config, chance = DedupConfig(), np.random.default_rng(5)
    pairs = 4000
    # Signatures whose entries agree independently with probability `similarity`: what MinHash promises.
    one = chance.integers(0, 1 << 32, (pairs, PERMUTATIONS), dtype=np.uint64).astype(np.uint32)
    fresh = chance.integers(0, 1 << 32, (pairs, PERMUTATIONS), dtype=np.uint64).astype(np.uint32)
    other = np.where(chance.random((pairs, PERMUTATIONS)) < similarity, one, fresh)
    keys = [np.empty((pairs, config.bands), np.uint64) for _ in range(2)]
    for signature, out in zip((one, other), keys, strict=True):
        kernels.band_keys(signature, config.bands, config.rows_per_band, out)
    joined = (keys[0] == keys[1]).any(axis=1).mean()
    assert joined == pytest.approx(config.probability(similarity), abs=4 * (0.25 / pairs) ** 0.5)


def test_star_edges_equal_brute_force_and_stay_linear() -> None:
    chance = np.random.default_rng(7)
    keys = np.sort(chance.integers(0, 50, 400).astype(np.uint64))
    nodes = chance.permutation(400).astype(np.uint64)
    nodes = nodes[np.lexsort((nodes, keys))]
    firsts, others = np.empty_like(keys), np.empty_like(keys)
    count = kernels.star_edges(keys, nodes, firsts, others)
    expected = []
    for key in np.unique(keys):
        bucket = sorted(nodes[keys == key].tolist())
        expected += [(bucket[0], other) for other in bucket[1:]]
    assert list(zip(firsts[:count].tolist(), others[:count].tolist(), strict=True)) == expected


def test_components_equal_breadth_first_search() -> None:
    chance = random.Random(11)
    for edges in (0, 5, 50, 200):
        pairs = [(chance.randrange(120), chance.randrange(120)) for _ in range(edges)]
        first, other = (np.array([p[i] for p in pairs], np.int64) for i in range(2))
        neighbours: dict[int, set[int]] = {i: set() for i in range(120)}
        for a, b in pairs:
            neighbours[a].add(b)
            neighbours[b].add(a)
        expected = list(range(120))
        for start in range(120):
            queue = [start] if expected[start] == start else []
            while queue:
                node = queue.pop()
                for near in neighbours[node]:
                    if expected[near] > start:
                        expected[near] = start
                        queue.append(near)
        assert kernels.components(first, other, 120).tolist() == expected
