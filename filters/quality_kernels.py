r"""The counts behind the quality signals, compiled: straight from Arrow's UTF-8 buffers, no Python object per word.

In: UTF-8 bytes with borders, and the arrays of ``filters.word_table`` (chunk → token ids → length and kind). Out:
one row of integers per text, in the order of ``COUNTS``. Nothing is estimated: where hashes are equal, bytes are
compared.

One pass over the bytes finds the white-space chunks (white space as ``str.split`` has it), the lines (as
``split("\n")`` and as ``splitlines``) and the ellipses, and copies everything that is not white space into one row of
bytes: that is what all tokens joined together look like.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return,call-arg"

import numba
import numpy as np

from filters.byte_kernels import (
    I32,
    I64,
    U8,
    characters_in,
    code_at,
    eight_bytes,
    ends_in_ellipsis,
    first_equal,
    new_heads,
    ordinary_bytes,
    power,
    prefetch,
    put_eight_bytes,
    wide_space,
)
from filters.plain_chunks import MOST_TOKENS
from filters.portuguese_kernels import count_text as count_portuguese
from filters.repetition_kernels import count_repeated, count_top
from filters.word_kernels import (
    DONE,
    LENGTH_BITS,
    LENGTH_MASK,
    TERMINAL,
    UNFIT,
    Tables,
    Work,
    home_of,
    key_of,
    look_up,
)

COUNTS = (
    *("characters", "newlines", "hashes", "ellipses"),
    *("paragraphs", "dup_paragraphs", "dup_paragraph_characters"),
    *("pieces", "dup_pieces", "dup_piece_characters"),
    *("lines", "punct_lines", "short_lines", "dup_line_characters"),
    *("split_lines", "bullet_lines", "ellipsis_lines"),
    *("tokens", "words", "word_characters", "alpha_words", "stop_words"),
    *("top_2", "top_3", "top_4"),
    *("repeated_5", "repeated_6", "repeated_7", "repeated_8", "repeated_9", "repeated_10"),
)
"""``pieces`` are what line breaks divide (several in a row count as one break), ``lines`` are not blank,
``split_lines`` are those of ``str.splitlines``."""
_CHARACTERS, _NEWLINES, _HASHES, _ELLIPSES = 0, 1, 2, 3
_PARAGRAPHS, _PIECES, _LINES, _SPLIT_LINES, _TOKENS, _TOP, _REPEATED = 4, 7, 10, 14, 17, 22, 25

LONGEST_CHUNK = 50_000
"""Bytes; a text with a longer chunk is not for these kernels."""


# What a byte can begin, beside an ordinary character.
_SPACE, _LEAD, _DOT, _HASH = 1, 2, 3, 4


def byte_classes() -> U8:
    """Byte → 0 for an ordinary one, or which kind of look it needs."""
    classes = np.zeros(256, np.uint8)
    classes[[*range(0x09, 0x0E), *range(0x1C, 0x21)]] = _SPACE
    classes[[0xC2, 0xE1, 0xE2, 0xE3]] = _LEAD
    classes[ord(".")] = _DOT
    classes[ord("#")] = _HASH
    return classes


@numba.njit(cache=True, nogil=True)
def _scan(data: U8, start: int, end: int, classes: U8, tables: Tables, work: Work, row: I64) -> int:
    """One pass over the bytes of a text; returns DONE, or UNFIT where a chunk is too long."""
    i, at, pieces, chunks, compact = start, 0, 0, 0, work.compact
    newlines = hashes = ellipses = split_lines = bullets = ellipsis_lines = 0
    piece_start, piece_blank = start, True
    line_start, line_blank, line_bullet, line_ellipsis = start, True, False, False
    work.edges[0] = work.edges[1] = start
    last_block = data.shape[0] - 8
    while True:
        chunk_start, chunk_at, width = i, at, 0
        while i < end:
            if i <= last_block:
                block = eight_bytes(data, i)
                put_eight_bytes(compact, at, block)
                ordinary = min(ordinary_bytes(block), end - i)
                i += ordinary
                at += ordinary
                if i == end or ordinary == 8:
                    continue
            byte = data[i]
            kind = classes[byte]
            if kind != 0:
                if kind == _SPACE:
                    width = 1
                    break
                if kind == _DOT:
                    dots = 0
                    while i < end and data[i] == byte:
                        compact[at] = byte
                        i += 1
                        at += 1
                        dots += 1
                    ellipses += dots // 3
                    continue
                if kind == _HASH:
                    hashes += 1
                else:
                    width = wide_space(data, i, end)
                    if width != 0:
                        break
                    if byte == 0xE2 and i + 2 < end and data[i + 1] == 0x80 and data[i + 2] == 0xA6:
                        ellipses += 1
            compact[at] = byte
            i += 1
            at += 1
        length = i - chunk_start
        if length:
            if length > LONGEST_CHUNK:
                return UNFIT
            first, second = key_of(compact, chunk_at, length)
            home = home_of(first, second, np.uint64(length), tables.chunks.shape[0])
            prefetch(tables.chunks, home)
            work.chunks[chunks, 0], work.chunks[chunks, 1], work.chunks[chunks, 2] = chunk_at, length, chunk_start
            work.keys[chunks, 0], work.keys[chunks, 1], work.keys[chunks, 2] = first, second, np.uint64(home)
            chunks += 1
            if work.edges[1] == start:
                work.edges[0] = chunk_start
            work.edges[1] = i
            if line_blank:
                line_bullet = data[chunk_start] == ord("-") or (
                    length >= 3
                    and data[chunk_start] == 0xE2
                    and data[chunk_start + 1] == 0x80
                    and data[chunk_start + 2] == 0xA2
                )
            line_blank = piece_blank = False
            line_ellipsis = ends_in_ellipsis(data, chunk_start, i)
        if i >= end:
            break
        byte = data[i]
        line_break = (
            0x0A <= byte <= 0x0D
            or 0x1C <= byte <= 0x1E
            or (width == 2 and data[i + 1] == 0x85)
            or (width == 3 and byte == 0xE2 and data[i + 1] == 0x80 and data[i + 2] in (0xA8, 0xA9))
        )
        if line_break:
            if byte == 0x0A and i > start and data[i - 1] == 0x0D:
                pass  # the line ended before the carriage return
            else:
                split_lines += 1
                bullets += line_bullet
                ellipsis_lines += line_ellipsis
                line_blank, line_bullet, line_ellipsis = True, False, False
            line_start = i + width
            if byte == 0x0A:
                newlines += 1
                if i > piece_start:
                    work.pieces[pieces, 0], work.pieces[pieces, 1] = piece_start - start, i - start
                    work.pieces[pieces, 2] = piece_blank
                    pieces += 1
                piece_start, piece_blank = i + 1, True
        i += width
    if end > line_start:
        split_lines += 1
        bullets += line_bullet
        ellipsis_lines += line_ellipsis
    if end > piece_start:
        work.pieces[pieces, 0], work.pieces[pieces, 1] = piece_start - start, end - start
        work.pieces[pieces, 2] = piece_blank
        pieces += 1
    work.edges[2], work.edges[4] = pieces, chunks
    row[_NEWLINES], row[_HASHES], row[_ELLIPSES] = newlines, hashes, ellipses
    row[_SPLIT_LINES], row[_SPLIT_LINES + 1], row[_SPLIT_LINES + 2] = split_lines, bullets, ellipsis_lines
    return DONE


@numba.njit(cache=True, nogil=True)
def _count_lines(data: U8, start: int, end: int, short: int, kinds: U8, work: Work, row: I64) -> None:
    pieces = work.edges[2]
    begins, ends = np.empty(pieces, np.int64), np.empty(pieces, np.int64)
    heads, hashes = new_heads(pieces), np.empty(pieces, np.uint64)
    total = duplicates = duplicate_characters = lines = punct = shorts = line_duplicates = 0
    for k in range(pieces):
        begins[k], ends[k] = start + work.pieces[k, 0], start + work.pieces[k, 1]
        characters, blank = characters_in(data, begins[k], ends[k]), work.pieces[k, 2] != 0
        total += characters
        repeats = first_equal(data, begins, ends, heads, hashes, k) >= 0
        if repeats:
            duplicates += 1
            duplicate_characters += characters
        if not blank:
            lines += 1
            shorts += characters <= short
            last = ends[k] - 1
            while (data[last] & 0xC0) == 0x80:
                last -= 1
            punct += (kinds[code_at(data, last)[0]] & TERMINAL) != 0
            if repeats:
                line_duplicates += characters
    # Line breaks at either end leave an empty piece there, and an empty text is one.
    empty = 1 if start == end else np.int64(data[start] == 0x0A) + np.int64(data[end - 1] == 0x0A)
    row[_CHARACTERS] = total + row[_NEWLINES]
    row[_PIECES], row[_PIECES + 1] = pieces + empty, duplicates + max(0, empty - 1)
    row[_PIECES + 2] = duplicate_characters
    row[_LINES], row[_LINES + 1], row[_LINES + 2], row[_LINES + 3] = lines, punct, shorts, line_duplicates

    paragraphs = 0
    for k in range(pieces):
        begin, stop = max(begins[k], work.edges[0]), min(ends[k], work.edges[1])
        if begin >= stop:
            continue
        if paragraphs and begin == ends[paragraphs - 1] + 1:
            ends[paragraphs - 1] = stop
        else:
            begins[paragraphs], ends[paragraphs] = begin, stop
            paragraphs += 1
    row[_PARAGRAPHS] = max(1, paragraphs)
    row[_PARAGRAPHS + 1] = row[_PARAGRAPHS + 2] = 0
    heads[:] = -1
    for k in range(paragraphs if paragraphs > 1 else 0):
        if first_equal(data, begins, ends, heads, hashes, k) >= 0:
            row[_PARAGRAPHS + 1] += 1
            row[_PARAGRAPHS + 2] += characters_in(data, begins[k], ends[k])


@numba.njit(cache=True, nogil=True)
def _count_words(tables: Tables, stop_words: int, work: Work, row: I64) -> None:
    """Counts of words, and where each token begins. The stop words are the first tokens of the table."""
    tokens, ids, starts, prefixes = work.edges[3], work.ids, work.starts, work.prefixes
    stops = np.zeros(stop_words, np.bool_)
    size = characters = words = word_characters = alpha = 0
    prefix = np.uint64(0)
    for k in range(tokens):
        starts[k, 0], starts[k, 1], prefixes[k] = size, characters, prefix
        identity = ids[k]
        info = tables.info[identity, 0]
        length, token_bytes = np.int64((info >> LENGTH_BITS) & LENGTH_MASK), np.int64(info & LENGTH_MASK)
        prefix = prefix * power(token_bytes) + tables.info[identity, 1]
        size += token_bytes
        characters += length
        word = np.int64((info >> np.uint64(40)) & np.uint64(1))
        words += word
        word_characters += word * length
        alpha += np.int64((info >> np.uint64(41)) & np.uint64(1))
        if identity < stop_words:
            stops[identity] = True
    starts[tokens, 0], starts[tokens, 1], prefixes[tokens] = size, characters, prefix
    row[_TOKENS], row[_TOKENS + 1], row[_TOKENS + 2], row[_TOKENS + 3] = tokens, words, word_characters, alpha
    row[_TOKENS + 4] = stops.sum()


@numba.njit(cache=True, nogil=True)
def count_texts(
    data: U8,
    borders: I64,
    todo: I64,
    begin: int,
    tables: Tables,
    classes: U8,
    short_line_length: int,
    stop_words: int,
    missing: I64,
    counts: I64,
    portuguese: I64,
    status: U8,
    divided: I32,
) -> int:
    """Counts for the texts numbered ``todo[begin:]``; returns where it stopped for want of room, or ``len(todo)``.

    Args:
        data: bytes of all texts.
        borders: of the texts in ``data``.
        todo: numbers of texts.
        begin: where in ``todo`` to begin.
        tables: the word table; plain chunks are added to it, others marked as unknown.
        classes: from ``byte_classes``.
        short_line_length: characters of a short line, at most.
        stop_words: how many of the first tokens in the table are stop words.
        missing: out; row 0 holds the number of rows, each of the others begin and end in ``data`` of an unknown chunk.
        counts: out; a row per text, in the order of ``COUNTS``.
        portuguese: out; a row per text, in the order of ``portuguese_quality.COUNTS``; without columns, none is
            counted.
        status: out; what became of each text, as ``word_kernels`` has it.
        divided: the token ids of the one text to do where its chunks do not tell them; else empty.
    """
    longest = 0
    for k in range(begin, todo.shape[0]):
        longest = max(longest, borders[todo[k] + 1] - borders[todo[k]])
    work = Work(
        np.zeros(longest + 32, np.uint8),
        np.empty(longest + 1, np.int32),
        np.empty((longest + 2, 2), np.int64),
        np.empty(longest + 2, np.uint64),
        np.empty((longest // 2 + 2, 3), np.int32),
        np.empty(5, np.int64),
        np.empty(MOST_TOKENS + 1, np.int64),
        np.empty((longest // 2 + 2, 3), np.int64),
        np.empty((longest // 2 + 2, 3), np.uint64),
    )
    for k in range(begin, todo.shape[0]):
        text = todo[k]
        start, end, row = borders[text], borders[text + 1], counts[text]
        outcome = _scan(data, start, end, classes, tables, work, row)
        if outcome == DONE and divided.shape[0]:
            work.ids[: divided.shape[0]] = divided
            work.edges[3] = divided.shape[0]
        elif outcome == DONE:
            outcome = look_up(tables, work, missing)
        if outcome < 0:
            return k
        status[text] = outcome
        if outcome == DONE:
            _count_lines(data, start, end, short_line_length, tables.kinds, work, row)
            _count_words(tables, stop_words, work, row)
            count_top(work, row[_TOP : _TOP + 3])
            count_repeated(work, row[_REPEATED : _REPEATED + 6])
            if portuguese.shape[1]:
                count_portuguese(data, start, tables, work, portuguese[text])
    return np.int64(todo.shape[0])
