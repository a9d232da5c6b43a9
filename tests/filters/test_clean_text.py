"""Cleaning a column equals cleaning its texts one by one, and the compiled look leaves prose alone."""

import random
import sys

import pyarrow as pa
import pytest

from caravela.data import extract
from filters.clean_text import blank, clean_column, suspicious
from tests.filters.hard_texts import hard_texts

# Beyond the second plane Unicode has ideographs, tags and private use alone; a part of them stands for all.
CODES = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, sys.maxunicode, 251), sys.maxunicode]
CHARACTERS = [chr(code) for code in CODES]


def column(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


@pytest.mark.parametrize("before", ["", "a", "ᄀ", "가", "Ã", "â", "য"])
def test_look_finds_every_character_that_cleaning_changes(before: str) -> None:
    texts = [before + character for character in CHARACTERS]
    found = set(suspicious(column(texts)).tolist())
    changed = {i for i, text in enumerate(texts) if extract.clean(text) != text}
    assert changed <= found


def test_look_passes_portuguese_prose_and_its_marks() -> None:
    text = "“Não”, disse a câmara – À 1.ª instância… à mão: €5, 20 °C ½ • «pôr» ü ñ\n\tfim\r\n 😀 → ■ Ω"
    assert extract.clean(text) == text
    assert not len(suspicious(column([text])))


def test_cleaned_column_equals_texts_cleaned_one_by_one() -> None:
    chance = random.Random(5)
    parts = [
        "casa ",
        "não",
        "Ã£o",
        "â€œ",
        "a\u0301",
        "\x00",
        "\ufeff",
        "\u2126",
        "é",
        "\u0301",
        "Ã",
        "â",
        "”",
        "\n",
        "각",
    ]
    texts = ["".join(chance.choices(parts, k=chance.randrange(9))) for _ in range(3000)]
    texts += [text for text in hard_texts(1, 300) if len(text) < 5000]
    cleaned = clean_column(column(texts))
    assert cleaned.type == pa.large_string()
    assert cleaned.to_pylist() == [extract.clean(text) for text in texts]


def test_cleaned_slice_of_a_column_is_the_slice_of_the_cleaned() -> None:
    texts = ["um", "do\x00is", "ve\u0301u", "", "quatro"]
    assert clean_column(column(texts).slice(1, 3)).to_pylist() == ["dois", "véu", ""]


def test_blank_is_what_python_strips_to_nothing() -> None:
    texts = ["", " ", *CHARACTERS, *(f" \n{character}" for character in CHARACTERS)]
    assert blank(column(texts)).tolist() == [i for i, text in enumerate(texts) if not text.strip()]
