"""Decontamination: which documents hold the items of evaluation sets, as a signal with the item's id.

In: evaluation items (``caravela.data.evaluation_items``) as an ``ItemIndex``, and texts. Out, per text:
``contamination``, the largest share (0 to 1) of an item's words that the text holds, and that item's id.

How the share is counted:

* Words are runs of letters and digits; case and accents are folded away. An n-gram of words that text and item share
  covers its words in the item. The share is covered words by words that could be covered: of the question alone, or of
  question and options together, whichever is larger. Options are matched each on its own, so their order is free.
* Matches count together while they follow one another within ``max_gap`` words of the text, so a long book or a code of
  laws does not collect an item's phrases from all over.
* An n-gram in more than ``max_items`` items is none of theirs ("de acordo com o texto, assinale a alternativa correta")
  and is left out, and so are words that only such n-grams cover.
* Fewer than ``min_words`` words in common are no evidence: shares below that are 0, and an item with fewer words that
  count cannot be found. An item of fewer than n words is one n-gram.
* Items of the same words are one, under the first id. Of items with equal shares the first id is named.

Decisions, with their price:

* Words covered, and not n-grams shared: with one word in eight changed an item keeps 7 of 8 words, but only 3 of 8
  5-grams and no 8-gram at all. So a near copy is found with a threshold that a shared phrase does not reach.
* The whole item must be held, not one long n-gram as in GPT-3's or datatrove's rule: an article that shares a quoted
  law or poem with a question stays if the quotation is the smaller part of it.

Cost: see ``benchmarks/decontamination.py``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.config import ConfigError
from caravela.data import evaluation_items
from caravela.data.columns import strings, utf8_buffers
from caravela.data.evaluation_items import TASKS, EvaluationItem, ItemFile
from caravela.errors import UserError
from caravela.manifest import Input
from filters import decontamination_kernels as kernels
from filters.byte_kernels import I32, I64, U64
from filters.decontamination_kernels import F32, ItemTable

SIGNAL = "contamination"
REASON = "contaminated"
MAX_WORDS = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class DecontaminationConfig:
    """Which evaluation items are looked for, and what is done with a document that holds one."""

    enabled: bool = False
    """Whether documents are looked through at all."""
    items: tuple[ItemFile, ...] = ()
    """Files of items."""
    tasks: tuple[str, ...] = ()
    """Tasks known by name: assin, enem, faquad, hatebr, oab, pt_hate_speech."""
    folder: str = ""
    """Where the tasks' files are, each task in a folder of its name; local or s3://."""
    n: int = 5
    """Words of an n-gram."""
    threshold: float = 0.35
    """Share of an item's words from which on a document is contaminated."""
    min_words: int = 8
    """Fewer words in common than that are no evidence."""
    max_items: int = 4
    """An n-gram in more items than that is a formula, and no evidence."""
    max_gap: int = 50
    """Words of the text between two matches that still count together."""
    remove: bool = True
    """Whether contaminated documents are removed; if not, the signal is all there is."""

    def __post_init__(self) -> None:
        for name in ("n", "min_words", "max_items", "max_gap"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 1 or more")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold = {self.threshold}: expected above 0 and at most 1")
        for task in self.tasks:
            if task not in TASKS:
                raise ConfigError(f"tasks = {task!r}: expected one of {', '.join(TASKS)}; others as files, in items")
        if self.tasks and not self.folder:
            raise ConfigError(f"folder = {self.folder!r}: expected where the files of the tasks are")
        if self.enabled and not (self.items or self.tasks):
            raise ConfigError("items = []: expected files of evaluation items, or names of tasks")


def item_inputs(config: DecontaminationConfig) -> tuple[Input, ...]:
    """What identifies the item files, for the fingerprint of the stage that uses them; none if it is switched off."""
    if not config.enabled:
        return ()
    return evaluation_items.item_inputs(config.items, config.tasks, config.folder)


class ItemIndex(NamedTuple):
    """Evaluation items, ready to be looked for; the same in whatever order the items came."""

    ids: tuple[str, ...]
    """Sorted."""
    table: ItemTable
    min_words: int
    max_gap: int
    unmatchable: tuple[str, ...]
    """Ids of items with too few words that count."""
    doubles: tuple[str, ...]
    """Ids of items whose words are those of another, with a smaller id."""
    formulae: int
    """N-grams left out, as they occur in too many items."""

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"{len(self.ids):,} evaluation items, {len(self.table.borders) - 1:,} n-grams; {len(self.unmatchable):,} "
            f"items too short or of formulae only, {len(self.doubles):,} twice; {self.formulae:,} formulae left out"
        )


def load_index(config: DecontaminationConfig) -> ItemIndex:
    """The index of all items of a config; make one per process.

    Raises:
        UserError: a file is missing or broken, or no item can be looked for.
    """
    items = list(evaluation_items.read_items(config.items, config.tasks, config.folder))
    index = build_index(items, config)
    if len(index.unmatchable) == len(index.ids):
        raise UserError(
            f"decontamination: none of {len(items)} items has {config.min_words} words that count "
            "(decontamination.min_words); expected at least one"
        )
    return index


def build_index(items: Iterable[EvaluationItem], config: DecontaminationConfig) -> ItemIndex:
    """The index of some items; one id may stand for several items, as files overlap."""
    ordered = sorted(items)
    texts = [text for item in ordered for text in (*item.question, *item.options)]
    owners = np.repeat(np.arange(len(ordered)), [len(item.question) + len(item.options) for item in ordered])
    asks = [flag for item in ordered for flag in (*[1] * len(item.question), *[0] * len(item.options))]
    hashes, borders = _hashes_of(texts)
    distinct, doubles = _distinct(ordered, hashes, borders, owners)
    ids = tuple(ordered[i].id for i in distinct)

    number = np.full(len(ordered), -1, np.int32)
    number[distinct] = np.arange(len(distinct), dtype=np.int32)
    segment_items = number[owners] if len(owners) else np.zeros(0, np.int32)
    words = np.diff(borders)
    item_of_word = np.repeat(segment_items, words).astype(np.int32)
    longest = np.zeros(len(ids), np.int64)
    mine = segment_items >= 0
    np.maximum.at(longest, segment_items[mine], words[mine])
    lengths = np.clip(longest, 1, config.n)
    # Segments of doubles get n-grams longer than any text, which is none.
    segment_lengths = np.where(mine, lengths[segment_items] if len(ids) else 0, MAX_WORDS)
    grams = _grams(hashes, borders, segment_lengths, item_of_word, config.max_items)

    weighs = np.zeros(len(hashes), np.uint8)
    asks_of_word = np.repeat(np.array(asks, np.uint8), words)
    kernels.weigh(grams.borders, grams.places, item_of_word, lengths.astype(np.int32), weighs)
    totals = np.zeros((len(ids), 2), np.int32)
    kernels.count_weights(item_of_word, asks_of_word, weighs, totals)
    slots = 1 << max(4, (2 * len(grams.keys)).bit_length())
    table_keys, groups = np.zeros(slots, np.uint64), np.full(slots, -1, np.int32)
    bits = np.zeros(max(1, slots * 8 // 64), np.uint64)
    kernels.fill_table(grams.keys, table_keys, groups, bits)
    table = ItemTable(
        bits=bits,
        keys=table_keys,
        groups=groups,
        borders=grams.borders,
        places=grams.places,
        items=item_of_word,
        asks=asks_of_word,
        weighs=weighs,
        totals=totals,
        lengths=lengths.astype(np.int32),
        distinct_lengths=np.unique(lengths[totals[:, 1] > 0]).astype(np.int64),
    )
    unmatchable = tuple(ids[i] for i in np.flatnonzero(totals[:, 1] < config.min_words))
    return ItemIndex(ids, table, config.min_words, config.max_gap, unmatchable, doubles, grams.dropped)


class _Grams(NamedTuple):
    keys: U64
    borders: I64
    places: I32
    dropped: int


def _grams(hashes: U64, borders: I64, lengths: I64, item_of_word: I32, most_items: int) -> _Grams:
    """The n-grams of all items, each with its places, without those of too many items."""
    keys, places = np.empty(len(hashes), np.uint64), np.empty(len(hashes), np.int32)
    count = kernels.grams_of(hashes, borders, lengths, keys, places)
    order = np.argsort(keys[:count], kind="stable")
    keys, places = keys[order], places[order]
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if count else np.zeros(0, np.int64)
    ends = np.append(first, count).astype(np.int64)
    kept = np.zeros(len(first), np.uint8)
    kernels.mark_common(ends, places, item_of_word, most_items, kept)
    chosen = kept.astype(bool)
    sizes = np.diff(ends)
    return _Grams(
        keys[first[chosen]],
        np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int64),
        places[np.repeat(chosen, sizes)],
        int(np.count_nonzero(~chosen)),
    )


def _distinct(
    items: Sequence[EvaluationItem], hashes: U64, borders: I64, owners: npt.NDArray[np.int64]
) -> tuple[list[int], tuple[str, ...]]:
    """The numbers of items that have words of their own, and the ids of the others."""
    seen: set[bytes] = set()
    distinct, doubles = [], []
    starts = borders[np.searchsorted(owners, np.arange(len(items) + 1))]
    for i, item in enumerate(items):
        words = hashes[starts[i] : starts[i + 1]].tobytes()
        if words and words in seen:
            doubles.append(item.id)
        else:
            seen.add(words)
            distinct.append(i)
    return distinct, tuple(doubles)


def _hashes_of(texts: Sequence[str]) -> tuple[U64, I64]:
    """The word hashes of all texts, and where each text's begin."""
    data, offsets = utf8_buffers(strings(texts, pa.large_string()))
    hashes, borders = np.empty(len(data) // 2 + len(texts) + 1, np.uint64), np.zeros(len(texts) + 1, np.int64)
    kernels.hash_texts(data, offsets, kernels.folding(), hashes, borders)
    if borders[-1] > MAX_WORDS:
        raise UserError(f"decontamination: items of {borders[-1]:,} words; expected fewer than {MAX_WORDS:,}")
    return hashes[: borders[-1]].copy(), borders


def contamination_batch(text: pa.Array, index: ItemIndex) -> tuple[F32, I32]:
    """By text: the largest share of an item's words that it holds, and the item's place in ``index.ids``; 0 and -1.

    Args:
        text: strings; a null is as an empty one.
        index: the items.
    """
    scores, found = np.zeros(len(text), np.float32), np.full(len(text), -1, np.int32)
    if len(text) and len(index.ids):
        data, offsets = utf8_buffers(text)
        passages = kernels.new_passages(index.table)
        kernels.look_up(
            data, offsets, kernels.folding(), index.table, passages, index.min_words, index.max_gap, scores, found
        )
    return scores, found


def decide(score: float, item_id: str, config: DecontaminationConfig) -> tuple[str, str] | None:
    """Why a document goes, as (reason, item and share); None for one to keep."""
    if not config.remove or np.float32(score) < np.float32(config.threshold):  # the signal is stored as such
        return None
    return REASON, f"{item_id} {score:.2f}"
