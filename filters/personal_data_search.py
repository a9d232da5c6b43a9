"""Which texts of a column may hold personal data at all: a compiled look for the anchors of ``personal_data_rules``.

In: an Arrow large_string array. Out: the places of the texts in which ``personal_data.items`` would have anything to
look at; it may name one too many (after a letter beyond ASCII), never one too few. It spares most
prose the pass of a regular expression, and the making of a Python string.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type"

import numba
import numpy as np
import pyarrow as pa

from caravela.data.columns import utf8_buffers
from filters.batch import Places
from filters.byte_kernels import I64, U8
from filters.personal_data import PersonalDataConfig

_DIGIT, _AT, _SLASH, _C, _COLON = 1, 2, 3, 4, 5
_REACH = 5
"""Characters that must stand behind a number's first digit, all of them of a kind that numbers are written with."""


def may_hold_personal_data(text: pa.Array, config: PersonalDataConfig) -> Places:
    """The places, ascending."""
    data, borders = utf8_buffers(text)
    return np.flatnonzero(_look(data, borders, _STARTS if config.public_ips_only else _STARTS_WITH_COLON, _IN_NUMBER))


def _starts(colon: bool) -> U8:
    """Byte → which kind of anchor it may begin, 0 for none."""
    starts = np.zeros(256, np.uint8)
    starts[list(b"0123456789")] = _DIGIT
    starts[ord("@")], starts[ord("/")], starts[ord("C")] = _AT, _SLASH, _C
    if colon:
        starts[ord(":")] = _COLON
    return starts


_STARTS, _STARTS_WITH_COLON = _starts(False), _starts(True)
_IN_NUMBER = np.zeros(256, np.bool_)
_IN_NUMBER[list(b"0123456789.:()/ -abcdefABCDEFxX*")] = True


@numba.njit(cache=True, nogil=True)
def _is_word(byte: np.uint8) -> bool:
    """Of ASCII only: what is beyond it counts as none, so that the look errs on the side of looking."""
    return bool(
        (ord("0") <= byte <= ord("9"))
        or (ord("a") <= byte <= ord("z"))
        or (ord("A") <= byte <= ord("Z"))
        or byte == ord("_")
    )


@numba.njit(cache=True, nogil=True)
def _is_number_start(data: U8, i: int, start: int, end: int, in_number: U8) -> bool:
    if i + _REACH >= end:
        return False
    for j in range(i + 1, i + 1 + _REACH):
        if not in_number[data[j]]:
            return False
    if i == start:
        return True
    before = data[i - 1]
    if _is_word(before):
        return bool(i - 2 >= start and before == ord("T") and data[i - 2] == ord("P"))
    inside = i - 2 >= start and before in (ord("."), ord("-")) and ord("0") <= data[i - 2] <= ord("9")
    return not inside


@numba.njit(cache=True, nogil=True)
def _is_cnpj_behind_slash(data: U8, i: int, end: int) -> bool:
    """Four digits or capitals, maybe a hyphen, two digits, and then neither letter nor digit."""
    if i + 6 >= end:
        return False
    for j in range(i + 1, i + 5):
        if not (ord("0") <= data[j] <= ord("9") or ord("A") <= data[j] <= ord("Z")):
            return False
    j = i + 6 if data[i + 5] == ord("-") else i + 5
    if j + 1 >= end or not (ord("0") <= data[j] <= ord("9") and ord("0") <= data[j + 1] <= ord("9")):
        return False
    return j + 2 >= end or data[j + 2] == ord("_") or not _is_word(data[j + 2])


@numba.njit(cache=True, nogil=True)
def _look(data: U8, borders: I64, starts: U8, in_number: U8) -> U8:
    found = np.zeros(borders.shape[0] - 1, np.uint8)
    for k in range(borders.shape[0] - 1):
        start, end = borders[k], borders[k + 1]
        for i in range(start, end):
            kind = starts[data[i]]
            if kind == 0:
                continue
            if kind == _DIGIT:
                hit = _is_number_start(data, i, start, end, in_number)
            elif kind == _AT:
                hit = True
            elif kind == _SLASH:
                hit = _is_cnpj_behind_slash(data, i, end)
            elif kind == _C:
                hit = i + 3 < end and data[i + 1] == ord("N") and data[i + 2] == ord("P") and data[i + 3] == ord("J")
                hit = hit and not (i > start and data[i - 1] == ord("<"))
            else:
                hit = i + 1 < end and (data[i + 1] == ord(":") or _is_word(data[i + 1]))
            if hit:
                found[k] = 1
                break
    return found
