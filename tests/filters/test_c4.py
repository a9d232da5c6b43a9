"""Decision, reason and resulting text of the C4 rules equal datatrove's own C4QualityFilter for Portuguese."""

import dataclasses
import itertools
import random

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter
from datatrove.pipeline.filters.c4_filters import POLICY_SUBSTRINGS
from datatrove.utils.text import split_into_sentences

from caravela.config import ConfigError
from filters import c4
from filters.c4 import C4Config
from filters.words import WordSplitter
from tests.filters.hard_cases import hard_cases
from tests.filters.hard_texts import sample_texts

CONFIGS = {
    "default": C4Config(),
    "fineweb": C4Config(filter_no_terminal_punct=False),
    "sentences": C4Config(split_paragraph=False, max_word_length=30),
    "loose": C4Config(filter_no_terminal_punct=False, min_words_per_line=-1, max_word_length=-1, min_num_sentences=9),
    "bare sentences": C4Config(
        split_paragraph=False, filter_no_terminal_punct=False, min_words_per_line=-1, min_num_sentences=2
    ),
    "few rules": C4Config(
        remove_citations=False,
        min_num_sentences=-1,
        filter_lorem_ipsum=False,
        filter_javascript=False,
        filter_curly_bracket=False,
        filter_policy=False,
    ),
}
# What the rules look for, sprinkled into texts that seldom have it.
SPICE = (
    *("lorem ipsum", "Lorem Ipsum", "javascript", "JavaScript."),
    *("java[1]script", "{", "}", "[1]", "[12]", "[]", "[edit]"),
    *("[citation needed]", "[a]", "[1", "terms of use", "Use Cookies"),
    *("uses  cookies", "privacy policy.", "...", "…", ".", "?"),
    *('"', "'", "!", ". [3]", ". [1] [2] ", "x" * 1001, "x" * 1000, "\n"),
    *("\n\n", "\u2028", "\x1c", "\x85", "  ", " \t", "\xa0"),
    *(". A", ".  A", ".) B", ".  ! C", '." D', "。", "؟ ", "?! E"),
    *(".... F", "Sr. G", "n.º 5", "a.C.", "。\u3000", "foo:) )", "İ"),
)


@pytest.fixture(scope="module")
def splitter() -> WordSplitter:
    return WordSplitter()


def datatrove_filter(config: C4Config) -> C4QualityFilter:
    arguments = {k: v for k, v in dataclasses.asdict(config).items() if k != "enabled"}
    return C4QualityFilter(**arguments, language="por_Latn")


def theirs(text: str, each: C4QualityFilter) -> tuple[str, str]:
    document = Document(text=text, id="")
    result = each.filter(document)
    return document.text, "" if result is True else result[1]


def spiced(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    cases, sample = hard_cases(seed, count), sample_texts()
    texts = []
    for _, text in cases:
        text = rng.choice([text, rng.choice(sample)])[: rng.choice([100, 400, 2500])]
        for _ in range(rng.choice([0, 1, 1, 3, 12])):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(SPICE) + text[at:]
        texts.append(text)
    return texts


@pytest.mark.parametrize("name", list(CONFIGS))
def test_decision_reason_and_text_equal_datatrove(splitter: WordSplitter, name: str) -> None:
    reference, seen = datatrove_filter(CONFIGS[name]), set()
    for text in ["", " ", "a", ".", *spiced(seed=len(name), count=350)]:
        outcome = c4.apply(text, splitter, CONFIGS[name])
        seen.add(outcome.reason)
        assert (outcome.text, outcome.reason) == theirs(text, reference), text[:200]
    assert "" in seen
    if CONFIGS[name].filter_lorem_ipsum:
        assert seen == {"", *c4.REASONS}, "the texts should break every rule"


def test_sample_texts_equal_datatrove(splitter: WordSplitter) -> None:
    reference = datatrove_filter(C4Config())
    for text in sample_texts()[::3]:
        outcome = c4.apply(text, splitter, C4Config())
        assert (outcome.text, outcome.reason) == theirs(text, reference)


def test_sentences_equal_datatrove_but_for_blanks(splitter: WordSplitter) -> None:
    rng = random.Random(2)
    pieces = [
        "a",
        "B.",
        ".",
        "!",
        "?",
        ")",
        '"',
        "”",
        " ",
        "  ",
        "\n",
        "\t",
        "\xa0",
        " \n ",
        "Sr.",
        "1.",
        "...",
        "。",
        "-",
        "foo:)",
    ]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(12))) for _ in range(3000)]
    for text in texts:
        ours = [sentence.strip() for sentence in c4.sentences(text, splitter)]
        assert ours == [sentence.strip() for sentence in split_into_sentences(text, "por_Latn")], repr(text)


def test_lines_dropped_and_details_by_hand(splitter: WordSplitter) -> None:
    lines = [
        "Esta linha fica bem aqui.",
        "Esta não fica",
        "Uma só.",
        "Ative o JavaScript para ler isto.",
        "E esta fica[1] também.",
    ]
    outcome = c4.apply("\n".join(lines), splitter, C4Config(min_num_sentences=2))
    assert outcome.text == "Esta linha fica bem aqui.\nE esta fica também."
    assert (outcome.reason, outcome.lines_dropped) == ("", 3)
    outcome = c4.apply("\n".join(lines), splitter, C4Config())
    assert outcome.text == "\n".join(lines)
    assert (outcome.reason, outcome.detail) == ("too_few_sentences", "2 sentences are below 5")


def test_phrases_are_those_of_datatrove() -> None:
    assert set(c4.POLICY_PHRASES) == set(POLICY_SUBSTRINGS)


@pytest.mark.parametrize("name", ["min_num_sentences", "min_words_per_line", "max_word_length"])
def test_settings_below_off_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = -2: expected -1"):
        C4Config(**{name: -2})  # type: ignore[arg-type]


def test_every_switch_changes_what_it_says(splitter: WordSplitter) -> None:
    """Each switch alone lets through what it is there to stop."""
    good = "Uma frase que fica sempre aqui.\n" * 5
    stopped = {
        "remove_citations": good + "Com citação [12] no meio dela.",
        "filter_no_terminal_punct": good + "Sem ponto no fim desta",
        "filter_lorem_ipsum": good + "Tem lorem ipsum nesta linha.",
        "filter_javascript": good + "Tem JavaScript nesta linha agora.",
        "filter_curly_bracket": good + "Tem { uma chave aqui.",
        "filter_policy": good + "Leia a privacy policy do site.",
    }
    for (name, text), on in itertools.product(stopped.items(), (True, False)):
        outcome = c4.apply(text, splitter, C4Config(**{name: on}))
        assert (outcome.text == text) == (not on or outcome.reason != ""), name
