"""Variants in batches equal those of one text at a time, sightings and all."""

import random
import sys

import pyarrow as pa
import pytest

from filters import variant, variant_batch, variant_kernels
from filters.variant import Sightings, VariantConfig, identify_variant, shipped_inventory, shipped_model
from filters.variant_batch import RULES, VariantFinder
from tests.filters.hard_texts import hard_texts, sample_texts

DEFAULT = VariantConfig()


@pytest.fixture(scope="module")
def finder() -> VariantFinder:
    return VariantFinder(shipped_model())


def column(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def one_by_one(texts: list[str]) -> list[Sightings]:
    return [shipped_inventory().find(text) for text in texts]


def texts_of_entries(count: int) -> list[str]:
    """Random texts of what the inventory and the rules look at, in small letters, as names and in capitals."""
    chance = random.Random(11)
    words = [*variant.ARTICLES, *variant.POSSESSIVES, *variant.CLITICS, *variant.BE, *variant.GO_ON, *variant.GO]
    words += [*variant.AUXILIARIES, *variant.PORTUGUESE, "a", "fazer", "fazendo", "pôr", "quando", "ar", "vi-te"]
    words += ["disse-lhe", "fazê-lo", "dar-se-ia", "elle", "philosophia", "n'elle", "n’elle", "económico", "econômico"]
    words += "lingüiça chegámos idéia - ' ’ guarda-chuva- água’ x² ½ _a_ 1a ﬁm ǅ".split()
    entries = [name.split("/", 1)[1] for name in shipped_inventory().features if "<" not in name]
    words += [entry.split("/")[0].replace("*", "ando").replace("_", " ") for entry in entries]
    marks = [" ", " ", " ", " ", " ", "\n", ". ", ", ", "", ": ", "… ", "”", "•", "\u00a0"]
    forms = [str, str, str, str.capitalize, str.upper]
    return [
        "".join(chance.choice(forms)(chance.choice(words)) + chance.choice(marks) for _ in range(chance.randrange(60)))
        for _ in range(count)
    ]


def test_sightings_equal_those_of_one_text_at_a_time(finder: VariantFinder) -> None:
    texts = [*texts_of_entries(3000), *hard_texts(5, 300), *sample_texts()]
    expected = one_by_one(texts)
    assert finder.find(column(texts)) == expected
    assert finder.find(column(texts)) == expected  # with every token known
    seen = {name for each in expected for name in each.counts}
    assert seen > set(RULES)
    assert sum(" " in name or "_" in name for name in seen) > 50  # phrases
    assert {each.is_old for each in expected} == {each.is_portuguese for each in expected} == {True, False}


def test_every_character_is_the_kind_of_token_that_the_pattern_says(finder: VariantFinder) -> None:
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = ["".join(f"a{chr(code)}b " for code in codes[start : start + 4096]) for start in range(0, len(codes), 4096)]
    found = VariantFinder(shipped_model()).find(column(texts))
    assert [each.num_words for each in found] == [each.num_words for each in one_by_one(texts)]


def test_variants_equal_those_of_one_text_at_a_time(finder: VariantFinder) -> None:
    texts = [*sample_texts(), *texts_of_entries(300), ""]
    found = finder.identify(column(texts), DEFAULT)
    assert found == [identify_variant(text, DEFAULT) for text in texts]
    assert {variant for variant, _ in found} == {"pt-BR", "pt-PT", None}


@pytest.mark.parametrize(
    ("slots", "longest", "memo"), [(64, 700, 10), (1 << 10, 1 << 18, 1 << 18), (1 << 19, 1 << 18, 0)]
)
def test_tables_that_grow_fill_and_are_forgotten_change_nothing(
    monkeypatch: pytest.MonkeyPatch, slots: int, longest: int, memo: int
) -> None:
    monkeypatch.setattr(variant_batch, "FEWEST_SLOTS", slots)
    monkeypatch.setattr(variant_batch, "LONGEST", longest)
    monkeypatch.setattr(variant_batch, "POOL_BYTES", 100)
    monkeypatch.setattr(variant, "MEMO_WORDS", memo)
    texts = texts_of_entries(400)
    finder, expected = VariantFinder(shipped_model()), one_by_one(texts)
    for size in (1, 7, 400):
        found = [each for start in range(0, 400, size) for each in finder.find(column(texts).slice(start, size))]
        assert found == expected


def test_column_without_texts_has_no_variants(finder: VariantFinder) -> None:
    assert finder.identify(column([]), DEFAULT) == []
    assert finder.find(pa.array(["a", None], pa.large_string()))[1] == Sightings({}, 0, False, False)
    assert variant_kernels.TOKENS == 0
