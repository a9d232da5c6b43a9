"""Tokenizers of others, to compare with: SentencePiece models and ``tokenizer.json`` files.

In: a path, local or s3://. Out: ``Encoder``: text to ids and back without tokens put in front or behind, and what is
known of each piece. Which kind a file is shows in its first byte: a ``tokenizer.json`` is a JSON object. Such a file
may say that texts are cut or padded; that is for batches of a model and is switched off.

What counts as byte fallback: a piece that stands for a part of a character. SentencePiece and its like have 256 of
them, used where a character has no piece of its own; those of a byte-level vocabulary are the pieces that are not whole
characters. The byte of a line break is left out: text with lines is not text with rare characters.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

from caravela import storage
from caravela.errors import UserError

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
LINE_BREAK = "<0x0A>"
USUAL_NAMES = ("tokenizer", "spiece", "sentencepiece", "spm", "sentencepiece.bpe")
"""Names that say nothing: the folder's name is the tokenizer's."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A tokenizer, whatever its kind."""

    kind: str
    pieces: int
    byte_pieces: npt.NDArray[np.bool_]
    """By id."""
    unknown: int | None
    """The id that stands for what the vocabulary cannot say."""
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


def load(path: str, setting: str) -> Encoder:
    """Reads a tokenizer.

    Raises:
        UserError: no such file, none that is a tokenizer, or one that needs a package that is not there; in one line
            that names ``setting``.
    """
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        raise UserError(f"{storage.shown(path)}: no such tokenizer; correct {setting}") from None
    if data[:1] == b"{":
        return _from_json(data, path, setting)
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data)
    except RuntimeError as error:
        raise _no_tokenizer(path, setting, "no SentencePiece model") from error
    return of_sentencepiece(processor)


def of_sentencepiece(processor: sentencepiece.SentencePieceProcessor) -> Encoder:
    """A SentencePiece model that is loaded already."""
    size = processor.get_piece_size()
    byte_pieces = np.array([processor.is_byte(i) and processor.id_to_piece(i) != LINE_BREAK for i in range(size)], bool)
    return Encoder(
        kind="SentencePiece",
        pieces=size,
        byte_pieces=byte_pieces,
        unknown=processor.unk_id(),
        encode=processor.encode,
        decode=processor.decode,
    )


def read_json(data: bytes, path: str, setting: str) -> tuple[Any, Any]:
    """A tokenizer.json as it is written, and as the package tokenizers reads it, without cutting and padding.

    Raises:
        UserError: it is none, or the package is not there.
    """
    try:
        import tokenizers  # here: of the extra [train], and nodes that curate live without it
    except ModuleNotFoundError as error:
        raise UserError(
            f"{storage.shown(path)}: a tokenizer.json is read by the package tokenizers, which is not installed; "
            f"install the extra [train], or leave it out of {setting}"
        ) from error
    try:
        description = json.loads(data)
        tokenizer = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the package raises no kind of its own
        raise _no_tokenizer(path, setting, "no tokenizer.json that the package tokenizers can read") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return description, tokenizer


def _from_json(data: bytes, path: str, setting: str) -> Encoder:
    description, tokenizer = read_json(data, path, setting)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    pieces = {number: piece for piece, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    size = max(size, max(pieces, default=-1) + 1)
    partial = _partial_characters(description)
    byte_pieces = np.array([partial(pieces.get(i, "")) for i in range(size)], bool)
    unknown = description["model"].get("unk_token")
    unknown_id = description["model"].get("unk_id") if unknown is None else tokenizer.token_to_id(unknown)

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False))

    kind = f"tokenizer.json, {description['model'].get('type', 'unknown kind')}"
    return Encoder(
        kind=kind, pieces=len(pieces), byte_pieces=byte_pieces, unknown=unknown_id, encode=encode, decode=decode
    )


def _partial_characters(description: Any) -> Callable[[str], bool]:
    """Whether a piece is a part of a character, for the vocabulary that a tokenizer.json describes."""
    import tokenizers

    if not holds_byte_level(description.get("decoder")) and not holds_byte_level(description.get("pre_tokenizer")):
        return lambda piece: BYTE_PIECE.fullmatch(piece) is not None and piece != LINE_BREAK
    decoder, alphabet = tokenizers.decoders.ByteLevel(), set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    return lambda piece: alphabet.issuperset(piece) and "\ufffd" in decoder.decode([piece])


def holds_byte_level(part: Any) -> bool:
    """Whether bytes are written as letters here (``Ġ`` for a blank), so that the vocabulary knows every text."""
    if isinstance(part, dict):
        return part.get("type") == "ByteLevel" or any(map(holds_byte_level, part.values()))
    return isinstance(part, list) and any(map(holds_byte_level, part))


def names_of(paths: Sequence[str]) -> list[str]:
    """A short name for each: of the file, of its folder where that is a usual one, the path where two are equal."""
    names = []
    for path in paths:
        folder, file = posixpath.split(storage.shown(path).rstrip("/"))
        stem = posixpath.splitext(file)[0]
        names.append(posixpath.basename(folder) if stem in USUAL_NAMES and posixpath.basename(folder) else stem)
    return [name if names.count(name) == 1 else storage.shown(path) for name, path in zip(names, paths, strict=True)]


def content_of(path: str, setting: str) -> str:
    """What identifies a file's content, for the fingerprint of a stage that reads it.

    Raises:
        UserError: there is no such file.
    """
    try:
        if storage.is_remote(path):
            info = storage.stat(path)
            return f"{info['size']}-{info['version']}"
        return hashlib.sha256(storage.read_bytes(path)).hexdigest()
    except FileNotFoundError:
        raise UserError(f"{storage.shown(path)}: no such tokenizer; correct {setting}") from None


def _no_tokenizer(path: str, setting: str, why: str) -> UserError:
    return UserError(f"{storage.shown(path)}: {why}; {setting} expects SentencePiece models and tokenizer.json files")
