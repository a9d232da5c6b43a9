"""Kernels of fastText: text to the mean of its input rows, as fastText divides and hashes it.

A line ends at a newline or at the word ``</s>``, which both count as one more word; here a newline is a blank, so a
text is one line. A word counts with its own row, if the dictionary has it, and with those of its parts: ``shortest`` to
``longest`` characters of ``<word>``, hashed to ``bucket`` rows (FNV-1a over signed bytes). Runs of words count too,
where the model was trained so.

What a chunk between blanks stands for is found once and kept in a memo, a table of four numbers a slot
(``word_kernels.key_of``; length | rows | place in ``pool`` | whether it was met again; place in ``ids`` or ``sums`` |
kind | hash). There are two kinds of memo. With ``ids``, it keeps the numbers of the chunk's rows, and rows are added
one after another in single precision, as fastText does: the mean is the same to the last bit. With ``sums``, which is
much the quicker, it keeps the sum of the rows, and sums are added in double precision. A chunk for which there is no
room is looked at each time, with the same result; so a mean depends on its text alone.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return,call-arg"

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from filters.byte_kernels import I32, I64, U8, U64, eight_bytes, equal, prefetch
from filters.fasttext_memo import LONGEST_KEPT, MET_AGAIN, NOT_KEPT, PLACE, Memo, is_full
from filters.word_kernels import INLINE, home_of, key_of

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Total = npt.NDArray[Any]
"""float32 or float64, as the memo is one of ids or of sums."""

WORD, LABEL = 0, 1
"""Kinds of a dictionary's entry."""
CENTROIDS = 256

_COUNTED, _IGNORED, _END = np.uint64(0), np.uint64(1), np.uint64(2)
"""Kinds of a chunk: a word; a label, which counts for nothing; what ends the line."""
_OFFSET, _PRIME, _LOW = np.uint64(2166136261), np.uint64(16777619), np.uint64(0xFFFFFFFF)
_SIGN = np.uint64(0xFFFFFF00)
RUN = np.uint64(116049371)
"""What the hash of a run is multiplied by before a further word is added."""
_SEPARATORS = np.uint64(sum(1 << byte for byte in b" \n\t\v\f\r\0"))
_PREFIX = np.frombuffer(b"__label__", np.uint8)
_EOS = np.frombuffer(b"</s>", np.uint8)


class Network(NamedTuple):
    """A model's dictionary and input matrix (the fields of ``fasttext_file``)."""

    text: U8
    starts: I64
    lengths: I64
    heads: I32
    """Open-addressing table of entries by their hash; -1 for a free slot."""
    words: int
    end: int
    """The row of ``</s>``, -1 if the dictionary has none."""
    pruned: I32
    """The same of (bucket, row behind the words'); a bucket that is not there has no row. No slots: none was pruned."""
    dense: F32
    codes: U8
    centroids: F32
    norms: F32
    part: int
    dim: int
    word_n_grams: int
    bucket: int
    shortest: int
    longest: int


@numba.njit(cache=True, nogil=True)
def read_entries(data: U8, at: int, starts: I64, lengths: I64, counts: I64, kinds: U8) -> int:
    """Reads a dictionary's entries that begin at ``at``; returns where they end, -1 if the data ends before."""
    for k in range(starts.shape[0]):
        end = at
        while end < data.shape[0] and data[end] != 0:
            end += 1
        if end + 10 > data.shape[0]:
            return -1
        starts[k], lengths[k] = at, end - at
        counts[k] = np.int64(eight_bytes(data, end + 1))
        kinds[k] = data[end + 9]
        at = end + 10
    return at


@numba.njit(cache=True, nogil=True)
def _hashed(value: np.uint64, byte: np.uint8) -> np.uint64:
    wide = np.uint64(byte)
    if byte >= 0x80:
        wide |= _SIGN
    return ((value ^ wide) * _PRIME) & _LOW


@numba.njit(cache=True, nogil=True)
def hash_of_word(data: U8, start: int, end: int) -> np.uint64:
    """The hash of fastText, 32 bits."""
    value = _OFFSET
    for i in range(start, end):
        value = _hashed(value, data[i])
    return value


@numba.njit(cache=True, nogil=True)
def add_entries(text: U8, starts: I64, lengths: I64, heads: I32) -> None:
    """Fills the table of a dictionary."""
    for k in range(starts.shape[0]):
        slot = np.int64(hash_of_word(text, starts[k], starts[k] + lengths[k])) & (heads.shape[0] - 1)
        while heads[slot] >= 0:
            slot = (slot + 1) & (heads.shape[0] - 1)
        heads[slot] = k


@numba.njit(cache=True, nogil=True)
def _entry_of(network: Network, data: U8, start: int, length: int, value: np.uint64) -> int:
    heads = network.heads
    slot = np.int64(value) & (heads.shape[0] - 1)
    while heads[slot] >= 0:
        entry = heads[slot]
        if network.lengths[entry] == length and equal(data, start, network.text, network.starts[entry], length):
            return np.int64(entry)
        slot = (slot + 1) & (heads.shape[0] - 1)
    return -1


@numba.njit(cache=True, nogil=True)
def _home_of_bucket(bucket: int, slots: int) -> int:
    return (bucket * 0x9E3779B1 >> 15) & (slots - 1)


@numba.njit(cache=True, nogil=True)
def add_pruned(pairs: I32, table: I32) -> None:
    """Fills the table of buckets that were kept; where one is there twice, the last counts."""
    table[:, :] = -1
    for k in range(pairs.shape[0]):
        bucket = np.int64(pairs[k, 0])
        slot = _home_of_bucket(bucket, table.shape[0])
        while table[slot, 0] != bucket and table[slot, 1] >= 0:
            slot = (slot + 1) & (table.shape[0] - 1)
        table[slot, 0], table[slot, 1] = bucket, pairs[k, 1]


@numba.njit(cache=True, nogil=True)
def _row_of(network: Network, bucket: int) -> int:
    """The input row of a bucket; -1 if it was pruned away."""
    table = network.pruned
    if table.shape[0] == 0:
        return network.words + bucket
    slot = _home_of_bucket(bucket, table.shape[0])
    while table[slot, 1] >= 0:
        if table[slot, 0] == bucket:
            return network.words + np.int64(table[slot, 1])
        slot = (slot + 1) & (table.shape[0] - 1)
    return -1


@numba.njit(cache=True, nogil=True)
def _add_row(network: Network, row: int, total: Total) -> None:
    if network.codes.shape[0] == 0:
        dense, d = network.dense, 0
        while d + 16 <= network.dim:
            for j in range(16):  # a constant, so that this becomes a few vector instructions
                total[d + j] += dense[row, d + j]
            d += 16
        while d < network.dim:
            total[d] += dense[row, d]
            d += 1
        return
    norm = np.float32(1)
    if network.norms.shape[0]:
        norm = network.norms[row]
    begin = 0
    for number in range(network.codes.shape[1]):
        width = min(network.part, network.dim - begin)
        at = CENTROIDS * begin + np.int64(network.codes[row, number]) * width
        for d in range(width):
            total[begin + d] += norm * network.centroids[at + d]
        begin += width


@numba.njit(cache=True, nogil=True)
def _add_rows(network: Network, ids: I32, begin: int, end: int, total: Total) -> None:
    for k in range(begin, end):
        _add_row(network, np.int64(ids[k]), total)


@numba.njit(cache=True, nogil=True)
def _begins_as_label(data: U8, start: int, length: int) -> bool:
    return length >= _PREFIX.shape[0] and equal(data, start, _PREFIX, 0, _PREFIX.shape[0])


@numba.njit(cache=True, nogil=True)
def _kind_of(network: Network, data: U8, start: int, length: int, entry: int) -> np.uint64:
    if length == 4 and equal(data, start, _EOS, 0, 4):
        return _END
    if entry >= network.words or (entry < 0 and _begins_as_label(data, start, length)):
        return _IGNORED
    return _COUNTED


@numba.njit(cache=True, nogil=True)
def rows_of_parts(network: Network, word: U8, size: int, begin: int, ids: I32, used: int) -> tuple[int, int]:
    """Adds to ``ids`` the rows of the parts of ``<word>`` that begin at byte ``begin`` or behind it.

    Returns where it stopped as ``ids`` might not have room for the parts of one more character, and how many it holds.
    """
    most, i = min(network.longest, size), begin
    while i < size and used + most <= ids.shape[0]:
        value, j, characters = _OFFSET, i, 1
        while j < size and characters <= network.longest and (word[i] & 0xC0) != 0x80:
            value = _hashed(value, word[j])
            j += 1
            while j < size and (word[j] & 0xC0) == 0x80:
                value = _hashed(value, word[j])
                j += 1
            if characters >= network.shortest and not (characters == 1 and (i == 0 or j == size)):
                row = _row_of(network, np.int64(value) % network.bucket)
                if row >= 0:
                    ids[used] = row
                    used += 1
            characters += 1
        i += 1
    return i, used


@numba.njit(cache=True, nogil=True)
def put_in_brackets(data: U8, start: int, length: int, word: U8) -> None:
    word[0], word[length + 1] = ord("<"), ord(">")
    for i in range(length):
        word[i + 1] = data[start + i]


@numba.njit(cache=True, nogil=True)
def _add_long_chunk(
    network: Network, data: U8, start: int, length: int, ids: I32, total: Total
) -> tuple[int, np.uint64, np.uint64]:
    """Adds the rows of a chunk that is too long to be kept; returns how many, its kind and its hash."""
    hashed = hash_of_word(data, start, start + length)
    entry = _entry_of(network, data, start, length, hashed)
    kind, count, begin, size = _kind_of(network, data, start, length, entry), 0, 0, length + 2
    if kind == _IGNORED:
        return 0, kind, hashed
    if entry >= 0:
        _add_row(network, entry, total)
        count = 1
    if network.longest > 0:
        word = np.empty(size, np.uint8)
        put_in_brackets(data, start, length, word)
        while begin < size:
            begin, used = rows_of_parts(network, word, size, begin, ids, 0)
            _add_rows(network, ids, 0, used, total)
            count += used
    return count, kind, hashed


@numba.njit(cache=True, nogil=True)
def _learned(
    network: Network,
    memo: Memo,
    slot: int,
    data: U8,
    start: int,
    length: int,
    first: np.uint64,
    second: np.uint64,
    word: U8,
    ids: I32,
    of_chunk: F64,
) -> tuple[np.uint64, int]:
    """The value and number of rows of a chunk that is not known; noted in the slot if there is room.

    Its rows are in ``ids``; in a memo of sums, their sum is in its place or, if it is not kept, in the last.
    """
    hashed = hash_of_word(data, start, start + length)
    entry, count = _entry_of(network, data, start, length, hashed), 0
    kind = _kind_of(network, data, start, length, entry)
    if kind == _COUNTED:
        if entry >= 0:
            ids[0] = entry
            count = 1
        if network.longest > 0:
            put_in_brackets(data, start, length, word)
            _, count = rows_of_parts(network, word, length + 2, 0, ids, count)
    in_ids, last = memo.sums.shape[0] == 0, memo.sums.shape[0] - 1
    place, in_pool = memo.used[1], length if length > INLINE else 0
    room = 2 * memo.used[0] < memo.slots.shape[0] and place + in_pool <= memo.pool.shape[0] and count < 1 << 16
    room = room and (memo.used[2] + count <= memo.ids.shape[0] if in_ids else memo.used[0] < last)
    index = np.int64(NOT_KEPT)
    if room:
        index = memo.used[2] if in_ids else memo.used[0]
    value = np.uint64(index) | (kind << np.uint64(30)) | (hashed << np.uint64(32))
    if not in_ids:
        of_chunk[:] = 0.0
        _add_rows(network, ids, 0, count, of_chunk)
        for d in range(network.dim):
            memo.sums[index if room else last, d] = of_chunk[d]
    if room:
        for i in range(in_pool):
            memo.pool[place + i] = data[start + i]
        if in_ids:
            for j in range(count):
                memo.ids[index + j] = ids[j]
            memo.used[2] += count
        memo.used[0] += 1
        memo.used[1] += in_pool
        meta = np.uint64(length) | (np.uint64(count) << np.uint64(8)) | (np.uint64(place) << np.uint64(24))
        memo.slots[slot, 0], memo.slots[slot, 1], memo.slots[slot, 2], memo.slots[slot, 3] = first, second, meta, value
    return value, count


@numba.njit(cache=True, nogil=True)
def _slot_of(slots: U64, pool: U8, data: U8, start: int, length: int, first: np.uint64, second: np.uint64) -> int:
    """Where a chunk is, or the free slot where it belongs."""
    slot = home_of(first, second, np.uint64(length), slots.shape[0])
    while True:
        meta = slots[slot, 2]
        if meta == 0 or (
            slots[slot, 0] == first
            and slots[slot, 1] == second
            and (meta & np.uint64(255)) == np.uint64(length)
            and (length <= INLINE or equal(data, start, pool, np.int64((meta >> np.uint64(24)) & PLACE), length))
        ):
            return slot
        slot = (slot + 1) & (slots.shape[0] - 1)


@numba.njit(cache=True, nogil=True)
def _separates(byte: np.uint8) -> bool:
    return bool(byte <= 32 and (_SEPARATORS >> np.uint64(byte)) & np.uint64(1))


@numba.njit(cache=True, nogil=True)
def _add_runs(network: Network, hashes: I32, words: int, total: Total) -> int:
    """Adds the rows of all runs of two and more words; returns how many there are."""
    count = 0
    for i in range(words):
        value = np.uint64(np.int64(hashes[i]))
        for j in range(i + 1, min(words, i + network.word_n_grams)):
            value = value * RUN + np.uint64(np.int64(hashes[j]))
            row = _row_of(network, np.int64(value % np.uint64(network.bucket)))
            if row >= 0:
                _add_row(network, row, total)
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _find_chunks(memo: Memo, data: U8, begin: int, end: int, chunks: U64) -> int:
    """Puts start, bytes and key of each chunk into ``chunks``, and asks for its slot; returns how many there are."""
    i, count = begin, 0
    while i < end:
        if _separates(data[i]):
            i += 1
            continue
        start = i
        while i < end and not _separates(data[i]):
            i += 1
        length = i - start
        first, second = np.uint64(0), np.uint64(0)
        if length <= LONGEST_KEPT:
            if start + INLINE <= data.shape[0] or length > INLINE:
                first, second = key_of(data, start, length)
            else:
                for j in range(length):
                    if j < 8:
                        first |= np.uint64(data[start + j]) << np.uint64(8 * j)
                    else:
                        second |= np.uint64(data[start + j]) << np.uint64(8 * j - 64)
            prefetch(memo.slots, home_of(first, second, np.uint64(length), memo.slots.shape[0]))
        chunks[count, 0], chunks[count, 1] = np.uint64(start), np.uint64(length)
        chunks[count, 2], chunks[count, 3] = first, second
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _add_sums(sums: F32, waiting: I64, count: int, total: Total) -> None:
    for k in range(count):
        index = waiting[k]
        for d in range(total.shape[0]):
            total[d] += sums[index, d]


@numba.njit(cache=True, nogil=True)
def mean_rows(
    network: Network, memo: Memo, data: U8, borders: I64, begin: int, total: Total, means: F32, rows: I64
) -> int:
    """Puts the mean of each text's rows into ``means``, and their number into ``rows``, from text ``begin`` on.

    Stops before a text when the memo is full; returns where. ``total`` is room for (dim,), float32 for a memo of ids,
    float64 for one of sums. A text is gone over three times (its chunks are found, looked up, added), so that what is
    far away in memory is on its way before it is needed: this halves the time.
    """
    slots, sums, dim, in_ids = memo.slots, memo.sums, network.dim, memo.sums.shape[0] == 0
    of_chunk, word, hashes = np.empty(dim), np.empty(LONGEST_KEPT + 2, np.uint8), np.empty(0, np.int32)
    ids = np.empty(1 + (LONGEST_KEPT + 2) * min(max(network.longest, 1), LONGEST_KEPT + 2), np.int32)
    in_runs, low = network.word_n_grams > 1, np.uint64(NOT_KEPT)
    chunks, waiting = np.empty((1 << 12, 4), np.uint64), np.empty(1 << 12, np.int64)
    for k in range(begin, borders.shape[0] - 1):
        if is_full(memo):
            return k
        most = (borders[k + 1] - borders[k]) // 2 + 2
        if chunks.shape[0] < most:
            chunks, waiting = np.empty((most, 4), np.uint64), np.empty(most, np.int64)
        if in_runs and hashes.shape[0] < most:
            hashes = np.empty(most, np.int32)
        words, count, waits = 0, 0, 0
        total[:] = 0
        for c in range(_find_chunks(memo, data, borders[k], borders[k + 1], chunks)):
            start, length = np.int64(chunks[c, 0]), np.int64(chunks[c, 1])
            if length > LONGEST_KEPT:
                _add_sums(sums, waiting, waits, total)
                waits = 0
                found, kind, hashed = _add_long_chunk(network, data, start, length, ids, total)
            else:
                first, second = chunks[c, 2], chunks[c, 3]
                slot = _slot_of(slots, memo.pool, data, start, length, first, second)
                meta = slots[slot, 2]
                if meta != 0:
                    value, found = slots[slot, 3], np.int64((meta >> np.uint64(8)) & np.uint64(0xFFFF))
                    if (meta & MET_AGAIN) == 0:
                        slots[slot, 2] = meta | MET_AGAIN
                else:
                    value, found = _learned(
                        network, memo, slot, data, start, length, first, second, word, ids, of_chunk
                    )
                kind, hashed = (value >> np.uint64(30)) & np.uint64(3), value >> np.uint64(32)
                index = np.int64(value & low)
                if in_ids:
                    if index == NOT_KEPT:
                        _add_rows(network, ids, 0, found, total)
                    else:
                        _add_rows(network, memo.ids, index, index + found, total)
                elif index == NOT_KEPT:
                    _add_sums(sums, waiting, waits, total)
                    waiting[0] = sums.shape[0] - 1
                    _add_sums(sums, waiting, 1, total)
                    waits = 0
                else:
                    prefetch(sums, index)
                    waiting[waits] = index
                    waits += 1
            if kind == _END:
                break
            count += found
            if in_runs and kind == _COUNTED:
                hashes[words] = np.int32(np.uint32(hashed))
                words += 1
        _add_sums(sums, waiting, waits, total)
        if network.end >= 0:
            _add_row(network, network.end, total)
            count += 1
        if in_runs:
            hashes[words] = np.int32(np.uint32(hash_of_word(_EOS, 0, 4)))
            count += _add_runs(network, hashes, words + 1, total)
        rows[k] = count
        if in_ids:
            share = np.float32(1.0 / max(count, 1))
            for d in range(dim):
                means[k, d] = total[d] * share
        else:
            for d in range(dim):
                means[k, d] = total[d] / max(count, 1)
    return np.int64(borders.shape[0] - 1)
