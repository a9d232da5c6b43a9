"""Reader of fastText's model files (.bin and .ftz, versions 11 and 12), of models that name labels.

In: a local path. Out: ``Model``: the settings, the dictionary, and the input and output matrices, as views of the
memory-mapped file. So a dense input matrix of 1.6 GB costs only the pages that are touched, and processes share them;
a small one is copied.

The file, little-endian, without padding: magic and version; 12 int32 and a float64 of settings; the dictionary (three
int32, two int64; then per entry its text, a zero byte, an int64 count and a kind; then the pruned buckets, pairs of
int32); one byte that says whether the input matrix is quantised, and the matrix; the same for the output matrix.
Everything is checked before an array is made of it: a file that is cut off, or no model, is a ``UserError``.
"""

import os
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from caravela.errors import UserError
from filters.byte_kernels import I32, I64, U8
from filters.fasttext_kernels import CENTROIDS, LABEL, WORD, read_entries

F32 = npt.NDArray[np.float32]

MAGIC = 793712314
VERSIONS = (11, 12)
SUPERVISED = 3
TREE, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
"""Losses, as the file numbers them. A tree is a hierarchical softmax."""
NOT_PRUNED = -1
COPY_BELOW = 64 << 20
LONGEST = 1000
"""Of parts and of runs; fastText knows no limit, but looks at one word for a day then."""


class Settings(NamedTuple):
    """What of fastText's arguments matters to a prediction."""

    dim: int
    word_n_grams: int
    loss: int
    bucket: int
    shortest: int
    """Characters of the shortest part of a word that counts; fastText's ``minn``."""
    longest: int
    """``maxn``; 0: whole words only."""


class Dictionary(NamedTuple):
    """Entries, words first: where each lies in ``data``, how often it occurred in training, WORD or LABEL."""

    data: U8
    starts: I64
    lengths: I64
    counts: I64
    kinds: U8
    words: int
    """How many entries are words; the others are labels."""
    pruned: I32 | None
    """Pairs of a bucket and its row behind those of the words, if only some buckets were kept; else None."""

    def row_of(self, word: str) -> int:
        """The entry of a word, which is its row in the input matrix too; -1 if there is none."""
        wanted = word.encode("utf-8")
        for entry in np.flatnonzero(self.lengths[: self.words] == len(wanted)).tolist():
            start = int(self.starts[entry])
            if self.data[start : start + len(wanted)].tobytes() == wanted:
                return int(entry)
        return -1

    def label_names(self) -> tuple[str, ...]:
        """Texts of the labels, in their order."""
        spans = zip(self.starts[self.words :].tolist(), self.lengths[self.words :].tolist(), strict=True)
        return tuple(self.data[start : start + length].tobytes().decode("utf-8", "replace") for start, length in spans)


class Matrix(NamedTuple):
    """Rows, dense or product-quantised; the arrays of the other kind have no rows.

    A quantised row is made of parts of ``part`` numbers (the last may be shorter); each part is one of 256 centroids.
    """

    dense: F32
    codes: U8
    """(rows, parts)"""
    centroids: F32
    norms: F32
    """What each quantised row is to be multiplied by; empty: by nothing."""
    part: int

    @property
    def rows(self) -> int:
        """How many rows."""
        return max(len(self.dense), len(self.codes))

    def as_dense(self) -> "Matrix":
        """The same rows, not quantised."""
        if not len(self.codes):
            return self
        nothing = np.zeros(0, np.float32)
        return Matrix(frozen(self.to_dense()), frozen(np.zeros((0, 0), np.uint8)), nothing, nothing, 1)

    def to_dense(self) -> F32:
        """All rows, in a new array."""
        if not len(self.codes):
            return np.array(self.dense, np.float32)
        rows, parts = self.codes.shape
        dim = len(self.centroids) // CENTROIDS
        dense = np.empty((rows, dim), np.float32)
        for number in range(parts):
            begin, end = number * self.part, min((number + 1) * self.part, dim)
            centroids = self.centroids[CENTROIDS * begin : CENTROIDS * end].reshape(CENTROIDS, end - begin)
            dense[:, begin:end] = centroids[self.codes[:, number]]
        if len(self.norms):
            dense *= self.norms[:, None]
        return dense


@dataclass(frozen=True)
class Model:
    """What a file holds."""

    settings: Settings
    dictionary: Dictionary
    input: Matrix
    output: Matrix


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that cannot be written. To Numba it is of another type, and to compile for one type is enough."""
    view = array.view()
    view.setflags(write=False)
    return view


def read_model(path: str, copy_below: int = COPY_BELOW) -> Model:
    """Reads a model.

    Args:
        path: the file.
        copy_below: a dense input matrix of fewer bytes is copied into memory. A larger one stays in the file, where it
            may begin at any byte; x86-64 and arm64 read that as well.

    Raises:
        UserError: the file is no fastText model, is cut off, contradicts itself, or holds word vectors only.
    """
    return _Reader(path, copy_below).model()


class _Reader:
    """A place in a memory-mapped file."""

    def __init__(self, path: str, copy_below: int) -> None:
        self.path, self.copy_below = path, copy_below
        size = os.path.getsize(path)
        self.data: U8 = np.asarray(np.memmap(path, np.uint8, "r")) if size else np.zeros(0, np.uint8)
        self.at = 0

    def fail(self, problem: str) -> UserError:
        return UserError(f"{self.path}: not a fastText model that can be used: {problem}")

    def expect(self, holds: bool, problem: str) -> None:
        if not holds:
            raise self.fail(problem)

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)).tobytes())

    def take(self, count: int) -> U8:
        """The next bytes."""
        left = len(self.data) - self.at
        self.expect(0 <= count <= left, f"it ends after {len(self.data):,} bytes, where {count:,} more were expected")
        self.at += count
        return self.data[self.at - count : self.at]

    def floats(self, count: int) -> F32:
        return self.take(4 * count).view("<f4")

    def model(self) -> Model:
        self.expect(len(self.data) >= 8, f"it has {len(self.data)} bytes")
        magic, version = self.numbers("ii")
        self.expect(magic == MAGIC, f"it begins with {self.data[:4].tobytes()!r}")
        self.expect(version in VERSIONS, f"version = {version}: expected {' or '.join(map(str, VERSIONS))}")
        settings = self.settings(version)
        dictionary = self.dictionary()
        rows = self.matrix(settings.dim, "input", can_be_quantised=True)
        quantised = len(rows.codes) > 0
        self.expect(quantised or dictionary.pruned is None, "its buckets are pruned, but its input is not quantised")
        self.check_rows(settings, dictionary, rows.rows)
        output = self.matrix(settings.dim, "output", can_be_quantised=quantised)
        labels = len(dictionary.kinds) - dictionary.words
        self.expect(output.rows == labels, f"{output.rows} rows in the output matrix for {labels} labels")
        return Model(settings, dictionary, rows, output)

    def settings(self, version: int) -> Settings:
        dim, _, _, _, _, word_n_grams, loss, model, bucket, shortest, longest, _, _ = self.numbers("12id")
        self.expect(model == SUPERVISED, f"model = {model}: it holds word vectors; expected one that names labels (3)")
        self.expect(dim > 0, f"dim = {dim}: expected 1 or more")
        self.expect(TREE <= loss <= ONE_VS_ALL, f"loss = {loss}: expected 1 to 4")
        if version == 11:
            longest = 0  # Such models know whole words only, whatever they say.
        for name, value in (("maxn", longest), ("wordNgrams", word_n_grams)):
            self.expect(value <= LONGEST, f"{name} = {value}: expected at most {LONGEST}")
        hashes = longest > 0 or word_n_grams > 1
        self.expect(bucket > 0 or not hashes, f"bucket = {bucket}: expected 1 or more with n-grams")
        return Settings(dim, word_n_grams, loss, bucket, shortest, longest)

    def dictionary(self) -> Dictionary:
        size, words, labels, _, pruned_size = self.numbers("3i2q")
        self.expect(words >= 0 and labels > 0 and words + labels == size, f"{words} words + {labels} labels != {size}")
        least = 10 * size
        self.expect(least <= len(self.data) - self.at, f"it ends within its dictionary of {size:,} entries")
        starts, lengths, counts = (np.zeros(size, np.int64) for _ in range(3))
        kinds = np.zeros(size, np.uint8)
        end = read_entries(self.data, self.at, starts, lengths, counts, kinds)
        self.expect(end >= 0, f"it ends within its dictionary of {size:,} entries")
        self.at = end
        sorted_by_kind = bool((kinds[:words] == WORD).all() and (kinds[words:] == LABEL).all())
        self.expect(sorted_by_kind, "its dictionary is not words first, then labels")
        pruned = None
        if pruned_size >= 0:
            pruned = self.take(8 * pruned_size).view("<i4").reshape(pruned_size, 2)
        else:
            self.expect(pruned_size == NOT_PRUNED, f"{pruned_size} pruned buckets")
        return Dictionary(self.data, starts, lengths, counts, kinds, words, pruned)

    def check_rows(self, settings: Settings, dictionary: Dictionary, rows: int) -> None:
        """Compiled code does not look whether a row exists, so that has to be sure."""
        buckets = rows - dictionary.words
        self.expect(buckets >= 0, f"{rows} rows in the input matrix for {dictionary.words} words")
        if dictionary.pruned is not None:
            inside = bool(((dictionary.pruned[:, 1] >= 0) & (dictionary.pruned[:, 1] < buckets)).all())
            self.expect(inside, f"a pruned bucket lies outside of the {rows} rows of the input matrix")
        elif settings.longest > 0 or settings.word_n_grams > 1:
            self.expect(buckets >= settings.bucket, f"{rows} rows in the input matrix for {settings.bucket} buckets")

    def matrix(self, dim: int, name: str, can_be_quantised: bool) -> Matrix:
        (quantised,) = self.numbers("?")
        no_bytes, no_floats = frozen(np.zeros((0, 0), np.uint8)), np.zeros(0, np.float32)
        if not (quantised and can_be_quantised):
            rows = self.shape(dim, name)
            dense = self.floats(rows * dim).reshape(rows, dim)
            if dense.nbytes < self.copy_below:
                dense = frozen(np.array(dense))
            return Matrix(dense, no_bytes, no_floats, no_floats, 1)
        (has_norms,) = self.numbers("?")
        rows = self.shape(dim, name)
        (size,) = self.numbers("i")
        codes = self.take(size)
        part, parts, centroids = self.quantizer(dim, name)
        self.expect(size == rows * parts, f"{size} codes in the {name} matrix: expected {rows} x {parts}")
        norms = no_floats
        if has_norms:
            norm_codes = self.take(rows)
            norms = self.quantizer(1, name)[2][norm_codes]
        return Matrix(frozen(np.zeros((0, dim), np.float32)), codes.reshape(rows, parts), centroids, norms, part)

    def shape(self, dim: int, name: str) -> int:
        rows, columns = self.numbers("2q")
        self.expect(rows > 0 and columns == dim, f"{rows} x {columns} {name} matrix: expected any number x {dim}")
        return int(rows)

    def quantizer(self, dim: int, name: str) -> tuple[int, int, F32]:
        """Length of a part, how many parts, centroids."""
        found, parts, part, last = self.numbers("4i")
        fits = found == dim and parts > 0 and 0 < last <= part and (parts - 1) * part + last == dim
        self.expect(fits, f"{name} matrix of dimension {dim} in {parts} parts of {part}, the last of {last}")
        return part, parts, self.floats(dim * CENTROIDS).astype(np.float32)
