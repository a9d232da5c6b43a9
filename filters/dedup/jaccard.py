"""Exact Jaccard similarity of sets of shingles, and the choice of keepers by it, compiled.

A set is a stretch of ascending numbers in one long array, which may lie on disk: ``begin`` and ``end`` of set i. Sets
come cluster by cluster, in each the one that deserves most to be kept first (``opens``).
"""

import numba
import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

STRIDE = 32
"""Steps between two looks at whether enough can still be common."""


@numba.njit(cache=True, nogil=True)
def similarity(one: U64, other: U64, least: float) -> float:
    """|A ∩ B| / |A ∪ B|, and 0 for two empty sets; also 0, at less cost, where it would be below ``least``."""
    total = one.shape[0] + other.shape[0]
    if total == 0:
        return 0.0
    # How many must be common, about; what rounding did is put right by the definition itself.
    needed = np.int64(least * total / (1 + least))
    while needed < total and needed / (total - needed) < least:
        needed += 1
    while needed > 0 and (needed - 1) / (total - needed + 1) >= least:
        needed -= 1
    i, k, common = 0, 0, 0
    while i < one.shape[0] and k < other.shape[0]:
        if common + min(one.shape[0] - i, other.shape[0] - k) < needed:
            return 0.0
        for _ in range(min(STRIDE, one.shape[0] - i, other.shape[0] - k)):  # no step leaves either set
            a, b = one[i], other[k]
            common += int(a == b)
            i += int(a <= b)
            k += int(b <= a)
    share: float = common / (total - common)
    return share if common >= needed else 0.0


@numba.njit(cache=True, nogil=True)
def similarity_with_first(values: U64, begin: I64, end: I64, opens: Mask, out: F64) -> None:
    """Of each set and the first of its cluster. A set that is not there begins at -1; its similarity is left alone."""
    first = 0
    for i in range(begin.shape[0]):
        if opens[i]:
            first = i
        if begin[i] >= 0:
            out[i] = similarity(values[begin[first] : end[first]], values[begin[i] : end[i]], 0.0)


@numba.njit(cache=True, nogil=True)
def keepers(
    values: U64,
    begin: I64,
    end: I64,
    opens: Mask,
    stays: Mask,
    with_first: F64,
    least: float,
    most: int,
    keeper: I64,
    with_keeper: F64,
) -> None:
    """Each set's keeper: of the keepers before it in its cluster the first that is alike, else the set itself.

    So the best set of a cluster is a keeper, the best of those that are not like it is another, and so on. A set that
    ``stays`` is a keeper in any case. A set is compared with the first ``most`` keepers of its cluster at most.
    """
    known, count = np.empty(most, np.int64), 0
    for i in range(begin.shape[0]):
        keeper[i], with_keeper[i] = i, 1.0
        if opens[i]:
            known[0], count = i, 1
            continue
        if begin[i] >= 0 and not stays[i]:
            for k in range(count):
                alike = with_first[i]
                if k > 0:
                    a, b = begin[known[k]], end[known[k]]
                    alike = similarity(values[a:b], values[begin[i] : end[i]], least)
                if alike >= least:
                    keeper[i], with_keeper[i] = known[k], alike
                    break
        if keeper[i] == i and count < most:
            known[count] = i
            count += 1
