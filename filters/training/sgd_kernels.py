"""Kernels of training: the input rows of each word, and fastText's stochastic gradient descent for a softmax.

An example's words become rows of the input matrix as ``filters.fasttext_kernels`` says; ``h`` is their mean, ``p`` the
softmax of the output matrix times ``h``. For each label l, with the error ``e = rate * ((l is true) - p[l])``, ``h`` is
added e times to l's output row, and the sum of e times l's old row, divided by the number of rows, to each input row.
The rate falls in a straight line to zero over all words of all epochs. Everything is done in one order, in single
precision, by one thread; so the result is the same on every run.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="assignment,no-any-return,return-value"

import math
from typing import NamedTuple

import numba
import numpy as np

from filters.byte_kernels import I32, I64, U8
from filters.fasttext_kernels import F32, F64, RUN, Network, hash_of_word, put_in_brackets, rows_of_parts

_LEAST = 1e-5


class WordRows(NamedTuple):
    """What each different word of the texts stands for."""

    starts: I64
    """(words + 1): where a word's rows begin in ``rows``."""
    rows: I32
    hashes: I32
    """fastText's hash of each word, for runs of words."""


class Examples(NamedTuple):
    """Texts to learn from, one behind another."""

    words: I32
    borders: I64
    """(texts + 1): where a text's words begin."""
    labels: I32


class Runs(NamedTuple):
    """Runs of words that are features."""

    longest: int
    """Words in a run; 1: no runs."""
    buckets: int
    first_row: int
    """The input row of the first bucket."""


@numba.njit(cache=True, nogil=True)
def hashes_of_words(data: U8, borders: I64) -> I32:
    """The hash that fastText has for each word."""
    found = np.empty(borders.shape[0] - 1, np.int32)
    for k in range(found.shape[0]):
        found[k] = np.int32(np.uint32(hash_of_word(data, borders[k], borders[k + 1])))
    return found


@numba.njit(cache=True, nogil=True)
def count_rows(network: Network, data: U8, borders: I64, own_rows: I32, end_of_line: int, starts: I64) -> None:
    """Fills ``starts`` of ``WordRows``; ``own_rows`` is -1 for a word that is not in the dictionary."""
    ids = np.empty(0, np.int32)
    for k in range(own_rows.shape[0]):
        ids = _room(network, borders[k + 1] - borders[k], ids)
        count = _rows_of_word(network, data, borders[k], borders[k + 1], own_rows[k], k == end_of_line, ids)
        starts[k + 1] = starts[k] + count


@numba.njit(cache=True, nogil=True)
def fill_rows(
    network: Network, data: U8, borders: I64, own_rows: I32, end_of_line: int, starts: I64, rows: I32
) -> None:
    """Fills ``rows`` of ``WordRows``."""
    ids = np.empty(0, np.int32)
    for k in range(own_rows.shape[0]):
        ids = _room(network, borders[k + 1] - borders[k], ids)
        count = _rows_of_word(network, data, borders[k], borders[k + 1], own_rows[k], k == end_of_line, ids)
        rows[starts[k] : starts[k] + count] = ids[:count]


@numba.njit(cache=True, nogil=True)
def _room(network: Network, length: int, ids: I32) -> I32:
    most = 1 + (length + 3) * max(1, min(network.longest, length + 2))
    return ids if ids.shape[0] >= most else np.empty(most, np.int32)


@numba.njit(cache=True, nogil=True)
def _rows_of_word(network: Network, data: U8, start: int, end: int, own: int, is_end_of_line: bool, ids: I32) -> int:
    count, length = 0, end - start
    if own >= 0:
        ids[0] = own
        count = 1
    if network.longest > 0 and not is_end_of_line:
        word = np.empty(length + 2, np.uint8)
        put_in_brackets(data, start, length, word)
        _, count = rows_of_parts(network, word, length + 2, 0, ids, count)
    return count


@numba.njit(cache=True, nogil=True)
def most_rows(examples: Examples, of_word: WordRows, runs: Runs) -> int:
    """The most input rows that a text has."""
    most = 0
    for k in range(examples.labels.shape[0]):
        begin, end = examples.borders[k], examples.borders[k + 1]
        count = (end - begin) * (runs.longest - 1)
        for i in range(begin, end):
            word = examples.words[i]
            count += of_word.starts[word + 1] - of_word.starts[word]
        most = max(most, count)
    return most


@numba.njit(cache=True, nogil=True)
def _rows_of_text(examples: Examples, k: int, of_word: WordRows, runs: Runs, ids: I32) -> int:
    begin, end, count = examples.borders[k], examples.borders[k + 1], 0
    for i in range(begin, end):
        word = examples.words[i]
        for j in range(of_word.starts[word], of_word.starts[word + 1]):
            ids[count] = of_word.rows[j]
            count += 1
    if runs.longest > 1:
        for i in range(begin, end):
            value = np.uint64(np.int64(of_word.hashes[examples.words[i]]))
            for j in range(i + 1, min(end, i + runs.longest)):
                value = value * RUN + np.uint64(np.int64(of_word.hashes[examples.words[j]]))
                ids[count] = runs.first_row + np.int64(value % np.uint64(runs.buckets))
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def descend(
    examples: Examples, of_word: WordRows, runs: Runs, inputs: F32, outputs: F32, rate: float, losses: F64
) -> None:
    """Trains in place, an epoch for each place of ``losses``, which gets its mean loss."""
    dim, labels, texts = inputs.shape[1], outputs.shape[0], examples.labels.shape[0]
    ids = np.empty(most_rows(examples, of_word, runs), np.int32)
    mean, gradient, chances = np.empty(dim, np.float32), np.empty(dim, np.float32), np.empty(labels, np.float32)
    total, done = losses.shape[0] * examples.words.shape[0], 0
    for epoch in range(losses.shape[0]):
        loss, seen = 0.0, 0
        for k in range(texts):
            step = np.float32(rate * (1.0 - done / total))
            done += examples.borders[k + 1] - examples.borders[k]
            count = _rows_of_text(examples, k, of_word, runs, ids)
            if count == 0:
                continue
            mean[:] = 0
            for j in range(count):
                row = ids[j]
                for d in range(dim):
                    mean[d] += inputs[row, d]
            share = np.float32(1.0 / count)
            for d in range(dim):
                mean[d] *= share
            _chances(mean, outputs, chances)
            gradient[:] = 0
            target = examples.labels[k]
            for label in range(labels):
                error = step * (np.float32(label == target) - chances[label])
                for d in range(dim):
                    gradient[d] += error * outputs[label, d]
                    outputs[label, d] += error * mean[d]
            for d in range(dim):
                gradient[d] *= share
            for j in range(count):
                row = ids[j]
                for d in range(dim):
                    inputs[row, d] += gradient[d]
            loss -= math.log(chances[target] + _LEAST)
            seen += 1
        losses[epoch] = loss / max(1, seen)


@numba.njit(cache=True, nogil=True)
def _chances(mean: F32, outputs: F32, chances: F32) -> None:
    for label in range(outputs.shape[0]):
        product = np.float32(0)
        for d in range(outputs.shape[1]):
            product += outputs[label, d] * mean[d]
        chances[label] = product
    highest, total = chances[0], np.float32(0)
    for label in range(chances.shape[0]):
        highest = max(highest, chances[label])
    for label in range(chances.shape[0]):
        chances[label] = np.float32(math.exp(chances[label] - highest))
        total += chances[label]
    for label in range(chances.shape[0]):
        chances[label] /= total
