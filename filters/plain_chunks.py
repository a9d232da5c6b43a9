"""Chunks whose tokens can be told without spaCy: one word or number, with brackets, quotes, dashes and stops around it.

In: the bytes of a chunk. Out: where its tokens begin and end, as spaCy's Portuguese tokenizer has them, unless a part
is a special case (which the caller looks up). Nine of ten new chunks of a corpus are of this kind, and spaCy takes
fifty times as long for one. What spaCy does with each mark follows from its prefix, suffix and infix patterns
(spacy/lang/punctuation.py, and lang/pt); none of them matches inside such a word.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

import numba

from filters.byte_kernels import I64, U8

SMALL, LARGE = 1, 2
MOST_TOKENS = 6
_ASCII_MARKS = tuple(ord(mark) for mark in '()[]",;:!?')
_NEVER_FIRST, _NEVER_LAST = tuple(ord(mark) for mark in ")],;:!?"), tuple(ord(mark) for mark in "([")
_IN_NUMBERS = tuple(ord(mark) for mark in ".,:/")


@numba.njit(cache=True, nogil=True)
def _mark_at(data: U8, i: int, end: int) -> int:
    """Bytes of the bracket, quote, dash or stop that starts here and that spaCy always takes for a token; or 0."""
    byte = data[i]
    if byte in _ASCII_MARKS:
        return 1
    if byte == 0xC2 and i + 1 < end and data[i + 1] in (0xAB, 0xBB):  # « »
        return 2
    if byte == 0xE2 and i + 2 < end and data[i + 1] == 0x80:
        return 3 if data[i + 2] in (0x93, 0x94, 0x9C, 0x9D, 0xA6) else 0  # – — “ ” …
    return 0


@numba.njit(cache=True, nogil=True)
def _letter_at(data: U8, i: int, end: int) -> tuple[int, int]:
    """Bytes of the Latin-1 letter that starts here, 0 for anything else, and whether it is SMALL or LARGE."""
    byte = data[i]
    if ord("a") <= byte <= ord("z"):
        return 1, SMALL
    if ord("A") <= byte <= ord("Z"):
        return 1, LARGE
    if byte == 0xC3 and i + 1 < end and data[i + 1] not in (0x97, 0xB7):  # not × ÷
        return 2, SMALL if data[i + 1] >= 0x9F else LARGE
    return 0, 0


@numba.njit(cache=True, nogil=True)
def _is_digit(data: U8, i: int, end: int) -> bool:
    return i < end and ord("0") <= data[i] <= ord("9")


@numba.njit(cache=True, nogil=True)
def _number_end(data: U8, i: int, end: int) -> int:
    """Behind the digits that start here, with single stops, commas, colons and slashes between."""
    while _is_digit(data, i, end) or (data[i] in _IN_NUMBERS and _is_digit(data, i + 1, end)):
        i += 1
        if i == end:
            break
    return i


@numba.njit(cache=True, nogil=True)
def _word_end(data: U8, start: int, end: int) -> tuple[int, bool]:
    """Behind the letters that start here, with single hyphens or one apostrophe between, perhaps with digits behind.

    Also whether a full stop behind it is a token: after a small letter, a digit or two large letters.
    """
    i, case, case_before, hyphens, apostrophes = start, 0, 0, 0, 0
    while i < end:
        width, this = _letter_at(data, i, end)
        if width:
            case_before, case = case, this
            i += width
            continue
        if i == start or i + 1 == end:
            break
        if data[i] == ord("-") and _letter_at(data, i + 1, end)[0]:
            hyphens += 1
            i += 1
        elif data[i] == ord("'") and _letter_at(data, i + 1, end)[0] and data[i + 1] not in (ord("s"), ord("S")):
            apostrophes += 1
            i += 1
        else:
            break
        case = 0
    if hyphens and apostrophes:
        return start, False
    if i > start and hyphens == 0 and apostrophes == 0 and _is_digit(data, i, end):
        while _is_digit(data, i, end):
            i += 1
        case = SMALL
    return i, case == SMALL or (case == LARGE and case_before == LARGE)


@numba.njit(cache=True, nogil=True)
def _stop_divides(data: U8, mark: int) -> bool:
    """Whether spaCy takes a full stop behind this mark for a token: not behind a dash."""
    return not (data[mark] == 0xE2 and data[mark + 2] in (0x93, 0x94))


@numba.njit(cache=True, nogil=True)
def plain_tokens(data: U8, start: int, end: int, borders: I64) -> tuple[int, int]:
    """Divides a chunk that is [mark] word [mark or dots]*.

    Args:
        data: UTF-8 bytes.
        start: where the chunk begins.
        end: where it ends.
        borders: out; the tokens' borders, room for ``MOST_TOKENS`` + 1.

    Returns:
        How many tokens, and which of them is the word (see ``_word_end``, ``_number_end``); 0 for another chunk.
    """
    borders[0], count, i = start, 0, start
    width = _mark_at(data, i, end)
    if width:
        if data[i] in _NEVER_FIRST or i + width == end:
            return 0, 0
        i += width
        count += 1
        borders[count] = i
    stem, begin = count, i
    if _is_digit(data, i, end):
        i, stop_divides = _number_end(data, i, end), True
    else:
        i, stop_divides = _word_end(data, i, end)
    if i == begin:
        return 0, 0
    count += 1
    borders[count] = i
    if i < end and data[i] == ord("%") and _is_digit(data, i - 1, end):
        i += 1
        count += 1
        borders[count] = i
    while i < end:
        if count == MOST_TOKENS:
            return 0, 0
        if data[i] == ord("."):
            dots = i
            while i < end and data[i] == ord("."):
                i += 1
            if i == dots + 1 and not stop_divides:
                return 0, 0
            stop_divides = False
        else:
            width = _mark_at(data, i, end)
            if width == 0 or data[i] in _NEVER_LAST:
                return 0, 0
            if data[i] == 0xE2 and data[i + 2] == 0xA6 and data[i - 1] == 0xA6:  # …… may be one token
                return 0, 0
            stop_divides = _stop_divides(data, i)
            i += width
        count += 1
        borders[count] = i
    return count, stem
