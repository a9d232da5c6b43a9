"""Quality signals of many texts at once: the numbers of ``quality.measure``, bit for bit, in compiled code.

In: an Arrow string array, a word table and the config. Out: one float64 array per signal (``quality.signals_of``); and
from those, or from the float32 columns of a table, the rules that each text breaks.

The kernels count, and each ratio is one division of two integers, as in ``measure``. Texts in which spaCy may join
tokens across a blank are divided by ``words.WordSplitter`` before. Those with a chunk of more than 50,000 bytes go to
``measure``.
"""

import functools
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.data.columns import utf8_buffers
from filters import portuguese_quality
from filters import quality_kernels as kernels
from filters.byte_kernels import I64, U8
from filters.quality import (
    DUPLICATED_N_GRAMS,
    RULES,
    SIGNALS,
    TOP_N_GRAMS,
    QualityConfig,
    as_stored,
    decide,
    measure,
)
from filters.quality_kernels import COUNTS
from filters.word_kernels import ACROSS, UNFIT, UNKNOWN
from filters.word_table import WordTable

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Floats = F64 | F32
MISSING_ROWS = 1 << 14  # unknown chunks handed to spaCy at a time

_CLASSES = kernels.byte_classes()
_UNDIVIDED = np.empty(0, np.int32)
_RATIOS = {
    "dup_para_frac": ("dup_paragraphs", "paragraphs"),
    "dup_para_char_frac": ("dup_paragraph_characters", "characters"),
    "dup_line_frac": ("dup_pieces", "pieces"),
    "dup_line_char_frac": ("dup_piece_characters", "characters"),
    **{f"top_{n}_gram": (f"top_{n}", "characters") for n in TOP_N_GRAMS},
    **{f"duplicated_{n}_n_grams": (f"repeated_{n}", "characters") for n in DUPLICATED_N_GRAMS},
    "line_punct_ratio": ("punct_lines", "lines"),
    "short_line_ratio": ("short_lines", "lines"),
    "char_dup_ratio": ("dup_line_characters", "characters_in_lines"),
    "list_ratio": ("newlines", "tokens"),
    "avg_word_length": ("word_characters", "words"),
    "hash_ratio": ("hashes", "tokens"),
    "ellipsis_ratio": ("ellipses", "tokens"),
    "bullet_lines_ratio": ("bullet_lines", "split_lines"),
    "ellipsis_lines_ratio": ("ellipsis_lines", "split_lines"),
    "alpha_words_ratio": ("alpha_words", "tokens"),
}


def measure_batch(text: pa.Array, table: WordTable, config: QualityConfig) -> dict[str, F64]:
    """Every signal of every text, equal to ``measure(text, table.splitter, config)``; a null counts as empty."""
    counts, portuguese, status = _counts(text, table, config)
    by_name = {name: counts[:, k] for k, name in enumerate(COUNTS)}
    by_name["characters_in_lines"] = by_name["characters"] - by_name["newlines"]
    signals = {
        name: _ratios(*(by_name[part] for part in _RATIOS[name])) if name in _RATIOS else by_name[name].astype(float)
        for name in SIGNALS
    }
    if portuguese.shape[1]:
        ours = {name: portuguese[:, k] for k, name in enumerate(portuguese_quality.COUNTS)}
        signals |= {name: _ratios(ours[part], ours[whole]) for name, (part, whole) in portuguese_quality.RATIOS.items()}
    for unfit in np.flatnonzero(status == UNFIT):
        for name, value in measure(text[int(unfit)].as_py(), table.splitter, config).items():
            signals[name][unfit] = value
    return signals


def first_broken_rules(signals: Mapping[str, Floats], config: QualityConfig) -> npt.NDArray[np.int64]:
    """For each text the place in ``quality.RULES`` of the first broken rule, -1 for one to keep; as ``decide`` does."""
    first = np.full(len(signals["characters"]), -1)
    for place, broken in reversed(list(broken_rules(signals, config))):
        first[broken] = place
    return first


def broken_rules(signals: Mapping[str, Floats], config: QualityConfig) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Each rule that is switched on, as its place in ``quality.RULES`` with which texts break it; NaN breaks none."""
    for place, rule in enumerate(RULES):
        limits = getattr(config, rule.filter)
        limit = 1 if rule.limit is None else getattr(limits, rule.limit)
        if not limits.enabled or limit == 0:
            continue
        values = signals[rule.signal]
        broken = values > limit if rule.side == "above" else values < limit
        if rule.signal == "line_punct_ratio" and limits.line_punct_exclude_zero:
            broken &= values != 0
        yield place, broken


def decide_on_stored(signals: Mapping[str, F32], config: QualityConfig) -> dict[int, tuple[str, str]]:
    """Reason and detail of each text that breaks a rule, by its place, from signals rounded as the tables hold them."""
    rounded = as_stored(config)
    decisions = {}
    for place in np.flatnonzero(first_broken_rules(signals, rounded) >= 0).tolist():
        decision = decide({name: float(values[place]) for name, values in signals.items()}, rounded)
        assert decision is not None, "both ways of deciding are the same rules"
        decisions[place] = decision
    return decisions


def _counts(text: pa.Array, table: WordTable, config: QualityConfig) -> tuple[I64, I64, U8]:
    stop_words = table.prepare(config.signals.stop_words)
    data, borders = utf8_buffers(text)
    counts, status = np.zeros((len(text), len(COUNTS)), np.int64), np.zeros(len(text), np.uint8)
    portuguese = np.zeros((len(text), len(portuguese_quality.COUNTS) if config.measures_portuguese else 0), np.int64)
    missing = np.zeros((MISSING_ROWS, 2), np.int64)
    count = functools.partial(
        kernels.count_texts,
        classes=_CLASSES,
        short_line_length=config.signals.short_line_length,
        stop_words=stop_words,
        missing=missing,
        counts=counts,
        portuguese=portuguese,
        status=status,
    )
    todo, begin = np.arange(len(text)), 0
    while len(todo):
        stopped = count(data, borders, todo, begin, table.arrays, divided=_UNDIVIDED)
        spans = missing[1 : missing[0, 0] + 1]
        table.learn([data[start:end].tobytes().decode("utf-8") for start, end in spans])
        missing[0, 0] = 0
        if stopped < len(todo):
            table.grow(kernels.LONGEST_CHUNK)
            begin = stopped
        else:
            todo, begin = todo[status[todo] == UNKNOWN], 0
    for place in np.flatnonzero(status == ACROSS):
        divided = table.ids(table.splitter(text[int(place)].as_py()))
        count(data, borders, np.array([place]), 0, table.arrays, divided=divided)
    return counts, portuguese, status


def _ratios(part: I64, whole: I64) -> F64:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0)
