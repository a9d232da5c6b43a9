"""What is known of white-space chunks and tokens, as arrays for the kernels of ``filters.word_kernels``.

A chunk ("(casa)," for example) stands for the ids of its tokens, and a token's id for its length and kind. Chunks that
the kernels cannot read themselves are handed to spaCy here, each once. The arrays double as they fill; beyond
``memory_bytes``, looked at between batches, everything is forgotten and learned anew. One batch may go beyond it by its
own chunks.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

from caravela.data.extract import MOJIBAKE
from filters import word_kernels as kernels
from filters.byte_kernels import I32, I64, U8
from filters.portuguese_quality import CLOSERS, FUNCTION_WORDS, SENTENCE_MARKS
from filters.word_kernels import Tables
from filters.words import WordSplitter

MEMORY_BYTES = 512 << 20
PADDING = bytes(32)  # the kernels read 16 bytes at a time
FEWEST = {"chunks": 1 << 14, "tokens": 1 << 14, "pool": 1 << 16, "spans": 1 << 16, "info": 1 << 13}


class WordTable:
    """Holds the arrays; a process makes one and keeps it.

    Args:
        splitter: asked for the tokens of chunks, and of whole texts where chunks depend on their neighbours.
        memory_bytes: how much memory the arrays take, about.
    """

    def __init__(self, splitter: WordSplitter, memory_bytes: int = MEMORY_BYTES) -> None:
        self.splitter = splitter
        self.memory_bytes = memory_bytes
        self.stop_words: tuple[str, ...] | None = None
        self.arrays: Tables = kernels.new_tables(FEWEST, kinds_of_characters())

    @property
    def nbytes(self) -> int:
        """What the arrays take."""
        return sum(array.nbytes for array in self.arrays)

    def prepare(self, stop_words: Sequence[str]) -> int:
        """Makes ready for a batch with these stop words; their tokens are the first of the table. Returns how many."""
        distinct = tuple(dict.fromkeys(filter(None, stop_words)))
        if distinct != self.stop_words or self.nbytes > self.memory_bytes:
            self.stop_words = distinct
            self._forget()
        return len(distinct)

    def learn(self, chunks: list[str]) -> None:
        """Makes chunks known, by asking spaCy."""
        tokens_of, joined = self.splitter.tokens_of(chunks)
        tokens, firsts = [], [0]
        for chunk in chunks:
            tokens += [*joined.get(chunk, ()), *tokens_of[chunk]]
            firsts.append(len(tokens))
        flags = np.fromiter((chunk in joined for chunk in chunks), np.uint8, len(chunks))
        chunk_bytes, chunk_borders = _utf8(chunks)
        token_bytes, token_borders = _utf8(tokens)
        added = 0
        while added < len(chunks):
            added = kernels.add_chunks(
                self.arrays,
                added,
                chunk_bytes,
                chunk_borders,
                token_bytes,
                token_borders,
                np.array(firsts, np.int64),
                flags,
            )
            if added < len(chunks):
                self.grow(len(chunks[added].encode()))

    def grow(self, more_bytes: int = 0) -> None:
        """Doubles every array that is half full or has no room for a chunk of so many bytes."""
        old, (chunks, tokens, pool, spans) = self.arrays, self.arrays.used.tolist()
        more = more_bytes + 8
        need = {"info": 2 * (tokens + more), "pool": 2 * pool + 4 * more, "spans": 2 * (spans + more)}
        arrays: dict[str, Any] = {name: _longer(getattr(old, name), least) for name, least in need.items()}
        for name, least in (("chunks", 2 * chunks + 64), ("tokens", 2 * (tokens + more) + 64)):
            slots = getattr(old, name)
            if len(slots) < least:
                larger = kernels.new_slots(1 << (least - 1).bit_length())
                kernels.rehash(slots, larger)
                arrays[name] = larger
        self.arrays = old._replace(**arrays)

    def _forget(self) -> None:
        assert self.stop_words is not None, "prepare() sets the stop words first"
        self.arrays = kernels.new_tables(FEWEST, self.arrays.kinds)
        kernels.add_rules(self.arrays, *_utf8(self.splitter.special_cases))
        self.ids(self.stop_words)
        function_words = self.ids(sorted(FUNCTION_WORDS))
        self.arrays.info[function_words, 0] |= kernels.IS_FUNCTION_WORD
        pairs = sorted(self.splitter.neighbours)
        left, right = (self.ids(side).astype(np.uint64) for side in ([a for a, _ in pairs], [b for _, b in pairs]))
        self.arrays = self.arrays._replace(neighbours=np.sort((left << np.uint64(32)) | right))

    def ids(self, tokens: Sequence[str]) -> I32:
        """The id of each token; new ones are added."""
        data, borders = _utf8(tokens)
        while 2 * (self.arrays.used[1] + len(tokens)) > min(len(self.arrays.tokens), 2 * len(self.arrays.info)) or (
            self.arrays.used[2] + len(data) > len(self.arrays.pool)
        ):
            self.grow(len(data))
        ids = np.empty(len(tokens), np.int32)
        kernels.intern_all(self.arrays, data, borders, ids)
        return ids


@functools.cache
def kinds_of_characters() -> U8:
    """Code point → what it is, in the bits of ``word_kernels``."""
    kinds = np.zeros(0x110000, np.uint8)
    kinds[[code for code in range(0x110000) if chr(code).isalpha()]] = kernels.ALPHA
    kinds[[ord(character) for character in PUNCTUATION_SET]] |= kernels.PUNCTUATION
    kinds[[ord(character) for character in TERMINAL_PUNCTUATION]] |= kernels.TERMINAL
    kinds[[code for code in range(0x110000) if chr(code).isupper()]] |= kernels.UPPER
    kinds[[ord(character) for character in SENTENCE_MARKS]] |= kernels.SENTENCE_MARK
    kinds[[ord(character) for character in CLOSERS]] |= kernels.CLOSER
    kinds[[code for code in range(0x80, 0x3000) if MOJIBAKE.fullmatch(chr(code) + "\x80")]] |= kernels.BROKEN_LEAD
    kinds[[code for code in range(0x80, 0x3000) if MOJIBAKE.fullmatch("Ã" + chr(code))]] |= kernels.BROKEN_TAIL
    return kinds


def _utf8(strings: Sequence[str]) -> tuple[U8, I64]:
    encoded = [string.encode("utf-8") for string in strings]
    borders = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(each) for each in encoded], out=borders[1:])
    return np.frombuffer(b"".join(encoded) + PADDING, np.uint8), borders


def _longer(array: npt.NDArray[Any], least: int) -> npt.NDArray[Any]:
    if len(array) >= least:
        return array
    longer = np.zeros((1 << (least - 1).bit_length(), *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
