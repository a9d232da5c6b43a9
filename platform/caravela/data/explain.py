"""Which documents a step trained on, and in which steps a document was trained on.

In: a training order; the manifests behind its packs. Out: rows of a step with their documents (id, url, source of the
crawl) and, on demand, their texts; the steps of a document. Works from storage alone, before, while or after a run
trains; nothing is trained or written.

Cost: a step reads the row groups that its rows are in and, for what is known of the documents, those shards of
documents that the rows were packed from; a document is looked for in the ids of all packed rows.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caravela import storage
from caravela.data.order import RowGroup
from caravela.data.preview import printable
from caravela.data.row_groups import PackedTable
from caravela.data.training_order import Place, TrainingOrder
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.stages import finished

KNOWN = ("url", "source")


class Document(NamedTuple):
    """What is known of a document; empty where its shard is gone."""

    id: str
    url: str = ""
    source: str = ""
    text: str = ""


class TrainedRow(NamedTuple):
    """A row of a step."""

    slot: int
    mixture_source: str
    epoch: int
    part: str
    """The packed file, relative to its stage."""
    row: int
    """In the file."""
    documents: list[Document]


class Appearance(NamedTuple):
    """A packed row that holds some of a document, and when it is trained on."""

    mixture_source: str
    part: str
    row: int
    places: list[Place]
    held_out: bool
    """Whether the row is for validation, and never trained on."""


def documents_of_step(order: TrainingOrder, step: int, *, with_text: bool = False) -> list[TrainedRow]:
    """The rows of a step in the order of their slots.

    Raises:
        UserError: there is no such step, or packed rows are missing or damaged.
    """
    if not 1 <= step <= order.steps:
        raise UserError(f"--step {step}: expected 1 to {order.steps}, as train.steps has it")
    samples = [order.sample(step, slot) for slot in range(order.batch_rows)]
    tables = [PackedTable(source.pack, "train") for source in order.sources]
    ids: dict[int, list[str]] = {}
    wanted: dict[tuple[int, int], set[str]] = {}
    groups = dict.fromkeys((sample.source, sample.row.group) for sample in samples)
    for source, group in groups:
        arrays = tables[source].read(group, order.shuffles[source].group_rows(group))
        for slot, sample in enumerate(samples):
            if (sample.source, sample.row.group) == (source, group):
                ids[slot] = arrays.document_ids[sample.row.row].as_py()
                wanted.setdefault((source, group.part), set()).update(ids[slot])
    known = {
        (source, part): _documents(order.sources[source].pack, part, some, with_text)
        for (source, part), some in wanted.items()
    }
    rows = []
    for slot, (source, row) in enumerate(samples):
        pack, part = order.sources[source].pack, row.group.part
        found = known[source, part]
        rows.append(
            TrainedRow(
                slot=slot,
                mixture_source=order.sources[source].name,
                epoch=row.epoch,
                part=pack.files("train")[part].path,
                row=_row_in_file(pack, row.group, row.row),
                documents=[found.get(identifier, Document(identifier)) for identifier in ids[slot]],
            )
        )
    return rows


def steps_of_document(order: TrainingOrder, identifier: str) -> Iterator[Appearance]:
    """Every packed row with some of a document, source by source, in the order of the files."""
    for number, source in enumerate(order.sources):
        size = int(source.pack.config["row_group_rows"])
        for table in ("train", "validation"):
            for part, file in enumerate(source.pack.files(table)):
                for row in _rows_with(storage.join(source.pack.uri, file.path), identifier):
                    where = RowGroup(part, row // size)
                    places = list(order.find(number, where, row % size)) if table == "train" else []
                    yield Appearance(source.name, file.path, row, places, table == "validation")


def _row_in_file(pack: Manifest, group: RowGroup, row: int) -> int:
    return group.group * int(pack.config["row_group_rows"]) + row


def _rows_with(uri: str, identifier: str) -> list[int]:
    """Numbers of the rows of a packed file that hold some of a document."""
    found, before = [], 0
    try:
        with storage.open_read(uri) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(columns=["document_ids"]):
                ids = batch["document_ids"]
                hits = pc.equal(ids.flatten(), identifier)
                parents = pc.list_parent_indices(ids).filter(hits)
                found += [before + row for row in parents.unique().to_pylist()]
                before += batch.num_rows
    except FileNotFoundError:
        raise UserError(f"{uri}: named in the manifest of pack, but missing") from None
    except pa.ArrowException as error:
        raise UserError(f"{uri}: cannot be read: {' '.join(str(error).split())}; pack again") from error
    return found


def _documents(pack: Manifest, part: int, ids: Collection[str], with_text: bool) -> Mapping[str, Document]:
    """What the shard that a part was packed from says of some documents; nothing if it is gone."""
    uri = documents_uri(pack, part)
    if uri is None or not storage.exists(uri):
        return {}
    columns = ["id", *KNOWN, *(["text"] if with_text else [])]
    found: dict[str, Document] = {}
    with storage.open_read(uri) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(1024, columns=columns):
            chosen = batch.filter(pc.is_in(batch["id"], pa.array(sorted(ids), pa.string())))
            found |= {row["id"]: Document(**{k: v or "" for k, v in row.items()}) for row in chosen.to_pylist()}
    return found


def documents_uri(pack: Manifest, part: int) -> str | None:
    """The shard of documents that a part of the packed rows was made from; None if its stage is gone."""
    path = pack.files("train")[part].path
    index = next(shard.index for shard in pack.shards if any(file.path == path for file in shard.files))
    source = next((each for each in pack.inputs if each.name != "tokenizer"), None)
    try:
        return finished(source).uris("documents")[index] if source else None
    except UserError:
        return None


def as_text(rows: Sequence[TrainedRow]) -> str:
    """Rows for people: a line each, its documents below."""
    lines = []
    for row in rows:
        lines.append(f"slot {row.slot}: {row.mixture_source}, epoch {row.epoch + 1}, {row.part} row {row.row}")
        for document in row.documents:
            about = " · ".join(part for part in (document.url, document.source) if part)
            lines.append(f"  {document.id}" + (f"  {about}" if about else ""))
            lines += [f"    | {line}" for line in document.text.splitlines()]
    return "\n".join(printable(line) for line in lines)


def appearances_as_text(identifier: str, found: Sequence[Appearance]) -> str:
    """Appearances for people, in the order of training."""
    lines = []
    for row in found:
        where = f"{row.mixture_source}, {row.part} row {row.row}"
        if row.held_out:
            lines.append((0, f"held out for validation: {where}"))
        elif not row.places:
            lines.append((1 << 60, f"never trained on: {where}"))
        lines += [
            (place.step, f"step {place.step}, slot {place.slot}: {where}, epoch {place.epoch + 1}")
            for place in row.places
        ]
    return "\n".join(printable(line) for _, line in sorted(lines)) or printable(
        f"{identifier}: in none of the packed rows"
    )
