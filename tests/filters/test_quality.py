"""Quality decisions and their reasons equal datatrove's own; signals are defined for every text."""

import dataclasses
import random

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate, find_top_duplicate, get_n_grams

from caravela import config as settings
from caravela.config import ConfigError
from filters import portuguese_quality
from filters.quality import (
    DUPLICATED_N_GRAMS,
    REASONS,
    RULES,
    SIGNALS,
    TOP_N_GRAMS,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    QualityConfig,
    Rule,
    SignalConfig,
    as_stored,
    decide,
    measure,
)
from filters.words import WordSplitter
from tests.filters.hard_texts import hard_texts, sample_texts

FINEWEB2 = QualityConfig()
# Other limits, so that together every rule is the first that some text breaks.
STRICT = QualityConfig(
    signals=SignalConfig(stop_words=("o", "não", "com"), short_line_length=60),
    gopher_repetition=GopherRepetition(dup_para_frac=0.2, dup_line_frac=0.3, top_2_gram=0.2, top_3_gram=0.18),
    fineweb_quality=FineWebQuality(line_punct_thr=0.3, line_punct_exclude_zero=True, short_line_thr=0.5),
    gopher_quality=GopherQuality(min_doc_words=5, max_doc_words=400, max_avg_word_length=6.0),
)
REPEATED = QualityConfig(
    gopher_repetition=GopherRepetition(
        dup_line_frac=0,
        dup_para_char_frac=0.6,
        dup_line_char_frac=0.5,
        top_2_gram=0,
        top_3_gram=0,
        top_4_gram=0,
        duplicated_5_n_grams=0.50,
        duplicated_6_n_grams=0.40,
        duplicated_7_n_grams=0.25,
        duplicated_8_n_grams=0.18,
        duplicated_9_n_grams=0.13,
        duplicated_10_n_grams=0.08,
    ),
    fineweb_quality=FineWebQuality(line_punct_thr=0, char_duplicates_ratio=0.02, new_line_ratio=9),
)
LAST_FILTER = QualityConfig(
    gopher_repetition=GopherRepetition(enabled=False),
    fineweb_quality=FineWebQuality(enabled=False),
    gopher_quality=GopherQuality(min_doc_words=2, max_doc_words=1000, min_alpha_words_ratio=0.6),
)
CONFIGS = {"fineweb2": FINEWEB2, "strict": STRICT, "repeated": REPEATED, "last filter": LAST_FILTER}


@pytest.fixture(scope="module")
def splitter() -> WordSplitter:
    return WordSplitter()


def datatrove_filters(config: QualityConfig) -> list[tuple[str, BaseFilter]]:
    repetition, fineweb, quality = config.gopher_repetition, config.fineweb_quality, config.gopher_quality
    filters: list[tuple[str, BaseFilter]] = [
        (
            "gopher_repetition",
            GopherRepetitionFilter(
                dup_line_frac=repetition.dup_line_frac,
                dup_para_frac=repetition.dup_para_frac,
                dup_line_char_frac=repetition.dup_line_char_frac,
                dup_para_char_frac=repetition.dup_para_char_frac,
                top_n_grams=tuple((n, limit) for n in TOP_N_GRAMS if (limit := getattr(repetition, f"top_{n}_gram"))),
                dup_n_grams=tuple((n, getattr(repetition, f"duplicated_{n}_n_grams")) for n in DUPLICATED_N_GRAMS),
                language="por_Latn",
            ),
        ),
        (
            "fineweb_quality",
            FineWebQualityFilter(
                line_punct_thr=fineweb.line_punct_thr,
                line_punct_exclude_zero=fineweb.line_punct_exclude_zero,
                short_line_thr=fineweb.short_line_thr,
                short_line_length=config.signals.short_line_length,
                char_duplicates_ratio=fineweb.char_duplicates_ratio,
                new_line_ratio=fineweb.new_line_ratio,
                language="por_Latn",
            ),
        ),
        (
            "gopher_quality",
            GopherQualityFilter(
                min_doc_words=quality.min_doc_words,
                max_doc_words=quality.max_doc_words,
                min_avg_word_length=quality.min_avg_word_length,
                max_avg_word_length=quality.max_avg_word_length,
                max_symbol_word_ratio=quality.max_hash_ratio,
                max_bullet_lines_ratio=quality.max_bullet_lines_ratio,
                max_ellipsis_lines_ratio=quality.max_ellipsis_lines_ratio,
                max_non_alpha_words_ratio=quality.min_alpha_words_ratio,
                min_stop_words=quality.min_stop_words,
                stop_words=list(config.signals.stop_words),
                language="por_Latn",
            ),
        ),
    ]
    return [(name, each) for name, each in filters if getattr(config, name).enabled]


def datatrove_reason(text: str, filters: list[tuple[str, BaseFilter]]) -> str | None:
    document = Document(text=text, id="")
    for name, each in filters:
        result = each.filter(document)
        if result is not True:
            return f"{name}.{result[1]}"
    return None


def our_reason(text: str, splitter: WordSplitter, config: QualityConfig) -> str | None:
    decision = decide(measure(text, splitter, config), config)
    return decision and decision[0]


def test_fineweb2_limits_are_those_of_its_recipe() -> None:
    repetition, quality = FINEWEB2.gopher_repetition, FINEWEB2.gopher_quality
    assert [getattr(repetition, f"top_{n}_gram") for n in (2, 3, 4)] == [0.371, 0.191, 0.163]
    dup_n_grams = [getattr(repetition, f"duplicated_{n}_n_grams") for n in range(5, 11)]
    assert dup_n_grams == [0.163, 0.153, 0.141, 0.130, 0.119, 0.108]
    assert (repetition.dup_line_frac, FINEWEB2.fineweb_quality.line_punct_thr) == (0.287, 0.077)
    assert (FINEWEB2.fineweb_quality.new_line_ratio, quality.min_alpha_words_ratio) == (0.186, 0.814)
    assert (quality.min_avg_word_length, quality.max_avg_word_length) == (3, 13)
    assert len(set(FINEWEB2.signals.stop_words)) == 16


def test_decisions_and_reasons_on_hard_texts_equal_datatrove(splitter: WordSplitter) -> None:
    references = {name: datatrove_filters(config) for name, config in CONFIGS.items()}
    differing, seen = [], set()
    for text in hard_texts(seed=3, count=240):
        for name, config in CONFIGS.items():  # inside, as datatrove remembers the words of the last few texts
            ours, theirs = our_reason(text, splitter, config), datatrove_reason(text, references[name])
            seen.add(theirs)
            if ours != theirs:
                differing.append((name, text[:80], ours, theirs))
    assert differing == []
    of_datatrove = {reason for reason in REASONS if not reason.startswith("portuguese_quality.")}
    assert of_datatrove - seen == set(), "the texts should break every rule"


def test_decisions_on_sample_texts_equal_datatrove(splitter: WordSplitter) -> None:
    filters = datatrove_filters(FINEWEB2)
    reasons = [our_reason(text, splitter, FINEWEB2) for text in sample_texts()]
    assert reasons == [datatrove_reason(text, filters) for text in sample_texts()]
    assert reasons.count(None) > len(reasons) / 2


def test_repetition_signals_equal_datatrove_counts(splitter: WordSplitter) -> None:
    for text in filter(None, hard_texts(seed=4, count=120)):
        words, signals = splitter(text), measure(text, splitter, FINEWEB2)
        for n in TOP_N_GRAMS:
            n_grams = get_n_grams(words, n)
            assert signals[f"top_{n}_gram"] == (find_top_duplicate(n_grams) / len(text) if n_grams else 0)
        for n in DUPLICATED_N_GRAMS:
            assert signals[f"duplicated_{n}_n_grams"] == find_all_duplicate(words, n) / len(text)


@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "🙂", "a", "\n.\n"])
def test_signals_of_any_text_are_all_there_and_finite(splitter: WordSplitter, text: str) -> None:
    signals = measure(text, splitter, FINEWEB2)
    assert signals.keys() == set(SIGNALS)
    assert np.isfinite(list(signals.values())).all()


def test_signals_of_a_small_text_equal_a_count_by_hand(splitter: WordSplitter) -> None:
    signals = measure("- O mar # é azul...\n\n- O mar # é azul...", splitter, FINEWEB2)
    expected = {
        "characters": 40,
        "lines": 2,
        "dup_para_frac": 1 / 2,
        "dup_para_char_frac": 19 / 40,
        "top_2_gram": 2 * len("- O") / 40,
        "duplicated_5_n_grams": len("-Omar#é") / 40,
        "line_punct_ratio": 1,
        "short_line_ratio": 1,
        "char_dup_ratio": 19 / 38,
        "list_ratio": 2 / 14,
        "words": 8,
        "avg_word_length": len("Omaréazul") / 4,
        "hash_ratio": 2 / 14,
        "ellipsis_ratio": 2 / 14,
        "bullet_lines_ratio": 2 / 3,
        "ellipsis_lines_ratio": 2 / 3,
        "alpha_words_ratio": 8 / 14,
        "stop_words": 1,
    }
    assert {name: signals[name] for name in expected} == expected


PASSING = dict.fromkeys((*SIGNALS, *portuguese_quality.SIGNALS), 0.0) | {
    "function_word_ratio": 0.45,
    "letter_ratio": 0.95,
    "characters": 2000.0,
    "lines": 20.0,
    "words": 400.0,
    "avg_word_length": 5.0,
    "line_punct_ratio": 0.9,
    "alpha_words_ratio": 0.9,
    "stop_words": 9.0,
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.filter}.{rule.reason}")
def test_rule_drops_beyond_its_limit_only_and_never_when_off(rule: Rule) -> None:
    limits = getattr(FINEWEB2, rule.filter)
    if rule.limit and getattr(limits, rule.limit) == 0:
        limits = dataclasses.replace(limits, **{rule.limit: 0.3})
    limit = getattr(limits, rule.limit) if rule.limit else 1
    beyond = PASSING | {rule.signal: limit * (1.01 if rule.side == "above" else 0.99)}
    config = dataclasses.replace(FINEWEB2, **{rule.filter: limits})
    decision = decide(beyond, config)
    assert decision is not None
    assert decision[0] == f"{rule.filter}.{rule.reason}"
    assert decision[1].startswith(f"{rule.signal} ")
    assert decide(PASSING | {rule.signal: float(limit)}, config) is None
    filter_off = dataclasses.replace(config, **{rule.filter: dataclasses.replace(limits, enabled=False)})
    assert decide(beyond, filter_off) is None
    if rule.limit:
        rule_off = dataclasses.replace(config, **{rule.filter: dataclasses.replace(limits, **{rule.limit: 0})})
        assert decide(beyond, rule_off) is None


@pytest.mark.parametrize("config", [FINEWEB2, QualityConfig(preset="portuguese")], ids=lambda config: config.preset)
def test_stored_signals_decide_as_measured_ones_at_and_near_every_limit(config: QualityConfig) -> None:
    rng = random.Random(5)
    stored_config = as_stored(config)
    limits = [(rule, getattr(getattr(config, rule.filter), rule.limit)) for rule in RULES if rule.limit]
    ratios = [(rule, limit) for rule, limit in limits if isinstance(limit, float) and limit > 0]
    for _ in range(20_000):
        rule, limit = rng.choice(ratios)
        whole = rng.randrange(1, 16_000)
        value = (round(limit * whole) + rng.choice([-1, 0, 0, 1])) / whole
        signals = PASSING | {rule.signal: max(0.0, value)}
        stored = {name: float(np.float32(number)) for name, number in signals.items()}
        decided, decided_stored = decide(signals, config), decide(stored, stored_config)
        assert (decided and decided[0]) == (decided_stored and decided_stored[0]), (rule, value)


def test_config_from_a_file_overrides_one_limit_and_keeps_the_others() -> None:
    built = settings.build(QualityConfig, {"gopher_repetition": {"top_2_gram": 0.4}}, "x.toml")
    assert built == dataclasses.replace(FINEWEB2, gopher_repetition=GopherRepetition(top_2_gram=0.4))


def test_config_with_a_negative_limit_names_it() -> None:
    with pytest.raises(ConfigError, match=r"min_doc_words = -1: expected 0 \(rule off\) or more"):
        settings.build(QualityConfig, {"gopher_quality": {"min_doc_words": -1}}, "x.toml")
