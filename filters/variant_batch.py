"""The variants of many texts at once: what ``variant.identify_variant`` says of each.

In: an Arrow string array. Out: for each text the variant and its score. Compiled code cuts the texts into tokens, looks
each up in a table and applies the rules that need its neighbours; Python is asked once per distinct token what is known
of it, and for each place where a phrase may begin. Texts of more than ``LONGEST`` bytes go to ``Inventory.find``.

Memory: the table of tokens, forgotten when it holds more than ``variant.MEMO_WORDS``.
"""

import functools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.data.columns import utf8_buffers
from filters import variant
from filters import variant_kernels as kernels
from filters.byte_kernels import I64, U8
from filters.variant import Inventory, Sightings, VariantConfig, VariantModel
from filters.variant_kernels import TokenTable
from filters.word_kernels import new_slots

LONGEST = 1 << 18
"""Bytes; also how much text is looked at before Python sees to what was found."""
FEWEST_SLOTS = 1 << 19
POOL_BYTES = 12 * variant.MEMO_WORDS + LONGEST

RULES = (
    "syntax/<article_possessive>",
    "syntax/<bare_possessive>",
    "syntax/<estar_a_infinitive>",
    "syntax/<ficar_a_infinitive>",
    "syntax/<estar_gerund>",
    "syntax/<ir_gerund>",
    "pronouns/<clitic_between>",
    "pronouns/<proclitic_at_start>",
    "pronouns/<me_te_lhe>",
)
"""In the order of ``variant_kernels``."""


class VariantFinder:
    """Holds the table of tokens; a process makes one and keeps it."""

    def __init__(self, model: VariantModel) -> None:
        self.model = model
        self._inventory: Inventory = model.inventory
        self._names = list(self._inventory.features)
        self._ids = {name: number for number, name in enumerate(self._names)}
        self._rules = np.array([self._ids[name] for name in RULES], np.int32)
        self._spans = np.empty((LONGEST, 3), np.int64)
        self._values = np.empty(LONGEST, np.uint64)
        self._missing = np.empty((LONGEST // 2 + 1, 3), np.int64)
        self._sightings = np.empty((2 * LONGEST, 2), np.int64)
        self._table = _new_table(FEWEST_SLOTS)
        self._begins: dict[int, bool] = {}
        """Of two slots of the table, as one number: whether a phrase begins with their tokens."""

    def identify(self, text: pa.Array, config: VariantConfig) -> list[tuple[str | None, float | None]]:
        """The variant of each text with its probability, as ``variant.identify_variant`` gives it."""
        return [variant.decide_on(self.model, sightings, config) for sightings in self.find(text)]

    def find(self, text: pa.Array) -> list[Sightings]:
        """What ``Inventory.find`` gives for each text."""
        if self._table.used[0] > variant.MEMO_WORDS:
            self._table, self._begins = _new_table(FEWEST_SLOTS), {}
        data, borders = utf8_buffers(text)
        long = np.diff(borders) > LONGEST
        totals, firsts = np.zeros((len(text), 4), np.int64), np.zeros((len(text), 2), np.int64)
        status = np.zeros(len(text), np.uint8)
        counts: dict[int, dict[str, int]] = defaultdict(dict)
        todo, begin = np.flatnonzero(~long), 0
        while len(todo):
            stopped, missing, sightings = kernels.find(
                data,
                borders,
                todo,
                begin,
                _classes(),
                self._table,
                self._rules,
                self._spans,
                self._values,
                self._missing,
                firsts,
                totals,
                self._sightings,
                status,
            )
            self._learn(data, self._missing[:missing])
            self._count(data, self._sightings[:sightings], firsts, counts)
            if stopped == begin and not missing:
                self._make_room(int(borders[todo[begin] + 1] - borders[todo[begin]]))
            begin = stopped
            if stopped == len(todo):
                todo, begin = todo[status[todo] == 1], 0
        found = [self._inventory.find(text[i].as_py()) if long[i] else None for i in range(len(text))]
        return [
            each or variant.sightings_of(self._inventory, counts.get(i, {}), *totals[i].tolist())
            for i, each in enumerate(found)
        ]

    def _learn(self, data: U8, missing: I64) -> None:
        """Puts what is known of new tokens into the table."""
        slots = self._table.slots
        for slot, start, end in missing.tolist():
            slots[slot, 3] = self._value_of(data[start:end].tobytes().decode("utf-8"))

    def _value_of(self, token: str) -> np.uint64:
        word = self._inventory.look_up(token)
        flags = _flags_of(token.lower(), self._inventory.second_words)
        feature = enclitic = 0
        if word is not None:
            flags |= kernels.WANTED * word.is_portuguese | kernels.NAME * word.is_name
            flags |= kernels.HEAD * bool(word.phrases) | _syntax_flags_of(word.lower)
            if word.feature == "old":
                flags |= kernels.OLD
            elif word.feature is not None:
                feature = self._ids[word.feature] + 1
            if word.enclitic is not None:
                enclitic = self._ids[word.enclitic] + 1
        return np.uint64(flags | (feature | enclitic << kernels.ID_BITS) << kernels.FLAG_BITS)

    def _count(self, data: U8, sightings: I64, firsts: I64, counts: dict[int, dict[str, int]]) -> None:
        """Adds sightings to the counts of their texts; phrases are looked at here."""
        whole = sightings[:, 1] >= 0
        pairs, times = np.unique(sightings[whole] @ (len(self._names), 1), return_counts=True)
        for pair, count in zip(pairs.tolist(), times.tolist(), strict=True):
            text, number = divmod(pair, len(self._names))
            name = self._names[number]
            counts[text][name] = counts[text].get(name, 0) + count
        texts, rows = sightings[~whole, 0], -1 - sightings[~whole, 1]
        for text, row in zip(*self._where_phrases_begin(data, texts, rows), strict=True):
            if (name := self._phrase_at(data, self._spans[row : firsts[text, 1]])) is not None:
                counts[text][name] = counts[text].get(name, 0) + 1

    def _where_phrases_begin(self, data: U8, texts: I64, rows: I64) -> tuple[list[int], list[int]]:
        """Those of the rows with whose token and the next one a phrase begins; each two tokens are looked at once."""
        slots = len(self._table.slots)
        pairs = self._spans[rows, 2] * slots + self._spans[rows + 1, 2]
        distinct, first_of, which = np.unique(pairs, return_index=True, return_inverse=True)
        for pair, row in zip(distinct.tolist(), rows[first_of].tolist(), strict=True):
            if pair not in self._begins:
                self._begins[pair] = bool(self._tails(data, self._spans[row : row + 2]))
        begins = np.fromiter(map(self._begins.__getitem__, distinct.tolist()), np.bool_, len(distinct))[which]
        return texts[begins].tolist(), rows[begins].tolist()

    def _tails(self, data: U8, spans: I64) -> Sequence[tuple[list[str], str]]:
        """How phrases go on that begin with these two tokens, and their names."""
        first, second = _tokens(data, spans[:2])
        return self._inventory.phrases_of(first).get(second.lower(), ())

    def _phrase_at(self, data: U8, spans: I64) -> str | None:
        """The phrase that begins with the first of these tokens."""
        for tail, name in self._tails(data, spans):
            if not tail or [token.lower() for token in _tokens(data, spans[2 : 2 + len(tail)])] == tail:
                return name
        return None

    def _make_room(self, size: int) -> None:
        """For the tokens of one more text of so many bytes."""
        slots, pool, used = self._table
        num_slots, num_bytes = len(slots), len(pool)
        while not kernels.has_room(used, num_slots, num_bytes, size):
            if kernels.has_room(used, num_slots, used[1] + size, size):
                num_bytes *= 2
            else:
                num_slots *= 2
        if num_slots > len(slots):
            slots = new_slots(num_slots)
            kernels.rehash(self._table.slots, slots)
            self._begins = {}
        if num_bytes > len(pool):
            pool = np.concatenate([pool, np.zeros(num_bytes - len(pool), np.uint8)])
        self._table = TokenTable(slots, pool, used)


def _tokens(data: U8, spans: I64) -> list[str]:
    return [data[begin:end].tobytes().decode("utf-8") for begin, end in spans[:, :2].tolist()]


def _new_table(slots: int) -> TokenTable:
    return TokenTable(new_slots(slots), np.zeros(POOL_BYTES, np.uint8), np.zeros(2, np.int64))


def _flags_of(lower: str, second_words: frozenset[str]) -> int:
    """What a token is to the word before it, or to the second word before it."""
    return (
        kernels.SECOND * (lower in second_words)
        | kernels.ARTICLE * (lower in variant.ARTICLES)
        | kernels.LETTER_A * (lower == "a")
        | kernels.INFINITIVE * variant.is_infinitive(lower)
        | kernels.GERUND * variant.is_gerund(lower)
        | kernels.CLITIC * (lower in variant.CLITICS)
    )


def _syntax_flags_of(lower: str) -> int:
    sets: Sequence[tuple[int, frozenset[str]]] = (
        (kernels.POSSESSIVE, variant.POSSESSIVES),
        (kernels.BE, variant.BE),
        (kernels.GO_ON, variant.GO_ON),
        (kernels.GO, variant.GO),
        (kernels.AUXILIARY, variant.AUXILIARIES),
        (kernels.PROCLITIC, variant.PROCLITICS),
    )
    return sum(flag for flag, words in sets if lower in words)


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    """Code point → LETTER, BREAK, JOINER, as ``variant.TOKEN`` has them."""
    classes = np.zeros(0x110000, np.uint8)
    for code in range(0x110000):
        character = chr(code)
        if variant.BREAK.match(character):
            classes[code] = kernels.BREAK
        elif variant.TOKEN.match(character):
            classes[code] = kernels.LETTER
        elif character in variant.JOINERS:
            classes[code] = kernels.JOINER
    return classes
