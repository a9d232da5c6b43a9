"""Kernels of the word table: white-space chunk → token ids, token id → length and kind.

A chunk met for the first time is divided here when it is a plain word (``plain_chunks``), and noted as unknown
otherwise. Where hashes are equal, bytes are compared. ``filters.word_table`` owns the arrays.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

from typing import Any, NamedTuple

import numba
import numpy as np

from filters.byte_kernels import (
    I32,
    I64,
    SHIFT,
    U8,
    U64,
    code_at,
    eight_bytes,
    ends_in_ellipsis,
    equal,
    hash_of,
    mixed,
    spelling,
)
from filters.plain_chunks import plain_tokens

ALPHA, PUNCTUATION, TERMINAL, UPPER, SENTENCE_MARK, CLOSER, BROKEN_LEAD, BROKEN_TAIL = 1, 2, 4, 8, 16, 32, 64, 128
"""Kinds of a code point, as bits."""
DONE, UNKNOWN, UNFIT, ACROSS = 0, 1, 2, 3
"""What became of a text: measured; holds chunks that are still unknown; to be measured without these kernels; to be
divided without them, as tokens may be joined across a blank."""

INLINE = 16
LENGTH_BITS = np.uint64(20)
LENGTH_MASK = np.uint64((1 << 20) - 1)
JOINED = np.uint64(1 << 62)
IS_WORD, IS_ALPHA, IS_FUNCTION_WORD, IS_CAPITAL = (np.uint64(1 << bit) for bit in (40, 41, 42, 43))
LETTERS_BITS, LETTERS_MASK = np.uint64(44), np.uint64((1 << 16) - 1)
IS_ELLIPSIS, IS_BROKEN = np.uint64(1 << 62), np.uint64(1 << 63)
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


class Tables(NamedTuple):
    """The arrays of a word table.

    Three open-addressing tables of four numbers a slot: the key's bytes where it has up to 16 of them, else its hash
    and its last eight; length | place in ``pool`` << 20, 0 for a free slot; value. ``used`` counts, in this order:
    chunks, tokens, bytes of ``pool``, numbers of ``spans``.

    Value of a chunk: 0 while unknown; else how many tokens | (the token's id if it is one, else their place in
    ``spans``) << 20 | JOINED. In ``spans``, two ids precede those of a JOINED chunk: its first and last token as they
    were before spaCy joined some.
    """

    chunks: U64
    tokens: U64
    rules: U64
    pool: U8
    spans: I32
    info: U64
    """By token id two numbers. The first: bytes | characters << 20 | letters << 44, and in bits: whether it is a word
    (not punctuation alone), holds a letter, is a function word (set by ``word_table``), begins with a capital, ends in
    an ellipsis, holds a broken character. The second: its ``spelling``."""
    used: I64
    neighbours: U64
    """Pairs of token ids, sorted, that some special case holds one after the other."""
    kinds: U8
    """By code point: the bits above."""


@numba.njit(cache=True, nogil=True)
def key_of(data: U8, start: int, length: int) -> tuple[np.uint64, np.uint64]:
    """The two numbers that stand for a key; ``data`` goes on for 16 bytes behind it."""
    if length <= 8:
        return eight_bytes(data, start) & (_ONES >> np.uint64(64 - 8 * length)), np.uint64(0)
    if length <= INLINE:
        return eight_bytes(data, start), eight_bytes(data, start + 8) & (_ONES >> np.uint64(128 - 8 * length))
    return hash_of(data, start, start + length), eight_bytes(data, start + length - 8)


@numba.njit(cache=True, nogil=True)
def home_of(first: np.uint64, second: np.uint64, length: np.uint64, slots: int) -> int:
    return np.int64(mixed(first, second ^ (length << np.uint64(57))) & np.uint64(slots - 1))


@numba.njit(cache=True, nogil=True)
def _slot_of(slots: U64, pool: U8, data: U8, start: int, length: int, first: np.uint64, second: np.uint64) -> int:
    """Where a key is, or the free slot where it belongs."""
    home = home_of(first, second, np.uint64(length), slots.shape[0])
    return _slot_from(home, slots, pool, data, start, length, first, second)


@numba.njit(cache=True, nogil=True)
def _slot_from(
    slot: int, slots: U64, pool: U8, data: U8, start: int, length: int, first: np.uint64, second: np.uint64
) -> int:
    """The same, where it is known where to begin."""
    while True:
        meta = slots[slot, 2]
        if meta == 0:
            return slot
        if (
            slots[slot, 0] == first
            and slots[slot, 1] == second
            and (meta & LENGTH_MASK) == np.uint64(length)
            and (length <= INLINE or equal(data, start, pool, np.int64(meta >> LENGTH_BITS), length))
        ):
            return slot
        slot = (slot + 1) & (slots.shape[0] - 1)


@numba.njit(cache=True, nogil=True)
def _insert(
    slots: U64, slot: int, tables: Tables, data: U8, start: int, length: int, first: np.uint64, second: np.uint64
) -> None:
    place = np.int64(0)
    if length > INLINE:
        place = tables.used[2]
        for j in range(length):
            tables.pool[place + j] = data[start + j]
        tables.used[2] += length
    slots[slot, 0], slots[slot, 1] = first, second
    slots[slot, 2] = np.uint64(length) | (np.uint64(place) << LENGTH_BITS)
    slots[slot, 3] = np.uint64(0)


@numba.njit(cache=True, nogil=True)
def has_room(tables: Tables, chunk_bytes: int) -> bool:
    """Whether a chunk of so many bytes and its tokens would fit, however it is divided."""
    return bool(
        2 * tables.used[0] < tables.chunks.shape[0]
        and 2 * (tables.used[1] + min(chunk_bytes, 8)) < tables.tokens.shape[0]
        and tables.used[1] + min(chunk_bytes, 8) < tables.info.shape[0]
        and tables.used[2] + 4 * chunk_bytes < tables.pool.shape[0]
        and tables.used[3] + chunk_bytes + 8 < tables.spans.shape[0]
    )


@numba.njit(cache=True, nogil=True)
def rehash(old: U64, new: U64) -> None:
    """Puts every entry of one table into a larger one."""
    for i in range(old.shape[0]):
        if old[i, 2] == 0:
            continue
        slot = home_of(old[i, 0], old[i, 1], old[i, 2] & LENGTH_MASK, new.shape[0])
        while new[slot, 2] != 0:
            slot = (slot + 1) & (new.shape[0] - 1)
        for j in range(4):
            new[slot, j] = old[i, j]


@numba.njit(cache=True, nogil=True)
def intern(tables: Tables, data: U8, start: int, length: int) -> int:
    """The id of a token, a new one for a new token; ``data`` goes on for 16 bytes behind it."""
    first, second = key_of(data, start, length)
    slot = _slot_of(tables.tokens, tables.pool, data, start, length, first, second)
    if tables.tokens[slot, 2] != 0:
        return np.int64(tables.tokens[slot, 3])
    _insert(tables.tokens, slot, tables, data, start, length, first, second)
    identity = tables.used[1]
    tables.used[1] += 1
    tables.tokens[slot, 3] = np.uint64(identity)
    characters, letters, word, capital, broken, before, i = 0, 0, False, False, False, 0, start
    while i < start + length:
        code, step = code_at(data, i)
        kind = tables.kinds[code]
        word |= (kind & PUNCTUATION) == 0
        letters += (kind & ALPHA) != 0
        if i == start:
            capital = (kind & UPPER) != 0
        broken |= code == 0xFFFD or ((kind & BROKEN_TAIL) != 0 and (before & BROKEN_LEAD) != 0)
        before = kind
        characters += 1
        i += step
    info = np.uint64(length) | (np.uint64(characters) << LENGTH_BITS) | (np.uint64(letters) << LETTERS_BITS)
    if word:
        info |= IS_WORD
    if letters:
        info |= IS_ALPHA
    if capital:
        info |= IS_CAPITAL
    if broken:
        info |= IS_BROKEN
    if ends_in_ellipsis(data, start, start + length):
        info |= IS_ELLIPSIS
    tables.info[identity, 0], tables.info[identity, 1] = info, spelling(data, start, start + length)
    return identity


@numba.njit(cache=True, nogil=True)
def intern_all(tables: Tables, data: U8, borders: I64, ids: I32) -> None:
    """The ids of many tokens; ``data`` goes on for 16 bytes behind them, and the tables have room."""
    for k in range(borders.shape[0] - 1):
        ids[k] = intern(tables, data, borders[k], borders[k + 1] - borders[k])


@numba.njit(cache=True, nogil=True)
def add_rules(tables: Tables, data: U8, borders: I64) -> None:
    """The texts of all special cases."""
    for k in range(borders.shape[0] - 1):
        length = borders[k + 1] - borders[k]
        first, second = key_of(data, borders[k], length)
        slot = _slot_of(tables.rules, tables.pool, data, borders[k], length, first, second)
        _insert(tables.rules, slot, tables, data, borders[k], length, first, second)


@numba.njit(cache=True, nogil=True)
def add_chunks(
    tables: Tables, begin: int, chunks: U8, borders: I64, tokens: U8, token_borders: I64, firsts: I64, joined: U8
) -> int:
    """Makes chunks known from number ``begin`` on; returns the number of the first for which there is no room.

    Args:
        tables: what to add to.
        begin: the first chunk to add.
        chunks: bytes of all chunks, with 16 more behind.
        borders: of the chunks in ``chunks``.
        tokens: bytes of the tokens of all chunks, with 16 more behind.
        token_borders: of the tokens in ``tokens``.
        firsts: the number of each chunk's first token; one more at the end.
        joined: 1 for a chunk whose first two tokens are those before joining.
    """
    for k in range(begin, borders.shape[0] - 1):
        count = firsts[k + 1] - firsts[k]
        if not has_room(tables, borders[k + 1] - borders[k]) or 2 * (tables.used[1] + count) > tables.tokens.shape[0]:
            return k
        if tables.used[1] + count > tables.info.shape[0]:
            return k
        place = tables.used[3]
        for j in range(count):
            at = firsts[k] + j
            length = token_borders[at + 1] - token_borders[at]
            tables.spans[place + j] = intern(tables, tokens, token_borders[at], length)
        value = np.uint64(count)
        if joined[k]:
            value = np.uint64(count - 2) | JOINED | (np.uint64(place) << LENGTH_BITS)
            tables.used[3] += count
        elif count == 1:
            value |= np.uint64(tables.spans[place]) << LENGTH_BITS
        else:
            value |= np.uint64(place) << LENGTH_BITS
            tables.used[3] += count
        start, size = borders[k], borders[k + 1] - borders[k]
        first, second = key_of(chunks, start, size)
        slot = _slot_of(tables.chunks, tables.pool, chunks, start, size, first, second)
        if tables.chunks[slot, 2] == 0:
            _insert(tables.chunks, slot, tables, chunks, start, size, first, second)
            tables.used[0] += 1
        tables.chunks[slot, 3] = value
    return np.int64(borders.shape[0] - 1)


@numba.njit(cache=True, nogil=True)
def _is_rule(tables: Tables, data: U8, start: int, end: int) -> bool:
    first, second = key_of(data, start, end - start)
    slot = _slot_of(tables.rules, tables.pool, data, start, end - start, first, second)
    return bool(tables.rules[slot, 2] != 0)


@numba.njit(cache=True, nogil=True)
def _holds_rule(tables: Tables, data: U8, borders: I64, count: int, stem: int) -> bool:
    """Whether the word of a plain chunk, or several of its tokens in a row, are a special case."""
    for a in range(count):
        for b in range(a + 1, count + 1):
            if (a + 1 < b or a == stem) and _is_rule(tables, data, borders[a], borders[b]):
                return True
    return False


@numba.njit(cache=True, nogil=True)
def _learned(tables: Tables, slot: int, data: U8, start: int, length: int, borders: I64) -> np.uint64:
    """Reads a new chunk if it is a plain one and notes its value; 0 if spaCy has to look at it."""
    count, stem = plain_tokens(data, start, start + length, borders)
    if count == 0 or _holds_rule(tables, data, borders, count, stem):
        return np.uint64(0)
    place, identity = tables.used[3], 0
    for j in range(count):
        identity = intern(tables, data, borders[j], borders[j + 1] - borders[j])
        tables.spans[place + j] = identity
    if count == 1:
        value = np.uint64(1) | (np.uint64(identity) << LENGTH_BITS)
    else:
        value = np.uint64(count) | (np.uint64(place) << LENGTH_BITS)
        tables.used[3] += count
    tables.chunks[slot, 3] = value
    return value


@numba.njit(cache=True, nogil=True)
def _contains(ascending: U64, value: np.uint64) -> bool:
    low, high = 0, ascending.shape[0]
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < ascending.shape[0] and ascending[low] == value


class Work(NamedTuple):
    """Room for one text; made for the longest of a batch."""

    compact: U8
    """The text without its white space, 32 bytes behind."""
    ids: I32
    starts: I64
    """``starts[k, 0]``, ``starts[k, 1]``: bytes and characters of all tokens before token k."""
    prefixes: U64
    """``prefixes[k]``: the ``spelling`` of all tokens before token k, joined."""
    pieces: I32
    """Begin and end (from the text's start) of what lies between line breaks, where that is not empty, and 1 if it is
    blank."""
    edges: I64
    """Of the text without the white space around it: begin and end; then how many pieces, tokens, chunks."""
    borders: I64
    chunks: I64
    """Place in ``compact``, bytes and place in the batch of every chunk."""
    keys: U64
    """The two numbers of every chunk's key, and the slot where to begin to look for it."""


@numba.njit(cache=True, nogil=True)
def look_up(tables: Tables, work: Work, missing: I64) -> int:
    """The token ids of the scanned text; returns DONE, UNKNOWN, ACROSS, or -1 where a table has no room."""
    compact, ids, tokens, status = work.compact, work.ids, 0, DONE
    before, before_joined, before_any = np.uint64(0), False, False
    for k in range(work.edges[4]):
        at, length = np.int64(work.chunks[k, 0]), np.int64(work.chunks[k, 1])
        first, second = work.keys[k, 0], work.keys[k, 1]
        slot = _slot_from(np.int64(work.keys[k, 2]), tables.chunks, tables.pool, compact, at, length, first, second)
        value = tables.chunks[slot, 3]
        if tables.chunks[slot, 2] == 0:
            if missing[0, 0] == missing.shape[0] - 1 or not has_room(tables, length):
                return -1
            _insert(tables.chunks, slot, tables, compact, at, length, first, second)
            tables.used[0] += 1
            value = _learned(tables, slot, compact, at, length, work.borders)
            if value == 0:
                missing[0, 0] += 1
                start = work.chunks[k, 2]
                missing[missing[0, 0], 0], missing[missing[0, 0], 1] = start, start + length
        if value == 0:
            status = UNKNOWN
        elif status == DONE:
            count = np.int64(value & LENGTH_MASK)
            joined = (value & JOINED) != 0
            place = np.int64((value & ~JOINED) >> LENGTH_BITS)
            if count == 1 and not joined:
                ids[tokens] = place
            else:
                if joined:
                    place += 2
                for j in range(count):
                    ids[tokens + j] = tables.spans[place + j]
            if before_joined or joined:
                left = np.uint64(tables.spans[place - 2] if joined else ids[tokens])
                if before_any and _contains(tables.neighbours, (before << SHIFT) | left):
                    return ACROSS
            tokens += count
            before = np.uint64(tables.spans[place - 1] if joined else ids[tokens - 1])
            before_joined, before_any = joined, True
    work.edges[3] = tokens
    return status


def new_slots(count: int) -> U64:
    """An empty open-addressing table in which no slot lies on two cache lines."""
    room = np.zeros(4 * count + 8, np.uint64)
    begin = (-room.ctypes.data % 64) // 8
    return room[begin : begin + 4 * count].reshape(count, 4)


def new_tables(shapes: dict[str, int], kinds: U8) -> Any:
    """Empty arrays of these sizes; those of tables are powers of two."""
    return Tables(
        chunks=new_slots(shapes["chunks"]),
        tokens=new_slots(shapes["tokens"]),
        rules=new_slots(1 << 11),
        pool=np.zeros(shapes["pool"], np.uint8),
        spans=np.zeros(shapes["spans"], np.int32),
        info=np.zeros((shapes["info"], 2), np.uint64),
        used=np.zeros(4, np.int64),
        neighbours=np.zeros(0, np.uint64),
        kinds=kinds,
    )
