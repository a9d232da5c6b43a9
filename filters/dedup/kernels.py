"""MinHash band keys and shingles straight from Arrow's UTF-8 buffers, compiled: no Python object per document or word.

Words are runs of letters, marks and digits, lower-cased and without accents (as datatrove's ``simplify_text`` does);
digits stay as they are unless ``fold_digits``. A shingle is ``shingle_words`` words in a row; a text shorter than one
is one shingle of all its words. Signature and banding: Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets" §3.4: two texts of Jaccard similarity s share a band with probability 1 − (1 − s^rows)^bands.
"""

import functools
import unicodedata

import numba
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

BREAK, SKIP = 0, 0xFFFF
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
WORD_SEED = np.uint64(1469598103934665603)


@functools.cache
def folding_table(fold_digits: bool) -> npt.NDArray[np.uint16]:
    """Code point (of the Basic Multilingual Plane) → folded code point, BREAK between words, SKIP for marks."""
    table = np.zeros(1 << 16, np.uint16)
    for code in range(1 << 16):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Nd":
            table[code] = ord("0") if fold_digits else ord("0") + unicodedata.digit(character)
        elif category[0] in "LMN":
            plain = unicodedata.normalize("NFD", character.lower())
            letters = [c for c in plain if unicodedata.category(c) != "Mn"]
            table[code] = min(ord(letters[0]), 0xFFFE) if letters else SKIP
    return table


@functools.cache
def permutations(count: int, seed: int) -> tuple[U32, U32]:
    """Multipliers (odd) and offsets of ``count`` multiply-add hash functions on 32 bits."""
    random = np.random.default_rng(seed)
    multipliers = (random.integers(1, 1 << 32, count, dtype=np.uint64) | np.uint64(1)).astype(np.uint32)
    return multipliers, random.integers(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32)


@numba.njit(cache=True, nogil=True)
def _mixed(value: np.uint64) -> np.uint64:
    """A bijection that spreads every bit (the finalizer of SplitMix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _word_hashes(data: U8, start: int, end: int, fold: npt.NDArray[np.uint16], out: U64) -> int:
    """Hashes of the words of one text; returns how many."""
    count, word, i = 0, WORD_SEED, start
    while i < end:
        code = np.uint32(data[i])
        i += 1
        if code >= 128:
            if code < 224:
                code, i = ((code & 31) << 6) | (np.uint32(data[i]) & 63), i + 1
            elif code < 240:
                code = ((code & 15) << 12) | ((np.uint32(data[i]) & 63) << 6) | (np.uint32(data[i + 1]) & 63)
                i += 2
            else:  # outside the table: emoji, rare scripts; they stand between words
                code, i = np.uint32(0), i + 3
            if fold[code] == SKIP:
                continue
        folded = fold[code]
        # Written at every character, kept at the end of a word: no branch that is hard to foresee, which costs a third.
        out[count] = word
        ends = folded == BREAK
        count += ends & (word != WORD_SEED)
        word = (word ^ np.uint64(folded)) * MULTIPLIER
        word = WORD_SEED if ends else word ^ (word >> np.uint64(32))
    if word != WORD_SEED:
        out[count] = word
        count += 1
    for k in range(count):
        out[k] = _mixed(out[k])
    return count


@numba.njit(cache=True, nogil=True)
def _shingle_hashes(words: U64, count: int, shingle_words: int, out: U64) -> int:
    """Hashes of the shingles of one text in their order, repeated ones too; returns how many, 0 without words."""
    if count == 0:
        return 0
    alike = True
    for k in range(1, count):
        if words[k] != words[0]:
            alike = False
            break
    # One word repeated is one shingle however long the text; its length tells such texts apart.
    salt = np.uint64(count) if alike else np.uint64(0)
    shingles = 1 if alike else max(1, count - shingle_words + 1)
    for first in range(shingles):
        shingle = salt
        for k in range(first, min(first + shingle_words, count)):
            shingle = (shingle * MULTIPLIER) ^ words[k]
        out[first] = _mixed(shingle)
    return shingles


@numba.njit(cache=True, nogil=True)
def signatures(
    data: U8,
    offsets: npt.NDArray[np.int64],
    fold: npt.NDArray[np.uint16],
    multipliers: U32,
    additions: U32,
    shingle_words: int,
    out: U32,
    word_counts: U32,
) -> None:
    """MinHash signatures of all texts: ``out[document, permutation]`` and the number of words of each."""
    words, shingles = np.empty(1 << 12, np.uint64), np.empty(1 << 12, np.uint64)
    for document in range(offsets.shape[0] - 1):
        start, end = offsets[document], offsets[document + 1]
        if words.shape[0] < end - start + 1:
            words = np.empty((end - start + 1) * 2, np.uint64)
        count = _word_hashes(data, start, end, fold, words)
        word_counts[document] = count
        row = out[document]
        row[:] = np.uint32(0xFFFFFFFF)
        if shingles.shape[0] < count:
            shingles = np.empty(words.shape[0], np.uint64)
        for i in range(_shingle_hashes(words, count, shingle_words, shingles)):
            value = np.uint32(shingles[i] >> np.uint64(32))
            for p in range(multipliers.shape[0]):
                row[p] = min(row[p], np.uint32(multipliers[p] * value + additions[p]))


@numba.njit(cache=True, nogil=True)
def shingle_sets(
    data: U8, offsets: npt.NDArray[np.int64], fold: npt.NDArray[np.uint16], shingle_words: int, out: U64, ends: I64
) -> None:
    """The set of shingles of each text, as ascending 64-bit hashes: those of document i end in ``out`` at ``ends[i]``.

    They are the shingles of the MinHash. ``out`` needs room for the words of all texts (``most_words``).
    """
    words = np.empty(1 << 12, np.uint64)
    first = 0
    for document in range(offsets.shape[0] - 1):
        start, end = offsets[document], offsets[document + 1]
        if words.shape[0] < end - start + 1:
            words = np.empty((end - start + 1) * 2, np.uint64)
        count = _word_hashes(data, start, end, fold, words)
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
            key = _mixed(np.uint64(band + 1) * MULTIPLIER)
            for k in range(rows):
                key = _mixed(key ^ np.uint64(signature[document, band * rows + k])) * MULTIPLIER
            out[document, band] = _mixed(key)


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
