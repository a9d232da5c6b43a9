"""Hashes of folded words against words folded in plain Python: equal hashes for equal words, and for no others."""

import random
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from caravela.data.columns import utf8_buffers
from filters.dedup.folded_words import folded_bytes, folding_table, word_hashes

EVERY = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]


def hashes_of(texts: list[str], fold_digits: bool = False, salt: int = 0) -> list[list[int]]:
    """Of each text the hashes of its words; the texts lie one after the other in one buffer."""
    data, offsets = utf8_buffers(pa.array(texts, pa.string()))
    folded = np.empty(folded_bytes(int(np.diff(offsets).max())), np.uint8)
    fold, found = folding_table(fold_digits), []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        out = np.empty(end - start + 2, np.uint64)
        folded[:] = 0xAA  # what the text before left there must not matter
        found.append(out[: word_hashes(data, start, end, fold, np.uint64(salt), folded, out)].tolist())
    return found


def words_of(text: str, fold_digits: bool = False) -> list[str]:
    """The definition, letter by letter: letters, marks and digits without case and accents."""
    folded = ""
    for character in text:
        category = unicodedata.category(character)
        if ord(character) >= 1 << 16 or category[0] not in "LMN":
            folded += " "
        elif category == "Nd":
            folded += "0" if fold_digits else str(unicodedata.digit(character))
        else:
            plain = unicodedata.normalize("NFD", character.lower())
            letter = next((c for c in plain if unicodedata.category(c) != "Mn"), "")
            folded += min(letter, "\ufffe")  # a few rare signs decompose to one beyond the plane, and are as one
    return folded.split(" ")


def assert_equal_where_words_are(texts: list[str], fold_digits: bool = False) -> None:
    by_word, by_hash = dict[str, int](), dict[int, str]()
    for text, hashes in zip(texts, hashes_of(texts, fold_digits), strict=True):
        words = [word for word in words_of(text, fold_digits) if word]
        assert len(hashes) == len(words), text
        for word, found in zip(words, hashes, strict=True):
            assert by_word.setdefault(word, found) == found, word
            assert by_hash.setdefault(found, word) == word, (word, by_hash[found])


@pytest.mark.parametrize(
    ("before", "after", "fold_digits"),
    [("", "", False), ("Abc", "Xyz 09", True), ("a palavra ", " e outra", False), ("antes, ", "comprida-mente", False)],
)
def test_word_hashes_of_every_character_are_equal_where_words_are(before: str, after: str, fold_digits: bool) -> None:
    assert_equal_where_words_are([f"{before}{each}{after}" for each in EVERY[: 1 << 16]], fold_digits)


def test_word_hashes_of_characters_beyond_the_plane_stand_between_words() -> None:
    assert all(len(each) == 2 for each in hashes_of([f"um{each}dois" for each in EVERY[1 << 16 :: 7]]))


@pytest.mark.parametrize("fold_digits", [False, True])
def test_word_hashes_of_random_mixtures_are_equal_where_words_are(fold_digits: bool) -> None:
    chance = random.Random(7)
    plain = [chr(code) for code in range(128)]
    kinds = (
        plain,
        plain[48:58],
        plain[65:91],
        plain[97:123],
        list(" .,\n\x00_"),
        list("áÇõêÀß\u0301\u030c"),
        EVERY[:0x3100],
    )
    texts = []
    for _ in range(4000):
        few = chance.choices(kinds, weights=(2, 1, 2, 8, 2, 1, 1), k=chance.randrange(1, 200))
        texts.append("".join(chance.choice(kind) for kind in few))
    assert_equal_where_words_are(texts, fold_digits)


@pytest.mark.parametrize("letters", ["abcdefgh", "áéíóúâêô", "абвгдежз", "書本日人大小中国"])
def test_word_hashes_of_words_of_any_length_differ_where_one_letter_does(letters: str) -> None:
    chance = random.Random(8)
    words = {""}
    for length in range(1, 90):
        word = [chance.choice(letters) for _ in range(length)]
        for place in {0, length // 2, length - 1}:
            for other in letters:
                words.add("".join([*word[:place], other, *word[place + 1 :]]))
    texts = [f"{'x ' * (i % 67)}{word}" for i, word in enumerate(sorted(words))]  # at any place among 64 bytes
    assert_equal_where_words_are(texts)


def test_word_hashes_of_another_salt_are_others() -> None:
    text = ["um dois três quatro paralelepipedo otorrinolaringologista"]
    (one,), (other,) = hashes_of(text, salt=0), hashes_of(text, salt=1)
    assert not set(one) & set(other)


def test_word_hashes_of_a_text_that_grows_fit() -> None:
    # U+023A takes two bytes and its small letter three: the most that a text can grow.
    (hashes,) = hashes_of(["\u023a" * 5000])
    assert hashes == hashes_of(["\u2c65" * 5000])[0]
    assert len(hashes) == 1
