"""Kernels of fastText's output layer: the mean of a text's input rows to its likeliest labels.

``products`` multiplies means by the output matrix; ``best_in_tree`` and ``best_of_all`` make probabilities of that and
keep the best. Both do it with fastText's steps: single precision where it uses that, 1e-5 added under each logarithm,
its sigmoid table of 512 steps for one-against-all models, its heap (as libstdc++ keeps it) for what is equal.

``products`` is no call of BLAS: there the last bits of a row depend on how many rows go with it. Here each number is
summed up alone, from the first dimension to the last, so a text's scores do not depend on its neighbours.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="assignment,no-any-return,misc"

import math

import numba
import numpy as np
import numpy.typing as npt

from filters.byte_kernels import I32

F32 = npt.NDArray[np.float32]

TEXTS = 32
"""How many texts ``products`` multiplies at once: two or four vector registers for each label."""
SIGMOID_STEPS, SIGMOID_RANGE = 512, 8
_LEAST = 1e-5
_FAR_BELOW = np.float32(-40.0)  # e^-40 adds nothing to a sum that holds a 1


@numba.njit(cache=True, nogil=True)
def products(means: F32, weights: F32, out: F32) -> None:
    """``means @ weights.T`` for means (texts, dim) and weights (labels, dim)."""
    dim, labels = weights.shape[1], weights.shape[0]
    # Flat, with constant distances, so that the compiler sees what may be done side by side.
    columns, sums = np.zeros(TEXTS * dim, np.float32), np.empty(4 * TEXTS, np.float32)
    for begin in range(0, means.shape[0], TEXTS):
        texts = min(TEXTS, means.shape[0] - begin)
        for k in range(texts):
            for d in range(dim):
                columns[TEXTS * d + k] = means[begin + k, d]
        for first in range(0, labels, 4):
            sums[:] = np.float32(0)
            together = min(4, labels - first)
            if together == 4:
                _add_four(columns, weights, first, sums)
            else:
                for j in range(together):
                    _add_one(columns, weights, first + j, TEXTS * j, sums)
            for j in range(together):
                for k in range(texts):
                    out[begin + k, first + j] = sums[TEXTS * j + k]


@numba.njit(cache=True, nogil=True)
def _add_four(columns: F32, weights: F32, label: int, sums: F32) -> None:
    """Four labels by four dimensions: sixteen products for four numbers that are read and written."""
    dim, d = weights.shape[1], 0
    while d + 4 <= dim:
        a0, a1, a2, a3 = weights[label, d], weights[label, d + 1], weights[label, d + 2], weights[label, d + 3]
        b = label + 1
        b0, b1, b2, b3 = weights[b, d], weights[b, d + 1], weights[b, d + 2], weights[b, d + 3]
        c = label + 2
        c0, c1, c2, c3 = weights[c, d], weights[c, d + 1], weights[c, d + 2], weights[c, d + 3]
        e = label + 3
        e0, e1, e2, e3 = weights[e, d], weights[e, d + 1], weights[e, d + 2], weights[e, d + 3]
        at = TEXTS * d
        for k in range(TEXTS):
            p, q = columns[at + k], columns[at + TEXTS + k]
            r, s = columns[at + 2 * TEXTS + k], columns[at + 3 * TEXTS + k]
            sums[k] = (((sums[k] + a0 * p) + a1 * q) + a2 * r) + a3 * s
            sums[TEXTS + k] = (((sums[TEXTS + k] + b0 * p) + b1 * q) + b2 * r) + b3 * s
            sums[2 * TEXTS + k] = (((sums[2 * TEXTS + k] + c0 * p) + c1 * q) + c2 * r) + c3 * s
            sums[3 * TEXTS + k] = (((sums[3 * TEXTS + k] + e0 * p) + e1 * q) + e2 * r) + e3 * s
        d += 4
    while d < dim:
        for j in range(4):
            weight = weights[label + j, d]
            for k in range(TEXTS):
                sums[TEXTS * j + k] += weight * columns[TEXTS * d + k]
        d += 1


@numba.njit(cache=True, nogil=True)
def _add_one(columns: F32, weights: F32, label: int, at: int, sums: F32) -> None:
    for d in range(weights.shape[1]):
        weight = weights[label, d]
        for k in range(TEXTS):
            sums[at + k] += weight * columns[TEXTS * d + k]


@numba.njit(cache=True, nogil=True)
def _log(value: np.float32) -> np.float32:
    return np.float32(math.log(np.float64(value) + _LEAST))


@numba.njit(cache=True, nogil=True)
def best_in_tree(inner: F32, children: I32, labels: I32, scores: F32) -> None:
    """The likeliest leaves of a hierarchical softmax, best first.

    Args:
        inner: (texts, inner nodes), the product of each text's mean and each inner node's row.
        children: (nodes, 2), left and right; -1 for the leaves, which come first. The last node is the root.
        labels: (texts, candidates), to be filled; -1 where fewer leaves have a probability of 1e-5.
        scores: (texts, candidates), their probabilities, 0 where there is no label.
    """
    candidates, leaves = labels.shape[1], inner.shape[1]
    nodes, logs = np.empty(children.shape[0] + 1, np.int32), np.empty(children.shape[0] + 1, np.float32)
    heap_scores, heap_labels = np.empty(candidates + 1, np.float32), np.empty(candidates + 1, np.int32)
    least = _log(np.float32(0))
    for k in range(inner.shape[0]):
        size, depth = 0, 1
        nodes[0], logs[0] = children.shape[0] - 1, np.float32(0)
        while depth:
            depth -= 1
            node, score = nodes[depth], logs[depth]
            if score < least or (size == candidates and score < heap_scores[0]):
                continue
            left, right = children[node, 0], children[node, 1]
            if left < 0:
                size = _offer(heap_scores, heap_labels, size, candidates, score, node)
                continue
            e = np.float32(math.exp(-inner[k, node - leaves]))
            share = np.float32(1.0 / np.float64(np.float32(1) + e))
            nodes[depth], logs[depth] = right, score + _log(share)
            rest = np.float32(1.0 - np.float64(share))
            nodes[depth + 1], logs[depth + 1] = left, score + _log(rest)
            depth += 2
        _write(heap_scores, heap_labels, size, labels[k], scores[k])


@numba.njit(cache=True, nogil=True)
def best_of_all(outputs: F32, sigmoids: F32, labels: I32, scores: F32) -> None:
    """The likeliest labels of a softmax, or of a one-against-all model if there are sigmoids, best first.

    Args:
        outputs: (texts, labels), the product of each text's mean and each label's row; overwritten.
        sigmoids: fastText's table, ``sigmoid_table()``; empty for a softmax.
        labels: (texts, candidates), to be filled; -1 beyond the number of labels.
        scores: (texts, candidates), their probabilities, 0 where there is no label.
    """
    candidates, number = labels.shape[1], outputs.shape[1]
    heap_scores, heap_labels = np.empty(candidates + 1, np.float32), np.empty(candidates + 1, np.int32)
    for k in range(outputs.shape[0]):
        output, size = outputs[k], 0
        if sigmoids.shape[0]:
            for j in range(number):
                output[j] = _sigmoid(output[j], sigmoids)
        else:
            _softmax(output)
        floor = np.float32(0)
        for j in range(number):
            if size == candidates and output[j] < floor:
                continue
            score = _log(output[j])
            if size == candidates and score < heap_scores[0]:
                floor = output[j]
                continue
            size = _offer(heap_scores, heap_labels, size, candidates, score, j)
        _write(heap_scores, heap_labels, size, labels[k], scores[k])


@numba.njit(cache=True, nogil=True)
def _softmax(output: F32) -> None:
    highest, total = output[0], np.float32(0)
    for j in range(output.shape[0]):
        highest = max(highest, output[j])
    for j in range(output.shape[0]):
        below = output[j] - highest
        output[j] = np.float32(math.exp(below)) if below > _FAR_BELOW else np.float32(0)
        total += output[j]
    if total > 0:
        for j in range(output.shape[0]):
            output[j] /= total


@numba.njit(cache=True, nogil=True)
def _sigmoid(value: np.float32, table: F32) -> np.float32:
    if not value >= -SIGMOID_RANGE:
        return np.float32(0)
    if value > SIGMOID_RANGE:
        return np.float32(1)
    step = (value + np.float32(SIGMOID_RANGE)) * np.float32(SIGMOID_STEPS)
    return table[np.int64(step / np.float32(SIGMOID_RANGE) / np.float32(2))]


def sigmoid_table() -> F32:
    """The sigmoids of fastText from -8 to 8, in 512 steps."""
    steps = np.arange(SIGMOID_STEPS + 1, dtype=np.float32)
    values = steps * np.float32(2 * SIGMOID_RANGE) / np.float32(SIGMOID_STEPS) - np.float32(SIGMOID_RANGE)
    return (1.0 / (1.0 + np.exp(-values).astype(np.float64))).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _offer(heap_scores: F32, heap_labels: I32, size: int, candidates: int, score: np.float32, label: int) -> int:
    """Puts a label on a heap whose top is the worst; returns the size, never more than ``candidates``."""
    _rise(heap_scores, heap_labels, size, score, label)
    if size < candidates:
        return size + 1
    _take_worst(heap_scores, heap_labels, size + 1)
    return size


@numba.njit(cache=True, nogil=True)
def _rise(heap_scores: F32, heap_labels: I32, hole: int, score: np.float32, label: int) -> None:
    """Fills a hole at the bottom, after those above it that are better have come down."""
    while hole > 0 and heap_scores[(hole - 1) // 2] > score:
        above = (hole - 1) // 2
        heap_scores[hole], heap_labels[hole] = heap_scores[above], heap_labels[above]
        hole = above
    heap_scores[hole], heap_labels[hole] = score, label


@numba.njit(cache=True, nogil=True)
def _take_worst(heap_scores: F32, heap_labels: I32, size: int) -> None:
    """Moves the top of a heap of this size to its last place, and closes the heap before it."""
    last = size - 1
    if last == 0:
        return
    score, label = heap_scores[last], heap_labels[last]
    heap_scores[last], heap_labels[last] = heap_scores[0], heap_labels[0]
    hole = 0
    while 2 * hole + 1 < last:
        below = 2 * hole + 1
        # Of two that are equal the right one comes up, as in libstdc++'s __adjust_heap.
        if below + 1 < last and not heap_scores[below + 1] > heap_scores[below]:
            below += 1
        heap_scores[hole], heap_labels[hole] = heap_scores[below], heap_labels[below]
        hole = below
    _rise(heap_scores, heap_labels, hole, score, label)


@numba.njit(cache=True, nogil=True)
def _write(heap_scores: F32, heap_labels: I32, size: int, labels: I32, scores: F32) -> None:
    """Sorts the heap and writes it out, best first."""
    for left in range(size, 1, -1):
        _take_worst(heap_scores, heap_labels, left)
    for j in range(labels.shape[0]):
        labels[j], scores[j] = -1, np.float32(0)
        if j < size:
            labels[j], scores[j] = heap_labels[j], np.float32(math.exp(heap_scores[j]))


@numba.njit(cache=True, nogil=True)
def huffman_tree(counts: npt.NDArray[np.int64], children: I32) -> bool:
    """The tree of fastText over the labels, whose counts descend; False if the counts make no tree."""
    leaves = counts.shape[0]
    weights = np.full(2 * leaves - 1, 10**15, np.int64)
    weights[:leaves] = counts
    children[:, :] = -1
    leaf, node = leaves - 1, leaves
    for parent in range(leaves, 2 * leaves - 1):
        for side in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                children[parent, side] = leaf
                leaf -= 1
            elif node == parent:
                return False
            else:
                children[parent, side] = node
                node += 1
        weights[parent] = weights[children[parent, 0]] + weights[children[parent, 1]]
    return True
