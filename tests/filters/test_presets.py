"""Presets fill what is not set; our signals equal a count by hand; ``portuguese`` drops junk and keeps odd good text."""

import dataclasses
import random
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caravela import config as settings
from caravela.config import ConfigError
from filters import quality
from filters.portuguese_quality import FUNCTION_WORDS, SIGNALS, measure, measure_batch
from filters.quality import FILTERS, RULES, GopherQuality, PortugueseQuality, QualityConfig, decide
from filters.quality_batch import first_broken_rules
from filters.words import WordSplitter
from tests.filters.hard_texts import SAMPLE_TEXTS, hard_texts, sample_texts

TEXTS = tomllib.loads((Path(__file__).parent / "quality_texts.toml").read_text(encoding="utf-8"))
# A long chunk in the file would be just that.
GOOD, JUNK = TEXTS["good"], TEXTS["junk"] | {"long_chunk_ratio": TEXTS["good"]["recipe"] + "QUJDREVGR0hJSktM" * 30}
PORTUGUESE = QualityConfig(preset="portuguese")
FINEWEB2 = QualityConfig()


@pytest.fixture(scope="module")
def splitter() -> WordSplitter:
    return WordSplitter()


def reason(text: str, splitter: WordSplitter, config: QualityConfig) -> str | None:
    decision = decide(quality.measure(text, splitter, config) | measure(text), config)
    return decision and decision[0].rpartition(".")[2]


def odd_texts(count: int) -> list[str]:
    """Texts of what the kernel has to tell apart: marks, closers, blanks, ellipses, letters beyond Latin-1."""
    rng = random.Random(11)
    pieces = [
        *"aeoAÀÇç .…\n\n:»)*_\ufffdÃâÂ\xa0\x80\x85ºª½1Ⅻ你ſİK\u2028\r\t#",
        "𝒜",
        "de ",
        "Que ",
        "DE ",
        "...",
        "\r\n",
        "à ",
    ]
    return ["".join(rng.choices(pieces, k=rng.randrange(60))) for _ in range(count)] + [
        "x" * 41 + " " + "y" * 40,
        "a" * 300,
    ]


def test_batch_signals_equal_those_of_one_text_bit_for_bit() -> None:
    texts = [*odd_texts(1500), *(text for text in hard_texts(seed=6, count=60)), *sample_texts()]
    batch = measure_batch(pa.array([*texts, None], pa.large_string()))
    assert batch.keys() == set(SIGNALS)
    for k, text in enumerate([*texts, ""]):
        assert {name: float(values[k]) for name, values in batch.items()} == measure(text), repr(text[:80])


def test_batch_signals_of_a_slice_are_those_of_its_texts() -> None:
    texts = pa.array(["O mar.", "A casa é azul", "MENU", "Ã§Ã£o"])
    whole, part = measure_batch(texts), measure_batch(texts.slice(1, 2))
    assert all(np.array_equal(part[name], whole[name][1:3]) for name in SIGNALS)


def test_signals_of_a_small_text_equal_a_count_by_hand() -> None:
    text = "Bolos e Tortas\nO Mar de Pedro é azul…\n- ver mais\n" + "z" * 41 + " fim... Ler mais\nÃ§ \ufffd.\n \n"
    counted = {
        # o, de, é; e; mais; mais
        "function_word_ratio": 6 / 17,
        # Tortas, Mar, Pedro, Ler
        "capital_ratio": 4 / 12,
        "label_ratio": 3 / 17,
        # Bolos e Tortas; zzz fim Ler mais
        "fragment_ratio": 7 / 17,
        "letter_ratio": 85 / 96,
        "long_chunk_ratio": 41 / 96,
        "broken_ratio": 2 / 17,
        # the second and the fourth of five
        "cut_lines_ratio": 2 / 5,
    }
    letters = sum(character.isalpha() for character in text)
    signs = sum(not character.isspace() for character in text)
    counted |= {"letter_ratio": letters / signs, "long_chunk_ratio": 41 / signs}
    assert measure(text) == counted


def test_last_line_that_trails_off_is_not_cut() -> None:
    assert measure("Era uma vez um rei…")["cut_lines_ratio"] == 0
    assert measure("Era uma vez…\nE mais nada disse.")["cut_lines_ratio"] == 1 / 2
    assert measure("Ora... não sei.\nNem eu.")["cut_lines_ratio"] == 0


def test_function_words_fit_the_kernel_keys() -> None:
    assert all(word == word.lower() and len(word.encode("latin-1")) <= 8 for word in FUNCTION_WORDS)


@pytest.mark.parametrize("preset", ["fineweb2_por_latn", "portuguese"])
def test_preset_gives_every_limit_a_number(preset: str) -> None:
    config = settings.build(QualityConfig, {"preset": preset}, "x.toml")
    for name in FILTERS:
        assert None not in dataclasses.asdict(getattr(config, name)).values()
    assert settings.build(QualityConfig, settings.to_dict(config), "resolved") == config


def test_one_limit_over_a_preset_leaves_the_others() -> None:
    over = settings.build(QualityConfig, {"preset": "portuguese", "gopher_quality": {"min_doc_words": 33}}, "x.toml")
    expected = dataclasses.asdict(PORTUGUESE)
    expected["gopher_quality"]["min_doc_words"] = 33
    assert dataclasses.asdict(over) == expected
    assert over == QualityConfig(preset="portuguese", gopher_quality=GopherQuality(min_doc_words=33))


def test_zero_over_a_preset_switches_the_rule_off(splitter: WordSplitter) -> None:
    shouting = "A FÁBRICA DE SABÃO DO LARGO VAI FECHAR AS PORTAS NO FIM DO MÊS, DISSE ONTEM O DONO AOS OPERÁRIOS. " * 2
    off = QualityConfig(
        preset="portuguese",
        gopher_repetition=quality.GopherRepetition(enabled=False),
        portuguese_quality=PortugueseQuality(max_capital_ratio=0),
    )
    on = dataclasses.replace(off, portuguese_quality=PORTUGUESE.portuguese_quality)
    assert reason(shouting, splitter, on) == "capital_ratio"
    assert reason(shouting, splitter, off) is None


def test_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"preset = 'portugese': expected one of .*; did you mean 'portuguese'"):
        settings.build(QualityConfig, {"preset": "portugese"}, "x.toml")
    with pytest.raises(ValueError, match="preset = 'none': expected one of fineweb2_por_latn, portuguese"):
        QualityConfig(preset="none")  # type: ignore[arg-type]


def test_default_preset_needs_none_of_our_signals(splitter: WordSplitter) -> None:
    for text in sample_texts()[:20]:
        signals = quality.measure(text, splitter, FINEWEB2)
        assert decide(signals, FINEWEB2) == decide(signals | measure(text), FINEWEB2)


def test_rules_over_a_batch_equal_those_of_one_text(splitter: WordSplitter) -> None:
    texts = [*JUNK.values(), *GOOD.values()]
    measured = [quality.measure(text, splitter, PORTUGUESE) | measure(text) for text in texts]
    batch = {name: np.array([each[name] for each in measured]) for name in measured[0]}
    first = [None if place < 0 else RULES[place] for place in first_broken_rules(batch, PORTUGUESE)]
    single = [decide(each, PORTUGUESE) for each in measured]
    assert [rule and f"{rule.filter}.{rule.reason}" for rule in first] == [each and each[0] for each in single]


@pytest.mark.parametrize("expected", JUNK)
def test_junk_is_dropped_for_its_reason(expected: str, splitter: WordSplitter) -> None:
    text = JUNK[expected]
    broken = [
        rule.reason
        for rule in RULES
        if rule.limit and decide(quality.measure(text, splitter, PORTUGUESE) | measure(text), only(rule))
    ]
    assert expected in broken
    assert reason(text, splitter, PORTUGUESE) in broken


def only(rule: quality.Rule) -> QualityConfig:
    """The preset with all other rules off."""
    assert rule.limit is not None
    limits = getattr(PORTUGUESE, rule.filter)
    off = {
        each.name: type(getattr(limits, each.name))(0) for each in dataclasses.fields(limits) if each.name != "enabled"
    }
    sections = {name: dataclasses.replace(getattr(PORTUGUESE, name), enabled=name == rule.filter) for name in FILTERS}
    sections[rule.filter] = dataclasses.replace(limits, **off | {rule.limit: getattr(limits, rule.limit)})
    return dataclasses.replace(PORTUGUESE, **sections)


@pytest.mark.parametrize("kind", GOOD)
def test_hard_good_text_is_kept(kind: str, splitter: WordSplitter) -> None:
    assert reason(GOOD[kind], splitter, PORTUGUESE) is None


def test_sample_texts_are_kept(splitter: WordSplitter) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(SAMPLE_TEXTS.glob("pt-*/**/*.txt"))]
    assert len(texts) > 50
    dropped = [text[:60] for text in texts if reason(text, splitter, PORTUGUESE)]
    assert len(dropped) <= len(texts) / 50, dropped
