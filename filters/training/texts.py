"""Labelled texts: read, made into lines as fastText sees them, freed of duplicates, and split by hash.

In: files of rows (JSONL, Parquet, CSV, TSV; the fields of text and label by name), files of fastText's own lines
(``__label__pt um texto``, .txt), or any stream of ``Labelled``. Out: ``LabelledLines``: one text a line in a local
file, and the three parts, training, validation and test, each with its share of every label.

The order of the input does not matter: lines are sorted by a seeded hash of their words, which also shuffles the
labels for training, and the first of each label are the test part. A text that occurs twice is taken once; one that
occurs under two labels is not taken at all. fastText splits words at ASCII blanks alone, so those are made one space
here; and a word that it would take for a label or for the end of the line is left out, as it is in a prediction.

Memory: some 100 bytes a text; the texts themselves lie on the local disk.
"""

import array
import collections
import gzip
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
import zstandard

from caravela import storage
from caravela.config import ConfigError
from caravela.data import readers
from caravela.data.tables import MAX_LINE_BYTES
from caravela.errors import UserError

LABEL_PREFIX = "__label__"
END_OF_LINE = "</s>"
BLANKS = re.compile(r"[ \n\r\t\v\f\0]+")
LINE_FILES = (".txt", ".txt.gz", ".txt.zst")
SHARD_BYTES = 1 << 40  # one reader, so a file is one shard
LEAST_PER_LABEL = 3

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabelledFields:
    """What JSONL keys, Parquet columns and CSV headers are called."""

    text: str = "text"
    """The text, in UTF-8."""
    label: str = "label"
    """What it is."""

    def __post_init__(self) -> None:
        if self.text == self.label:
            raise ConfigError(f"label = {self.label!r}: expected another field than that of the text")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which texts the model learns from, and which it is judged by."""

    validation_share: float = 0.1
    """Of each label's texts; thresholds are chosen on these."""
    test_share: float = 0.1
    """Of each label's texts; figures are reported on these."""
    least_per_label: int = 20
    """A label with fewer texts is refused: it could be neither learned nor judged."""
    most_per_label: int = 0
    """Texts of a label to learn from at most; 0: all."""
    balance: bool = False
    """Whether every label is cut to as many training texts as the rarest has; the other parts stay as they are."""
    piece_words: int = 0
    """Texts are learned from in pieces of this many words at most; 0: whole. Texts to judge by are never cut."""
    seed: int = 1
    """Of the hash that orders and splits the texts."""

    def __post_init__(self) -> None:
        for name in ("validation_share", "test_share"):
            if not 0 < getattr(self, name) <= 0.4:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected above 0, and 0.4 at most")
        if self.least_per_label < LEAST_PER_LABEL:
            raise ConfigError(f"least_per_label = {self.least_per_label}: expected {LEAST_PER_LABEL} or more")
        for name in ("most_per_label", "piece_words", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 0 or more")


class Labelled(NamedTuple):
    """A text and what it is, or the ``problem`` why it is not to be had."""

    text: str
    label: str
    problem: str = ""
    """``no_label``, ``no_text``, ``two_labels``, ``bad_json`` ..."""


def expand(patterns: Sequence[str], setting: str) -> list[str]:
    """The files that the patterns name, sorted, each once; ``setting`` is where they come from, for the message.

    Raises:
        UserError: a pattern matches nothing, or a file's format is not known.
    """
    found: list[str] = []
    for pattern in patterns:
        if not pattern.lower().endswith(LINE_FILES):
            found += readers.expand([pattern], setting=setting)
            continue
        files = storage.glob(storage.absolute(pattern))
        if not files:
            raise UserError(f"{pattern}: no such input ({setting})")
        found += files
    for uri in found:
        if not uri.lower().endswith(LINE_FILES) and readers.format_of(uri) == "warc":
            raise UserError(f"{uri}: holds pages without labels; expected JSONL, Parquet, CSV, or .txt ({setting})")
    return sorted(set(found))


def read_labelled(uris: Sequence[str], fields: LabelledFields) -> Iterator[Labelled]:
    """Every row of the files, one ``Labelled`` each.

    Raises:
        UserError: a file cannot be read to its end, or lacks a column; one line that names the file.
    """
    for uri in uris:
        yield from _read_lines(uri) if uri.lower().endswith(LINE_FILES) else _read_rows(uri, fields)


def read_texts(uris: Sequence[str], fields: LabelledFields, label: str) -> Iterator[Labelled]:
    """Every text of the files, under one label, whatever else the rows hold."""
    for row in read_labelled(uris, fields):
        usable = row.text and row.problem in ("", "no_label")
        yield Labelled(row.text, label) if usable else row


def _read_rows(uri: str, fields: LabelledFields) -> Iterator[Labelled]:
    # Every field but the text comes as metadata then, whatever its name is.
    names = readers.FieldNames(id="", text=fields.text, url="", date="", source="")
    for shard in readers.plan_shards([uri], SHARD_BYTES):
        for row in readers.read(shard.spec, names):
            if row.problem == "broken_file":
                raise UserError(
                    row.detail if storage.name_of(uri) in row.detail else f"{storage.shown(uri)}: {row.detail}"
                )
            label = row.metadata.get(fields.label)
            if row.problem or row.text is None:
                yield Labelled("", "", "no_text" if row.problem in ("", "no_text_field") else row.problem)
            elif label is None or isinstance(label, list | dict):
                yield Labelled(row.text, "", "no_label")
            else:
                yield Labelled(row.text, str(label).lower() if isinstance(label, bool) else str(label))


def _read_lines(uri: str) -> Iterator[Labelled]:
    """Lines as fastText itself reads them; labels may stand anywhere in the line."""
    with storage.open_read(uri) as raw:
        stream = _plain(raw, uri)
        try:
            while line := stream.readline(MAX_LINE_BYTES):
                words = BLANKS.split(line.decode("utf-8", "replace").strip())
                labels = sorted({word for word in words if word.startswith(LABEL_PREFIX)})
                text = " ".join(word for word in words if not word.startswith(LABEL_PREFIX))
                if text or labels:
                    problem = {0: "no_label", 1: ""}.get(len(labels), "two_labels")
                    yield Labelled(text, "" if problem else labels[0], problem)
        except (OSError, EOFError, zstandard.ZstdError) as error:
            raise UserError(f"{storage.shown(uri)}: {error}") from error


def _plain(raw: IO[bytes], uri: str) -> IO[bytes]:
    if uri.lower().endswith(".gz"):
        return gzip.open(raw)  # type: ignore[return-value]
    if uri.lower().endswith(".zst"):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return raw


def line_of(text: str) -> str:
    """The words that fastText sees in a text, one blank between them."""
    words = BLANKS.split(text)
    return " ".join(word for word in words if word and word != END_OF_LINE and not word.startswith(LABEL_PREFIX))


def label_of(name: str) -> str:
    """A label as the user gives it, without fastText's prefix.

    Raises:
        UserError: fastText could not keep it apart from the text.
    """
    label = name.strip().removeprefix(LABEL_PREFIX)
    if BLANKS.search(label):
        raise UserError(f"label {label[:80]!r}: expected one word; fastText ends a label at a blank")
    return label


@dataclass(frozen=True)
class LabelledLines:
    """Lines in a local file, where each begins and ends, its label, and the parts as indices of lines in hash order."""

    path: str
    labels: tuple[str, ...]
    label_ids: npt.NDArray[np.int32]
    starts: Indices
    ends: Indices
    train: Indices
    validation: Indices
    test: Indices
    removed: Mapping[str, int]
    """Rows that are in no part, by reason."""
    documents_in: int

    def lines(self, part: Indices) -> Iterator[str]:
        """The texts of a part, in its order."""
        with open(self.path, "rb") as file:
            for index in part.tolist():
                file.seek(self.starts[index])
                yield file.read(int(self.ends[index] - self.starts[index])).decode("utf-8")

    def write_training_file(self, path: str, piece_words: int = 0, seed: int = 0) -> None:
        """The training part as fastText reads it: whole texts in hash order, or pieces in the order of their hashes."""
        examples = self._pieces(piece_words, seed) if piece_words else self._whole()
        with open(self.path, "rb") as source, open(path, "wb") as file:
            for index, start, end in examples:
                source.seek(start)
                label = self.labels[self.label_ids[index]]
                file.write(f"{LABEL_PREFIX}{label} ".encode() + source.read(int(end - start)) + b"\n")

    def _whole(self) -> Iterator[tuple[int, int, int]]:
        for index in self.train.tolist():
            yield index, int(self.starts[index]), int(self.ends[index])

    def _pieces(self, most_words: int, seed: int) -> Iterator[tuple[int, int, int]]:
        """The text, the start and the end of each piece; pieces of one text are of equal length, but for a word."""
        texts, starts, ends, hashes = (array.array(kind) for kind in "qqqQ")
        for index, line in zip(self.train.tolist(), self.lines(self.train), strict=True):
            words = line.encode("utf-8").split(b" ")
            count = -(-len(words) // most_words)
            at = int(self.starts[index])
            for number in range(count):
                own = words[number * len(words) // count : (number + 1) * len(words) // count]
                piece = b" ".join(own)
                texts.append(index)
                starts.append(at)
                ends.append(at + len(piece))
                hashes.append(xxhash.xxh3_64_intdigest(piece, seed))
                at += len(piece) + 1
        for place in np.argsort(np.frombuffer(hashes, np.uint64), kind="stable").tolist():
            yield texts[place], starts[place], ends[place]

    def counts(self, part: Indices) -> dict[str, int]:
        """How many texts of each label a part holds."""
        sums = np.bincount(self.label_ids[part], minlength=len(self.labels))
        return dict(zip(self.labels, sums.tolist(), strict=True))


def collect(rows: Iterable[Labelled], folder: str, config: SplitConfig, fields: LabelledFields) -> LabelledLines:
    """Writes every usable text to a file in ``folder``, and splits; ``fields`` is for the message.

    Raises:
        UserError: no text, one label only, or a label with too few texts.
    """
    path = os.path.join(folder, "lines")
    removed = collections.Counter[str]()
    numbers: dict[str, int] = {}
    high, low, starts, ends, ids = (array.array(kind) for kind in "QQqqi")
    documents_in = 0
    with open(path, "wb") as file:
        for documents_in, row in enumerate(rows, 1):  # noqa: B007
            label, line = label_of(row.label), line_of(row.text)
            problem = row.problem or ("no_label" if not label else "no_text" if not line else "")
            if problem:
                removed[problem] += 1
                continue
            data = line.encode("utf-8", "replace")
            digest = xxhash.xxh3_128_intdigest(data, config.seed)
            high.append(digest >> 64)
            low.append(digest & 0xFFFF_FFFF_FFFF_FFFF)
            starts.append(file.tell())
            ends.append(file.tell() + file.write(data))
            ids.append(numbers.setdefault(label, len(numbers)))
    if not numbers:
        why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(removed.items())) or "the inputs are empty"
        raise UserError(
            f"no labelled text in {documents_in:,} rows ({why}); expected a text in field {fields.text!r} "
            f"and its label in field {fields.label!r}"
        )
    names = sorted(numbers)
    places = np.argsort(np.argsort(np.array(list(numbers))))  # in order of first sight -> in sorted order
    label_ids = places.astype(np.int32)[np.frombuffer(ids, np.int32)]
    order = _without_duplicates(np.frombuffer(high, np.uint64), np.frombuffer(low, np.uint64), label_ids, removed)
    train, validation, test = _split(order, label_ids, names, config)
    removed["over_limit"] += len(order) - len(train) - len(validation) - len(test)
    return LabelledLines(
        path=path,
        labels=tuple(names),
        label_ids=label_ids,
        starts=np.frombuffer(starts, np.int64),
        ends=np.frombuffer(ends, np.int64),
        train=train,
        validation=validation,
        test=test,
        removed={reason: count for reason, count in sorted(removed.items()) if count},
        documents_in=documents_in,
    )


def _without_duplicates(
    high: npt.NDArray[np.uint64],
    low: npt.NDArray[np.uint64],
    label_ids: npt.NDArray[np.int32],
    removed: "collections.Counter[str]",
) -> Indices:
    """Indices in the order of the hashes: of equal lines one, of those with two labels none."""
    order = np.lexsort((low, high))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    first = np.flatnonzero(is_new)
    sizes = np.diff(np.append(first, len(order)))
    ids = label_ids[order]
    agree = np.minimum.reduceat(ids, first) == np.maximum.reduceat(ids, first)
    removed["two_labels"] += int(sizes[~agree].sum())
    removed["duplicate"] += int((sizes[agree] - 1).sum())
    return np.asarray(order[first[agree]], np.int64)


def _split(
    order: Indices, label_ids: npt.NDArray[np.int32], names: Sequence[str], config: SplitConfig
) -> tuple[Indices, Indices, Indices]:
    """Training, validation and test, each in the order of the hashes."""
    counts = np.bincount(label_ids[order], minlength=len(names)).tolist()
    if len(names) < 2:
        raise UserError(f"label {names[0]!r} alone, on {counts[0]:,} texts: expected two labels or more to tell apart")
    few = [f"{name!r}: {count}" for name, count in zip(names, counts, strict=True) if count < config.least_per_label]
    if few:
        shown = ", ".join(few[:10]) + (f" and {len(few) - 10} more labels" if len(few) > 10 else "")
        raise UserError(
            f"too few different texts of label {shown}; expected {config.least_per_label} of each "
            "(split.least_per_label); add texts or leave the label out"
        )
    part = np.zeros(len(label_ids), np.int8)  # 1 train, 2 validation, 3 test
    limit = config.most_per_label or len(order)
    held_out = [(max(1, int(n * config.test_share)), max(1, int(n * config.validation_share))) for n in counts]
    if config.balance:
        limit = min(limit, *(n - sum(held) for n, held in zip(counts, held_out, strict=True)))
    for label, (tests, validations) in enumerate(held_out):
        own = order[label_ids[order] == label]
        part[own[:tests]] = 3
        part[own[tests : tests + validations]] = 2
        part[own[tests + validations :][:limit]] = 1
    train, validation, test = (order[part[order] == number] for number in (1, 2, 3))
    return train, validation, test
