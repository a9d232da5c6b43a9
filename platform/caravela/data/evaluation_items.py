"""The items of evaluation sets as texts, for whoever must know whether a document holds one.

In: files of one's own (JSONL, JSON, CSV, TSV, Parquet; fields by name), or the folder of a task that is known by name,
as its makers publish it. Out: ``EvaluationItem``: an id, the parts of the question, the options.

What stands for an item is what a model is shown of it and a text would not hold otherwise. So of FaQuAD it is the
question and not the paragraph below it, which is an article that anyone may quote. An ENEM question comes whole, with
the text that it is about: its last sentence alone often says no more than "according to the text".

Below ``folder`` lies a folder for each task; its files may be plain or gzip:

====================  ================================================  ==================================
task                  files                                             an item is
====================  ================================================  ==================================
assin                 ``assin-*.xml``                                   a pair of sentences
enem                  ``*.json``, ``*.jsonl``: of gpt-4-enem, enem-api  a question and its options
faquad                ``*.json`` as SQuAD has them                      a question
hatebr                ``*.csv``                                         a comment
oab                   ``official/*.txt``                                a question and its options
pt_hate_speech        ``*.csv``                                         a post
====================  ================================================  ==================================
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree import ElementTree

from caravela import storage
from caravela.data import readers
from caravela.errors import UserError
from caravela.manifest import Input

SHARD_BYTES = 1 << 62


class EvaluationItem(NamedTuple):
    """One item; no part of it is read across to the next."""

    id: str
    """``<task>/<its own id>``."""
    question: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ItemFile:
    """A file of items: JSONL, CSV, TSV (plain, .gz, .zst), Parquet, or a JSON array of objects (plain, .gz)."""

    uri: str
    """Local or remote; no pattern."""
    task: str = ""
    """What stands before the items' ids; the file's name up to its first dot, if empty."""
    id: str = "id"
    """The field of the id; where an item has none, its row serves."""
    text: str = "question"
    """The field of the question."""
    options: str = ""
    """The field of the options, if they are to count: a list of strings, or of objects with a ``text``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", storage.absolute(self.uri))  # workers have another working directory


def task_files(task: str, folder: str) -> list[str]:
    """The files of a task known by name, sorted.

    Raises:
        UserError: no such task, or no file of it in the folder.
    """
    if task not in TASKS:
        raise UserError(f"tasks = {task!r}: expected one of {', '.join(TASKS)}; other items can be given as files")
    base = storage.join(storage.absolute(folder), task)
    pattern = re.compile(TASKS[task].files + r"(\.gz)?")
    names = {uri: uri[len(base) :].lstrip("/") for uri in storage.list_files(base)}
    if not (found := [uri for uri, name in names.items() if pattern.fullmatch(name)]):
        raise UserError(f"{base}: no files of the task {task}; expected {TASKS[task].files}, plain or .gz")
    return found


def item_inputs(files: Sequence[ItemFile], tasks: Sequence[str], folder: str) -> tuple[Input, ...]:
    """What identifies the files, for the fingerprint of the stage that uses them.

    Raises:
        UserError: a task is not known, or a file is not there.
    """
    named = [(f"items of {task}", uri) for task in sorted(set(tasks)) for uri in task_files(task, folder)]
    inputs = []
    for name, uri in [("items", file.uri) for file in files] + named:
        try:
            info = storage.stat(uri)
        except FileNotFoundError:
            raise UserError(f"{storage.shown(uri)}: no such file of evaluation items") from None
        label = f"{name} {storage.name_of(uri)}"
        inputs.append(Input(name=label, fingerprint=f"{info['size']}-{info['version']}", uri=storage.shown(uri)))
    return tuple(inputs)


def read_items(files: Sequence[ItemFile], tasks: Sequence[str], folder: str) -> Iterator[EvaluationItem]:
    """All items, in the order of the files; texts may be empty, ids may come twice.

    Raises:
        UserError: a file that is missing, broken or of another shape; it names the file.
    """
    for file in files:
        yield from _of_file(file)
    for task in tasks:
        for uri in task_files(task, folder):
            try:
                items = TASKS[task].read(_content(uri), storage.name_of(uri).split(".")[0])
                yield from (EvaluationItem(f"{task}/{item.id}", item.question, item.options) for item in items)
            except (ValueError, KeyError, TypeError, AttributeError, ElementTree.ParseError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise UserError(f"{uri}: not a file of the task {task} as published: {reason}") from error


def _of_file(file: ItemFile) -> Iterator[EvaluationItem]:
    name = storage.name_of(file.uri)
    task = file.task or name.split(".")[0]
    rows = _of_array(file) if re.search(r"\.json(\.gz)?$", name.lower()) else _of_rows(file)
    for id_, text, options in rows:
        yield EvaluationItem(f"{task}/{id_}", (text,), tuple(_option_texts(options, file)))


def _of_rows(file: ItemFile) -> Iterator[tuple[str, str, Any]]:
    names = readers.FieldNames(id=file.id, text=file.text)
    if not storage.exists(file.uri):
        raise UserError(f"{storage.shown(file.uri)}: no such file of evaluation items")
    for shard in readers.plan_shards([file.uri], SHARD_BYTES):
        for row, raw in enumerate(readers.read(shard.spec, names)):
            if raw.problem == "empty_file":
                return
            if raw.text is None:
                what = " ".join(filter(None, (raw.problem, raw.detail)))
                shown = storage.shown(file.uri)
                raise UserError(f"{shown}: item {row} cannot be read: {what} (the field is {file.text!r})")
            own = not raw.id.startswith(f"{storage.name_of(file.uri)}#")  # else the reader made it, from row or offset
            yield raw.id if own else str(row), raw.text, raw.metadata.get(file.options)


def _of_array(file: ItemFile) -> Iterator[tuple[str, str, Any]]:
    shown = storage.shown(file.uri)
    try:
        rows = json.loads(_content(file.uri))
    except ValueError as error:
        raise UserError(f"{shown}: not valid JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{shown}: expected an array of objects, an item each")
    for number, row in enumerate(rows):
        if not isinstance(text := row.get(file.text), str):
            raise UserError(f"{shown}: item {number}: {file.text!r} is {type(text).__name__}; expected a string")
        yield str(row.get(file.id) or number), text, row.get(file.options)


def _option_texts(options: Any, file: ItemFile) -> Iterator[str]:
    if isinstance(options, Mapping):  # {"text": [...], "label": [...]}
        options = options.get("text")
    if options is None:
        return
    if isinstance(options, str) or not isinstance(options, Iterable):
        raise UserError(f"{storage.shown(file.uri)}: {file.options!r} is {type(options).__name__}; expected a list")
    for option in options:
        yield str(option.get("text") or "") if isinstance(option, Mapping) else str(option)


def _content(uri: str) -> str:
    try:
        data = storage.read_bytes(uri)
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError:
        raise UserError(f"{storage.shown(uri)}: no such file of evaluation items") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{storage.shown(uri)}: broken file of evaluation items: {error}") from error
    return plain.decode("utf-8", "replace")


def _enem(content: str, _: str) -> Iterator[EvaluationItem]:
    """All three forms: gpt-4-enem's old array and its newer lines, and enem-api's lines."""
    rows = json.loads(content) if content.lstrip().startswith("[") else map(json.loads, _lines(content))
    for row in rows:
        if "alternativesIntroduction" in row:
            texts = [row["context"], row["alternativesIntroduction"]]
            options = [option["text"] for option in row["alternatives"]]
            yield _item(row["path"], [" ".join(filter(None, texts))], options)
        else:
            text = row.get("original_question") or row["question"]
            yield _item(row["id"], [text], row.get("options") or row["alternatives"])


def _assin(content: str, name: str) -> Iterator[EvaluationItem]:
    for pair in ElementTree.fromstring(content.encode("utf-8")).iter("pair"):
        yield _item(f"{name}/{pair.attrib['id']}", [pair.findtext("t"), pair.findtext("h")])


def _faquad(content: str, _: str) -> Iterator[EvaluationItem]:
    for article in json.loads(content)["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield _item(question["id"], [question["question"]])


def _oab(content: str, name: str) -> Iterator[EvaluationItem]:
    """``Questão 7``, a line ``AREA ...``, the question; ``OPTIONS``, then ``A)`` or ``A:CORRECT)`` and so on."""
    _, *pieces = re.split(r"(?m)^(?:ENUM[ \t]+)?Questão[ \t]+(\d+)[^\n]*$", content)
    for number, piece in zip(pieces[::2], pieces[1::2], strict=True):
        question, _, options = re.sub(r"(?m)^AREA\b.*$", "", piece).partition("\nOPTIONS")
        yield _item(f"{name}/{number}", [question], re.split(r"(?m)^[A-E](?::CORRECT)?\)", options)[1:])


def _hatebr(content: str, name: str) -> Iterator[EvaluationItem]:
    for row in _csv(content):
        yield _item(f"{name}/{row['id']}", [row["comentario"] if "comentario" in row else row["comment"]])


def _pt_hate_speech(content: str, name: str) -> Iterator[EvaluationItem]:
    for number, row in enumerate(_csv(content)):
        yield _item(f"{name}/{number}", [row["text"]])


def _csv(content: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(content, newline=""))


def _lines(content: str) -> Iterator[str]:
    return filter(str.strip, content.split("\n"))


def _item(id_: Any, question: Iterable[str | None], options: Iterable[str | None] = ()) -> EvaluationItem:
    return EvaluationItem(str(id_), tuple(text or "" for text in question), tuple(text or "" for text in options))


class Task(NamedTuple):
    """How a task's items are found and read."""

    files: str
    """What their names are, below the task's folder: a pattern; ``.gz`` may follow."""
    read: Callable[[str, str], Iterator[EvaluationItem]]
    """From a file's content and its name without endings; the ids have no task before them yet."""


TASKS: Mapping[str, Task] = {
    "assin": Task(r"assin-[\w-]+\.xml", _assin),
    "enem": Task(r"[\w-]+\.jsonl?", _enem),
    "faquad": Task(r"\w+\.json", _faquad),
    "hatebr": Task(r"\w+\.csv", _hatebr),
    "oab": Task(r"official/[\w-]+\.txt", _oab),
    "pt_hate_speech": Task(r"\w+\.csv", _pt_hate_speech),
}
