"""Writes a fastText model file, version 12, of a supervised model with a softmax and dense matrices.

The layout is that of ``filters.fasttext_file``, which reads it, and so does ``fasttext.load_model``.
"""

import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from filters.fasttext_file import MAGIC, NOT_PRUNED, SOFTMAX, SUPERVISED, VERSIONS, Settings
from filters.fasttext_kernels import F32, LABEL, WORD

# Settings of word vectors, which mean nothing here; fastText's defaults.
_WINDOW, _NEGATIVES, _RATE_UPDATES, _SAMPLING = 5, 5, 100, 1e-4

Counted = Sequence[tuple[bytes, int]]
"""Words or labels, in the order of their rows, and how often each occurred."""


def write_model(
    file: BinaryIO,
    settings: Settings,
    words: Counted,
    labels: Counted,
    tokens: int,
    inputs: F32,
    outputs: F32,
    epochs: int = 1,
    least_count: int = 1,
) -> None:
    """Writes a model.

    Args:
        file: where to.
        settings: whose loss is SOFTMAX.
        words: rows of the input matrix, before those of the buckets.
        labels: rows of the output matrix, with their prefix.
        tokens: how many words and labels the training texts had.
        inputs: (words + buckets, dim).
        outputs: (labels, dim).
        epochs: for the record; predictions do not need it.
        least_count: for the record.
    """
    assert settings.loss == SOFTMAX, f"loss {settings.loss} cannot be written"
    assert inputs.shape == (len(words) + settings.bucket, settings.dim), f"{inputs.shape}, {len(words)} words"
    assert outputs.shape == (len(labels), settings.dim), f"{outputs.shape}, {len(labels)} labels"
    dim, runs, loss, bucket, shortest, longest = settings
    file.write(struct.pack("<2i", MAGIC, max(VERSIONS)))
    numbers = (dim, _WINDOW, epochs, least_count, _NEGATIVES, runs, loss, SUPERVISED, bucket, shortest, longest)
    file.write(struct.pack("<12id", *numbers, _RATE_UPDATES, _SAMPLING))
    file.write(struct.pack("<3i2q", len(words) + len(labels), len(words), len(labels), tokens, NOT_PRUNED))
    for kind, entries in ((WORD, words), (LABEL, labels)):
        for name, count in entries:
            file.write(name + b"\0" + struct.pack("<qb", count, kind))
    for matrix in (inputs, outputs):
        file.write(struct.pack("<?2q", False, *matrix.shape))
        file.write(np.ascontiguousarray(matrix, "<f4").data)
