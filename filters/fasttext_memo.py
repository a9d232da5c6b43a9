"""The memo of ``filters.fasttext_kernels``: what is known of chunks, how it grows, and what stays when it is full."""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from filters.byte_kernels import I32, I64, U8, U64
from filters.word_kernels import INLINE, home_of

F32 = npt.NDArray[np.float32]

LONGEST_KEPT = 255
"""Bytes of the longest chunk that the memo keeps."""
NOT_KEPT = (1 << 30) - 1
MET_AGAIN, PLACE = np.uint64(1 << 63), np.uint64((1 << 39) - 1)


class Memo(NamedTuple):
    """What is known of chunks."""

    slots: U64
    pool: U8
    """Bytes of the chunks with more than 16."""
    ids: I32
    """Numbers of input rows, chunk after chunk; empty in a memo of sums."""
    sums: F32
    """(chunks + 1, dim); the last is for a chunk that is not kept. No rows in a memo of ids."""
    used: I64
    """Chunks, bytes of ``pool``, numbers in ``ids``."""


@numba.njit(cache=True, nogil=True)
def is_full(memo: Memo) -> bool:
    """Whether the next text should find more room: three quarters of what a part of the memo can take are taken."""
    return bool(
        8 * memo.used[0] >= 3 * memo.slots.shape[0]
        or 4 * memo.used[1] >= 3 * memo.pool.shape[0]
        or (memo.ids.shape[0] > 0 and 4 * memo.used[2] >= 3 * memo.ids.shape[0])
    )


@numba.njit(cache=True, nogil=True)
def _free_slot(slots: U64, first: np.uint64, second: np.uint64, meta: np.uint64) -> int:
    slot = home_of(first, second, meta & np.uint64(255), slots.shape[0])
    while slots[slot, 2] != 0:
        slot = (slot + 1) & (slots.shape[0] - 1)
    return slot


@numba.njit(cache=True, nogil=True)
def rehash(old: U64, new: U64) -> None:
    """Puts every slot of one memo into a larger one."""
    for i in range(old.shape[0]):
        if old[i, 2] != 0:
            slot = _free_slot(new, old[i, 0], old[i, 1], old[i, 2])
            for j in range(4):
                new[slot, j] = old[i, j]


@numba.njit(cache=True, nogil=True)
def keep_what_was_met_again(old: Memo, new: Memo) -> bool:
    """Puts what has been of use into an empty memo of the same size; False if that would leave too little room."""
    for i in range(old.slots.shape[0]):
        meta, value = old.slots[i, 2], old.slots[i, 3]
        if (meta & MET_AGAIN) == 0:
            continue
        if 4 * new.used[0] > new.slots.shape[0] or 2 * new.used[1] > new.pool.shape[0] - LONGEST_KEPT:
            return False
        length, rows = np.int64(meta & np.uint64(255)), np.int64((meta >> np.uint64(8)) & np.uint64(0xFFFF))
        at, place = np.int64((meta >> np.uint64(24)) & PLACE), new.used[1]
        if length > INLINE:
            for j in range(length):
                new.pool[place + j] = old.pool[at + j]
            new.used[1] += length
        index = np.int64(value & np.uint64(NOT_KEPT))
        if new.sums.shape[0] == 0:
            if 2 * (new.used[2] + rows) > new.ids.shape[0]:
                return False
            for j in range(rows):
                new.ids[new.used[2] + j] = old.ids[index + j]
            index = new.used[2]
            new.used[2] += rows
        else:
            for d in range(new.sums.shape[1]):
                new.sums[new.used[0], d] = old.sums[index, d]
            index = new.used[0]
        new.used[0] += 1
        meta = (meta & np.uint64(0xFFFFFF)) | (np.uint64(place) << np.uint64(24))
        slot = _free_slot(new.slots, old.slots[i, 0], old.slots[i, 1], meta)
        new.slots[slot, 0], new.slots[slot, 1], new.slots[slot, 2] = old.slots[i, 0], old.slots[i, 1], meta
        new.slots[slot, 3] = (value & ~np.uint64(NOT_KEPT)) | np.uint64(index)
    return True
