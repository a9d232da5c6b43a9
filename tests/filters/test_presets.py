"""Presets fill what is not set; our signals equal a count by force; ``portuguese`` drops junk, keeps odd good text."""

import dataclasses
import random
import re
import tomllib
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caravela import config as settings
from caravela.config import ConfigError
from caravela.reporting.reasons import explanation
from filters import portuguese_quality, quality
from filters.portuguese_quality import FUNCTION_WORDS, SIGNALS
from filters.quality import (
    FILTERS,
    REASONS,
    RULES,
    GopherQuality,
    PortugueseQuality,
    QualityConfig,
    as_stored,
    decide,
    measure,
    signals_of,
)
from filters.quality_batch import first_broken_rules, measure_batch
from filters.word_table import WordTable
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
    decision = decide(measure(text, splitter, config), config)
    return decision and decision[0].rpartition(".")[2]


def odd_texts(count: int) -> list[str]:
    """Texts of what the kernel has to tell apart: marks, closers, blanks, ellipses, letters beyond Latin-1."""
    rng = random.Random(11)
    pieces = [
        *"aeoAÀÇç .…\n\n:»)*_\ufffdÃâÂ\xa0\x80\x85ºª½1Ⅻ你ſİK\u2028\r\t#𝒜",
        *("de ", "Que ", "DE ", "qUe ", "...", "....", "\r\n", "à ", " Ã§Ã£o ", "[…] ", "Ler mais\n"),
    ]
    odd = ["".join(rng.choices(pieces, k=rng.randrange(60))) for _ in range(count)]
    return [
        *odd,
        "",
        "x" * 41 + " " + "y" * 40,
        "é" * 40 + " " + "é" * 41,
        "a" * 300,
        "a" * 60_000 + " de\nO mar…\nE o",
    ]


def is_letter(character: str) -> bool:
    return unicodedata.category(character).startswith("L")


def counted_by_force(text: str, words: list[str]) -> dict[str, float]:
    """The signals once more, from a list of (line number, word), character by character and by regular expressions."""
    places = [number for number, line in enumerate(text.split("\n")) for c in line if not c.isspace()]
    numbered, at = [], 0
    for word in words:
        numbered.append((places[at], word))
        at += len(word)
    lines = text.split("\n")
    with_letters = {n: [w for m, w in numbered if m == n and any(map(is_letter, w))] for n in {m for m, _ in numbered}}
    filled = [n for n in sorted(with_letters) if with_letters[n]]
    ends = {n: re.search(r"[.!?…:][\s\"”»)'’\]*_]*$", lines[n]) is not None for n in filled}
    fragments = [
        n
        for n in filled
        if not ends[n] and sum(w in FUNCTION_WORDS for w in with_letters[n]) <= len(with_letters[n]) / 3
    ]
    cut = []
    for n in filled[:-1]:
        in_line = [w for m, w in numbered if m == n]
        dots = [k for k, w in enumerate(in_line) if re.search(r"(\.\.\.|…)$", w)]
        behind = [w for w in in_line[dots[-1] + 1 :] if w in with_letters[n]] if dots else [""] * 4
        if not behind or (len(behind) <= 3 and not ends[n]):
            cut.append(n)
    every = [w for n in filled for w in with_letters[n]]
    inner = [w for n in filled for w in with_letters[n][1:]]
    signs = re.sub(r"\s", "", "".join(text.split()))
    parts = {
        "function_word_ratio": (sum(w in FUNCTION_WORDS for w in every), len(every)),
        "capital_ratio": (sum(w[0].isupper() for w in inner), len(inner)),
        "label_ratio": (sum(len(with_letters[n]) for n in fragments if with_letters[n][0][0].isupper()), len(every)),
        "fragment_ratio": (sum(len(with_letters[n]) + 10 for n in fragments), len(every) + 10 * len(filled)),
        "letter_ratio": (sum(map(is_letter, signs)), len(signs)),
        "long_chunk_ratio": (sum(len(c) for c in text.split() if len(c) > 40), len(signs)),
        "broken_ratio": (
            sum(bool(re.search("\ufffd|[ÃÂâ][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œžŸ]", w)) for w in words),
            len(every),
        ),
        "cut_lines_ratio": (len(cut), len(filled)),
    }
    return {name: part / whole if whole else 0.0 for name, (part, whole) in parts.items()}


def test_signals_equal_a_count_by_force(splitter: WordSplitter) -> None:
    for text in [*odd_texts(600), *sample_texts()[:40], *JUNK.values(), *GOOD.values()]:
        if len(text) < 50_000:  # beyond it words are pieces of chunks
            words = splitter(text)
            assert portuguese_quality.measure(text, words) == counted_by_force(text, words), repr(text[:80])


def test_batch_signals_equal_those_of_one_text_bit_for_bit(splitter: WordSplitter) -> None:
    texts = [*odd_texts(1500), *hard_texts(seed=6, count=60), *sample_texts(), *JUNK.values(), *GOOD.values()]
    batch = measure_batch(pa.array([*texts, None], pa.large_string()), WordTable(splitter), PORTUGUESE)
    assert batch.keys() == {*quality.SIGNALS, *SIGNALS} == set(signals_of(PORTUGUESE))
    for k, text in enumerate([*texts, ""]):
        single = measure(text, splitter, PORTUGUESE)
        assert {name: float(values[k]) for name, values in batch.items()} == single, repr(text[:80])
    first = [None if place < 0 else REASONS[place] for place in first_broken_rules(batch, PORTUGUESE)]
    single_reasons = [decide(measure(text, splitter, PORTUGUESE), PORTUGUESE) for text in [*texts, ""]]
    assert first == [each and each[0] for each in single_reasons]


def test_signals_of_a_small_text_equal_a_count_by_hand(splitter: WordSplitter) -> None:
    text = "Bolos e Tortas\nO Mar de Pedro é azul…\n- ver mais\n" + "z" * 41 + " fim... Ler mais\nÃ§ \ufffd.\n \n"
    letters = sum(map(len, ("Bolos", "e", "Tortas", "OMardePedroéazul", "vermais", "z" * 41, "fimLermais", "Ã")))
    signs = letters + len("…-...§\ufffd.")
    assert portuguese_quality.measure(text, splitter(text)) == {
        # e; O, de, é; mais; mais
        "function_word_ratio": 6 / 16,
        # Tortas; Mar, Pedro; Ler
        "capital_ratio": 4 / 11,
        # Bolos e Tortas
        "label_ratio": 3 / 16,
        # Bolos e Tortas; zzz fim Ler mais
        "fragment_ratio": (7 + 20) / (16 + 50),
        "letter_ratio": letters / signs,
        "long_chunk_ratio": 41 / signs,
        # Ã§ and \ufffd
        "broken_ratio": 2 / 16,
        # the second and the fourth of five
        "cut_lines_ratio": 2 / 5,
    }


def test_last_line_that_trails_off_is_not_cut(splitter: WordSplitter) -> None:
    def cut(text: str) -> float:
        return portuguese_quality.measure(text, splitter(text))["cut_lines_ratio"]

    assert cut("Era uma vez um rei…") == 0
    assert cut("Era uma vez…\nE mais nada disse.") == 1 / 2
    assert cut("Ora... não sei.\nNem eu.") == 0


def test_function_words_are_known_in_three_spellings() -> None:
    assert {"de", "De", "DE", "à", "À", "Não"} <= FUNCTION_WORDS
    assert "dE" not in FUNCTION_WORDS


def test_our_signals_are_measured_only_where_a_rule_needs_them(splitter: WordSplitter) -> None:
    assert signals_of(FINEWEB2) == quality.SIGNALS
    assert measure("Uma casa.", splitter, FINEWEB2).keys() == set(quality.SIGNALS)
    stored = QualityConfig(portuguese_quality=PortugueseQuality(max_label_ratio=1.0))
    assert measure("Uma casa.", splitter, stored).keys() == {*quality.SIGNALS, *SIGNALS}
    off = QualityConfig(preset="portuguese", portuguese_quality=PortugueseQuality(enabled=False))
    assert signals_of(off) == quality.SIGNALS


def test_stored_signals_decide_as_measured_ones(splitter: WordSplitter) -> None:
    for text in [*odd_texts(100), *sample_texts(), *JUNK.values(), *GOOD.values()]:
        signals = measure(text, splitter, PORTUGUESE)
        stored = {name: float(np.float32(value)) for name, value in signals.items()}
        assert (decide(signals, PORTUGUESE) is None) == (decide(stored, as_stored(PORTUGUESE)) is None), repr(text[:80])


def test_every_reason_is_put_in_words() -> None:
    assert [each for each in REASONS if not explanation(each)] == []


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
        signals = measure(text, splitter, FINEWEB2)
        assert decide(signals, FINEWEB2) == decide(measure(text, splitter, PORTUGUESE), FINEWEB2)


@pytest.mark.parametrize("expected", JUNK)
def test_junk_is_dropped_for_its_reason(expected: str, splitter: WordSplitter) -> None:
    text = JUNK[expected]
    broken = [rule.reason for rule in RULES if rule.limit and decide(measure(text, splitter, PORTUGUESE), only(rule))]
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
