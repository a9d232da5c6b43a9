"""Texts to token ids, many at once.

In: a string column. Out: ``Encoded``: the ids of all its documents one after the other, each as ``<s> … </s>``, and how
many each has. Texts go to SentencePiece as the UTF-8 that Arrow holds, and ids come back as buffers: no Python string
and no Python number is made on the way.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sentencepiece

from caravela.data import tokenizer as tokenizers

Ids = npt.NDArray[np.unsignedinteger]


class Encoded(NamedTuple):
    """Documents as ids."""

    ids: Ids
    """Of all of them, end to end."""
    lengths: npt.NDArray[np.int64]
    """How many each has, the two special ones counted."""

    def of(self, which: npt.NDArray[np.bool_]) -> "Encoded":
        """Some of the documents."""
        if which.all():
            return self
        return Encoded(self.ids[np.repeat(which, self.lengths)], self.lengths[which])


class Encoder:
    """A tokenizer for columns of text."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, dtype: npt.DTypeLike) -> None:
        self.processor = processor
        self.dtype = np.dtype(dtype)
        self._begin = np.array([tokenizers.BEGIN], np.int32)
        self._end = np.array([tokenizers.END], np.int32)

    def encode(self, texts: pa.Array) -> Encoded:
        """The ids of every text."""
        if not len(texts):
            return Encoded(np.empty(0, self.dtype), np.empty(0, np.int64))
        found = self.processor.encode(texts.cast(pa.binary()).to_pylist(), num_threads=1, return_type="numpy")
        pieces = [piece for ids in found for piece in (self._begin, ids, self._end)]
        lengths = np.array([len(ids) + 2 for ids in found], np.int64)
        return Encoded(np.concatenate(pieces).astype(self.dtype), lengths)


def piece_bytes(processor: sentencepiece.SentencePieceProcessor) -> npt.NDArray[np.int32]:
    """UTF-8 bytes of text that each token stands for: 1 for a byte piece, 0 for a special one."""
    sizes = np.zeros(processor.get_piece_size(), np.int32)
    for i in range(len(sizes)):
        if processor.is_byte(i):
            sizes[i] = 1
        elif not (processor.is_control(i) or processor.is_unknown(i)):
            sizes[i] = len(processor.id_to_piece(i).replace("\u2581", " ").encode("utf-8"))
    return sizes
