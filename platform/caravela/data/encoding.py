"""Texts to token ids, many at once.

In: a string column. Out: ``Encoded``: the ids of all its documents one after the other, each as ``<s> … </s>``, and how
many each has; the same ids as SentencePiece's own ``encode``, or as the package tokenizers' own for a tokenizer.json.

Texts are taken as the UTF-8 that Arrow holds, and no Python number is made of an id. Where the vocabulary allows it
(``splits_at_blanks``), a text is the words in it, each with the blanks before it, and words that were seen before are
looked up: a merge of byte-pair encoding that crosses the border of two words would make a piece that crosses it, and
there is none. Memory: ``MOST_WORDS`` words.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sentencepiece

from caravela.data.tokenizer import Tokenizer
from caravela.data.tokenizer_json import JsonTokenizer

Ids = npt.NDArray[np.unsignedinteger]
MOST_WORDS = 1 << 20
WORDS = re.compile(rb"\n+| *[^ \n]+| +")
"""Stretches that make up any text: lines' ends, words with the blanks before them, blanks before nothing."""
LINE_END = b"\n"
LEARNT_TOGETHER = 4096
CROSSING = re.compile("[^\u2581]\u2581|\n")
PROBE = " olá  mundo \n\n  fim de\ntexto  ".encode()


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

    def __init__(self, processor: Tokenizer, dtype: npt.DTypeLike, most_words: int = MOST_WORDS) -> None:
        self.processor = processor
        self.dtype = np.dtype(dtype)
        self.most_words = most_words
        self.by_word = not isinstance(processor, JsonTokenizer) and splits_at_blanks(processor)
        self._words: dict[bytes, bytes] = {}
        """Ids of a word, as the bytes of their array."""
        self._begin, self._end = self._bytes([processor.bos_id()]), self._bytes([processor.eos_id()])
        if self.by_word:
            self._line_end_id = int(self._many(LINE_END)[-1])
            self._line_end = self._bytes([self._line_end_id])

    def encode(self, texts: pa.Array) -> Encoded:
        """The ids of every text."""
        if not len(texts):
            return Encoded(np.empty(0, self.dtype), np.empty(0, np.int64))
        if isinstance(self.processor, JsonTokenizer):
            found = list(map(self._bytes, self.processor.encode_all(texts.to_pylist())))
            return self._joined(found)
        documents: list[bytes] = texts.cast(pa.binary()).to_pylist()
        if self.by_word:
            words = [WORDS.findall(document) for document in documents]
            known = self._known(words)
            found = [b"".join(map(known.__getitem__, each)) for each in words]
        else:
            found = list(map(self._bytes, self._many(documents)))
        return self._joined(found)

    def _joined(self, found: Sequence[bytes]) -> Encoded:
        whole = b"".join(piece for ids in found for piece in (self._begin, ids, self._end))
        lengths = np.array([len(ids) // self.dtype.itemsize + 2 for ids in found], np.int64)
        return Encoded(np.frombuffer(whole, self.dtype), lengths)

    def _known(self, texts: Sequence[Sequence[bytes]]) -> dict[bytes, bytes]:
        """The ids of all their words; those not seen before are encoded together."""
        wanted = set().union(*texts)
        if len(self._words) + len(wanted) > self.most_words:
            self._words = {}
        new = [word for word in wanted - self._words.keys() if not word.startswith(LINE_END)]
        for first in range(0, len(new), LEARNT_TOGETHER):
            self._learn(new[first : first + LEARNT_TOGETHER])
        self._words.update((word, self._line_end * len(word)) for word in wanted if word.startswith(LINE_END))
        return self._words

    def _learn(self, words: list[bytes]) -> None:
        """Encodes words as lines of one text: a call for each would take longer than the encoding."""
        ids = self._many(LINE_END.join(words)).astype(self.dtype)
        ends = np.append(np.flatnonzero(ids == self._line_end_id), len(ids)) * self.dtype.itemsize
        whole, start = ids.tobytes(), 0
        for word, end in zip(words, ends.tolist(), strict=True):
            self._words[word] = whole[start:end]
            start = end + self.dtype.itemsize

    def _many(self, texts: bytes | Sequence[bytes]) -> Any:
        """SentencePiece's ids of a text, or of each of several, as arrays."""
        assert isinstance(self.processor, sentencepiece.SentencePieceProcessor)
        return self.processor.encode(texts, num_threads=1, return_type="numpy")

    def _bytes(self, ids: Sequence[int]) -> bytes:
        return np.asarray(ids).astype(self.dtype).tobytes()


def splits_at_blanks(processor: sentencepiece.SentencePieceProcessor) -> bool:
    """Whether a text's ids are those of its ``WORDS``: byte-pair encoding without a piece that crosses their borders.

    SentencePiece numbers the merges of byte-pair encoding 0, -1, -2 ... as scores. Those of a unigram model are
    logarithms, and it compares sums over the whole text, whose rounding may differ. What the normaliser does, and that
    a line's end is one byte piece, is tried out.
    """
    pieces = [i for i in range(processor.get_piece_size()) if not (processor.is_control(i) or processor.is_byte(i))]
    pieces = [i for i in pieces if not processor.is_unknown(i)]
    if any(processor.get_score(piece) != -rank for rank, piece in enumerate(pieces)):
        return False
    if any(CROSSING.search(processor.id_to_piece(piece)) for piece in pieces):
        return False
    ends = processor.encode(LINE_END)
    ids = [i for word in WORDS.findall(PROBE) for i in processor.encode(word)]
    return bool(ids == processor.encode(PROBE) and len(ends) == 1 and processor.is_byte(ends[0]))


def piece_bytes(processor: Tokenizer) -> npt.NDArray[np.int32]:
    """UTF-8 bytes of text that each token stands for: 1 for a byte piece, 0 for a special one."""
    if isinstance(processor, JsonTokenizer):
        return processor.piece_bytes()
    sizes = np.zeros(processor.get_piece_size(), np.int32)
    for i in range(len(sizes)):
        if processor.is_byte(i):
            sizes[i] = 1
        elif not (processor.is_control(i) or processor.is_unknown(i)):
            sizes[i] = len(processor.id_to_piece(i).replace("\u2581", " ").encode("utf-8"))
    return sizes
