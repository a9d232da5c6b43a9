"""Kernels of repeated n-grams, for ``filters.quality_kernels``: the characters in runs of tokens that repeat.

In: a text as it was divided into tokens (``word_kernels.Work``). Equal n-grams begin with equal bytes. So a start whose
next 16 bytes occur nowhere else at a token's start cannot repeat for any n, and only the other starts (a fifth of all)
are looked up per n; longer n-grams are held against longer stretches. Where hashes are equal, bytes are compared.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return,call-arg"

import numba
import numpy as np

from filters.byte_kernels import I32, I64, U64, eight_bytes, equal, hash_of, mixed, new_heads
from filters.word_kernels import Work

_BASE = np.uint64(0x9E3779B97F4A7C15)
_POWERS = np.array([pow(int(_BASE), exponent, 1 << 64) for exponent in range(512)], np.uint64)


@numba.njit(cache=True, nogil=True)
def _first_suspects(work: Work, places: I32, hashes: U64) -> int:
    """Puts the places where a repeated n-gram of five or more tokens may start into ``places``; returns how many.

    Their next 16 bytes come again at another token's start, or are more than five tokens. Bits stand for hashes, so
    that one or two of a hundred places are suspected for nothing.
    """
    tokens, starts = work.edges[3], work.starts
    size = 64
    while size < 16 * tokens:
        size *= 2
    once, twice = np.zeros(size >> 6, np.uint64), np.zeros(size >> 6, np.uint64)
    mask, one = np.uint64(size - 1), np.uint64(1)
    last = starts[tokens, 0] - 16
    for k in range(tokens - 4):
        at = starts[k, 0]
        if at > last:
            break
        value = mixed(eight_bytes(work.compact, at), eight_bytes(work.compact, at + 8)) & mask
        hashes[k] = value
        word, bit = value >> np.uint64(6), one << (value & np.uint64(63))
        twice[word] |= once[word] & bit
        once[word] |= bit
    count = 0
    for k in range(tokens - 4):
        at = starts[k, 0]
        suspected = starts[k + 5, 0] - at < 16
        if not suspected:
            value = hashes[k]
            suspected = (twice[value >> np.uint64(6)] >> (value & np.uint64(63))) & one != 0
        if suspected:
            places[count] = k
            count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _suspects(work: Work, n: int, window: int, places: I32, count: int, heads: I32, hashes: U64) -> int:
    """Keeps those of the ``count`` places where a repeated n-gram of ``n`` or more tokens may start; returns how many.

    Their next ``window`` bytes come again at another of the places, or are more than n tokens.
    """
    tokens, starts = work.edges[3], work.starts
    size = 16
    while size < 2 * count:
        size *= 2
    mask = size - 1
    heads[:size] = -1
    suspect = np.zeros(count, np.bool_)
    for k in range(count):
        place = places[k]
        if place + n > tokens:
            continue
        at = starts[place, 0]
        if starts[place + n, 0] - at < window:
            suspect[k] = True
            if at + window > starts[tokens, 0]:
                continue
        hashes[k] = hash_of(work.compact, at, at + window)
        slot = np.int64(hashes[k] & np.uint64(mask))
        while heads[slot] >= 0 and hashes[heads[slot]] != hashes[k]:
            slot = (slot + 1) & mask
        if heads[slot] >= 0:
            suspect[k] = suspect[heads[slot]] = True
        else:
            heads[slot] = k
    kept = 0
    for k in range(count):
        if suspect[k]:
            places[kept] = places[k]
            kept += 1
    return kept


@numba.njit(cache=True, nogil=True)
def _power(exponent: int) -> np.uint64:
    """``_BASE`` to this power, modulo 2^64."""
    if exponent < _POWERS.shape[0]:
        return _POWERS[exponent]
    value, square = np.uint64(1), _BASE
    while exponent:
        if exponent & 1:
            value *= square
        square *= square
        exponent >>= 1
    return value


@numba.njit(cache=True, nogil=True)
def _prefixes(work: Work) -> U64:
    """What lies before each token, its bytes as digits in base ``_BASE``: with it any stretch is hashed at once."""
    tokens, starts, value, i = work.edges[3], work.starts, np.uint64(0), 0
    prefixes = np.empty(tokens + 1, np.uint64)
    for k in range(tokens + 1):
        while i < starts[k, 0]:
            value = value * _BASE + np.uint64(work.compact[i])
            i += 1
        prefixes[k] = value
    return prefixes


@numba.njit(cache=True, nogil=True)
def _repeats(work: Work, prefixes: U64, n: int, k: int, places: I32, heads: I32, hashes: U64) -> bool:
    """Whether the n tokens from ``places[k]`` on spell what those from an earlier place did; noted if they do not."""
    starts, place, mask = work.starts, np.int64(places[k]), heads.shape[0] - 1
    at, length = starts[place, 0], starts[place + n, 0] - starts[place, 0]
    hashes[k] = prefixes[place + n] - prefixes[place] * _power(length)
    slot = np.int64(mixed(hashes[k], np.uint64(length)) & np.uint64(mask))
    while heads[slot] >= 0:
        other = np.int64(places[heads[slot]])
        same = hashes[heads[slot]] == hashes[k] and starts[other + n, 0] - starts[other, 0] == length
        if same and equal(work.compact, at, work.compact, starts[other, 0], length):
            return True
        slot = (slot + 1) & mask
    heads[slot] = k
    return False


@numba.njit(cache=True, nogil=True)
def count_repeated(work: Work, row: I64) -> None:
    """Characters of n-grams that repeat an earlier one, after which the search goes on behind their last token.

    N-grams are compared as characters in a row, so "a bc" repeats "ab c".
    """
    row[:] = 0
    tokens, starts = work.edges[3], work.starts
    heads, hashes = new_heads(tokens), np.empty(tokens, np.uint64)
    places = np.empty(tokens, np.int32)
    count = _first_suspects(work, places, hashes)
    if count < 2:
        return
    prefixes = _prefixes(work)
    for n in range(5, 11):
        if n in (7, 8, 10):
            count = _suspects(work, n, 4 * n - 4, places, count, heads, hashes)
        if count < 2:
            return
        size = 16
        while size < 2 * count:
            size *= 2
        heads[:size] = -1
        goes_on = repeated = 0
        for k in range(count):
            place = places[k]
            if place < goes_on:
                continue
            if place + n > tokens:
                break
            if _repeats(work, prefixes, n, k, places, heads[:size], hashes):
                repeated += starts[place + n, 1] - starts[place, 1]
                goes_on = place + n
        row[n - 5] = repeated
