"""Spans of units, compiled: their hashes, which of them are repeats, and texts without those.

A unit is a sentence or a line (``filters.dedup.sentences``). It is compared as its words in order: runs of letters,
marks and digits, in small letters and without accents; digits stay. A span is ``length`` units with words in a row;
units without words (``* * *``) do not count and go with a span that goes on both sides of them.

A span has 96 bits, 64 to sort by and 32 that must agree too, as what is taken for a repeat is lost. Among n spans about
n² / 2^97 pairs are equal by chance: of 2.6 · 10⁹ documents with 30 spans each, 4 · 10⁻⁸ pairs. With 64 bits it would
be 165.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from filters.byte_kernels import I64, U8, U64, code_at, mixed
from filters.dedup.folded_words import BREAK, MULTIPLIER, SKIP

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

_KEY_SEED, _CHECK_SEED = np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)
_CHECK_MULTIPLIER = np.uint64(0xD1342543DE82EF95)
_BETWEEN_WORDS = np.uint64(32)
_NEWLINE = 10
_BEYOND = 1 << 16


@numba.njit(cache=True, nogil=True)
def hashes(data: U8, borders: I64, fold: U16) -> tuple[U64, U64, I64]:
    """For each unit two independent hashes of its words, and how many they are."""
    keys, checks = np.empty(len(borders), np.uint64), np.empty(len(borders), np.uint64)
    words = np.zeros(len(borders), np.int64)
    for unit in range(len(borders)):
        key, check, inside, i = _KEY_SEED, _CHECK_SEED, False, borders[unit, 0]
        while i < borders[unit, 1]:
            code, step = code_at(data, i)
            i += step
            folded = fold[code] if code < _BEYOND else np.uint16(BREAK)
            if folded == SKIP:
                continue
            if folded == BREAK:
                inside = False
                continue
            if not inside:
                inside = True
                words[unit] += 1
                key = (key ^ _BETWEEN_WORDS) * MULTIPLIER
                check = (check ^ _BETWEEN_WORDS) * _CHECK_MULTIPLIER
            key = (key ^ np.uint64(folded)) * MULTIPLIER
            key ^= key >> np.uint64(32)
            check = (check ^ np.uint64(folded)) * _CHECK_MULTIPLIER
            check ^= check >> np.uint64(29)
        keys[unit], checks[unit] = mixed(key, _KEY_SEED), mixed(check, _CHECK_SEED)
    return keys, checks, words


@numba.njit(cache=True, nogil=True)
def spans(firsts: I64, keys: U64, checks: U64, words: I64, length: int, min_words: int) -> tuple[U64, U32, U32, U32]:
    """Key, check, text and first unit (its number in the text) of all spans of at least ``min_words``, in order."""
    most = len(keys)
    out_keys, out_checks = np.empty(most, np.uint64), np.empty(most, np.uint32)
    out_texts, out_units = np.empty(most, np.uint32), np.empty(most, np.uint32)
    with_words, count = np.empty(most, np.int64), 0
    for text in range(len(firsts) - 1):
        found = 0
        for unit in range(firsts[text], firsts[text + 1]):
            if words[unit] > 0:
                with_words[found] = unit
                found += 1
        for first in range(found - length + 1):
            key, check, size = np.uint64(0), np.uint64(0), 0
            for k in range(first, first + length):
                unit = with_words[k]
                key = mixed(key, keys[unit])
                check = mixed(checks[unit], check)
                size += words[unit]
            if size >= min_words:
                out_keys[count], out_checks[count] = key, np.uint32(check >> np.uint64(32))
                out_texts[count], out_units[count] = text, with_words[first] - firsts[text]
                count += 1
    return out_keys[:count], out_checks[:count], out_texts[:count], out_units[:count]


@numba.njit(cache=True, nogil=True)
def repeats(keys: U64, checks: U32, documents: U64, keep: int, within_documents: bool) -> Bools:
    """Which spans are repeats: those with ``keep`` equal ones before them.

    ``keys`` ascend, and equal ones stand in the order of the input. Not ``within_documents``: equal spans of one
    document count once, and share a fate.
    """
    out = np.zeros(len(keys), np.bool_)
    begin = 0
    while begin < len(keys):
        stop, alike = begin + 1, True
        while stop < len(keys) and keys[stop] == keys[begin]:
            alike = alike and checks[stop] == checks[begin]
            stop += 1
        order = np.arange(begin, stop)
        if not alike:  # two spans that are not equal share a key: once in a corpus
            order = order[np.argsort(checks[begin:stop], kind="mergesort")]
        seen = 0
        for k in range(len(order)):
            here, before = order[k], order[k - 1]
            if k == 0 or checks[here] != checks[before]:
                seen = 0
            elif not within_documents and documents[here] == documents[before]:
                out[here] = out[before]
                continue
            out[here] = seen >= keep
            seen += 1
        begin = stop
    return out


class Cuts(NamedTuple):
    """What goes and what stays of some texts, as stretches of bytes."""

    gone: I64
    """[cut, (begin, end, text)]."""
    stays: I64
    """[stretch, (begin, end)]: text after text, what is left of each."""
    first_stays: I64
    """The number of each text's first stretch that stays, and the end."""
    words_left: I64


@numba.njit(cache=True, nogil=True)
def cuts(
    data: U8, offsets: I64, borders: I64, firsts: I64, words: I64, texts: I64, first_units: I64, length: int
) -> Cuts:
    """What goes where the spans at (``texts``, ``first_units``), in order, are taken out.

    With each run of units goes the white space on one side, so that what stood on the other joins their neighbours:
    the side with more line breaks stays, and none at the beginning or the end of a text.
    """
    count = len(offsets) - 1
    gone, stays = np.empty((len(borders), 3), np.int64), np.empty((len(borders) + count, 2), np.int64)
    first_stays, words_left = np.zeros(count + 1, np.int64), np.zeros(count, np.int64)
    is_gone = np.zeros(len(borders), np.bool_)
    for mark in range(len(texts)):
        unit, left = firsts[texts[mark]] + first_units[mark], length
        while left > 0:
            is_gone[unit] = True
            left -= words[unit] > 0
            unit += 1
    gone_count, stays_count = 0, 0
    for text in range(count):
        first, after, at = firsts[text], firsts[text + 1], offsets[text]
        unit = first
        while unit < after:
            if not is_gone[unit]:
                words_left[text] += words[unit]
                unit += 1
                continue
            run = unit
            while unit < after and is_gone[unit]:
                unit += 1
            begin, end = borders[run, 0], borders[unit - 1, 1]
            before = borders[run - 1, 1] if run > first else begin
            behind = borders[unit, 0] if unit < after else end
            if run == first or (unit < after and _breaks(data, before, begin) >= _breaks(data, end, behind)):
                end = behind
            else:
                begin = before
            gone[gone_count] = begin, end, text
            stays[stays_count] = at, begin
            gone_count, stays_count, at = gone_count + 1, stays_count + 1, end
        stays[stays_count] = at, offsets[text + 1]
        stays_count += 1
        first_stays[text + 1] = stays_count
    return Cuts(gone[:gone_count], stays[:stays_count], first_stays, words_left)


@numba.njit(cache=True, nogil=True)
def _breaks(data: U8, begin: int, end: int) -> int:
    count = 0
    for i in range(begin, end):
        count += data[i] == _NEWLINE
    return count


@numba.njit(cache=True, nogil=True)
def joined(data: U8, stretches: I64) -> tuple[U8, I64]:
    """The bytes of stretches (begin, end, ...) one after the other, and their borders."""
    offsets = np.zeros(len(stretches) + 1, np.int64)
    for k in range(len(stretches)):
        offsets[k + 1] = offsets[k] + stretches[k, 1] - stretches[k, 0]
    out = np.empty(offsets[-1], np.uint8)
    for k in range(len(stretches)):
        out[offsets[k] : offsets[k + 1]] = data[stretches[k, 0] : stretches[k, 1]]
    return out, offsets
