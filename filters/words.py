"""Words as datatrove sees them in Portuguese text, only faster.

In: a text. Out: the list of its words, equal to ``datatrove.utils.text.split_into_words(text, "por_Latn")``: the tokens
of spaCy's blank Portuguese pipeline, without the white space.

spaCy tokenises one white-space chunk ("(casa)," for example) at a time, so the tokens of a chunk are remembered and
spaCy is asked for new chunks only: 11 to 18 MB/s when all chunks are known, 4.5 MB/s over 62 MB of mixed text from an
empty memo, against 0.4 MB/s. The memo is bounded (``memo_bytes``): it has two halves, and when the recent one is full,
it becomes the older one and what was in the older one is forgotten.

Two things do not follow from the chunk alone, and one is left out:

* After splitting, spaCy joins tokens that together spell a special case ("foo:)" is ``foo :)``), the longest sequence
  first. It looks for them across single blanks too, where they join nothing but hide a shorter one: "foo:) )" is
  ``foo : ) )``. Chunks between which this can happen go to spaCy together.
* The word IS_ALPHA. spaCy 3.8 keeps a pointer to freed memory once it has met that word in a memory zone; after that
  datatrove drops the word, or fails, as memory happens to lie. Here it is a word like any other.
* spaCy's time grows with the square of a chunk's length, so a chunk of more than 50,000 characters is cut into pieces
  of that size. A piece takes up to a second here; datatrove needs minutes for it, and hours for a chunk of a megabyte.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer
    from spacy.vocab import Vocab

MEMO_BYTES = 256 << 20
CHUNK_BYTES = 250  # of a remembered chunk beside its characters: dict entry, tuple, token strings; as measured
LONGEST_CHUNK = 50_000  # characters
HYPHENATED = re.compile(r"\w-\w")
LONGEST_SUFFIX = 5  # characters of the longest match of spaCy's suffix patterns, but for a row of dots


class WordSplitter:
    """Splits texts into words. It holds the memo, so a process makes one and keeps it.

    Args:
        memo_bytes: how much memory the memo takes, about; one text may go beyond it by its own chunks.
    """

    def __init__(self, memo_bytes: int = MEMO_BYTES) -> None:
        # Imported here, as it takes two seconds and planning a run needs no words.
        from spacy.lang.pt import Portuguese
        from spacy.vocab import Vocab

        self._vocab = Vocab()  # a bare one: spaCy's attributes of each new word would take half of the time
        self._vocab["IS_ALPHA"]  # a permanent entry, made outside any memory zone
        rules = Portuguese.Defaults.tokenizer_exceptions
        self._tokenizer = _tokenizer(self._vocab, rules)
        self._unjoined = _tokenizer(self._vocab, rules, joins=False)
        split_only = _tokenizer(self._vocab, {})
        sequences = [tokens for text in rules if len(tokens := [token.text for token in split_only(text)]) > 1]
        self.special_cases = tuple(rules)
        self._joinable = re.compile("|".join(re.escape("".join(tokens)) for tokens in sequences))
        self.neighbours = {pair for tokens in sequences for pair in pairwise(tokens)}
        self._bytes_per_half = memo_bytes // 2
        self._recent_bytes = 0
        self._recent: dict[str, tuple[str, ...]] = {}
        self._older: dict[str, tuple[str, ...]] = {}
        # Chunks of the memo in which tokens were joined: first and last token as they were before.
        self._joined: dict[str, tuple[str, str]] = {}

    def __call__(self, text: str) -> list[str]:
        """The words of ``text``, in order; none for a text that is empty or blank."""
        chunks = text.split()
        if len(text) > LONGEST_CHUNK and max(map(len, chunks), default=0) > LONGEST_CHUNK:
            text = re.sub(r"\S+", _cut, text)
            chunks = text.split()
        distinct = set(chunks)
        missing = distinct.difference(self._recent)
        if missing:
            if self._recent_bytes > self._bytes_per_half:
                self._forget_older()
                missing = distinct
            self._learn(missing)
        if not self._joined.keys().isdisjoint(distinct) and any(
            self._may_reach_across(left, right)
            for left, right in pairwise(chunks)
            if left in self._joined or right in self._joined
        ):
            return self._words_in_context(text, chunks)
        return list(chain.from_iterable(map(self._recent.__getitem__, chunks)))

    def _words_in_context(self, text: str, chunks: list[str]) -> list[str]:
        """Words of a text in which joins depend on the chunks beside: such chunks go to spaCy together, as written."""
        spans = [match.span() for match in re.finditer(r"\S+", text)]
        words: list[str] = []
        start = 0
        while start < len(chunks):
            stop = start + 1
            while stop < len(chunks) and self._may_reach_across(chunks[stop - 1], chunks[stop]):
                stop += 1
            if stop - start == 1 or self._joined.keys().isdisjoint(chunks[start:stop]):
                words += chain.from_iterable(map(self._recent.__getitem__, chunks[start:stop]))
            else:
                tokens = self._tokens(self._tokenizer, text[spans[start][0] : spans[stop - 1][1]])
                words += [token for token in tokens if not token.isspace()]
            start = stop
        return words

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
        tokens, joined = self.tokens_of(new)
        self._recent.update(tokens)
        self._joined.update(joined)

    def tokens_of(self, chunks: list[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, str]]]:
        """The tokens of chunks, past the memo; and, where some were joined, the first and last as they were before."""
        tokens = dict(self._tokens_per_chunk(self._tokenizer, chunks))
        suspects = [chunk for chunk in chunks if self._joinable.search(chunk)]
        unjoined = self._tokens_per_chunk(self._unjoined, suspects)
        return tokens, {chunk: (before[0], before[-1]) for chunk, before in unjoined if before != tokens[chunk]}

    def _may_reach_across(self, left: str, right: str) -> bool:
        """Whether a longer sequence may reach across the blank between two chunks and take a join away.

        For that it must hold the tokens on the two sides of the blank, as before joining, one after the other.
        """
        last = self._joined[left][1] if left in self._joined else self._recent[left][-1]
        first = self._joined[right][0] if right in self._joined else self._recent[right][0]
        return (last, first) in self.neighbours

    def _tokens_per_chunk(self, tokenizer: "Tokenizer", chunks: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Tokenises the chunks in one go, a line each: no special case reaches over the token of a line's end."""
        tokens = iter(self._tokens(tokenizer, "\n".join(chunks)))
        for chunk in chunks:
            yield chunk, tuple(iter(tokens.__next__, "\n"))

    def _tokens(self, tokenizer: "Tokenizer", text: str) -> list[str]:
        # Outside a memory zone spaCy keeps every string that it has ever seen.
        with self._vocab.memory_zone():
            return [token.text for token in tokenizer(text)]


def _cut(match: re.Match[str]) -> str:
    chunk = match.group()
    return " ".join(chunk[start : start + LONGEST_CHUNK] for start in range(0, len(chunk), LONGEST_CHUNK))


def _tokenizer(vocab: "Vocab", rules: Mapping[str, Any], *, joins: bool = True) -> "Tokenizer":
    """A tokenizer of spaCy with these special cases, and with searches that find the same in a fraction of the time.

    Those of spaCy look for a prefix and a suffix at every place of a chunk, for words with hyphens from every letter
    on, for web addresses without a dot: 40,000 exclamation marks in a row take them 170 s, and these 0.4 s.

    Args:
        vocab: where the tokenizer keeps its strings.
        rules: the special cases.
        joins: whether tokens that spell a special case are joined in the end. spaCy has no switch for it, but it joins
            only what an affix or infix pattern matches while the rules are loaded: so the patterns match nothing then.
    """
    from spacy.lang.pt import Portuguese
    from spacy.tokenizer import Tokenizer
    from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex

    defaults: Any = Portuguese.Defaults
    with_hyphen, *infixes = defaults.infixes
    prefix, suffix = compile_prefix_regex(defaults.prefixes), compile_suffix_regex(defaults.suffixes)
    infix, infix_with_hyphen = compile_infix_regex(infixes), compile_infix_regex([with_hyphen, *infixes])
    ready = joins

    def prefix_search(string: str) -> re.Match[str] | None:
        return prefix.match(string) if ready else None  # every alternative is anchored

    def suffix_search(string: str) -> re.Match[str] | None:
        start = min(len(string) - LONGEST_SUFFIX, len(string.rstrip(".")))
        return suffix.search(string, max(0, start)) if ready else None

    def infix_finditer(string: str) -> Iterable[re.Match[str]]:
        if not ready:
            return ()
        return (infix_with_hyphen if "-" in string and HYPHENATED.search(string) else infix).finditer(string)

    def url_match(string: str) -> re.Match[str] | None:
        return defaults.url_match(string) if "." in string else None

    tokenizer = Tokenizer(
        vocab,
        rules=rules,
        prefix_search=prefix_search,
        suffix_search=suffix_search,
        infix_finditer=infix_finditer,
        url_match=url_match,
    )
    ready = True
    return tokenizer
