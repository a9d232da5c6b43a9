"""Predictions of a fastText model for many texts at once, from Arrow's buffers: those of fastText's ``predict``.

In: an Arrow string array. Out: ``Predictions``, the numbers of the likeliest labels of each text and their scores.
fastText's package is not needed; each text is one line (a newline in it is a blank).

Rows are summed word by word in double precision, and what a word adds is remembered: fastText's own sum of all rows in
single precision is the less exact one. On ordinary texts labels are equal and scores differ by 1e-6 or so (lid.176, on
10,333 texts: the same three labels in order on all, scores within 2e-6); by more for a text of one word ten thousand
times. Labels whose scores are equal come in fastText's order.

Models with a sigmoid per label (losses ns and ova) round each output to a step of a table, and an output on a step's
edge could fall on its other side. So with rows of up to 64 numbers, every step is made there as fastText makes it, in
its order and precision, at a fifth of the speed; with longer ones, a score may be wrong by up to 0.008.

What it costs: a table of the words met, up to ``memory_bytes``, and what is touched of the model's file.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.data.columns import utf8_buffers
from caravela.errors import UserError
from filters import fasttext_kernels as kernels
from filters import fasttext_memo, fasttext_scores
from filters.byte_kernels import I32, I64, U8
from filters.fasttext_file import (
    COPY_BELOW,
    NEGATIVE_SAMPLING,
    ONE_VS_ALL,
    TREE,
    Dictionary,
    Matrix,
    Model,
    frozen,
    read_model,
)
from filters.fasttext_kernels import F32, Network
from filters.fasttext_memo import Memo
from filters.word_kernels import new_slots

MEMORY_BYTES = 256 << 20
BLOCK = 64  # texts whose outputs are held at a time
FEWEST_SLOTS = 1 << 14
SHORT_ROW = 64
"""Numbers of an input row up to which rows are added as fastText adds them, where a table of sigmoids needs that."""
IDS, POOL_BYTES = 24, 8
"""Numbers of rows, and bytes of long chunks, for which there is room per chunk of the memo."""


class Predictions(NamedTuple):
    """What a model says of each text, best label first."""

    labels: npt.NDArray[np.int32]
    """(texts, candidates): places in the model's ``labels``; -1 where it names fewer."""
    scores: npt.NDArray[np.float32]
    """(texts, candidates): their probabilities as ``predict`` gives them, which may be 1.00001; 0 where none is."""


class FastTextModel:
    """Holds one model and what it has learned of words; one per process, as two threads must not share it.

    Args:
        path: a .bin or .ftz file on this machine.
        memory_bytes: how much memory the table of words takes, about.
        copy_below: see ``read_model``.
    """

    def __init__(self, path: str, memory_bytes: int = MEMORY_BYTES, copy_below: int = COPY_BELOW) -> None:
        model = read_model(path, copy_below)
        self.path = path
        self.labels = model.dictionary.label_names()
        """The labels as they are written in the file."""
        rows, dim = model.input, model.settings.dim
        table = model.settings.loss in (NEGATIVE_SAMPLING, ONE_VS_ALL)
        fits = len(rows.dense) > 0 or 4 * rows.rows * dim < COPY_BELOW
        self._in_ids = table and dim <= SHORT_ROW and fits
        if self._in_ids:
            rows = rows.as_dense()
        self._network = _network(model, rows)
        self._weights: F32 = model.output.to_dense()
        if not np.isfinite(self._weights).all():
            raise UserError(f"{path}: not a fastText model that can be used: its output matrix holds NaN or infinity")
        self._children = _tree(model, path) if model.settings.loss == TREE else None
        self._sigmoids = fasttext_scores.sigmoid_table() if table else np.zeros(0, np.float32)
        of_slot = self._new_memo(FEWEST_SLOTS)
        self._most_slots = FEWEST_SLOTS
        while 2 * self._most_slots * _nbytes(of_slot) <= memory_bytes * FEWEST_SLOTS:
            self._most_slots *= 2
        self._memo = of_slot

    @property
    def nbytes(self) -> int:
        """What the table of words takes."""
        return _nbytes(self._memo)

    @property
    def num_known(self) -> int:
        """How many different chunks between blanks the table of words holds."""
        return int(self._memo.used[0])

    def predict(self, text: pa.Array, candidates: int) -> Predictions:
        """The likeliest labels of each text; a null counts as the empty text."""
        return self.predict_buffers(*utf8_buffers(text), candidates)

    def predict_buffers(self, data: U8, borders: I64, candidates: int) -> Predictions:
        """The same for texts that lie in ``data``, one behind another, each from a border to the next."""
        # Numba compiles for each kind of argument: bytes that must not be written, borders that may.
        data, borders = frozen(data), np.array(borders)
        texts = len(borders) - 1
        found = Predictions(np.full((texts, candidates), -1, np.int32), np.zeros((texts, candidates), np.float32))
        means, rows = self._means(data, borders)
        if not np.isfinite(means).all():
            raise UserError(
                f"{self.path}: not a fastText model that can be used: its input matrix holds NaN or infinity"
            )
        outputs = np.empty((BLOCK, len(self._weights)), np.float32)
        for begin in range(0, texts, BLOCK):
            end = min(begin + BLOCK, texts)
            part = outputs[: end - begin]
            fasttext_scores.products(means[begin:end], self._weights, part)
            labels, scores = found.labels[begin:end], found.scores[begin:end]
            if self._children is not None:
                fasttext_scores.best_in_tree(part, self._children, labels, scores)
            else:
                fasttext_scores.best_of_all(part, self._sigmoids, labels, scores)
        found.labels[rows == 0], found.scores[rows == 0] = -1, 0
        return found

    def _means(self, data: U8, borders: I64) -> tuple[F32, I64]:
        texts, dim = len(borders) - 1, self._network.dim
        means, rows = np.zeros((texts, dim), np.float32), np.zeros(texts, np.int64)
        total = np.zeros(dim, np.float32 if self._in_ids else np.float64)
        begin = 0
        while begin < texts:
            begin = kernels.mean_rows(self._network, self._memo, data, borders, begin, total, means, rows)
            if begin < texts:
                self._make_room()
        return means, rows

    def _make_room(self) -> None:
        """Doubles the memo; where it has its full size, forgets what was met once, or else everything."""
        old, slots = self._memo, 2 * len(self._memo.slots)
        if slots > self._most_slots:
            self._memo = self._new_memo(len(old.slots))
            if not fasttext_memo.keep_what_was_met_again(old, self._memo):
                self._memo = self._new_memo(FEWEST_SLOTS)
            return
        self._memo = self._new_memo(slots)
        fasttext_memo.rehash(old.slots, self._memo.slots)
        chunks, pooled, ids = old.used
        self._memo.pool[:pooled] = old.pool[:pooled]
        if self._in_ids:
            self._memo.ids[:ids] = old.ids[:ids]
        else:
            self._memo.sums[:chunks] = old.sums[:chunks]
        self._memo.used[:] = old.used

    def _new_memo(self, slots: int) -> Memo:
        chunks, dim = slots // 2, self._network.dim
        return Memo(
            new_slots(slots),
            np.zeros(POOL_BYTES * chunks, np.uint8),
            np.empty(IDS * chunks if self._in_ids else 0, np.int32),
            _aligned(0 if self._in_ids else chunks + 1, dim),
            np.zeros(3, np.int64),
        )


def _aligned(rows: int, dim: int) -> F32:
    """Room for rows of which those of 16 numbers lie on one cache line each."""
    room = np.empty(rows * dim + 16, np.float32)
    begin = (-room.ctypes.data % 64) // 4
    return room[begin : begin + rows * dim].reshape(rows, dim)


def _nbytes(memo: Memo) -> int:
    return sum(array.nbytes for array in memo)


def _network(model: Model, rows: Matrix) -> Network:
    settings, dictionary = model.settings, model.dictionary
    return Network(
        dictionary.data,
        dictionary.starts,
        dictionary.lengths,
        _heads(dictionary),
        dictionary.words,
        dictionary.row_of("</s>"),
        _pruned(dictionary),
        rows.dense,
        rows.codes,
        rows.centroids,
        rows.norms,
        rows.part,
        settings.dim,
        settings.word_n_grams,
        settings.bucket,
        settings.shortest,
        settings.longest,
    )


def _heads(dictionary: Dictionary) -> I32:
    heads = np.full(_power_of_two(2 * len(dictionary.starts)), -1, np.int32)
    kernels.add_entries(dictionary.data, dictionary.starts, dictionary.lengths, heads)
    return heads


def _pruned(dictionary: Dictionary) -> I32:
    if dictionary.pruned is None:
        return np.zeros((0, 2), np.int32)
    table = np.full((_power_of_two(2 * len(dictionary.pruned)), 2), -1, np.int32)
    kernels.add_pruned(dictionary.pruned, table)
    return table


def _tree(model: Model, path: str) -> I32:
    counts = model.dictionary.counts[model.dictionary.words :]
    children = np.full((2 * len(counts) - 1, 2), -1, np.int32)
    if not fasttext_scores.huffman_tree(counts, children):
        raise UserError(f"{path}: not a fastText model that can be used: the counts of its labels make no tree")
    return children


def _power_of_two(least: int) -> int:
    return 1 << max(least, 16).bit_length()
