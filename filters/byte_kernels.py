"""Small kernels on UTF-8 bytes, shared by those of ``filters.word_kernels`` and ``filters.quality_kernels``.

Numba compiles a file's kernels anew when that file changes, but not when a kernel called from another file does. So
whoever changes this file, ``word_kernels`` or ``portuguese_kernels`` deletes ``filters/__pycache__``.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="return-value,no-any-return,import-untyped,no-untyped-call,assignment,arg-type,call-arg"

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.cpython.unsafe.numbers import trailing_zeros
from numba.extending import intrinsic

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

SHIFT = np.uint64(32)
_A, _B, _C = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


SPELLING_BASE = _A
_BYTE, _EACH = np.uint64(0xFF), np.uint64(0x0101010101010101)
_POWERS = np.array([pow(int(SPELLING_BASE), exponent, 1 << 64) for exponent in range(512)], np.uint64)


@intrinsic
def prefetch(typing_context: Any, rows: Any, row: Any) -> Any:
    """Asks the processor to bring the beginning of a row into its cache, without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        row_bytes, _ = cgutils.unpack_tuple(builder, array.strides)
        address = builder.bitcast(array.data, ir.IntType(8).as_pointer())
        address = builder.gep(address, [builder.mul(arguments[1], row_bytes)])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, ir.Constant(number, 0), ir.Constant(number, 3), ir.Constant(number, 1)])
        return context.get_dummy_value()

    return types.void(rows, row), generate


@numba.njit(cache=True, nogil=True)
def eight_bytes(data: U8, start: int) -> np.uint64:
    i = np.uint64(start)  # unsigned: no look for a negative index, so this is one load
    return (
        np.uint64(data[i])
        | (np.uint64(data[i + np.uint64(1)]) << np.uint64(8))
        | (np.uint64(data[i + np.uint64(2)]) << np.uint64(16))
        | (np.uint64(data[i + np.uint64(3)]) << np.uint64(24))
        | (np.uint64(data[i + np.uint64(4)]) << np.uint64(32))
        | (np.uint64(data[i + np.uint64(5)]) << np.uint64(40))
        | (np.uint64(data[i + np.uint64(6)]) << np.uint64(48))
        | (np.uint64(data[i + np.uint64(7)]) << np.uint64(56))
    )


@numba.njit(cache=True, nogil=True)
def put_eight_bytes(data: U8, start: int, value: np.uint64) -> None:
    i = np.uint64(start)  # as above: one store
    data[i] = value & _BYTE
    data[i + np.uint64(1)] = (value >> np.uint64(8)) & _BYTE
    data[i + np.uint64(2)] = (value >> np.uint64(16)) & _BYTE
    data[i + np.uint64(3)] = (value >> np.uint64(24)) & _BYTE
    data[i + np.uint64(4)] = (value >> np.uint64(32)) & _BYTE
    data[i + np.uint64(5)] = (value >> np.uint64(40)) & _BYTE
    data[i + np.uint64(6)] = (value >> np.uint64(48)) & _BYTE
    data[i + np.uint64(7)] = value >> np.uint64(56)


@numba.njit(cache=True, nogil=True)
def ordinary_bytes(block: np.uint64) -> int:
    """How many of eight bytes, from the first on, are neither below 0x30 nor the first of a C2xx or E0xx to E3xx."""
    low = (block - np.uint64(0x30) * _EACH) & ~block
    c2 = block ^ (np.uint64(0xC2) * _EACH)
    c2 = (c2 - _EACH) & ~c2
    e0 = (block & (np.uint64(0xFC) * _EACH)) ^ (np.uint64(0xE0) * _EACH)
    e0 = (e0 - _EACH) & ~e0
    # A borrow may flag a byte wrongly, but only behind one that is flagged rightly.
    flags = (low | c2 | e0) & (np.uint64(0x80) * _EACH)
    return np.int64(trailing_zeros(flags)) >> 3 if flags != 0 else 8


@numba.njit(cache=True, nogil=True)
def mixed(first: np.uint64, second: np.uint64) -> np.uint64:
    value = (first * _A) ^ ((second + _C) * _B)
    value = (value ^ (value >> SHIFT)) * _C
    return value ^ (value >> np.uint64(29))


@numba.njit(cache=True, nogil=True)
def hash_of(data: U8, start: int, end: int) -> np.uint64:
    value, length = np.uint64(end - start), end - start
    if length < 8:
        tail = np.uint64(0)
        for i in range(start, end):
            tail = (tail << np.uint64(8)) | np.uint64(data[i])
        return mixed(tail, value)
    if length < 16:
        return mixed(eight_bytes(data, start) ^ (value << np.uint64(56)), eight_bytes(data, end - 8))
    for i in range(start, end - 16, 16):
        value = mixed(eight_bytes(data, i) ^ value, eight_bytes(data, i + 8))
    return mixed(eight_bytes(data, end - 16) ^ value, eight_bytes(data, end - 8))


@numba.njit(cache=True, nogil=True)
def equal(data: U8, start: int, other: U8, other_start: int, length: int) -> bool:
    j = 0
    while j + 8 <= length:
        if eight_bytes(data, start + j) != eight_bytes(other, other_start + j):
            return False
        j += 8
    while j < length:
        if data[start + j] != other[other_start + j]:
            return False
        j += 1
    return True


@numba.njit(cache=True, nogil=True)
def spelling(data: U8, start: int, end: int) -> np.uint64:
    """Bytes as digits of a number in base ``SPELLING_BASE``, modulo 2^64.

    That of two stretches joined is that of the first, times ``power`` of the second's length, plus that of the second.
    """
    value = np.uint64(0)
    for i in range(start, end):
        value = value * SPELLING_BASE + np.uint64(data[i])
    return value


@numba.njit(cache=True, nogil=True)
def power(exponent: int) -> np.uint64:
    """``SPELLING_BASE`` to this power, modulo 2^64."""
    if exponent < _POWERS.shape[0]:
        return _POWERS[exponent]
    value, square = np.uint64(1), SPELLING_BASE
    while exponent:
        if exponent & 1:
            value *= square
        square *= square
        exponent >>= 1
    return value


@numba.njit(cache=True, nogil=True)
def code_at(data: U8, i: int) -> tuple[int, int]:
    """The code point that starts here and how many bytes it takes."""
    lead = np.int64(data[i])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return ((lead & 31) << 6) | (np.int64(data[i + 1]) & 63), 2
    if lead < 0xF0:
        return ((lead & 15) << 12) | ((np.int64(data[i + 1]) & 63) << 6) | (np.int64(data[i + 2]) & 63), 3
    code = ((lead & 7) << 18) | ((np.int64(data[i + 1]) & 63) << 12)
    return code | ((np.int64(data[i + 2]) & 63) << 6) | (np.int64(data[i + 3]) & 63), 4


@numba.njit(cache=True, nogil=True)
def wide_space(data: U8, i: int, end: int) -> int:
    """Bytes of the white-space character beyond ASCII that starts here, 0 for another."""
    lead = data[i]
    if lead == 0xC2:
        return 2 if i + 1 < end and data[i + 1] in (0x85, 0xA0) else 0
    if i + 2 >= end:
        return 0
    second, third = data[i + 1], data[i + 2]
    if lead == 0xE2:
        if second == 0x80 and (0x80 <= third <= 0x8A or third in (0xA8, 0xA9, 0xAF)):
            return 3
        return 3 if second == 0x81 and third == 0x9F else 0
    if lead == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    return 3 if lead == 0xE3 and second == 0x80 and third == 0x80 else 0


@numba.njit(cache=True, nogil=True)
def ends_in_ellipsis(data: U8, start: int, end: int) -> bool:
    if end - start < 3:
        return False
    a, b, c = data[end - 3], data[end - 2], data[end - 1]
    dots = a == ord(".") and b == ord(".") and c == ord(".")
    return dots or (a == 0xE2 and b == 0x80 and c == 0xA6)


@numba.njit(cache=True, nogil=True)
def characters_in(data: U8, start: int, end: int) -> int:
    count = 0
    for i in range(start, end):
        count += (data[i] & 0xC0) != 0x80
    return count


@numba.njit(cache=True, nogil=True)
def new_heads(count: int) -> I32:
    """An empty open-addressing table for so many entries."""
    size = 16
    while size < 2 * count:
        size *= 2
    return np.full(size, -1, np.int32)


@numba.njit(cache=True, nogil=True)
def first_equal(data: U8, begins: I64, ends: I64, heads: I32, hashes: U64, k: int) -> int:
    """The first stretch of bytes that equals number ``k``; -1, and it is noted, if it is the first itself."""
    length, mask = ends[k] - begins[k], heads.shape[0] - 1
    hashes[k] = hash_of(data, begins[k], ends[k])
    slot = np.int64(hashes[k] & np.uint64(mask))
    while heads[slot] >= 0:
        other = heads[slot]
        if (
            hashes[other] == hashes[k]
            and ends[other] - begins[other] == length
            and equal(data, begins[k], data, begins[other], length)
        ):
            return np.int64(other)
        slot = (slot + 1) & mask
    heads[slot] = k
    return -1
