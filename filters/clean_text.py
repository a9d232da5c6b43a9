"""``extract.clean`` over a column of texts: mojibake mended, Unicode NFC, control characters removed.

In: an Arrow large_string array. Out: the same texts, as ``extract.clean`` gives them one by one. A compiled look at the
bytes finds the few texts to which ``clean`` could do anything; it may take one too many, never one
too few: a code point goes through if it can stand anywhere in a text in NFC.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type"

import functools
import unicodedata
from collections.abc import Iterator

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caravela.data import extract
from caravela.data.columns import strings, utf8_buffers
from filters.batch import Places
from filters.byte_kernels import I64, U8, code_at, wide_space

HIGHEST = 0x20000
HANGUL = range(0x1100, 0x1200), range(0xA960, 0xA980), range(0xAC00, 0xD800)


def clean_column(text: pa.Array) -> pa.Array:
    """The texts, cleaned; the same array where nothing is wrong."""
    places = suspicious(text)
    if not len(places):
        return text
    mask = np.zeros(len(text), np.bool_)
    mask[places] = True
    cleaned = [extract.clean(each) for each in text.take(pa.array(places)).to_pylist()]
    return pc.replace_with_mask(text, pa.array(mask), strings(cleaned, pa.large_string()))


def suspicious(text: pa.Array) -> Places:
    """The places of the texts that ``extract.clean`` might change."""
    data, borders = utf8_buffers(text)
    return np.flatnonzero(_look(data, borders, _suspicious_bytes(), _suspicious_codes()))


def blank(text: pa.Array) -> Places:
    """The places of the texts that are empty or white space alone, as ``str.isspace`` has it."""
    return np.flatnonzero(_is_blank(*utf8_buffers(text)))


@numba.njit(cache=True, nogil=True)
def _is_blank(data: U8, borders: I64) -> U8:
    found = np.ones(borders.shape[0] - 1, np.uint8)
    for k in range(borders.shape[0] - 1):
        i, end = borders[k], borders[k + 1]
        while i < end:
            byte = data[i]
            ascii_space = byte == 0x20 or 0x09 <= byte <= 0x0D or 0x1C <= byte <= 0x1F
            width = 1 if ascii_space else wide_space(data, i, end)
            if width == 0:
                found[k] = 0
                break
            i += width
    return found


@numba.njit(cache=True, nogil=True)
def _look(data: U8, borders: I64, suspicious_bytes: U8, suspicious_codes: U8) -> U8:
    found = np.zeros(borders.shape[0] - 1, np.uint8)
    for k in range(borders.shape[0] - 1):
        i, end = borders[k], borders[k + 1]
        while i < end:
            kind = suspicious_bytes[data[i]]
            if kind == 0:
                i += 1
                continue
            if kind == 2:
                found[k] = 1
                break
            code, width = code_at(data, i)
            # A capital A with tilde or circumflex, or a small a with circumflex, before anything beyond ASCII may be
            # mojibake.
            if code in (0xC2, 0xC3, 0xE2) and i + width < end and data[i + width] >= 0x80:
                found[k] = 1
                break
            if code >= suspicious_codes.shape[0] or suspicious_codes[code]:
                found[k] = 1
                break
            i += width
    return found


@functools.cache
def _suspicious_bytes() -> U8:
    """Byte → 0 for one to pass over, 1 for one that begins a character to look at, 2 for a control character."""
    kinds = np.zeros(256, np.uint8)
    kinds[0xC2:] = 1
    kinds[[code for code in range(128) if extract.CONTROLS.match(chr(code))]] = 2
    return kinds


@functools.cache
def _suspicious_codes() -> U8:
    """Code point → whether it is a control, or one that NFC may change or join to another."""
    codes = np.zeros(HIGHEST, np.uint8)
    codes[list(_second_parts())] = 1
    for code in range(0x80, HIGHEST):
        character = chr(code)
        if (
            unicodedata.combining(character)
            or not unicodedata.is_normalized("NFC", character)
            or extract.CONTROLS.match(character)
        ):
            codes[code] = 1
    return codes


def _second_parts() -> Iterator[int]:
    """Code points that NFC may join to the one before."""
    for codes in HANGUL:
        yield from codes
    for code in range(HIGHEST):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            yield int(parts[1], 16)
