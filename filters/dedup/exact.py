"""128 bits of each text without regard to case and white space, straight from Arrow's UTF-8 buffers.

Two texts are equal when ``" ".join(text.lower().split())`` is, with Python's ``lower`` and ``split``; that string is
what is hashed. A compiled loop writes it for a batch of texts, eight ASCII characters at a time and the others by a
table of lower-case letters and white space; the few texts with a character whose lower case is not one character by
itself (capital sigma, I with a dot, the letters of rare scripts beyond the Basic Multilingual Plane) go through Python.

Cost: half of that of the MinHashes of the same text. Memory: half as much again as the batch.

Whoever changes ``filters.byte_kernels`` deletes ``filters/dedup/__pycache__``: Numba does not see it.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="import-untyped,no-untyped-call,arg-type,assignment,call-arg"

import functools
import itertools

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from numba.cpython.unsafe.numbers import trailing_zeros

from caravela.data.columns import utf8_buffers
from filters.byte_kernels import I64, U8, U64, code_at, eight_bytes, put_eight_bytes

SPACE = 0x20
BY_PYTHON = 0xD800
"""A surrogate, which no text holds: marks characters that the table has no answer for."""
AFTER_RARE = 0x1F000
"""Before it lie all letters with a case beyond the Basic Multilingual Plane; emoji come after."""
SPARE = 8
"""Bytes that may be written behind the last text."""

_EACH, _HIGH, _LOW = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F)
_IS_SPACE, _IS_NONE = np.uint64(0x80), np.uint64(0)
_ONE_BYTE, _TWO, _LAST = np.uint64(8), np.uint64(2), np.uint64(56)


def exact_hash(text: str) -> tuple[int, int]:
    """128 bits of the text without regard to case and white space, as (high, low)."""
    digest = xxhash.xxh3_128_intdigest(" ".join(text.lower().split()).encode("utf-8"))
    return digest >> 64, digest & 0xFFFFFFFFFFFFFFFF


def exact_hashes(text: pa.Array) -> U64:
    """The same of every text of a column: ``out[document] = high, low``. A missing text is an empty one."""
    data, offsets = utf8_buffers(text)
    # No lower-case letter takes more than half as many bytes again as its capital.
    plain = np.empty((int(offsets[-1] - offsets[0]) * 3) // 2 + SPARE, np.uint8)
    ends = np.zeros(len(text) + 1, np.int64)
    by_python = np.zeros(len(text), np.bool_)
    _normalised(data, offsets, _lower_case(), plain, ends, by_python)
    view, digest = plain.data, xxhash.xxh3_128_digest
    digests = b"".join([digest(view[a:b]) for a, b in itertools.pairwise(ends.tolist())])
    found = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)
    for row in np.flatnonzero(by_python).tolist():
        found[row] = exact_hash(text[row].as_py())
    return found


@functools.cache
def _lower_case() -> npt.NDArray[np.uint16]:
    """Code point (of the Basic Multilingual Plane) → its lower case, SPACE for white space, or BY_PYTHON."""
    table = np.arange(1 << 16, dtype=np.uint16)
    for code in range(1 << 16):
        lower = chr(code).lower()
        if chr(code).isspace():
            table[code] = SPACE
        elif len(lower) > 1 or lower == "σ" != chr(code):  # a sigma that ends a word has a form of its own
            table[code] = BY_PYTHON
        else:
            table[code] = ord(lower)
    return table


@numba.njit(cache=True, nogil=True)
def _normalised(
    data: U8,
    offsets: I64,
    lower: npt.NDArray[np.uint16],
    out: U8,
    ends: I64,
    by_python: npt.NDArray[np.bool_],
) -> None:
    """Texts in lower case with one space between words, one after the other; ``ends[i + 1]`` is where text i ends."""
    place = 0
    for document in range(offsets.shape[0] - 1):
        i, end, begin = offsets[document], offsets[document + 1], place
        last = _IS_SPACE  # what was written last; a text does not begin with a space
        while i < end:
            if i + 8 <= end:
                block = eight_bytes(data, i)
                seven = block & _LOW  # bits, so that no sum below reaches the next byte
                space = ~((seven ^ _EACH * np.uint64(0x20)) + _LOW) & _HIGH
                control = ~(seven + _EACH * np.uint64(0x80 - 0x20))
                capital = (seven + _EACH * np.uint64(0x80 - ord("A"))) & ~(seven + _EACH * np.uint64(0x7F - ord("Z")))
                put_eight_bytes(out, place, block | (capital & ~block & _HIGH) >> _TWO)
                hard = (block | control | (space & (space << _ONE_BYTE | last))) & _HIGH
                if hard == 0:
                    i, place, last = i + 8, place + 8, space >> _LAST
                    continue
                easy = trailing_zeros(hard) >> 3
                if easy > 0:
                    i, place = i + np.int64(easy), place + np.int64(easy)
                    last = (space >> np.uint64(8 * (easy - 1))) & _IS_SPACE
            code, step = code_at(data, i)
            if code < lower.shape[0]:
                folded = np.int64(lower[code])
            else:
                folded = code
                by_python[document] |= code < AFTER_RARE
            i += step
            if folded < 0x80:  # or what stands for it: other white space, the sign of the unit kelvin
                # Written always, kept unless it is a space after another: no branch that is hard to foresee.
                out[place] = folded
                place += (folded != SPACE) | (last != _IS_SPACE)
                last = _IS_SPACE if folded == SPACE else _IS_NONE
                continue
            last = _IS_NONE
            by_python[document] |= folded == BY_PYTHON
            place += _put(out, place, folded)
        if place > begin and last == _IS_SPACE:
            place -= 1
        ends[document + 1] = place


@numba.njit(cache=True, nogil=True)
def _put(out: U8, place: int, code: int) -> int:
    """Writes a code point beyond ASCII in UTF-8; returns how many bytes it takes."""
    if code < 0x800:
        out[place], out[place + 1] = 0xC0 | (code >> 6), 0x80 | (code & 63)
        return 2
    if code < 0x10000:
        out[place], out[place + 1] = 0xE0 | (code >> 12), 0x80 | ((code >> 6) & 63)
        out[place + 2] = 0x80 | (code & 63)
        return 3
    out[place], out[place + 1] = 0xF0 | (code >> 18), 0x80 | ((code >> 12) & 63)
    out[place + 2], out[place + 3] = 0x80 | ((code >> 6) & 63), 0x80 | (code & 63)
    return 4
