"""Signals of a batch equal those of ``measure``, bit for bit, and its decisions those of datatrove."""

import random

import numpy as np
import pyarrow as pa
import pytest

from filters.quality import REASONS, RULES, SIGNALS, QualityConfig, Rule, SignalConfig, decide, measure
from filters.quality_batch import decide_on_stored, first_broken_rules, measure_batch
from filters.word_table import WordTable
from filters.words import WordSplitter
from tests.filters.hard_texts import EMOTICON_CHARACTERS, EXTREMES, ODDITIES, WORDS, hard_texts, sample_texts
from tests.filters.test_quality import CONFIGS, datatrove_filters, datatrove_reason

FINEWEB2 = QualityConfig()


@pytest.fixture(scope="module")
def table() -> WordTable:
    return WordTable(WordSplitter())


def differences(texts: list[str], table: WordTable, config: QualityConfig = FINEWEB2) -> list[tuple[str, str]]:
    """Where a batch differs from the texts measured one by one, as (text, signal)."""
    batch = measure_batch(pa.array(texts, pa.string()), table, config)
    assert list(batch) == list(SIGNALS)
    single = [measure(text, table.splitter, config) for text in texts]
    return [
        (text[:80], name)
        for index, text in enumerate(texts)
        for name in SIGNALS
        if batch[name][index] != single[index][name]
    ]


@pytest.mark.parametrize("name", ["fineweb2", "strict"])
def test_signals_of_hard_texts_equal_measure(table: WordTable, name: str) -> None:
    assert differences(list(hard_texts(seed=6, count=300)), table, CONFIGS[name]) == []


def test_signals_of_sample_texts_equal_measure_cold_and_warm(table: WordTable) -> None:
    assert differences(sample_texts(), table) == []
    known = table.arrays.used.copy()
    assert differences(sample_texts(), table) == []
    assert (table.arrays.used == known).all(), "a known text teaches nothing"


def test_signals_of_random_marks_around_words_equal_measure(table: WordTable) -> None:
    """Every way to put marks, digits, hyphens and special cases around words, where the kernels read by themselves."""
    rng = random.Random(7)
    special_cases = [case for case in table.splitter.special_cases if not case.isspace()]
    pieces = [*WORDS, *special_cases, *ODDITIES, *"aAzZéÉßÿ÷×ªº09", "sexta-feira", "EUA", "Sr", "etc", "xD", "12", "8"]
    marks = [*"()\",;:!?“”«»..-…'’[]_/&%$+=*#", "...", ").", '",', "--", "\u0301", "\u200b", "\x00", "\x85", "\xad"]

    def chunk() -> str:
        middle = "".join(rng.choices(pieces, k=rng.choice([1, 1, 1, 2])))
        return "".join(
            (*rng.choices(marks, k=rng.choice([0, 0, 1, 2])), middle, *rng.choices(marks, k=rng.randrange(4)))
        )

    assert differences([" ".join(chunk() for _ in range(30)) for _ in range(400)], table) == []


def test_signals_of_random_characters_equal_measure(table: WordTable) -> None:
    """Few different characters, so that lines, paragraphs and n-grams repeat, with the same letters divided anew."""
    rng = random.Random(8)
    alphabets = [
        *("ab \n", "a. \n", "a-b c,\n", "a…•-. \n", "é\u00a0e \n\r", "#.! \n", EMOTICON_CHARACTERS + "  \n"),
        *("ab \r\n\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029\t", "a🙂 ?。\n", "•-… \u3000\u1680\n\u200b\u205f"),
    ]
    texts = ["".join(rng.choices(rng.choice(alphabets), k=rng.randrange(1, 300))) for _ in range(900)]
    assert differences(texts, table) == []


def test_n_grams_divided_otherwise_into_words_still_repeat(table: WordTable) -> None:
    texts = [
        "um a bc dois tres quatro x um ab c dois tres quatro",
        "ab c d e f g h i j k l " * 3 + "a b cd e f gh i jk l",
    ]
    texts += [" ".join(random.Random(n).choices(["a", "aa", "aaa", "aaaaaaaaaaaaaaaaaaa"], k=60)) for n in range(300)]
    assert differences(texts, table) == []
    batch = measure_batch(pa.array(texts[:1]), table, FINEWEB2)
    assert batch["duplicated_6_n_grams"][0] == len("umabcdoistresquatro") / len(texts[0])


def test_every_white_space_character_and_no_other_divides_chunks_and_lines(table: WordTable) -> None:
    codes = [code for code in range(0x3100) if code < 0x250 or 0x1600 <= code < 0x1700 or code >= 0x1FF0]
    assert {code for code in range(0x110000) if chr(code).isspace()} <= set(codes)
    assert differences([f"...{chr(code)}- b{chr(code)}\n" for code in codes], table) == []


@pytest.mark.parametrize("name", list(CONFIGS))
def test_decisions_of_a_batch_equal_datatrove(table: WordTable, name: str) -> None:
    config, texts = CONFIGS[name], [*hard_texts(seed=9, count=60), *sample_texts()[::8]]
    batch = measure_batch(pa.array(texts), table, config)
    decisions = [decide({key: float(batch[key][k]) for key in SIGNALS}, config) for k in range(len(texts))]
    broken = [None if rule < 0 else REASONS[rule] for rule in first_broken_rules(batch, config)]
    reference = datatrove_filters(config)
    assert broken == [decision and decision[0] for decision in decisions]
    assert [decision and decision[0] for decision in decisions] == [datatrove_reason(t, reference) for t in texts]
    stored = decide_on_stored({key: values.astype(np.float32) for key, values in batch.items()}, config)
    assert [stored[k][0] if k in stored else None for k in range(len(texts))] == broken


THEIR_RULES = [rule for rule in RULES if rule.filter != "portuguese_quality"]


@pytest.mark.parametrize("rule", [rule for rule in THEIR_RULES if rule.limit], ids=lambda rule: rule.reason)
def test_stored_signal_at_its_limit_breaks_no_rule(table: WordTable, rule: Rule) -> None:
    """As 32 bits hold it, a limit may lie above or below what 64 bits hold; a text at the limit passes both ways."""
    batch = measure_batch(pa.array(sample_texts()[:20]), table, FINEWEB2)
    passing = int(np.flatnonzero(first_broken_rules(batch, FINEWEB2) < 0)[0])
    stored = {name: values[passing : passing + 1].astype(np.float32) for name, values in batch.items()}
    stored[rule.signal] = np.array([getattr(getattr(FINEWEB2, rule.filter), rule.limit or "")], np.float32)
    last = THEIR_RULES[-1]
    if rule.signal != last.signal:
        stored[last.signal] = np.zeros(1, np.float32)
        assert decide_on_stored(stored, FINEWEB2)[0][0] == f"{last.filter}.{last.reason}"
    else:
        assert decide_on_stored(stored, FINEWEB2) == {}


def test_texts_that_the_kernels_leave_out_equal_measure(table: WordTable) -> None:
    assert differences(["foo:) )", "a foo:) ) b " * 9, "a" * 60_000 + " b", "é" * 30_000, "foo:)\n)"], table) == []


def test_signals_do_not_depend_on_the_batch_its_type_or_a_slice(table: WordTable) -> None:
    texts = [*EXTREMES, *sample_texts()[:20]]
    whole = measure_batch(pa.array(texts, pa.large_string()), table, FINEWEB2)
    sliced = measure_batch(pa.array(["x", *texts, "y"])[1:-1], table, FINEWEB2)
    fresh = WordTable(table.splitter)
    alone = [measure_batch(pa.array([text]), fresh, FINEWEB2) for text in texts]
    for name in SIGNALS:
        assert (whole[name] == sliced[name]).all()
        assert (whole[name] == np.concatenate([each[name] for each in alone])).all()


def test_batch_without_texts_or_with_a_null_gives_numbers(table: WordTable) -> None:
    assert all(len(values) == 0 for values in measure_batch(pa.array([], pa.string()), table, FINEWEB2).values())
    batch = measure_batch(pa.array([None, "uma casa"]), table, FINEWEB2)
    assert [batch["characters"].tolist(), batch["stop_words"].tolist()] == [[0, 8], [0, 1]]


def test_table_beyond_its_memory_forgets_and_stays_equal(table: WordTable) -> None:
    forgetful = WordTable(table.splitter, memory_bytes=1 << 21)
    texts, sizes = list(hard_texts(seed=10, count=240)), []
    for start in range(0, len(texts), 40):
        assert differences(texts[start : start + 40], forgetful) == []
        sizes.append(int(forgetful.arrays.used[0]))
    assert sizes != sorted(sizes), "it should have forgotten at least once"


def test_other_stop_words_are_counted_from_the_next_batch_on(table: WordTable) -> None:
    text = pa.array(["o mar não foi, o mar com sal"])
    counted = [
        measure_batch(text, table, QualityConfig(signals=SignalConfig(stop_words=stop_words)))["stop_words"][0]
        for stop_words in (("o",), ("mar", "sal", "mar", ""), ("o",), ())
    ]
    assert counted == [1, 2, 1, 0]
