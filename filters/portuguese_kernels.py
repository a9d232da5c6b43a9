"""The counts behind ``filters.portuguese_quality``, compiled, for a text whose words and lines are already known.

In: the bytes of a text, and what ``quality_kernels`` has found in it: chunks, pieces between line breaks, token ids,
where each token begins. Out: one row of integers, in the order of ``portuguese_quality.COUNTS``. A pass over chunks and
tokens; bytes are looked at only at the ends of lines and in long chunks.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

import numba
import numpy as np

from filters.byte_kernels import I64, U8, characters_in, code_at
from filters.portuguese_quality import LINE_WEIGHT, LONG_CHUNK, MOST_WORDS_BEHIND
from filters.word_kernels import (
    CLOSER,
    IS_ALPHA,
    IS_BROKEN,
    IS_CAPITAL,
    IS_ELLIPSIS,
    IS_FUNCTION_WORD,
    LENGTH_BITS,
    LENGTH_MASK,
    LETTERS_BITS,
    LETTERS_MASK,
    SENTENCE_MARK,
    Tables,
    Work,
)

_ZERO = np.uint64(0)


@numba.njit(cache=True, nogil=True)
def _ends_sentence(compact: U8, begin: int, end: int, kinds: U8) -> bool:
    """Whether the last character that is no closer is a sentence mark."""
    last = end
    while last > begin:
        last -= 1
        while (compact[last] & 0xC0) == 0x80:
            last -= 1
        kind = kinds[code_at(compact, last)[0]]
        if (kind & CLOSER) == 0:
            return bool((kind & SENTENCE_MARK) != 0)
    return False


@numba.njit(cache=True, nogil=True)
def count_text(data: U8, start: int, tables: Tables, work: Work, row: I64) -> None:
    """Fills the row of a text that begins at ``start``; its lines, words and their places are in ``work``."""
    pieces, tokens, chunks = work.edges[2], work.edges[3], work.edges[4]
    words = function_words = inner_words = capitals = label_words = fragments = 0
    letters = signs = long_chunk_signs = broken = lines = cut_lines = 0
    token, chunk, cut = 0, 0, False
    for piece in range(pieces):
        begin, stop = work.starts[token, 0], start + work.pieces[piece, 1]
        while chunk < chunks and work.chunks[chunk, 2] < stop:
            if work.chunks[chunk, 1] > LONG_CHUNK:
                at = work.chunks[chunk, 2]
                characters = characters_in(data, at, at + work.chunks[chunk, 1])
                if characters > LONG_CHUNK:
                    long_chunk_signs += characters
            chunk += 1
        end = work.chunks[chunk, 0] if chunk < chunks else work.starts[tokens, 0]
        line_words = line_function_words = line_capitals = behind = 0
        first_is_capital, ellipsis_seen = False, False
        while token < tokens and work.starts[token, 0] < end:
            info = tables.info[work.ids[token], 0]
            letters += np.int64((info >> LETTERS_BITS) & LETTERS_MASK)
            signs += np.int64((info >> LENGTH_BITS) & LENGTH_MASK)
            if (info & IS_ALPHA) != _ZERO:
                capital = (info & IS_CAPITAL) != _ZERO
                if line_words == 0:
                    first_is_capital = capital
                line_words += 1
                line_capitals += capital
                behind += 1
                line_function_words += (info & IS_FUNCTION_WORD) != _ZERO
            if (info & (IS_BROKEN | IS_ELLIPSIS)) != _ZERO:
                broken += (info & IS_BROKEN) != _ZERO
                if (info & IS_ELLIPSIS) != _ZERO:
                    ellipsis_seen, behind = True, 0
            token += 1
        if line_words == 0:
            continue
        lines += 1
        cut_lines += cut
        ends_sentence = _ends_sentence(work.compact, begin, end, tables.kinds)
        cut = ellipsis_seen and (behind == 0 or (behind <= MOST_WORDS_BEHIND and not ends_sentence))
        words += line_words
        function_words += line_function_words
        inner_words += line_words - 1
        capitals += line_capitals - first_is_capital
        if not ends_sentence and 3 * line_function_words <= line_words:
            fragments += line_words + LINE_WEIGHT
            if first_is_capital:
                label_words += line_words
    row[0], row[1], row[2], row[3], row[4] = words, function_words, inner_words, capitals, label_words
    row[5], row[6], row[7], row[8] = fragments, words + LINE_WEIGHT * lines, letters, signs
    row[9], row[10], row[11], row[12] = long_chunk_signs, broken, lines, cut_lines
