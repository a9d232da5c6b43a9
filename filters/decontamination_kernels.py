"""Kernels of decontamination: UTF-8 bytes to word hashes, word n-grams to a table, and the look-up of a batch.

A word is a run of letters and digits with case and accents folded away: a character does to the running hash what
``Folding`` says of it (multiply, add), so characters that fold to two, as the ligature of f and i, cost no more. An
n-gram's key is the polynomial of its words' hashes, 64 bits. That two n-grams share a key is not looked for: with ten
million of them a stray hit comes once in 10¹² words, and one hit is no evidence.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

import functools
import unicodedata
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from filters.byte_kernels import I32, I64, U8, U64, code_at, mixed

F32 = npt.NDArray[np.float32]

CODE_POINTS = 0x110000
INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Soft hyphen, joiners and the like: they may stand within a word."""
_CHARACTER, _WORD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_SPREAD = np.uint64(0xFF51AFD7ED558CCD)
_ONE, _SIX = np.uint64(1), np.uint64(6)


class Folding(NamedTuple):
    """By code point, what it does to a word's hash: ``hash * multiply + add``. ``multiply`` is 0 between words."""

    multiply: U64
    add: U64


class ItemTable(NamedTuple):
    """All evaluation items, as arrays; words are counted through over all items."""

    bits: U64
    """A bit per hashed key, to turn away most words of a text with one look: 16 bits a key or more."""
    keys: U64
    """Open addressing: the n-gram's key ..."""
    groups: I32
    """... and its number, -1 in a free slot."""
    borders: I64
    """By n-gram: where its places begin in ``places``; one more at the end."""
    places: I32
    """Word numbers at which an n-gram begins."""
    items: I32
    """By word: its item."""
    asks: U8
    """By word: 1 in the question, 0 in an option."""
    weighs: U8
    """By word: 1 if some n-gram that is evidence covers it."""
    totals: I32
    """[items, 2]: words that weigh, in the question and in the whole item."""
    lengths: I32
    """By item: the words of its n-grams, fewer than n in a short item."""
    distinct_lengths: I64
    """Those that occur, sorted."""


class Passages(NamedTuple):
    """Scratch of a batch: by item, the passage of a text that is being matched with it. All zero at the start.

    Passages are numbered through the batch, so nothing need be cleared between texts.
    """

    covered: I32
    """By word: the passage that covered it last."""
    current: I32
    """By item: its passage."""
    last_seen: I64
    """By item: the word of the text at which its last n-gram ended."""
    counts: I32
    """[items, 2]: words that the passage covers, in the question and in the whole item."""


@functools.cache
def folding() -> Folding:
    """The folding of every code point; made once per process, in a second."""
    multiply, add = np.zeros(CODE_POINTS, np.uint64), np.zeros(CODE_POINTS, np.uint64)
    base, mask = int(_CHARACTER), (1 << 64) - 1
    for code in range(CODE_POINTS):
        character = chr(code)
        if character.isalnum():
            factor, term = 1, 0
            for each in fold(character):
                factor, term = factor * base & mask, (term * base + ord(each) + 1) & mask
            multiply[code], add[code] = factor if term else 0, term
        elif is_skipped(character):
            multiply[code] = 1
    return Folding(multiply, add)


def fold(character: str) -> str:
    """What a character is in a folded word: ``fold("É") == "e"``; empty for one that is in no word."""
    if not character.isalnum():
        return ""
    if character.isascii():
        return character.lower()
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(each for each in plain if each.isalnum())


def is_skipped(character: str) -> bool:
    """Whether a word goes on over this character as if it were not there: accents written apart, soft hyphens."""
    return unicodedata.category(character) == "Mn" or character in INVISIBLE


@numba.njit(cache=True, nogil=True)
def word_hashes(data: U8, start: int, end: int, folding: Folding, hashes: U64, at: int) -> int:
    """Writes the hashes of a text's words from ``hashes[at]`` on; returns where they end."""
    value, inside, i = np.uint64(0), False, start
    while i < end:
        code, step = np.int64(data[i]), 1
        if code >= 0x80:
            code, step = code_at(data, i)
        i += step
        factor = folding.multiply[code]
        if factor:
            add = folding.add[code]
            inside |= add != 0
            value = value * factor + add
        elif inside:
            hashes[at] = mixed(value, _WORD)
            at += 1
            value, inside = np.uint64(0), False
        else:
            value = np.uint64(0)
    if inside:
        hashes[at] = mixed(value, _WORD)
        at += 1
    return at


@numba.njit(cache=True, nogil=True)
def hash_texts(data: U8, offsets: I64, folding: Folding, hashes: U64, borders: I64) -> None:
    """The words of many texts one after the other; ``borders`` gets where each text's words begin."""
    for k in range(offsets.shape[0] - 1):
        borders[k + 1] = word_hashes(data, offsets[k], offsets[k + 1], folding, hashes, borders[k])


@numba.njit(cache=True, nogil=True)
def power(n: int) -> np.uint64:
    value = _ONE
    for _ in range(n):
        value *= _WORD
    return value


@numba.njit(cache=True, nogil=True)
def grams_of(hashes: U64, borders: I64, lengths: I64, keys: U64, places: I32) -> int:
    """The n-grams within each stretch of words: their keys and first words; returns how many."""
    count = 0
    for k in range(lengths.shape[0]):
        n, key = lengths[k], np.uint64(0)
        if borders[k + 1] - borders[k] < n:
            continue
        top = power(n)
        for i in range(borders[k], borders[k + 1]):
            key = key * _WORD + hashes[i]
            if i - borders[k] >= n:
                key -= top * hashes[i - n]
            if i - borders[k] >= n - 1:
                keys[count], places[count] = key, i - n + 1
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def mark_common(borders: I64, places: I32, items: I32, most_items: int, kept: U8) -> None:
    """``kept`` becomes 0 for n-grams of more than ``most_items`` items; places are sorted within an n-gram."""
    for group in range(borders.shape[0] - 1):
        different, last = 0, -1
        for j in range(borders[group], borders[group + 1]):
            item = items[places[j]]
            different += item != last
            last = item
        kept[group] = different <= most_items


@numba.njit(cache=True, nogil=True)
def weigh(borders: I64, places: I32, items: I32, lengths: I32, weighs: U8) -> None:
    """Marks the words that the n-grams cover."""
    for j in range(borders[-1]):
        for word in range(places[j], places[j] + lengths[items[places[j]]]):
            weighs[word] = 1


@numba.njit(cache=True, nogil=True)
def fill_table(keys: U64, slots: U64, groups: I32, bits: U64) -> None:
    """Puts every n-gram into the table and its bit into the filter."""
    mask, bit_mask = np.uint64(slots.shape[0] - 1), np.uint64(bits.shape[0] * 64 - 1)
    for group in range(keys.shape[0]):
        spread = keys[group] * _SPREAD
        bit = (spread >> np.uint64(20)) & bit_mask
        bits[bit >> _SIX] |= _ONE << (bit & np.uint64(63))
        slot = (spread >> np.uint64(32)) & mask
        while groups[slot] >= 0:
            slot = (slot + _ONE) & mask
        slots[slot], groups[slot] = keys[group], group


@numba.njit(cache=True, nogil=True)
def find(table: ItemTable, key: np.uint64) -> int:
    """The number of an n-gram, -1 for one that no item has."""
    spread = key * _SPREAD
    bit = (spread >> np.uint64(20)) & np.uint64(table.bits.shape[0] * 64 - 1)
    if (table.bits[bit >> _SIX] >> (bit & np.uint64(63))) & _ONE == 0:
        return -1
    mask = np.uint64(table.keys.shape[0] - 1)
    slot = (spread >> np.uint64(32)) & mask
    while table.groups[slot] >= 0:
        if table.keys[slot] == key:
            return np.int64(table.groups[slot])
        slot = (slot + _ONE) & mask
    return -1


def new_passages(table: ItemTable) -> Passages:
    """The scratch of one batch; made by NumPy, whose zeros cost nothing until they are touched."""
    words, items = len(table.items), len(table.totals)
    counts = np.zeros((items, 2), np.int32)
    return Passages(np.zeros(words, np.int32), np.zeros(items, np.int32), np.zeros(items, np.int64), counts)


@numba.njit(cache=True, nogil=True)
def look_up(
    data: U8,
    offsets: I64,
    folding: Folding,
    table: ItemTable,
    passages: Passages,
    fewest_words: int,
    widest_gap: int,
    scores: F32,
    found: I32,
) -> None:
    """The highest share of an item's words that each text holds, and that item; -1 where there is none.

    Words of an item count together only while the n-grams shared with it follow one another within ``widest_gap`` words
    of the text; ``fewest_words`` of them must come together. Of equal shares the first item's is taken.
    """
    longest = 0
    for k in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    hashes = np.empty(longest // 2 + 2, np.uint64)
    covered, current, counts = passages.covered, passages.current, passages.counts
    latest = 0
    for k in range(offsets.shape[0] - 1):
        words = word_hashes(data, offsets[k], offsets[k + 1], folding, hashes, 0)
        best, best_item = 0.0, -1
        for n in table.distinct_lengths:
            key, top = np.uint64(0), power(n)
            before = latest
            for i in range(words):
                key = key * _WORD + hashes[i]
                if i >= n:
                    key -= top * hashes[i - n]
                if i < n - 1:
                    continue
                group = find(table, key)
                if group < 0:
                    continue
                for j in range(table.borders[group], table.borders[group + 1]):
                    place = table.places[j]
                    item = table.items[place]
                    if table.lengths[item] != n:
                        continue
                    if current[item] <= before or i - passages.last_seen[item] > widest_gap:
                        latest += 1
                        current[item] = latest
                        counts[item, 0] = counts[item, 1] = 0
                    passages.last_seen[item] = i
                    for word in range(place, place + n):
                        if covered[word] != current[item]:
                            covered[word] = current[item]
                            counts[item, 0] += table.asks[word]
                            counts[item, 1] += 1
                    for part in range(2):
                        if counts[item, part] >= fewest_words:
                            share = counts[item, part] / table.totals[item, part]
                            if share > best or (share == best and item < best_item):
                                best, best_item = share, item
        scores[k], found[k] = best, best_item


@numba.njit(cache=True, nogil=True)
def count_weights(items: I32, asks: U8, weighs: U8, totals: I32) -> None:
    """Words that weigh, by item: in the question, and in all."""
    for word in range(items.shape[0]):
        if weighs[word]:
            totals[items[word], 0] += asks[word]
            totals[items[word], 1] += 1
