"""A supervised fastText model trained on lines, the same bytes on every run.

In: a file of lines, each of one label and words with a blank between them, and a ``FastTextConfig``. Out: a .bin file,
or a .ftz if it is packed, which ``fasttext.load_model`` and ``filters.fasttext_model`` read.

The training is fastText's own: its features, its softmax, its steps in the order of the lines; but not its code. That
one is only the same on every run with one thread, and with fewer than 11 threads it leaves a part of the first weights
as the memory happened to be (seen with fasttext-numpy2-wheel 0.9.2, which then ends with "Encountered NaN"). Here the
first weights are drawn from the seed, and one thread does the rest (``filters.training.sgd_kernels``).

Memory: 4 bytes for each word of the texts, and the matrices. Cost: ``benchmarks/training.py`` measures it.
"""

import collections
import itertools
import os
from array import array
from dataclasses import dataclass
from typing import NamedTuple

import fasttext
import numpy as np

from caravela.config import ConfigError
from caravela.errors import UserError
from filters.byte_kernels import I32, I64, U8
from filters.fasttext_file import SOFTMAX, Settings, frozen
from filters.fasttext_kernels import F32, F64, Network
from filters.training import sgd_kernels as kernels
from filters.training.model_file import write_model
from filters.training.sgd_kernels import Examples, Runs, WordRows

END_OF_LINE = b"</s>"
LEAST_ROWS_TO_PACK = 256
BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FastTextConfig:
    """fastText's own settings; the names in brackets are its own."""

    dim: int = 16
    """Numbers per word vector."""
    epochs: int = 10
    """Times that every text is seen [epoch]."""
    learning_rate: float = 1.0
    """Falls to zero over the epochs [lr]."""
    word_ngrams: int = 1
    """Most words in a row that count as one feature [wordNgrams]."""
    shortest_part: int = 2
    """Least characters of the parts of words that are features [minn]; 0 with longest_part 0: whole words alone."""
    longest_part: int = 5
    """Most characters of such parts [maxn]."""
    buckets: int = 200_000
    """Rows that parts of words and n-grams share by hash [bucket]; the file has 4 bytes x dim for each."""
    least_count: int = 1
    """Words that occur less often are not features themselves, though their parts are [minCount]."""
    seed: int = 1
    """Of the first weights."""
    quantize: bool = False
    """Whether the model is packed into a .ftz, about a tenth of the size and slightly less sure."""
    keep_features: int = 0
    """When packed, the number of words and buckets that are kept, the rest being dropped; 0: all [cutoff]."""

    def __post_init__(self) -> None:
        for name in ("dim", "epochs", "word_ngrams", "least_count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 1 or more")
        if not 0 < self.learning_rate <= 10:
            raise ConfigError(f"learning_rate = {self.learning_rate}: expected above 0, and 10 at most")
        if not 0 <= self.shortest_part <= self.longest_part:
            raise ConfigError(f"shortest_part = {self.shortest_part}: expected from 0 to longest_part")
        if self.buckets < 1 or self.keep_features < 0 or self.seed < 0:
            raise ConfigError(
                f"buckets = {self.buckets}: expected 1 or more, and keep_features and seed not below 0 "
                f"(they are {self.keep_features} and {self.seed})"
            )

    @property
    def file_name(self) -> str:
        """Packed models are called .ftz."""
        return "model.ftz" if self.quantize else "model.bin"

    @property
    def settings(self) -> Settings:
        """What the model's file says of it."""
        hashes = self.longest_part > 0 or self.word_ngrams > 1
        bucket = self.buckets if hashes else 0
        return Settings(self.dim, self.word_ngrams, SOFTMAX, bucket, self.shortest_part, self.longest_part)


class Lines(NamedTuple):
    """What a training file holds."""

    words: tuple[bytes, ...]
    """Each different word, in the order of first sight; the end of a line is one."""
    counts: I64
    labels: tuple[bytes, ...]
    """With their prefix; the commonest first."""
    label_counts: I64
    examples: Examples


def train(lines_path: str, config: FastTextConfig, model_path: str) -> F64:
    """Trains on a file of lines and writes the model; returns the mean loss of each epoch.

    Raises:
        UserError: the training diverged, or there is too little to learn from.
    """
    lines = read_lines(lines_path)
    dictionary, own_rows = _dictionary(lines, config.least_count)
    if not dictionary:
        raise UserError(
            f"least_count = {config.least_count}: no word occurs so often in {len(lines.examples.labels):,} texts"
        )
    settings = config.settings
    inputs = first_weights(len(dictionary) + settings.bucket, config.dim, config.seed)
    outputs = np.zeros((len(lines.labels), config.dim), np.float32)
    if config.quantize and len(inputs) < LEAST_ROWS_TO_PACK:
        raise UserError(
            f"quantize = true: the model has {len(inputs)} features, and packing needs {LEAST_ROWS_TO_PACK}; "
            "leave it unpacked"
        )
    of_word = word_rows(lines.words, own_rows, settings, len(dictionary))
    losses = np.zeros(config.epochs)
    runs = Runs(settings.word_n_grams, settings.bucket, len(dictionary))
    kernels.descend(lines.examples, of_word, runs, inputs, outputs, config.learning_rate, losses)
    if not (np.isfinite(inputs).all() and np.isfinite(outputs).all()):
        raise UserError(f"learning_rate = {config.learning_rate}: the training diverged; expected a lower one")
    dense_path = f"{model_path}.dense" if config.quantize else model_path
    with open(dense_path, "wb") as file:
        tokens = len(lines.examples.words) + len(lines.examples.labels)
        labels = list(zip(lines.labels, lines.label_counts.tolist(), strict=True))
        write_model(file, settings, dictionary, labels, tokens, inputs, outputs, config.epochs, config.least_count)
    if config.quantize:
        _pack(dense_path, config.keep_features, model_path)
        os.unlink(dense_path)
    return losses


def read_lines(path: str) -> Lines:
    """Reads a training file; each line's first word is its label."""
    number_of = collections.defaultdict[bytes, int](itertools.count().__next__)
    number_of_label = collections.defaultdict[bytes, int](itertools.count().__next__)
    words, borders, labels = array("i"), array("q", [0]), array("i")
    with open(path, "rb") as file:
        for line in file:
            label, *own = line.rstrip(b"\n").split(b" ")
            words.extend(map(number_of.__getitem__, own))
            words.append(number_of[END_OF_LINE])
            borders.append(len(words))
            labels.append(number_of_label[label])
    label_counts = np.bincount(np.frombuffer(labels, np.int32), minlength=len(number_of_label))
    names = list(number_of_label)
    # fastText wants the commonest label first.
    order = sorted(range(len(names)), key=lambda number: (-label_counts[number], names[number]))
    place = np.argsort(np.array(order)).astype(np.int32)
    ids = np.frombuffer(words, np.int32)
    return Lines(
        tuple(number_of),
        np.bincount(ids, minlength=len(number_of)),
        tuple(names[number] for number in order),
        label_counts[order],
        Examples(ids.copy(), np.array(borders, np.int64), place[np.frombuffer(labels, np.int32)]),
    )


def _dictionary(lines: Lines, least_count: int) -> tuple[list[tuple[bytes, int]], I32]:
    """The words that are features themselves, commonest first, with their counts; and each word's row, -1 for none."""
    counts = lines.counts.tolist()
    often = [number for number, count in enumerate(counts) if count >= least_count]
    often.sort(key=lambda number: (-counts[number], lines.words[number]))
    own_rows = np.full(len(counts), -1, np.int32)
    own_rows[often] = np.arange(len(often), dtype=np.int32)
    return [(lines.words[number], counts[number]) for number in often], own_rows


def first_weights(rows: int, dim: int, seed: int) -> F32:
    """Evenly spread from -1/dim to 1/dim; the raw numbers of this generator are the same in every version of NumPy."""
    generator = np.random.PCG64(seed)
    weights = np.empty(rows * dim, np.float32)
    for begin in range(0, len(weights), BLOCK):
        part = weights[begin : begin + BLOCK]
        drawn = (generator.random_raw(len(part)) >> np.uint64(40)).astype(np.float32)  # 24 bits, exact in a float32
        part[:] = (drawn / np.float32(1 << 23) - np.float32(1)) / np.float32(dim)
    return weights.reshape(rows, dim)


def word_rows(words: tuple[bytes, ...], own_rows: I32, settings: Settings, in_dictionary: int) -> WordRows:
    """The input rows of each word: its own, if it has one, and those of its parts."""
    data, borders = frozen(np.frombuffer(b"".join(words), np.uint8)), np.zeros(len(words) + 1, np.int64)
    borders[1:] = np.cumsum([len(word) for word in words])
    network = _without_weights(settings, in_dictionary)
    end = words.index(END_OF_LINE)
    starts = np.zeros(len(words) + 1, np.int64)
    kernels.count_rows(network, data, borders, own_rows, end, starts)
    rows = np.empty(starts[-1], np.int32)
    kernels.fill_rows(network, data, borders, own_rows, end, starts, rows)
    return WordRows(starts, rows, kernels.hashes_of_words(data, borders))


def _without_weights(settings: Settings, words: int) -> Network:
    """What finding the parts of a word needs to know."""
    numbers, no_bytes, no_floats = np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.float32)
    text: U8 = frozen(no_bytes)
    return Network(
        text=text,
        starts=numbers,
        lengths=numbers,
        heads=np.zeros(0, np.int32),
        words=words,
        end=-1,
        pruned=np.zeros((0, 2), np.int32),
        dense=frozen(np.zeros((0, settings.dim), np.float32)),
        codes=frozen(np.zeros((0, 0), np.uint8)),
        centroids=no_floats,
        norms=no_floats,
        part=1,
        dim=settings.dim,
        word_n_grams=settings.word_n_grams,
        bucket=settings.bucket,
        shortest=settings.shortest,
        longest=settings.longest,
    )


def _pack(dense_path: str, keep_features: int, model_path: str) -> None:
    """The product quantization of fastText, which draws from a seed of its own and is the same each time."""
    model = fasttext.load_model(dense_path)
    model.quantize(cutoff=keep_features, qnorm=True, retrain=False, verbose=0)
    model.save_model(model_path)
