"""Stages ``spans`` and ``repeated_spans``: which runs of sentences, or which lines, have stood before.

``spans``: each shard of deduplicated documents to the hashes of its spans, by range of the hash. Of equal spans in one
shard no more than ``keep`` go on to the next stage: the others have enough before them already, and are ``local``
repeats. So a cookie notice on a billion pages costs its partition one row a shard.
``repeated_spans``: each partition, from all shards, to the spans with ``keep`` equal ones before them, by shard.

The order is that of the input: runs of the index, older ones first, then (shard, row, unit). So the same documents in
the same shards give the same repeats, whoever finds them first. Every sentence that goes has an equal one before it,
and so one that stays, unless that one's document is removed as too short.

Where a scope is set, spans of different scopes never meet.

Cost: 65 MB/s of text on a core; 20 bytes of storage per span, that is per sentence (a fifth of the text) or line.
Memory: one shard's spans, or one partition's, 66 bytes each.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caravela import storage
from caravela.data import document_fields
from caravela.data.columns import utf8_buffers
from caravela.errors import UserError
from caravela.manifest import Input
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import partitions, sentences, span_kernels, tables
from filters.dedup.config import DedupConfig, SpansConfig
from filters.dedup.duplicates import partitions_of, tables_of_range
from filters.dedup.folded_words import folding_table
from filters.dedup.index import stage_of
from filters.dedup.signatures import partition_starts, scope_salt
from filters.dedup.tables import REPEATS, ROW_BITS, SPANS, U64, by_partition, nodes_of

BATCH_ROWS = 1024
BYTES_PER_SPAN = {"sentences": 100, "lines": 200}
"""Of Portuguese text, about; for the number of partitions."""


def span_settings(config: DedupConfig) -> dict[str, Any]:
    """Those settings that the spans of a shard depend on."""
    own = config.spans
    return {
        "unit": own.unit,
        "length": own.length,
        "min_words": own.min_words,
        "keep": own.keep,
        "within_documents": own.within_documents,
        "scope": list(config.scope),
        "spans_per_partition": own.spans_per_partition,
    }


def spans_stage(root: str, config: DedupConfig, dedup: Input) -> Stage:
    """The spans of every document, shard by shard."""

    def plan() -> list[Shard]:
        documents = finished(dedup)
        estimate = documents.counters.get("bytes_kept", 0) // BYTES_PER_SPAN[config.spans.unit]
        # A power of two, so that the partitions of two runs nest.
        count = 1 << max(0, estimate // config.spans.spans_per_partition).bit_length()
        return [
            Shard(index=i, name=storage.name_of(uri), spec={"uri": uri, "partitions": count})
            for i, uri in enumerate(documents.uris("documents"))
        ]

    return Stage(
        name="spans",
        version=1,
        root=root,
        config=span_settings(config),
        inputs=(dedup,),
        plan=plan,
        make_worker=functools.partial(SpanWorker, config),
    )


class SpanWorker:
    """One shard of documents to its spans."""

    def __init__(self, config: DedupConfig) -> None:
        self.scope, self.spans = config.scope, config.spans

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        found, seen, units, size = [SPANS.empty_table()], 0, 0, 0
        with storage.open_read(shard.spec["uri"]) as stream:
            file = pq.ParquetFile(stream)
            scope = document_fields.columns_of(self.scope)
            document_fields.check_columns(scope, file.schema_arrow.names, shard.spec["uri"], "dedup")
            for batch in file.iter_batches(BATCH_ROWS, columns=["text", *scope]):
                table, count = self._spans(batch, seen)
                found.append(table)
                seen, units = seen + batch.num_rows, units + count
                size = int(pc.sum(pc.binary_length(batch["text"])).as_py() or 0)
                out.progress.add(documents=batch.num_rows, bytes=size)
        spans = pa.concat_tables(found).combine_chunks()
        found.clear()
        of = int(shard.spec["partitions"])
        order = np.argsort(spans["key"].to_numpy(), kind="stable")
        is_repeat = np.zeros(len(order), np.bool_)
        is_repeat[order] = _repeats(spans, spans["row"].to_numpy(), order, self.spans)
        local = spans.filter(pa.array(is_repeat)).select(REPEATS.names)
        path = out.local_path(f"local/part-{shard.index:05d}.parts", table="local")
        partitions.write(path, REPEATS, [local])
        first = spans.take(pa.array(order[~is_repeat[order]]))
        borders = np.searchsorted(first["key"].to_numpy(), partition_starts(of)).tolist()
        parts = [first.slice(a, b - a) for a, b in zip(borders, [*borders[1:], first.num_rows], strict=True)]
        path = out.local_path(f"spans/part-{shard.index:05d}.parts", table="spans")
        partitions.write(path, SPANS, parts)
        counters = {"documents": seen, "units": units, "spans": spans.num_rows}
        return {**counters, "local_repeats": local.num_rows, "partitions": of}

    def _spans(self, batch: pa.RecordBatch, first_row: int) -> tuple[pa.Table, int]:
        """The spans of some documents, and how many units these have."""
        data, offsets = utf8_buffers(batch["text"])
        borders, firsts = sentences.units(data, offsets, self.spans.unit == "sentences")
        hashes = span_kernels.hashes(data, borders, folding_table(False))
        key, check, row, unit = span_kernels.spans(firsts, *hashes, self.spans.length, self.spans.min_words)
        if (salt := scope_salt(batch, self.scope)) is not None:
            key = tables.spread(key ^ salt[row])
        row = row + np.uint32(first_row)
        return pa.table({"key": key, "check": check, "row": row, "unit": unit}, schema=SPANS), len(borders)


def repeated_spans_stage(root: str, config: DedupConfig, spans: Input, index: Sequence[Input] = ()) -> Stage:
    """The repeats, partition by partition; ``index`` holds the spans of older runs."""
    sources = (*index, spans)

    def plan() -> list[Shard]:
        found = [finished(source) for source in sources]
        counts = [partitions_of(each) for each in found]
        files = [
            {"files": partitions.files(each.uris("spans")), "of": of} for each, of in zip(found, counts, strict=True)
        ]
        old = sum(len(each.shards) for each in found[:-1])
        spec = {"files": files, "of": max(counts), "old": old, "new": len(found[-1].shards)}
        return [Shard(index=i, name=f"partition {i}", spec=spec) for i in range(max(counts))]

    return Stage(
        name="repeated_spans",
        version=1,
        root=root,
        config={},
        inputs=sources,
        plan=plan,
        make_worker=functools.partial(RepeatedSpanWorker, config.spans),
    )


class RepeatedSpanWorker:
    """One partition of spans, from all shards, to those that are repeats."""

    def __init__(self, config: SpansConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        old, new = int(shard.spec["old"]), int(shard.spec["new"])
        spans, node = self._read(shard)
        order = np.argsort(spans["key"].to_numpy(), kind="stable")  # shards, rows and units ascend already
        is_repeat = np.zeros(len(order), np.bool_)
        is_repeat[order] = _repeats(spans, node, order, self.config)
        number_of = (node >> ROW_BITS).astype(np.int64) - old
        gone = np.flatnonzero(is_repeat & (number_of >= 0))
        repeats = spans.take(pa.array(gone)).select(REPEATS.names)
        parts = by_partition(repeats, number_of[gone], new)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="repeats"), REPEATS, parts)
        return {"spans": spans.num_rows, "repeats": len(gone)}

    def _read(self, shard: Shard) -> tuple[pa.Table, U64]:
        """The partition's spans and the numbers of their documents."""
        found, nodes = [SPANS.empty_table()], [np.empty(0, np.uint64)]
        for number, table in enumerate(tables_of_range(shard.spec["files"], shard.index, int(shard.spec["of"]), SPANS)):
            found.append(table)
            nodes.append(nodes_of(number, table["row"].to_numpy()))
        return pa.concat_tables(found).combine_chunks(), np.concatenate(nodes)


def _repeats(spans: pa.Table, documents: Any, order: Any, config: SpansConfig) -> span_kernels.Bools:
    """Which of the spans, in the ``order`` of their keys, are repeats."""
    keys, checks = (spans[name].to_numpy()[order] for name in ("key", "check"))
    ordered = documents[order].astype(np.uint64)
    return span_kernels.repeats(keys, checks, ordered, config.keep, config.within_documents)


def span_index(roots: Sequence[str], config: DedupConfig) -> tuple[Input, ...]:
    """The spans of the finished runs that are the index, older ones first.

    Raises:
        UserError: a run has no finished spans, or was made with other settings.
    """
    found = []
    for root in roots:
        spans = stage_of(root, "spans")
        for name, value in span_settings(config).items():
            if name != "spans_per_partition" and (own := spans.config.get(name)) != value:
                raise UserError(
                    f"dedup.index: the spans of {root} were made with {name} = {own}, this run has {value}; make them "
                    "equal"
                )
        found.append(Input(name="spans", fingerprint=spans.fingerprint, uri=spans.uri))
    return tuple(found)
