"""A ``tokenizer.json`` of others as a run's tokenizer, with what packing asks of one beside text and ids.

In: the file of the package tokenizers, and which of its tokens begin and end a document: it does not say, the
``tokenizer_config.json`` beside it does, or the config. Out: ``JsonTokenizer``, with SentencePiece's names for what
both have, so that whoever packs, previews or evaluates need not ask which it is.

Ids are those of the package itself, with one setting of its own: a text that spells out a special token
(``<|eot_id|>``) stays text, so a crawled page cannot open a turn of a dialogue. Byte-level vocabularies (Llama 3, Qwen)
are taken, and those with byte fallback that put no blank in front; what does not give a text back is refused.

The package cuts and pads nothing here and runs in one thread: Ray starts as many workers as there are cores.
"""

import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from caravela import storage
from caravela.data import peer_tokenizers
from caravela.errors import UserError

JSON_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
IDS_FILE = "tokenizer_ids.json"
"""Ours: ``begin`` and ``end`` as ids, and ``vocabulary_size``."""
PROBE = " Ação,\n  2026 \u3042 ﬁ\t🙂 'sim'"
BLANK = "\u2581"


class JsonTokenizer:
    """Text to ids and back."""

    def __init__(self, data: bytes, ids: Mapping[str, int], where: str) -> None:
        """``ids`` is the content of ``IDS_FILE``; ``where`` is for messages."""
        self._begin, self._end, self._size = ids["begin"], ids["end"], ids["vocabulary_size"]
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._description, self._tokenizer = peer_tokenizers.read_json(data, where, "tokenizer.model")
        self._tokenizer.encode_special_tokens = True

    def get_piece_size(self) -> int:
        """Rows of the embeddings of its model, of which the last may stand for no token."""
        return self._size

    vocab_size = get_piece_size

    def bos_id(self) -> int:
        return self._begin

    def eos_id(self) -> int:
        return self._end

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without those that begin and end a document."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Of many texts at once."""
        return [each.ids for each in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text; special tokens are none."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def piece_bytes(self) -> npt.NDArray[np.int32]:
        """UTF-8 bytes of text that each token stands for; 0 for a special one."""
        sizes = np.zeros(self._size, np.int32)
        parts = (self._description.get("decoder"), self._description.get("pre_tokenizer"))
        of_bytes = any(map(peer_tokenizers.holds_byte_level, parts))
        for piece, number in self._tokenizer.get_vocab(with_added_tokens=False).items():
            if of_bytes:  # each letter of the piece stands for a byte
                sizes[number] = len(piece)
            elif peer_tokenizers.BYTE_PIECE.fullmatch(piece):
                sizes[number] = 1
            else:
                sizes[number] = len(piece.replace(BLANK, " ").encode("utf-8"))
        for number, added in self._tokenizer.get_added_tokens_decoder().items():
            sizes[number] = 0 if added.special else len(added.content.encode("utf-8"))
        return sizes


class Given(NamedTuple):
    """A tokenizer of others, as it lies beside its model."""

    data: bytes
    config: Mapping[str, Any]
    """Of the tokenizer_config.json beside it; empty without one."""
    begin: str
    """The token that begins a document."""
    end: str


def is_json(data: bytes) -> bool:
    """Whether this is a tokenizer.json and no SentencePiece model."""
    return data[:1] == b"{"


def given(data: bytes, uri: str, begin: str, end: str) -> Given:
    """What the config names, with the tokens that ``begin`` and ``end`` leave open taken from the file beside it.

    Raises:
        UserError: neither says them.
    """
    beside = storage.join(posixpath.dirname(uri), CONFIG_FILE) if "/" in uri else CONFIG_FILE
    try:
        config = json.loads(storage.read_bytes(beside))
    except FileNotFoundError:
        config = {}
    except ValueError as error:
        raise UserError(f"{storage.shown(beside)}: not valid JSON: {error}") from error
    tokens = {"begin": begin or _content(config.get("bos_token")), "end": end or _content(config.get("eos_token"))}
    for name, token in tokens.items():
        if not token:
            raise UserError(
                f'tokenizer.{name} = "": expected the token of {storage.shown(uri)} that {name}s a document, as '
                f"{storage.shown(beside)} does not say it"
            )
    return Given(data, config, **tokens)


def _content(token: Any) -> str:
    """``bos_token`` is a string or an object that holds one."""
    return str((token.get("content") if isinstance(token, dict) else token) or "")


def checked(found: Given, uri: str, vocabulary_size: int) -> Mapping[str, int]:
    """The content of ``IDS_FILE``, for a tokenizer that gives every text back.

    Raises:
        UserError: it does not, the special tokens are none of its own, or ``vocabulary_size`` is less than it has.
    """
    where = f"tokenizer.model = {storage.shown(uri)}"
    _, tokenizer = peer_tokenizers.read_json(found.data, uri, "tokenizer.model")
    least = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if vocabulary_size < least:
        raise UserError(
            f"tokenizer.vocabulary_size = {vocabulary_size}: expected {least}, as {storage.shown(uri)} has it, or as "
            "many as its model has embeddings"
        )
    ids = {"vocabulary_size": vocabulary_size}
    for name, token in (("begin", found.begin), ("end", found.end)):
        number = tokenizer.token_to_id(token)
        if number is None:
            raise UserError(f"tokenizer.{name} = {token!r}: expected a token of {storage.shown(uri)}")
        ids[name] = number
    made = JsonTokenizer(found.data, ids, uri)
    spelt = made.encode(f"{found.begin} {found.end}")
    if ids["begin"] in spelt or ids["end"] in spelt:
        raise UserError(f"{where}: expected {found.begin} and {found.end} to be special tokens, which no text becomes")
    probe = made.encode(PROBE)
    if made.decode(probe) != PROBE or int(made.piece_bytes()[probe].sum()) != len(PROBE.encode("utf-8")):
        raise UserError(
            f"{where}: expected one that gives every text back and adds no blank: byte-level, or with byte fallback"
        )
    return ids
