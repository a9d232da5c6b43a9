"""Stage ``trim``: each shard of deduplicated documents, merged with its repeats, to documents without them.

Out: ``documents``, whose column ``cut_bytes`` says how much went; ``removed``, with their whole texts: documents that
lost spans and have fewer than ``min_document_words`` words left, or none; ``cuts``: what went from the documents that
stay, as (id, start, text). With the cuts put in at their starts, which are bytes of the text as it was, each document
is again what it was.

Every sentence or line that lies in a repeated span goes. Where its neighbours meet, the white space of one side stays,
that with more line breaks; so paragraphs stay paragraphs, and nothing else of a text changes.

At the end of every run it is checked that all repeats were found again in the texts, and that bytes in are bytes kept,
cut and removed. Memory: one shard's repeats, and a batch of documents twice.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caravela import manifest, schema, storage
from caravela.data.columns import utf8_buffers
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, TableWriter, finished
from filters.dedup import partitions, sentences, span_kernels
from filters.dedup.config import SpansConfig
from filters.dedup.folded_words import folding_table
from filters.dedup.tables import REPEATS

STEP, REASON = "spans", "too_short_after_spans"
BATCH_ROWS = 4096
KEPT_FIELDS = [("cut_bytes", pa.uint32())]
CUTS = pa.schema([("id", pa.string()), ("start", pa.uint32()), ("text", pa.string())])
COUNTERS = (
    *("documents_in", "documents_kept", f"removed.{STEP}.{REASON}", "documents_cut", "repeats", "cuts"),
    *("bytes_in", "bytes_kept", "bytes_cut", "bytes_removed"),
)


def trim_stage(root: str, config: SpansConfig, dedup: Input, spans: Input, repeated: Input) -> Stage:
    """Documents without repeated spans, those that were removed for it, and what was cut out."""

    def plan() -> list[Shard]:
        documents, local = finished(dedup).uris("documents"), finished(spans).uris("local")
        spec = {"repeats": partitions.files(finished(repeated).uris("repeats")), "shards": len(documents)}
        return [
            Shard(index=i, name=storage.name_of(uri), spec={**spec, "documents": uri, "local": own})
            for i, (uri, own) in enumerate(zip(documents, local, strict=True))
        ]

    return Stage(
        name="trim",
        version=1,
        root=root,
        config={"min_document_words": config.min_document_words},
        inputs=(dedup, spans, repeated),
        plan=plan,
        make_worker=functools.partial(TrimWorker, config),
        finish=functools.partial(_summary, spans, repeated),
    )


class TrimWorker:
    """Merges one shard's documents with its repeats."""

    def __init__(self, config: SpansConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        found = partitions.read_all(shard.spec["repeats"], shard.index, int(shard.spec["shards"]), REPEATS)
        tables = [partitions.read(shard.spec["local"], 0, 1, REPEATS), *found]
        repeats = pa.concat_tables(tables).sort_by([("row", "ascending"), ("unit", "ascending")]).combine_chunks()
        counters = dict.fromkeys(COUNTERS, 0)
        with storage.open_read(shard.spec["documents"]) as stream:
            file = pq.ParquetFile(stream)
            columns = file.schema_arrow.remove_metadata()
            kept = out.table("documents", pa.schema([*columns, *(pa.field(*field) for field in KEPT_FIELDS)]))
            removed = out.table("removed", pa.schema([*columns, *(pa.field(*f) for f in schema.REMOVED_FIELDS)]))
            cuts = out.table("cuts", CUTS)
            for batch in file.iter_batches(BATCH_ROWS):
                self._merge(pa.table(batch).combine_chunks(), repeats, counters, kept, removed, cuts)
                out.progress.add(documents=batch.num_rows)
        return counters

    def _merge(
        self,
        batch: pa.Table,
        repeats: pa.Table,
        counters: dict[str, int],
        kept: TableWriter,
        removed: TableWriter,
        cuts: TableWriter,
    ) -> None:
        row, first = repeats["row"].to_numpy(), counters["documents_in"]
        begin, end = np.searchsorted(row, [first, first + batch.num_rows]).tolist()
        rows, texts = np.unique(row[begin:end].astype(np.int64) - first, return_inverse=True)
        units = repeats["unit"].to_numpy()[begin:end].astype(np.int64)
        trimmed = self._trimmed(batch["text"].take(pa.array(rows)).combine_chunks(), texts, units)
        sizes = pc.fill_null(pc.binary_length(batch["text"]), 0).to_numpy().astype(np.int64)
        cut_bytes = np.zeros(batch.num_rows, np.int64)
        cut_bytes[rows] = sizes[rows] - pc.binary_length(trimmed.text).to_numpy()
        is_short = trimmed.words_left < max(1, self.config.min_document_words)
        stays, is_cut = np.ones(batch.num_rows, np.bool_), np.zeros(batch.num_rows, np.bool_)
        stays[rows[is_short]], is_cut[rows] = False, True
        self._keep(batch, trimmed, stays, is_cut, cut_bytes, kept)
        lost = batch.take(pa.array(rows[is_short]))
        if lost.num_rows:
            details = [f"{n} words are left" for n in trimmed.words_left[is_short].tolist()]
            why = ([STEP] * lost.num_rows, [REASON] * lost.num_rows, details)
            for (name, kind), values in zip(schema.REMOVED_FIELDS, why, strict=True):
                lost = lost.append_column(name, pa.array(values, kind))
            removed.add_batch(lost)
        of_kept = ~is_short[trimmed.cut_texts]
        ids = batch["id"].take(pa.array(rows[trimmed.cut_texts[of_kept]]))
        if len(ids):
            pieces = trimmed.cuts.filter(pa.array(of_kept))
            starts = trimmed.cut_starts[of_kept].astype(np.uint32)
            cuts.add_batch(pa.table({"id": ids, "start": starts, "text": pieces}, schema=CUTS))
        numbers = (
            *(batch.num_rows, int(stays.sum()), int(is_short.sum()), int((~is_short).sum()), len(units), len(ids)),
            *(int(sizes.sum()), int((sizes - cut_bytes)[stays].sum())),
            *(int(cut_bytes[stays].sum()), int(sizes[~stays].sum())),
        )
        for name, value in zip(COUNTERS, numbers, strict=True):
            counters[name] += value

    def _keep(
        self,
        batch: pa.Table,
        trimmed: "Trimmed",
        stays: npt.NDArray[np.bool_],
        is_cut: npt.NDArray[np.bool_],
        cut_bytes: npt.NDArray[np.int64],
        kept: TableWriter,
    ) -> None:
        """Writes the documents that stay, with their new texts."""
        if is_cut.any():
            text = pc.replace_with_mask(batch["text"].combine_chunks(), pa.array(is_cut), trimmed.text)
            batch = batch.set_column(batch.schema.get_field_index("text"), "text", text)
        batch = batch.append_column("cut_bytes", pa.array(cut_bytes, pa.uint32()))
        kept.add_batch(batch if stays.all() else batch.filter(pa.array(stays)))

    def _trimmed(self, column: pa.Array, texts: npt.NDArray[np.int64], units: npt.NDArray[np.int64]) -> "Trimmed":
        """Some texts without the spans that begin at ``units`` of ``texts``."""
        data, offsets = utf8_buffers(column)
        borders, firsts = sentences.units(data, offsets, self.config.unit == "sentences")
        _, _, words = span_kernels.hashes(data, borders, folding_table(False))
        cuts = span_kernels.cuts(data, offsets, borders, firsts, words, texts, units, self.config.length)
        left, edges = span_kernels.joined(data, cuts.stays)
        pieces, piece_edges = span_kernels.joined(data, cuts.gone)
        return Trimmed(
            text=_strings(left, edges[cuts.first_stays]),
            words_left=cuts.words_left,
            cuts=_strings(pieces, piece_edges),
            cut_texts=cuts.gone[:, 2],
            cut_starts=cuts.gone[:, 0] - offsets[cuts.gone[:, 2]],
        )


class Trimmed(NamedTuple):
    """Texts that lost something, and what they lost."""

    text: pa.Array
    words_left: npt.NDArray[np.int64]
    cuts: pa.Array
    cut_texts: npt.NDArray[np.int64]
    """Of each cut the number of its text."""
    cut_starts: npt.NDArray[np.int64]
    """Bytes from the beginning of the text as it was."""


def _strings(data: npt.NDArray[np.uint8], borders: npt.NDArray[np.int64]) -> pa.Array:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(borders)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(borders) - 1, buffers).cast(pa.string())


def _summary(spans: Input, repeated: Input, records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    """Checks the counts against the stages before; what the report says of the spans."""
    total, seen = manifest.sum_counters(records), finished(spans).counters
    expected = seen.get("local_repeats", 0) + finished(repeated).counters["repeats"]
    assert total.get("repeats", 0) == expected, f"{uri}: {total.get('repeats')} repeats found again, of {expected}"
    gone = total.get("bytes_cut", 0) + total.get("bytes_removed", 0)
    assert total.get("bytes_in", 0) == total.get("bytes_kept", 0) + gone, f"{uri}: bytes in are not kept, cut, removed"
    config = finished(spans).config
    return {"unit": config["unit"], "length": config["length"], "spans": seen.get("spans", 0)}
