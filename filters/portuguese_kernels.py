"""The counts behind ``filters.portuguese_quality``, compiled: one pass over Arrow's UTF-8 bytes, nothing estimated.

In: UTF-8 bytes with borders, the kinds of all code points, and a table of function words. Out: one row of integers per
text, in the order of ``COUNTS``.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

import numba
import numpy as np

from filters.byte_kernels import I64, U8, U64, code_at

COUNTS = (
    *("words", "function_words", "inner_words", "capitals", "label_words", "fragment_words"),
    *("letters", "signs", "long_chunk_signs", "broken", "lines", "cut_lines"),
)
"""``signs`` are characters that are no white space; ``inner_words`` stand behind the first word of their line."""

LETTER, UPPER, SPACE, SENTENCE_MARK, CLOSER, MOJIBAKE_TAIL = 1, 2, 4, 8, 16, 32
LONG_CHUNK = 40
"""Characters; longer than any word, and than what hyphens and slashes join in prose."""
MOST_WORDS_BEHIND = 3
"""Behind the ellipsis of a line that breaks off: "Continuar a ler"."""
SLOTS = 1 << 10
_MULTIPLIER, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(54)
_LONGEST_WORD = 8  # bytes of a key


@numba.njit(cache=True, nogil=True)
def _slot_of(slots: U64, key: np.uint64) -> int:
    """Where a key is, or the free slot where it belongs."""
    slot = np.int64((key * _MULTIPLIER) >> _SHIFT)
    while slots[slot] != 0 and slots[slot] != key:
        slot = (slot + 1) & (SLOTS - 1)
    return slot


@numba.njit(cache=True, nogil=True)
def add_word(slots: U64, key: np.uint64) -> None:
    """Adds a word: its Latin-1 bytes, small letters, as one number."""
    slots[_slot_of(slots, key)] = key


@numba.njit(cache=True, nogil=True)
def count_texts(data: U8, borders: I64, kinds: U8, slots: U64, counts: I64) -> None:
    """Fills a row of ``counts`` for each text."""
    for k in range(borders.shape[0] - 1):
        _count_text(data, borders[k], borders[k + 1], kinds, slots, counts[k])


@numba.njit(cache=True, nogil=True)
def _count_text(data: U8, start: int, end: int, kinds: U8, slots: U64, row: I64) -> None:
    words = function_words = inner_words = capitals = label_words = fragment_words = 0
    letters = signs = long_chunk_signs = broken = lines = cut_lines = 0
    chunk, before = 0, 0  # signs of this chunk, the code point before
    line_words = line_function_words = 0
    line_capital, mark, cut = False, False, False
    dots, ellipsis_seen, words_behind = 0, False, 0
    key, length = np.uint64(0), 0  # of this word; no length between words
    i = start
    while i <= end:
        if i < end:
            code, width = np.int64(data[i]), 1
            if code >= 0x80:
                code, width = code_at(data, i)
            kind = kinds[code]
        else:
            code, width, kind = 10, 1, SPACE  # the end of a text ends its line
        if (kind & MOJIBAKE_TAIL) and (before == 0xC3 or before == 0xC2 or before == 0xE2):
            broken += 1
        before = code
        i += width
        if kind & LETTER:
            letters += 1
            chunk += 1
            signs += 1
            mark = False
            dots = 0
            if length == 0:
                words_behind += 1
                if line_words == 0:
                    line_capital = (kind & UPPER) != 0
                else:
                    capitals += (kind & UPPER) != 0
                line_words += 1
                key = np.uint64(0)
            length += 1
            if code >= 0x100:
                length += _LONGEST_WORD  # no function word
            elif 0x41 <= code <= 0x5A or 0xC0 <= code <= 0xDE:  # 0xD7 is no letter
                key = (key << np.uint64(8)) | np.uint64(code + 32)
            else:
                key = (key << np.uint64(8)) | np.uint64(code)
            continue
        if length:
            if length <= _LONGEST_WORD and slots[_slot_of(slots, key)] == key:
                line_function_words += 1
            length = 0
        if kind & SPACE:
            if chunk > LONG_CHUNK:
                long_chunk_signs += chunk
            chunk = 0
            if code == 10:
                if line_words:
                    lines += 1
                    cut_lines += cut
                    cut = ellipsis_seen and (words_behind == 0 or (words_behind <= MOST_WORDS_BEHIND and not mark))
                    words += line_words
                    inner_words += line_words - 1
                    function_words += line_function_words
                    if not mark and 3 * line_function_words <= line_words:
                        fragment_words += line_words
                        label_words += line_words if line_capital else 0
                line_words = line_function_words = words_behind = 0
                mark = ellipsis_seen = False
            dots = 0
        else:
            signs += 1
            chunk += 1
            if code == 0x2E:
                dots += 1
            else:
                dots = 3 if code == 0x2026 else 0
            if dots >= 3:
                ellipsis_seen, words_behind = True, 0
            if (kind & CLOSER) == 0:
                mark = (kind & SENTENCE_MARK) != 0
            broken += code == 0xFFFD
    row[0], row[1], row[2], row[3] = words, function_words, inner_words, capitals
    row[4], row[5], row[6], row[7] = label_words, fragment_words, letters, signs
    row[8], row[9], row[10], row[11] = long_chunk_signs, broken, lines, cut_lines
