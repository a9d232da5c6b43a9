"""The words of a text to hashes, compiled: straight from UTF-8 bytes, no Python object per word.

Words are runs of letters, marks and digits, lower-cased and without accents (as datatrove's ``simplify_text`` does);
digits stay as they are unless ``fold_digits``. Two words have the same hash when they fold to the same letters, and
else but for chance: never two of up to eight ASCII letters, and one pair in 2^64 of others.

A text is folded to bytes first, BREAK between words, eight ASCII characters at a time and any other by the table; then
each word is hashed, up to eight bytes at once. So no step waits for the one of the character before it, as it would in
a hash letter by letter, which took twice as long. Memory: one and a half times the longest text.

Numba compiles a file's kernels anew when that file changes, but not when a kernel called from another file does. So
whoever changes this file deletes ``filters/dedup/__pycache__``.
"""

# What Numba's own functions are, mypy cannot know.
# mypy: disable-error-code="import-untyped,no-untyped-call,call-arg,var-annotated"

import functools
import unicodedata
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.cpython.unsafe.numbers import trailing_zeros
from numba.extending import intrinsic

from filters.byte_kernels import U8, U64, code_at, eight_bytes, put_eight_bytes

U16 = npt.NDArray[np.uint16]

BREAK, SKIP = 0, 0xFFFF
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
STRETCH = 64
"""Bytes in which breaks are looked for at once."""
SPARE = STRETCH + 8
"""Bytes that are written or read behind a folded text."""

_EACH, _HIGH, _LOW = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F)
_ONE, _TWO, _SEVEN, _BYTE = np.uint64(1), np.uint64(2), np.uint64(7), np.uint64(0xFF)
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
"""What keeps the first so many of eight bytes."""


@functools.cache
def folding_table(fold_digits: bool) -> U16:
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


@numba.njit(cache=True, nogil=True)
def folded_bytes(size: int) -> int:
    """Room for a folded text of ``size`` bytes: no letter takes more than half as many bytes again as its capital."""
    return size * 3 // 2 + SPARE


@intrinsic
def _breaks(typing_context: Any, data: Any, start: Any) -> Any:
    """Which of ``STRETCH`` bytes are BREAK, a bit each, the first byte's lowest: compared 16 or 32 at once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stretch = ir.VectorType(ir.IntType(8), STRETCH)
        address = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [arguments[1]])
        found = builder.load(builder.bitcast(address, stretch.as_pointer()), align=1)
        return builder.bitcast(builder.icmp_unsigned("==", found, ir.Constant(stretch, None)), ir.IntType(STRETCH))

    return types.uint64(data, types.intp), generate


@numba.njit(cache=True, nogil=True)
def mixed(value: np.uint64) -> np.uint64:
    """A bijection that spreads every bit (the finalizer of SplitMix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def word_hashes(data: U8, start: int, end: int, fold: U16, salt: np.uint64, folded: U8, out: U64) -> int:
    """Hashes of the words of one text, others for each ``salt``; returns how many.

    ``folded`` is scratch of ``folded_bytes(end - start)``; ``out`` needs one more place than there are words.
    """
    return _hashes(folded, _fold(data, start, end, fold, folded), salt, out)


@numba.njit(cache=True, nogil=True)
def _fold(data: U8, start: int, end: int, fold: U16, out: U8) -> int:
    """Writes the letters and digits of a text, folded, in UTF-8, and BREAK for all others; returns how many bytes."""
    i, place = start, 0
    digit_bits = np.uint64(0x0F if fold[ord("9")] == ord("0") else 0)
    while i < end:
        if i + 8 <= end:
            block = eight_bytes(data, i)
            seven = block & _LOW  # bits, so that no sum below reaches the next byte
            small = seven | _EACH * np.uint64(0x20)
            letter = (small + _EACH * np.uint64(0x80 - ord("a"))) & ~(small + _EACH * np.uint64(0x7F - ord("z")))
            digit = (seven + _EACH * np.uint64(0x80 - ord("0"))) & ~(seven + _EACH * np.uint64(0x7F - ord("9"))) & _HIGH
            small &= ~((digit >> _SEVEN) * digit_bits)
            put_eight_bytes(out, place, small & ((((letter | digit) & _HIGH) >> _SEVEN) * _BYTE))
            beyond = block & _HIGH
            if beyond == 0:
                i, place = i + 8, place + 8
                continue
            ascii_bytes = np.int64(trailing_zeros(beyond)) >> 3
            i, place = i + ascii_bytes, place + ascii_bytes
        code, step = code_at(data, i)
        i += step
        # Outside the table are emoji and rare scripts; they stand between words.
        folded = np.uint32(fold[code]) if code < fold.shape[0] else np.uint32(BREAK)
        if folded < 0x80:
            out[place] = folded
            place += 1
        elif folded < 0x800:
            out[place], out[place + 1] = 0xC0 | (folded >> 6), 0x80 | (folded & 63)
            place += 2
        elif folded != SKIP:
            out[place], out[place + 1] = 0xE0 | (folded >> 12), 0x80 | ((folded >> 6) & 63)
            out[place + 2] = 0x80 | (folded & 63)
            place += 3
    return place


@numba.njit(cache=True, nogil=True)
def _hashes(folded: U8, size: int, salt: np.uint64, out: U64) -> int:
    """Hashes of what stands between breaks in the first ``size`` bytes; writes a break behind them."""
    count, begin = 0, 0
    folded[size] = BREAK
    for base in range(0, size + 1, STRETCH):
        breaks = _breaks(folded, base)
        if size - base < STRETCH - 1:
            breaks &= (_TWO << np.uint64(size - base)) - _ONE
        while breaks != 0:
            end = base + np.int64(trailing_zeros(breaks))
            breaks &= breaks - _ONE
            length = end - begin
            if length <= 8:
                # Of no letters too, between two breaks, but not kept: no branch that is hard to foresee.
                out[count] = mixed((eight_bytes(folded, begin) & _FIRST_BYTES[np.uint64(length)]) ^ salt)
            else:
                out[count] = _long_hash(folded, begin, end, salt)
            count += length > 0
            begin = end + 1
    return count


@numba.njit(cache=True, nogil=True)
def _long_hash(folded: U8, begin: int, end: int, salt: np.uint64) -> np.uint64:
    value = salt
    while begin + 8 < end:
        value = mixed(eight_bytes(folded, begin) ^ value) * MULTIPLIER
        begin += 8
    return mixed((eight_bytes(folded, begin) & _FIRST_BYTES[np.uint64(end - begin)]) ^ value)
