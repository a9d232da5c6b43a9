"""MinHash band keys and shingles straight from Arrow's UTF-8 buffers, compiled: no Python object per document or word.

A shingle is ``shingle_words`` words in a row (``filters.dedup.folded_words``); a text shorter than that is one shingle
of all its words. Banding: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets" §3.4: two texts of Jaccard
similarity s share a band with probability 1 − (1 − s^rows)^bands.

The k values of a signature come from one permutation (Li, Owen, Zhang, "One Permutation Hashing", 2012): a hash puts
each shingle into one of k bins, and a bin's value is the least hash in it. A bin without any, as most are where a text
is short, has the minimum of all shingles under a permutation of its own (Broder 1997). Either way a value is that of
one shingle of both texts' union, chosen at random, if both have it, and else they differ: they agree with probability
s. A text of n shingles costs n hashes, and n more for each empty bin: n · (1 + k · e^(−n/k)) where k permutations cost
n · k. As bins share out the shingles, values agree more evenly than independent ones: the share of those that do
deviates from s by a fifth less for texts of 200 shingles, k = 112. So of the pairs below the threshold of the banding
slightly fewer share a band than the curve says, and of those above it slightly more.
"""

import functools
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from filters.dedup.folded_words import MULTIPLIER, folded_bytes, mixed, word_hashes

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

EMPTY = np.uint32(0xFFFFFFFF)
NO_SALT = np.uint64(0)
FEW = 80
"""Shingles below which all permutations take less time than those of the empty bins; the values are the same."""
_HALF = np.uint64(32)


class Permutations(NamedTuple):
    """Hash functions of a signature."""

    salt: np.uint64
    """Of the words: chooses the permutation whose bins are the values."""
    multipliers: U32
    """Odd; for a bin that stays empty, ``multiplier · x + addition`` on 32 bits."""
    additions: U32


@functools.cache
def permutations(count: int, seed: int) -> Permutations:
    """Those of signatures of ``count`` values."""
    random = np.random.default_rng(seed)
    multipliers = (random.integers(1, 1 << 32, count, dtype=np.uint64) | np.uint64(1)).astype(np.uint32)
    additions = random.integers(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32)
    return Permutations(random.integers(0, 1 << 64, dtype=np.uint64), multipliers, additions)


@numba.njit(cache=True, nogil=True)
def _shingle_hashes(words: U64, count: int, shingle_words: int, out: U64) -> int:
    """Hashes of the shingles of one text in their order, repeated ones too; returns how many, 0 without words.

    A shingle is the number whose digits in base ``MULTIPLIER`` are its words, so that each follows from the one before.
    """
    if count == 0:
        return 0
    alike = True
    for k in range(1, count):
        if words[k] != words[0]:
            alike = False
            break
    # One word repeated is one shingle however long the text; its length tells such texts apart.
    shingle = np.uint64(count) if alike else np.uint64(0)
    size = min(shingle_words, count)
    beyond = np.uint64(1)
    for k in range(size):
        shingle = shingle * MULTIPLIER + words[k]
        beyond *= MULTIPLIER
    out[0] = shingle
    if alike:
        return 1
    for k in range(size, count):
        shingle = shingle * MULTIPLIER + (words[k] - words[k - size] * beyond)
        out[k - size + 1] = shingle
    return count - size + 1


@numba.njit(cache=True, nogil=True)
def _signature(shingles: U64, count: int, permutations: Permutations, halves: U32, minima: U32, out: U32) -> None:
    """The signature of one text. Scratch: ``halves`` has a place for each shingle, ``minima`` for each value."""
    out[:] = EMPTY
    bins = np.uint64(out.shape[0])
    for i in range(count):
        halves[i] = np.uint32(shingles[i] >> _HALF)
        place = (np.uint64(halves[i]) * bins) >> _HALF
        out[place] = min(out[place], np.uint32(shingles[i]))
    if count < FEW:
        _fill_with_few(halves, count, permutations, minima, out)
        return
    for p in range(out.shape[0]):
        if out[p] == EMPTY:
            multiplier, addition, least = permutations.multipliers[p], permutations.additions[p], EMPTY
            for i in range(count):
                least = min(least, np.uint32(multiplier * halves[i] + addition))
            out[p] = least


@numba.njit(cache=True, nogil=True)
def _fill_with_few(halves: U32, count: int, permutations: Permutations, minima: U32, out: U32) -> None:
    """The same for empty bins, shingle by shingle: those are few, and several permutations are taken at a time."""
    minima[:] = EMPTY
    for i in range(count):
        half = halves[i]
        for p in range(minima.shape[0]):
            minima[p] = min(minima[p], np.uint32(permutations.multipliers[p] * half + permutations.additions[p]))
    for p in range(out.shape[0]):
        out[p] = minima[p] if out[p] == EMPTY else out[p]


@numba.njit(cache=True, nogil=True)
def signatures(
    data: U8,
    offsets: I64,
    fold: npt.NDArray[np.uint16],
    permutations: Permutations,
    shingle_words: int,
    out: U32,
    words: U32,
) -> None:
    """MinHash signatures of all texts: ``out[document, value]``, and in ``words`` the number of words of each."""
    longest = _longest(offsets)
    most = longest // 2 + 2
    folded, halves = np.empty(folded_bytes(longest), np.uint8), np.empty(most, np.uint32)
    minima = np.empty(out.shape[1], np.uint32)
    hashes, shingles = np.empty(most, np.uint64), np.empty(most, np.uint64)
    for document in range(offsets.shape[0] - 1):
        start, end = offsets[document], offsets[document + 1]
        count = word_hashes(data, start, end, fold, permutations.salt, folded, hashes)
        words[document] = count
        count = _shingle_hashes(hashes, count, shingle_words, shingles)
        _signature(shingles, count, permutations, halves, minima, out[document])


@numba.njit(cache=True, nogil=True)
def _longest(offsets: I64) -> int:
    """Bytes of the longest text."""
    most = 0
    for document in range(offsets.shape[0] - 1):
        most = max(most, offsets[document + 1] - offsets[document])
    return most


@numba.njit(cache=True, nogil=True)
def shingle_sets(
    data: U8, offsets: npt.NDArray[np.int64], fold: npt.NDArray[np.uint16], shingle_words: int, out: U64, ends: I64
) -> None:
    """The set of shingles of each text, as ascending 64-bit hashes: those of document i end in ``out`` at ``ends[i]``.

    They are the shingles of the MinHash. ``out`` needs room for the words of all texts (``most_words``).
    """
    longest = _longest(offsets)
    folded, words = np.empty(folded_bytes(longest), np.uint8), np.empty(longest // 2 + 2, np.uint64)
    first = 0
    for document in range(offsets.shape[0] - 1):
        count = word_hashes(data, offsets[document], offsets[document + 1], fold, NO_SALT, folded, words)
        found = out[first : first + _shingle_hashes(words, count, shingle_words, out[first:])]
        found.sort()
        last = first
        for i in range(found.shape[0]):
            if i == 0 or out[last - 1] != found[i]:
                out[last] = found[i]
                last += 1
        ends[document] = first = last


def most_words(offsets: npt.NDArray[np.int64]) -> int:
    """A bound on the words of all texts: a word takes a byte, and so does what stands between two."""
    return int((offsets[-1] - offsets[0]) // 2 + len(offsets))


@numba.njit(cache=True, nogil=True)
def band_keys(signature: U32, bands: int, rows: int, out: U64) -> None:
    """One 64-bit key per band, ``out[document, band]``. The band's number is mixed in, so that bands never meet."""
    for document in range(signature.shape[0]):
        for band in range(bands):
            key = mixed(np.uint64(band + 1) * MULTIPLIER)
            for k in range(rows):
                key = mixed(key ^ np.uint64(signature[document, band * rows + k])) * MULTIPLIER
            out[document, band] = mixed(key)


@numba.njit(cache=True, nogil=True)
def star_edges(keys: U64, nodes: U64, firsts: U64, others: U64) -> int:
    """Edges from each document of a bucket to its first. ``keys`` sorted, ``nodes`` sorted within a key.

    Linear in the bucket's size, so a million copies of a page cost a million edges. Returns the number of edges.
    """
    count, first = 0, 0
    for i in range(1, keys.shape[0]):
        if keys[i] != keys[first]:
            first = i
        elif nodes[i] != nodes[first]:
            firsts[count], others[count] = nodes[first], nodes[i]
            count += 1
    return count


@numba.njit(cache=True, nogil=True)
def join(parent: I64, firsts: I64, others: I64) -> None:
    """Joins the trees of both ends of each edge, by union-find with path halving; the smaller root stays one."""
    for i in range(firsts.shape[0]):
        a, b = firsts[i], others[i]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b


@numba.njit(cache=True, nogil=True)
def flatten(parent: I64) -> None:
    """Puts every node below its root, where no node has a larger parent."""
    for i in range(parent.shape[0]):
        parent[i] = parent[parent[i]]


@numba.njit(cache=True, nogil=True)
def components(firsts: I64, others: I64, count: int) -> I64:
    """The smallest node of each node's connected component."""
    parent = np.arange(count)
    join(parent, firsts, others)
    flatten(parent)
    return parent
