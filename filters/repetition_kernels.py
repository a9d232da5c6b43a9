"""Kernels of repetition, for ``filters.quality_kernels``: most frequent n-grams, and the characters in repeated ones.

In: a text as it was divided into tokens (``word_kernels.Work``). Most n-grams of a text occur once, and a table of all
of them would cost the most. So each is first noted as one bit that its hash names, without a branch; only those whose
bit was set before, or is set again later, go through a table. Where hashes are equal, bytes are compared.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return,operator"

import numba
import numpy as np

from filters.byte_kernels import I32, I64, SHIFT, U64, eight_bytes, equal, mixed, new_heads, power
from filters.word_kernels import Work

_ONE, _SIX, _LOW_SIX = np.uint64(1), np.uint64(6), np.uint64(63)
_SPREAD, _SLOT_BITS = np.uint64(0x94D049BB133111EB), np.uint64(20)
BITS_PER_HASH = 16
"""One or two of a hundred n-grams that occur once are looked up for nothing."""
WINDOW = 16
"""Bytes."""


@numba.njit(cache=True, nogil=True)
def _shift_for(count: int) -> np.uint64:
    """By how much to shift a hash so that it names one of the bits for ``count`` hashes."""
    bits = 6
    while (1 << bits) < BITS_PER_HASH * count:
        bits += 1
    return np.uint64(64 - bits)


@numba.njit(cache=True, nogil=True)
def _note(hashes: U64, count: int, shift: np.uint64, once: U64, twice: U64) -> None:
    """Sets the bits of the hashes in ``once``, and in ``twice`` where they were set before."""
    once[:], twice[:] = np.uint64(0), np.uint64(0)
    for k in range(count):
        bit_place = hashes[k] >> shift
        word, bit = bit_place >> _SIX, _ONE << (bit_place & _LOW_SIX)
        twice[word] |= once[word] & bit
        once[word] |= bit


@numba.njit(cache=True, nogil=True)
def _come_again(hashes: U64, count: int, shift: np.uint64, twice: U64, found: I32) -> int:
    """Puts the numbers of the hashes whose bit was set twice into ``found``; returns how many."""
    again = 0
    for k in range(count):
        bit_place = hashes[k] >> shift
        found[again] = k
        again += np.int64((twice[bit_place >> _SIX] >> (bit_place & _LOW_SIX)) & _ONE)
    return again


@numba.njit(cache=True, nogil=True)
def count_top(work: Work, row: I64) -> None:
    """Characters in all occurrences of the most frequent two, three and four tokens; of equals, the first.

    An n-gram is named by a number, and the next longer one by that number and its last token. What occurs once is left
    out from then on, as nothing longer can occur twice.
    """
    row[:] = 0
    tokens, ids, starts = work.edges[3], work.ids, work.starts
    if tokens < 2:
        return
    hashes, places = np.empty(tokens, np.uint64), np.empty(tokens, np.int32)
    for k in range(tokens - 1):
        hashes[k] = mixed((np.uint64(ids[k]) << SHIFT) | np.uint64(ids[k + 1]), np.uint64(2)) * _SPREAD
    shift = _shift_for(tokens)
    words = 1 << (58 - np.int64(shift))
    once, twice = np.empty(words, np.uint64), np.empty(words, np.uint64)
    _note(hashes, tokens - 1, shift, once, twice)
    kept = _come_again(hashes, tokens - 1, shift, twice, places)
    heads, names = new_heads(kept), np.empty(kept + 1, np.int32)
    mask = np.uint64(heads.shape[0] - 1)
    keys, firsts = np.empty(kept + 1, np.uint64), np.empty(kept + 1, np.int32)
    counts, shorter_counts = np.empty(kept + 1, np.int32), np.empty(kept + 1, np.int32)
    for n in range(2, min(5, tokens + 1)):
        counts, shorter_counts = shorter_counts, counts
        heads[:] = -1
        entries, best, still_kept = 0, 1, 0
        for c in range(kept):
            k = np.int64(places[c])
            if n == 2:
                key, value = (np.uint64(ids[k]) << SHIFT) | np.uint64(ids[k + 1]), hashes[k]
            else:
                if shorter_counts[names[c]] < 2 or c + 1 == kept or places[c + 1] != k + 1:
                    continue
                if shorter_counts[names[c + 1]] < 2:
                    continue
                key = (np.uint64(names[c]) << SHIFT) | np.uint64(ids[k + n - 1])
                value = mixed(key, np.uint64(n))
            slot = (value >> _SLOT_BITS) & mask
            while heads[slot] >= 0 and keys[heads[slot]] != key:
                slot = (slot + _ONE) & mask
            entry = np.int64(heads[slot])
            if entry < 0:
                entry = entries
                heads[slot], keys[entry], firsts[entry], counts[entry] = entry, key, k, 0
                entries += 1
            counts[entry] += 1
            best = max(best, np.int64(counts[entry]))
            places[still_kept], names[still_kept] = k, entry  # behind what is still read
            still_kept += 1
        kept, place = still_kept, 0
        if best > 1:
            entry = 0
            while counts[entry] != best:
                entry += 1
            place = firsts[entry]
        row[n - 2] = best * (starts[place + n, 1] - starts[place, 1] + n - 1)


@numba.njit(cache=True, nogil=True)
def _places_to_look_at(work: Work, places: I32, hashes: U64) -> int:
    """Puts the places where a repeated n-gram of five or more tokens may start into ``places``; returns how many.

    Equal n-grams begin with equal bytes. So these are the places whose next ``WINDOW`` bytes come again at another
    token's start, or are more than five tokens: a fifth of all.
    """
    tokens, starts = work.edges[3], work.starts
    last, count = starts[tokens, 0] - WINDOW, 0
    while count < tokens - 4 and starts[count, 0] <= last:
        at = starts[count, 0]
        hashes[count] = mixed(eight_bytes(work.compact, at), eight_bytes(work.compact, at + 8)) * _SPREAD
        count += 1
    shift = _shift_for(tokens)
    words = 1 << (58 - np.int64(shift))
    once, twice = np.empty(words, np.uint64), np.empty(words, np.uint64)
    _note(hashes, count, shift, once, twice)
    found = 0
    for k in range(tokens - 4):
        again = starts[k + 5, 0] - starts[k, 0] < WINDOW
        if k < count:
            bit_place = hashes[k] >> shift
            again |= ((twice[bit_place >> _SIX] >> (bit_place & _LOW_SIX)) & _ONE) != 0
        places[found] = k
        found += again
    return found


@numba.njit(cache=True, nogil=True)
def count_repeated(work: Work, row: I64) -> None:
    """Characters of n-grams that repeat an earlier one, after which the search goes on behind their last token.

    N-grams are compared as characters in a row, so "a bc" repeats "ab c".
    """
    row[:] = 0
    tokens, starts, prefixes = work.edges[3], work.starts, work.prefixes
    places, hashes = np.empty(tokens, np.int32), np.empty(tokens, np.uint64)
    count = _places_to_look_at(work, places, hashes)
    shift = _shift_for(count)
    words = 1 << (58 - np.int64(shift))
    once, twice, found = np.empty(words, np.uint64), np.empty(words, np.uint64), np.empty(count + 1, np.int32)
    for n in range(5, 11):
        while count and places[count - 1] + n > tokens:
            count -= 1
        if count < 2:
            return
        for k in range(count):
            place = places[k]
            length = starts[place + n, 0] - starts[place, 0]
            stretch = prefixes[place + n] - prefixes[place] * power(length)
            hashes[k] = (stretch ^ np.uint64(length)) * _SPREAD
        _note(hashes, count, shift, once, twice)
        again = _come_again(hashes, count, shift, twice, found)
        if again >= 2:
            row[n - 5] = _characters_repeated(work, n, places, hashes, found[:again])


@numba.njit(cache=True, nogil=True)
def _characters_repeated(work: Work, n: int, places: I32, hashes: U64, numbers: I32) -> int:
    """What ``count_repeated`` counts for n tokens; an n-gram whose number is not given occurs once."""
    starts, compact, heads = work.starts, work.compact, new_heads(numbers.shape[0])
    mask, goes_on, characters = np.uint64(heads.shape[0] - 1), 0, 0
    for k in numbers:
        place = np.int64(places[k])
        if place < goes_on:
            continue
        at, length = starts[place, 0], starts[place + n, 0] - starts[place, 0]
        slot = (hashes[k] >> _SLOT_BITS) & mask
        while heads[slot] >= 0:
            if hashes[heads[slot]] == hashes[k]:
                other = np.int64(places[heads[slot]])
                same = starts[other + n, 0] - starts[other, 0] == length
                if same and equal(compact, at, compact, starts[other, 0], length):
                    characters += starts[place + n, 1] - starts[place, 1]
                    goes_on = place + n
                    break
            slot = (slot + _ONE) & mask
        else:
            heads[slot] = k
    return characters
