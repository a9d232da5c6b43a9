"""Marked places hold what the signals count: as many characters, at the right place."""

import random

import pytest

from caravela.reporting.reasons import explanation
from filters import c4, quality
from filters.quality import QualityConfig
from filters.reason_spans import MARKED, Span, spans_of, spans_of_reason, spans_of_words
from filters.words import WordSplitter


@pytest.fixture(scope="module")
def splitter() -> WordSplitter:
    return WordSplitter()


def marked(signal: str, text: str, splitter: WordSplitter) -> list[str]:
    return [text[start:end] for start, end in spans_of(signal, text, splitter)]


def test_top_n_gram_marks_every_occurrence_of_the_most_frequent(splitter: WordSplitter) -> None:
    text = "compre agora, compre agora, e o barco saiu, compre agora"
    assert marked("top_2_gram", text, splitter) == ["compre agora"] * 3


def test_duplicated_n_grams_mark_the_repetition_and_not_the_first(splitter: WordSplitter) -> None:
    text = "a maré subiu devagar hoje. Depois a maré subiu devagar hoje"
    spans = spans_of("duplicated_5_n_grams", text, splitter)
    assert spans == [Span(text.rindex("a maré"), len(text))]


@pytest.mark.parametrize(
    ("signal", "text", "expected"),
    [
        ("dup_line_frac", "um\ndois\num\num", ["um", "um"]),
        ("char_dup_ratio", "menu\ntexto\nmenu", ["menu"]),
        ("dup_para_frac", "um\nb\n\ndois\n\num\nb", ["um\nb"]),
        ("line_punct_ratio", "Saiu.\nsem fim\nVoltou!", ["sem fim"]),
        ("alpha_words_ratio", "em 1999, 12 barcos.", ["1999,", "12", "."]),
        ("top_4_gram", "o barco saiu do porto", ["o barco saiu do"]),
        ("hash_ratio", "a #mar #sol", ["#", "#"]),
        ("ellipsis_ratio", "bom... e… fim", ["...", "…"]),
        ("bullet_lines_ratio", "lista\n- um\n  • dois", ["- um", "  • dois"]),
        ("ellipsis_lines_ratio", "leia mais...\nfim.", ["..."]),
        ("words", "curto", []),
        ("language_score", "curto", []),
    ],
)
def test_spans_by_hand(signal: str, text: str, expected: list[str], splitter: WordSplitter) -> None:
    assert marked(signal, text, splitter) == expected


def test_marked_characters_are_those_that_the_signal_counts(splitter: WordSplitter) -> None:
    """Without blanks between words, as the signals count them, for texts whose n-grams do not overlap."""
    words = ["casa", "mar", "sol", "rede", "peixe", "barco", "vento", "porto", "noite", "dia", "rua", "ponte"]
    shuffled = random.Random(3)
    seen = 0
    for _ in range(60):
        phrase = shuffled.sample(words, 12)
        text = " ".join([*phrase, *shuffled.sample(words, 7), *phrase[: shuffled.randint(5, 12)]])
        signals = quality.measure(text, splitter, QualityConfig())
        for n in quality.DUPLICATED_N_GRAMS:
            name = f"duplicated_{n}_n_grams"
            characters = sum(len(piece.replace(" ", "")) for piece in marked(name, text, splitter))
            assert characters / len(text) == pytest.approx(signals[name]), (name, text)
            seen += characters > 0
    assert seen > 50


def test_marked_phrase_is_the_one_that_the_signal_counts(splitter: WordSplitter) -> None:
    shuffled = random.Random(4)
    for repeats in (1, 2, 5):
        for _ in range(10):
            words = [f"{chr(97 + i)}{chr(97 + i)}" for i in shuffled.sample(range(26), 20)]
            phrase, rest = words[:4], words[4:]
            text = " ".join([*rest[:7], *phrase] + [word for i in range(1, repeats) for word in (rest[6 + i], *phrase)])
            signals = quality.measure(text, splitter, QualityConfig())
            for n in quality.TOP_N_GRAMS:
                characters = sum(map(len, marked(f"top_{n}_gram", text, splitter)))
                assert characters / len(text) == pytest.approx(signals[f"top_{n}_gram"]), (n, text)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("lorem_ipsum", ["Lorem ipsum"]), ("blocks.curly_bracket", ["{"]), ("too_few_sentences", [])],
)
def test_what_c4_stopped_at_is_marked(reason: str, expected: list[str]) -> None:
    text = "Texto. Lorem ipsum dolor\nif (x) { y }"
    assert [text[start:end] for start, end in spans_of_reason(reason, text)] == expected


def test_words_of_a_url_are_marked_wherever_they_stand() -> None:
    url = "https://Casino.example/casino-e-mais?x=.*"
    found = [url[start:end] for start, end in spans_of_words(["casino", "x=.*", "", "mais"], url)]
    assert found == ["Casino", "casino", "mais", "x=.*"]
    assert spans_of_words([""], url) == []


def test_every_reason_of_our_filters_has_a_meaning_in_words() -> None:
    steps = [*(f"deny_{kind}" for kind in ("domain", "host", "path", "word")), "list.mine", "contaminated", "emptied"]
    lists = ("domain", "subdomain", "url", "hard_blacklisted", "soft_blacklisted", "blacklisted_subword")
    reasons = [*quality.REASONS, *c4.REASONS, *steps, *(f"datatrove.{name}" for name in lists)]
    assert [reason for reason in reasons if not explanation(reason)] == []


def test_every_marked_signal_is_a_signal() -> None:
    assert MARKED.issubset(quality.SIGNALS)


@pytest.mark.parametrize("signal", sorted(MARKED))
def test_spans_of_odd_texts_lie_in_the_text_and_apart(signal: str, splitter: WordSplitter) -> None:
    for text in ("", " \n\n ", "a", "\x00", "…" * 50, "- a\n- a\n- a", "é\u0301 é\u0301\n" * 9, "🙂 🙂 🙂 🙂 " * 20):
        spans = spans_of(signal, text, splitter)
        ends = [0, *(place for span in spans for place in span), len(text)]
        assert ends == sorted(ends), (text, spans)
