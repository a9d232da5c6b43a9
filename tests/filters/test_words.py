"""Words equal datatrove's on every text, and the memo behind them stays small and out of sight."""

import pytest
from datatrove.utils.text import split_into_words

from filters.words import WordSplitter
from tests.filters.hard_texts import hard_texts, sample_texts


@pytest.fixture(scope="module")
def splitter() -> WordSplitter:
    return WordSplitter()


def test_words_of_hard_texts_equal_datatrove(splitter: WordSplitter) -> None:
    differing = [text for text in hard_texts(seed=1, count=480) if splitter(text) != split_into_words(text, "por_Latn")]
    assert differing == []


def test_words_of_sample_texts_equal_datatrove(splitter: WordSplitter) -> None:
    assert all(splitter(text) == split_into_words(text, "por_Latn") for text in sample_texts())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo:)", ["foo", ":)"]),
        ("foo:) )", ["foo", ":", ")", ")"]),
        ("foo:)  )", ["foo", ":)", ")"]),
        ("foo:)\n)", ["foo", ":)", ")"]),
        ("a foo:) ) b", ["a", "foo", ":", ")", ")", "b"]),
        (": -foo:) :", [":", "-foo", ":)", ":"]),
    ],
)
def test_words_special_case_hidden_across_a_blank_follows_spacy(
    splitter: WordSplitter, text: str, expected: list[str]
) -> None:
    assert split_into_words(text, "por_Latn") == expected
    assert splitter(text) == expected


def test_words_with_a_memo_too_small_stay_equal_and_bounded(splitter: WordSplitter) -> None:
    forgetful = WordSplitter(memo_bytes=20_000)
    texts = [*hard_texts(seed=2, count=60), *sample_texts()[::8]] * 2
    assert all(forgetful(text) == splitter(text) for text in texts)
    largest = max(len(set(text.split())) for text in texts)
    assert len(forgetful._recent) + len(forgetful._older) < 20_000 / 250 + 2 * largest
    assert forgetful._joined.keys() <= forgetful._recent.keys() | forgetful._older.keys()


@pytest.mark.timeout(60)
def test_words_of_a_long_row_of_punctuation_come_in_bounded_time(splitter: WordSplitter) -> None:
    """With spaCy's own searches this takes three minutes."""
    assert splitter("!" * 40_000) == ["!"] * 40_000


def test_words_chunk_beyond_the_limit_is_cut_and_its_neighbours_are_not(splitter: WordSplitter) -> None:
    assert splitter(f"antes,\n{'a' * 120_000} depois") == [
        *("antes", ",", "a" * 50_000, "a" * 50_000, "a" * 20_000, "depois"),
    ]


def test_words_is_alpha_is_a_word_each_time(splitter: WordSplitter) -> None:
    assert [splitter("x IS_ALPHA y IS_ALPHA.") for _ in range(3)] == [["x", "IS_ALPHA", "y", "IS_ALPHA", "."]] * 3


def test_words_result_may_be_changed_by_the_caller(splitter: WordSplitter) -> None:
    splitter("uma casa").append("x")
    assert splitter("uma casa") == ["uma", "casa"]
