"""What is read from a damaged file, and what is wrong with that.

``complaints`` reads a mutation as curation does. Whatever was done to a file:

* nothing but documents comes out, each with a text, a page or a reason, and each can be stored; or a ``UserError`` that
  names the file;
* what lies before the first changed byte is read as before; and where the format lets a reader find its way again
  (gzip members, zstandard frames, records, lines), what lies behind the last changed byte as well;
* no fewer documents come out, unless one of them tells of a loss.

``run`` does that in a process of its own, which may be killed: a mutation that takes too long, too much memory or the
process with it is a failure like any other.
"""

import json
import multiprocessing
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from caravela.data import extract, readers
from caravela.data.columns import RawColumns, strings
from caravela.data.extract import ExtractConfig
from caravela.data.raw import RawDocument
from caravela.errors import UserError
from tests.data.fuzz_mutations import Mutation, mutated
from tests.data.fuzz_sources import Source, documents

MEMORY_BYTES = 1500 << 20
"""What a reader may take beyond what the process has once everything is loaded."""
TIMEOUT_S = 120.0
"""Of the processor's time, for one mutation; a process that waits may take longer, as others may be computing."""
LOADING_S = 300.0
IDLE_FACTOR = 20
# Compressed as a whole, rows before the damage may be lost with the block that they were packed in.
IN_BLOCKS = (".jsonl.gz", ".jsonl.zst", ".csv.gz")
FILE_PROBLEMS = ("broken_file", "empty_file")


@dataclass(frozen=True)
class Failure:
    """A mutation after which something is wrong."""

    number: int
    source: str
    kind: str
    complaint: str


def complaints(mutation: Mutation) -> list[str]:
    """What is wrong with what is read; empty if nothing is."""
    name = mutation.source.name
    if name.endswith(".html"):
        return _extracted(mutation.data)
    try:
        found = documents(name, mutation.data)
    except UserError as error:
        return [] if name in str(error) else [f"UserError that does not name the file: {error}"]
    wrong = [complaint for document in found for complaint in _document(document)]
    stored = RawColumns.of(found)
    for column in (*stored.known.values(), stored.text, strings([json.dumps(d.metadata, default=str) for d in found])):
        column.validate(full=True)
    if not wrong and readers.format_of(name) == "warc":
        before = set(map(_content, documents(name, mutation.source.data)))
        new = [d for d in found if d.html is not None and _content(d) not in before]
        wrong = [complaint for d in new[:1] for complaint in _extracted(d.html or b"", d.header_charset)]
    return wrong or _accounting(mutation, found)


def _extracted(html: bytes, header_charset: str = "") -> list[str]:
    page = extract.extract(html, header_charset, ExtractConfig())
    page.text.encode("utf-8")
    page.title.encode("utf-8")
    return [] if bool(page.text) != bool(page.reason) else [f"text {page.text[:40]!r} and reason {page.reason!r}"]


def _document(document: RawDocument) -> Iterator[str]:
    if not isinstance(document, RawDocument):
        yield f"not a document: {document!r}"
        return
    held = (document.html is not None) + (document.text is not None) + bool(document.problem)
    if held != 1:
        yield f"{document.id}: holds {held} of text, page and problem"
    if not document.id or len(document.detail) > 1000:
        yield f"no id, or a detail of {len(document.detail)} characters"


def _content(document: RawDocument) -> tuple[str, object, str]:
    """What tells documents apart, but for ids, which may be places in the file."""
    return document.url, document.html if document.html is not None else document.text, document.problem


def _accounting(mutation: Mutation, found: Sequence[RawDocument]) -> list[str]:
    source, (first, last) = mutation.source, mutation.span()
    name, contents = source.name, [_content(document) for document in found]
    if name.endswith(".parquet") or (first >= last and len(source.data) == len(mutation.data)):
        return []
    wrong = []
    whole = [_content(d) for d in documents(name, source.data) if d.problem not in FILE_PROBLEMS]
    if source.starts:
        before = sum(end <= first for end in (*source.starts[1:], len(source.data)))
        kept = _whole_parts(
            source, source.data[: source.starts[before]] if before < len(source.starts) else source.data
        )
        if contents[: len(kept)] != kept:
            wrong.append(f"{before} parts lie before byte {first}, and not all of their {len(kept)} documents are read")
        # What was packed once more lies within another member, though its bytes may stand there as they were.
        found_again = () if mutation.kind == "packed again" else source.starts
        behind = [start for start in found_again if start - source.overlap >= last]
        kept = _whole_parts(source, source.data[behind[0] :]) if behind else []
        if kept and contents[-len(kept) :] != kept:
            wrong.append(
                f"{len(behind)} parts lie behind byte {last}, and not all of their {len(kept)} documents are read"
            )
    elif not name.endswith(IN_BLOCKS):
        kept = [_content(d) for d in documents(name, source.data[:first])]
        kept = [content for content in kept if not content[2] and content in whole]
        if [content for content in contents if not content[2]][: len(kept)] != kept:
            wrong.append(f"of {len(kept)} documents that end before byte {first}, not all are read")
    told = any(document.broken for document in found)
    if len(contents) < len(whole) and not told and not _cut_between_parts(mutation):
        wrong.append(f"{len(whole)} documents became {len(contents)}, and none tells of a loss")
    return wrong


def _whole_parts(source: Source, data: bytes) -> list[tuple[str, object, str]]:
    return [_content(d) for d in documents(source.name, data) if d.problem not in FILE_PROBLEMS]


def _cut_between_parts(mutation: Mutation) -> bool:
    """Whether nobody could tell: whole parts, or whole lines, are gone or a line break is."""
    source, data = mutation.source, mutation.data
    if source.name.endswith((".jsonl", ".csv")):
        return True  # lines may be joined or end anywhere, and a row's words may become another row's
    return len(data) in source.starts and source.data.startswith(data)


# Running them where they can do no harm


def run(
    sources: Sequence[Source],
    seed: int,
    numbers: Sequence[int],
    timeout_s: float = TIMEOUT_S,
    tell: Callable[[int], None] = lambda number: None,
) -> list[Failure]:
    """The failures among the mutations of these numbers; ``tell`` is called after each."""
    failures: list[Failure] = []
    left = list(numbers)
    while left:
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(there, sources, seed, left))
        process.start()
        there.close()
        left = _watch(process, here, left, timeout_s, tell, failures, sources, seed)
        process.join()
    return failures


def _watch(
    process: "multiprocessing.process.BaseProcess",
    here: Connection,
    left: list[int],
    timeout_s: float,
    tell: Callable[[int], None],
    failures: list[Failure],
    sources: Sequence[Source],
    seed: int,
) -> list[int]:
    """Takes results until the process ends or has to be ended; the numbers that are still to be done."""
    allowed = LOADING_S
    while left:
        trouble, raised, waited, begun = "", False, 0, _processor_seconds(process)
        try:
            while not here.poll(1.0):
                waited += 1
                if _processor_seconds(process) - begun > allowed or waited > IDLE_FACTOR * allowed:
                    process.kill()
                    trouble = f"took more than {allowed:.0f} s"
                    break
            else:
                found, raised = here.recv()
                failures += [_failure(sources, seed, left[0], complaint) for complaint in found]
                allowed = timeout_s
        except EOFError:
            process.join()
            trouble = f"ended the process with status {process.exitcode}"
        if trouble:
            failures.append(_failure(sources, seed, left[0], trouble))
        tell(left.pop(0))
        if trouble or raised:
            break
    return left


def _failure(sources: Sequence[Source], seed: int, number: int, complaint: str) -> Failure:
    mutation = mutated(sources, seed, number)
    return Failure(number, mutation.source.name, mutation.kind, complaint)


def _work(there: Connection, sources: Sequence[Source], seed: int, numbers: Sequence[int]) -> None:
    complaints(mutated(sources, seed, numbers[0]))  # loads what is loaded when first used
    _extracted(b"<html><body><p>Uma frase.</p></body></html>")
    limit = _address_space() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in numbers:
        mutation = mutated(sources, seed, number)
        try:
            found = complaints(mutation)
        except Exception as error:
            there.send(([f"{type(error).__name__}: {str(error)[:300]}"], True))
            raise
        there.send((found, False))


def _processor_seconds(process: "multiprocessing.process.BaseProcess") -> float:
    """What a process has computed so far: time that others have the processor is not its fault."""
    try:
        with open(f"/proc/{process.pid}/stat", encoding="utf-8") as numbers:
            fields = numbers.read().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as numbers:
        return int(numbers.read().split()[0]) * resource.getpagesize()
