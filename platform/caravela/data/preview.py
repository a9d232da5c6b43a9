"""Packed rows as people read them: decoded, with the borders of documents and of padding.

In: a finished pack stage and the tokenizer it was packed with. Out: stretches of text by document, and lines for a
terminal, on which control and invisible characters are written as escapes.

A stretch that a row's border cuts within a character shows U+FFFD there. Rows are read by their row groups: one request
each.
"""

import contextlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import xxhash

from caravela import storage
from caravela.data.shard_documents import reading
from caravela.data.tokenizer import Tokenizer
from caravela.manifest import Manifest

INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
COLUMNS = ("tokens", "document_starts", "document_ids", "padding")


class Place(NamedTuple):
    """Where a row stands in a table."""

    part: int
    row: int


class Stretch(NamedTuple):
    """What a row holds of one document."""

    document: str
    text: str
    tokens: int
    begins: bool
    """Whether the document begins here, and not in the row before."""
    ends: bool


class ShownRow(NamedTuple):
    """A row to look at."""

    place: Place
    stretches: list[Stretch]
    padding: int
    """Tokens at its end."""


def scattered(pack: Manifest, table: str, count: int, seed: int = 0) -> list[Place]:
    """At most ``count`` rows: one at random out of each of as many equal shares of the table."""
    sizes = [file.rows for file in pack.files(table)]
    total, found = sum(sizes), []
    count = min(count, total)
    for i in range(count):
        low, high = i * total // count, (i + 1) * total // count
        row, part = low + xxhash.xxh3_64_intdigest(f"{seed} {i}") % (high - low), 0
        while row >= sizes[part]:
            row, part = row - sizes[part], part + 1
        found.append(Place(part, row))
    return found


def shown_rows(pack: Manifest, table: str, places: Sequence[Place], processor: Tokenizer) -> list[ShownRow]:
    """The rows at some places, decoded, in the order of the places."""
    found: dict[Place, ShownRow] = {}
    uris = pack.uris(table)
    for part in sorted({place.part for place in places}):
        rows = sorted({place.row for place in places if place.part == part})
        for row, content in _read(uris[part], rows, int(pack.config["row_group_rows"])):
            place = Place(part, row)
            found[place] = ShownRow(place, list(stretches(content, processor)), int(content["padding"]))
    return [found[place] for place in places]


def _read(uri: str, rows: Sequence[int], row_group_rows: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with contextlib.ExitStack() as stack:
        with reading(uri):
            file = pq.ParquetFile(stack.enter_context(storage.open_read(uri)), page_checksum_verification=True)
        for group in sorted({row // row_group_rows for row in rows}):
            with reading(uri):
                table = file.read_row_group(group, columns=list(COLUMNS))
            for row in (row for row in rows if row // row_group_rows == group):
                yield row, table.slice(row % row_group_rows, 1).to_pylist()[0]


def stretches(row: Mapping[str, Any], processor: Tokenizer) -> Iterator[Stretch]:
    """A row of schema.packed, document by document."""
    tokens: list[int] = row["tokens"]
    starts: list[int] = row["document_starts"]
    for document, start, end in zip(
        row["document_ids"], starts, [*starts[1:], len(tokens) - row["padding"]], strict=True
    ):
        own = tokens[start:end]
        text = processor.decode(own)
        yield Stretch(document, text, len(own), own[0] == processor.bos_id(), own[-1] == processor.eos_id())


def as_text(pack: Manifest, rows: Sequence[ShownRow], table: str = "train") -> str:
    """Rows for a terminal: ``⟦doc id⟧`` where a document begins, ``⟦… doc id⟧`` where it goes on from another row."""
    width = int(pack.summary["context"]) + 1
    blocks = []
    for row in rows:
        lines = [f"── {table} part {row.place.part} row {row.place.row} · {width:,} tokens"]
        for stretch in row.stretches:
            lines.append(f"⟦{'' if stretch.begins else '… '}doc {printable(stretch.document)}⟧")
            lines.append(printable(stretch.text) + ("" if stretch.ends else "⟦…⟧"))
        if row.padding:
            lines.append(f"⟦padding: {row.padding:,} tokens⟧")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def printable(text: str) -> str:
    """Text that cannot move the cursor, change colours or turn the line around: such characters become escapes."""
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in INVISIBLE
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
