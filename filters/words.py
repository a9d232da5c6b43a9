"""Words as datatrove sees them in Portuguese text, only faster.

In: a text. Out: the list of its words, equal to ``datatrove.utils.text.split_into_words(text, "por_Latn")``: the tokens
of spaCy's blank Portuguese pipeline, without the white space.

spaCy tokenises one white-space chunk ("(casa)," for example) at a time, so the tokens of a chunk are remembered and
spaCy is asked for new chunks only: 18 MB/s when all chunks are known, 3 MB/s over 62 MB of mixed text from an empty
memo, against 0.4 MB/s. The memo is bounded (``memo_bytes``): it has two halves, and when the recent one is full, it
becomes the older one and what was in the older one is forgotten.

Two things do not follow from the chunk alone:

* After splitting, spaCy joins tokens that together spell a special case ("foo:)" is ``foo :)``), the longest sequence
  first. It looks for them across single blanks too, where they join nothing but hide a shorter one: "foo:) )" is
  ``foo : ) )``. A text in which this can happen goes to spaCy whole.
* The word IS_ALPHA. spaCy 3.8 keeps a pointer to freed memory once it has met that word in a memory zone; after that
  datatrove drops the word, or fails, as memory happens to lie. Here it is a word like any other.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer

MEMO_BYTES = 256 << 20
CHUNK_BYTES = 250  # of a remembered chunk beside its characters: dict entry, tuple, token strings; as measured


class WordSplitter:
    """Splits texts into words. It holds the memo, so a process makes one and keeps it.

    Args:
        memo_bytes: how much memory the memo takes, about; one text may go beyond it by its own chunks.
    """

    def __init__(self, memo_bytes: int = MEMO_BYTES) -> None:
        import spacy  # here, as it takes two seconds and planning a run needs no words

        self._pipeline = spacy.blank("pt")
        self._pipeline.vocab["IS_ALPHA"]  # a permanent entry, made outside any memory zone
        self._tokenizer: Tokenizer = self._pipeline.tokenizer
        self._unjoined = _tokenizer_that_never_joins(self._tokenizer)
        sequences = _joined_sequences(self._tokenizer)
        self._joinable = re.compile("|".join(re.escape("".join(tokens)) for tokens in sequences))
        self._neighbours = {pair for tokens in sequences for pair in pairwise(tokens)}
        self._bytes_per_half = memo_bytes // 2
        self._recent_bytes = 0
        self._recent: dict[str, tuple[str, ...]] = {}
        self._older: dict[str, tuple[str, ...]] = {}
        # Chunks of the memo in which tokens were joined: first and last token as they were before.
        self._joined: dict[str, tuple[str, str]] = {}

    def __call__(self, text: str) -> list[str]:
        """The words of ``text``, in order; none for a text that is empty or blank."""
        chunks = text.split()
        distinct = set(chunks)
        missing = distinct.difference(self._recent)
        if missing:
            if self._recent_bytes > self._bytes_per_half:
                self._forget_older()
                missing = distinct
            self._learn(missing)
        if not self._joined.keys().isdisjoint(distinct) and self._depends_on_neighbours(chunks):
            return [token for token in self._tokens(self._tokenizer, text) if not token.isspace()]
        return list(chain.from_iterable(map(self._recent.__getitem__, chunks)))

    def _forget_older(self) -> None:
        self._older, self._recent, self._recent_bytes = self._recent, {}, 0
        self._joined = {chunk: ends for chunk, ends in self._joined.items() if chunk in self._older}

    def _learn(self, missing: Iterable[str]) -> None:
        new = []
        for chunk in missing:
            self._recent_bytes += CHUNK_BYTES + 2 * len(chunk)
            if chunk in self._older:
                self._recent[chunk] = self._older[chunk]
            else:
                new.append(chunk)
        if not new:
            return
        self._recent.update(self._tokens_per_chunk(self._tokenizer, new))
        suspects = [chunk for chunk in new if self._joinable.search(chunk)]
        for chunk, tokens in self._tokens_per_chunk(self._unjoined, suspects):
            if tokens != self._recent[chunk]:
                self._joined[chunk] = (tokens[0], tokens[-1])

    def _depends_on_neighbours(self, chunks: list[str]) -> bool:
        """Whether a chunk with joined tokens stands where a longer sequence may reach into a chunk beside it.

        Longer sequences only ever take a join away, so chunks without one need no look; and to reach across the blank,
        a sequence must hold the two tokens on its sides, one after the other.
        """
        for left, right in pairwise(chunks):
            if left in self._joined or right in self._joined:
                last = self._joined[left][1] if left in self._joined else self._recent[left][-1]
                first = self._joined[right][0] if right in self._joined else self._recent[right][0]
                if (last, first) in self._neighbours:
                    return True
        return False

    def _tokens_per_chunk(self, tokenizer: "Tokenizer", chunks: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Tokenises the chunks in one go, a line each: no special case reaches over the token of a line's end."""
        tokens = iter(self._tokens(tokenizer, "\n".join(chunks)))
        for chunk in chunks:
            yield chunk, tuple(iter(tokens.__next__, "\n"))

    def _tokens(self, tokenizer: "Tokenizer", text: str) -> list[str]:
        # Outside a memory zone spaCy keeps every string that it has ever seen.
        with self._pipeline.memory_zone():
            return [token.text for token in tokenizer(text)]


def _joined_sequences(full: "Tokenizer") -> list[list[str]]:
    """For each special case that has more than one token before it is joined: these tokens."""
    bare = type(full)(
        full.vocab,
        prefix_search=full.prefix_search,
        suffix_search=full.suffix_search,
        infix_finditer=full.infix_finditer,
        token_match=full.token_match,
        url_match=full.url_match,
    )
    sequences = [[token.text for token in bare(text)] for text in full.rules]
    return [tokens for tokens in sequences if len(tokens) > 1]


def _tokenizer_that_never_joins(full: "Tokenizer") -> "Tokenizer":
    """The tokenizer without its last step, the joining of tokens that spell a special case.

    spaCy has no switch for that step. It searches for those special cases only that an affix or infix pattern matches
    at the time when they are loaded; so the patterns match nothing until then.
    """
    loaded = False
    unjoined = type(full)(
        full.vocab,
        rules=full.rules,
        prefix_search=lambda string: full.prefix_search(string) if loaded else None,
        suffix_search=lambda string: full.suffix_search(string) if loaded else None,
        infix_finditer=lambda string: full.infix_finditer(string) if loaded else (),
        token_match=full.token_match,
        url_match=full.url_match,
    )
    loaded = True
    return unjoined
