"""Kernels of ``filters.variant_batch``: a text's tokens, what is known of each, and what they say about the variant.

A token is what ``variant.TOKEN`` matches. What is known of it stands in a table, put there once by Python; the rules of
``variant._syntax`` are here over flags. Equal hashes are not trusted: bytes are compared.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

from typing import NamedTuple

import numba
import numpy as np

from filters.byte_kernels import I32, I64, U8, U64, code_at

# What a code point is.
LETTER, BREAK, JOINER = 1, 2, 4

# What is known of a token, as bits.
UNKNOWN = 1 << 0
OLD, WANTED, NAME = 1 << 1, 1 << 2, 1 << 3  # WANTED: one of the words that Portuguese has and its neighbours have not
HEAD, SECOND = 1 << 4, 1 << 5  # of phrases
ARTICLE, LETTER_A, INFINITIVE, GERUND, CLITIC = 1 << 6, 1 << 7, 1 << 8, 1 << 9, 1 << 10
POSSESSIVE, BE, GO_ON, GO, AUXILIARY, PROCLITIC = 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16
BREAKS = 1 << 17
FLAG_BITS = 20
ID_BITS = 20
"""A value: flags | (feature + 1) << FLAG_BITS | (feature of the enclitic + 1) << (FLAG_BITS + ID_BITS)."""
_FLAGS, _ID = (1 << FLAG_BITS) - 1, (1 << ID_BITS) - 1
_COUNTED = OLD | WANTED | HEAD | POSSESSIVE | BE | GO_ON | GO | AUXILIARY | PROCLITIC

ARTICLE_POSSESSIVE, BARE_POSSESSIVE, BE_A, GO_ON_A, BE_GERUND, GO_GERUND, BETWEEN, AT_START, BEFORE_VERB = range(9)
"""Places of these features in ``Rules``."""
TOKENS, BREAK_TOKENS, OLD_TOKENS, WANTED_TOKENS = range(4)
"""Columns of the totals."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_SEED = np.uint64(0x243F6A8885A308D3)


class TokenTable(NamedTuple):
    """Open addressing: hash, place in ``pool``, length (0 for a free slot), value. ``used``: tokens, bytes of pool."""

    slots: U64
    pool: U8
    used: I64


@numba.njit(cache=True, nogil=True)
def _home(value: np.uint64, slots: int) -> int:
    return np.int64((value ^ (value >> np.uint64(29))) & np.uint64(slots - 1))


@numba.njit(cache=True, nogil=True)
def _slot_of(table: TokenTable, data: U8, start: int, end: int, value: np.uint64) -> int:
    """Where a token is, or the free slot where it belongs."""
    slots, pool, length = table.slots, table.pool, end - start
    slot = _home(value, slots.shape[0])
    while True:
        if slots[slot, 2] == 0:
            return slot
        if slots[slot, 0] == value and slots[slot, 2] == np.uint64(length):
            place, same = np.int64(slots[slot, 1]), True
            for j in range(length):
                if pool[place + j] != data[start + j]:
                    same = False
                    break
            if same:
                return slot
        slot = (slot + 1) & (slots.shape[0] - 1)


@numba.njit(cache=True, nogil=True)
def has_room(used: I64, num_slots: int, num_bytes: int, size: int) -> bool:
    """Whether a table of so many slots, and of so many bytes in its pool, can take any text of ``size`` bytes."""
    return bool(2 * (used[0] + size // 2 + 1) <= num_slots and used[1] + size <= num_bytes)


@numba.njit(cache=True, nogil=True)
def rehash(old: U64, new: U64) -> None:
    for i in range(old.shape[0]):
        if old[i, 2] == 0:
            continue
        slot = _home(old[i, 0], new.shape[0])
        while new[slot, 2] != 0:
            slot = (slot + 1) & (new.shape[0] - 1)
        for j in range(4):
            new[slot, j] = old[i, j]


@numba.njit(cache=True, nogil=True)
def tokenise(
    data: U8,
    start: int,
    end: int,
    classes: U8,
    table: TokenTable,
    spans: I64,
    first: int,
    values: U64,
    missing: I64,
    num_missing: int,
) -> tuple[int, int, bool]:
    """The tokens of a text: spans and slots from row ``first`` on, and what is known; unknown ones go to ``missing``.

    Returns how many tokens, how many rows of ``missing`` are filled then, and whether all are known. The table and
    ``missing`` must have room for as many tokens as the text has bytes, or all of these tokens must be known.
    """
    slots, known, count, i = table.slots, True, 0, start
    while i < end:
        byte = data[i]
        if byte < 0x80:
            code, width = np.int64(byte), 1
        else:
            code, width = code_at(data, i)
        kind = classes[code]
        if kind & LETTER == 0:
            if kind & BREAK:
                spans[first + count, 0], spans[first + count, 1], spans[first + count, 2] = i, i + width, -1
                values[count] = BREAKS
                count += 1
            i += width
            continue
        begin, value = i, _SEED
        while True:
            for j in range(i, i + width):
                value = (value ^ np.uint64(data[j])) * _PRIME
            i += width
            if i >= end:
                break
            code, width = code_at(data, i)
            kind = classes[code]
            if kind & LETTER:
                continue
            if kind & JOINER == 0 or i + width >= end:
                break
            after, _ = code_at(data, i + width)
            if classes[after] & LETTER == 0:
                break
        slot = _slot_of(table, data, begin, i, value)
        if slots[slot, 2] == 0:
            place = table.used[1]
            for j in range(begin, i):
                table.pool[place + j - begin] = data[j]
            slots[slot, 0], slots[slot, 1] = value, np.uint64(place)
            slots[slot, 2], slots[slot, 3] = np.uint64(i - begin), np.uint64(UNKNOWN)
            table.used[0] += 1
            table.used[1] += i - begin
            missing[num_missing, 0], missing[num_missing, 1], missing[num_missing, 2] = slot, begin, i
            num_missing += 1
        found = slots[slot, 3]
        known &= found & np.uint64(UNKNOWN) == 0
        spans[first + count, 0], spans[first + count, 1], spans[first + count, 2] = begin, i, slot
        values[count] = found
        count += 1
    return count, num_missing, known


@numba.njit(cache=True, nogil=True)
def _syntax_of(flags: int, before: int, first: int, second: int, starts: bool, has_next: bool) -> tuple[int, int]:
    """Which features of the rules a token and its neighbours show: at most one of each of two kinds, -1 for none."""
    possessive, other = -1, -1
    if flags & POSSESSIVE:
        possessive = ARTICLE_POSSESSIVE if before & ARTICLE else BARE_POSSESSIVE
    infinitive_after_a = bool(first & LETTER_A) and bool(second & INFINITIVE)
    if flags & BE and infinitive_after_a:
        other = BE_A
    elif flags & GO_ON and infinitive_after_a:
        other = GO_ON_A
    elif flags & (BE | GO_ON) and first & GERUND:
        other = BE_GERUND
    elif flags & GO and first & GERUND:
        other = GO_GERUND
    elif flags & AUXILIARY and first & CLITIC and second & (INFINITIVE | GERUND):
        other = BETWEEN
    elif flags & PROCLITIC:
        other = AT_START if starts and has_next else BEFORE_VERB
    return possessive, other


@numba.njit(cache=True, nogil=True)
def find(
    data: U8,
    borders: I64,
    todo: I64,
    begin: int,
    classes: U8,
    table: TokenTable,
    rules: I32,
    spans: I64,
    values: U64,
    missing: I64,
    firsts: I64,
    totals: I64,
    sightings: I64,
    status: U8,
) -> tuple[int, int, int]:
    """Sightings in the texts numbered ``todo[begin:]``, as far as there is room.

    Args:
        data: bytes of all texts.
        borders: of the texts in ``data``.
        todo: numbers of texts.
        begin: where in ``todo`` to begin.
        classes: LETTER, BREAK, JOINER by code point.
        table: of tokens.
        rules: ids of the features of the rules, in their order.
        spans: out; begin and end in ``data`` of each token, and its slot in the table.
        values: room for one text.
        missing: out; slot, begin and end of each unknown token.
        firsts: out; by text, its first row of ``spans`` and the row behind its last.
        totals: out; by text, the columns above.
        sightings: out; rows of text and feature; of text and -1 - row of ``spans`` where a phrase may begin.
        status: out; 1 for a text with unknown tokens.

    Returns:
        Where in ``todo`` it stopped, and how many rows of ``missing`` and ``sightings`` are filled.
    """
    num_missing, num_sightings, num_tokens = 0, 0, 0
    for k in range(begin, todo.shape[0]):
        text = todo[k]
        start, end = borders[text], borders[text + 1]
        size = end - start
        if (
            num_tokens + size > spans.shape[0]
            or num_missing + size // 2 + 1 > missing.shape[0]
            or num_sightings + 2 * size > sightings.shape[0]
            or not has_room(table.used, table.slots.shape[0], table.pool.shape[0], size)
        ):
            return k, num_missing, num_sightings
        first_row = num_tokens
        tokens, num_missing, known = tokenise(
            data, start, end, classes, table, spans, first_row, values, missing, num_missing
        )
        status[text] = 0 if known else 1
        if not known:
            continue
        num_tokens += tokens
        firsts[text, 0], firsts[text, 1] = first_row, num_tokens
        breaks = old = wanted = 0
        for j in range(tokens):
            value = np.int64(values[j])
            flags, feature = value & _FLAGS, ((value >> FLAG_BITS) & _ID) - 1
            if flags & BREAKS:
                breaks += 1
                continue
            if feature < 0 and flags & _COUNTED == 0 and value >> (FLAG_BITS + ID_BITS) == 0:
                continue
            before = np.int64(values[j - 1]) if j else BREAKS
            starts = before & BREAKS != 0
            first = np.int64(values[j + 1]) if j + 1 < tokens else 0
            second = np.int64(values[j + 2]) if j + 2 < tokens else 0
            wanted += flags & WANTED != 0
            if starts or flags & NAME == 0:
                if flags & OLD:
                    old += 1
                elif feature >= 0:
                    sightings[num_sightings, 0], sightings[num_sightings, 1] = text, feature
                    num_sightings += 1
            if flags & HEAD and first & SECOND:
                sightings[num_sightings, 0], sightings[num_sightings, 1] = text, -1 - (first_row + j)
                num_sightings += 1
            enclitic = (value >> (FLAG_BITS + ID_BITS)) - 1
            if enclitic >= 0:
                sightings[num_sightings, 0], sightings[num_sightings, 1] = text, enclitic
                num_sightings += 1
            else:
                possessive, other = _syntax_of(flags, before, first, second, starts, j + 1 < tokens)
                if possessive >= 0:
                    sightings[num_sightings, 0], sightings[num_sightings, 1] = text, rules[possessive]
                    num_sightings += 1
                if other >= 0:
                    sightings[num_sightings, 0], sightings[num_sightings, 1] = text, rules[other]
                    num_sightings += 1
        totals[text, TOKENS], totals[text, BREAK_TOKENS] = tokens, breaks
        totals[text, OLD_TOKENS], totals[text, WANTED_TOKENS] = old, wanted
    return todo.shape[0], num_missing, num_sightings
