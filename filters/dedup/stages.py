"""The four stages of deduplication; see the package's header for the shape.

Tables: ``keys`` (key u64, row u32; one row group per partition, sorted), ``attributes`` (per document: id, exact hash,
what the priority needs), ``edges`` (first u64, other u64), ``decisions`` (row, keep, cluster_size, kept_id, reason; one
part per input shard, only documents that are in a cluster).

Memory: a partition's keys, one shard's documents; for clusters 60 bytes per document that has a duplicate.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from caravela import manifest, schema, storage
from caravela.config import to_dict
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import kernels
from filters.dedup.config import DedupConfig

U64 = npt.NDArray[np.uint64]

KEYS = pa.schema([("key", pa.uint64()), ("row", pa.uint32())])
ATTRIBUTES = pa.schema(
    [
        ("id", pa.string()),
        ("exact_high", pa.uint64()),
        ("exact_low", pa.uint64()),
        ("length", pa.uint32()),
        ("date", pa.string()),
        ("source", pa.string()),
    ]
)
EDGES = pa.schema([("first", pa.uint64()), ("other", pa.uint64())])
DECISIONS = pa.schema(
    [
        ("row", pa.uint32()),
        ("keep", pa.bool_()),
        ("cluster_size", pa.uint32()),
        ("kept_id", pa.string()),
        ("reason", pa.string()),
    ]
)
BATCH_ROWS = 1024
ROW_BITS = np.uint64(32)


def partitions_for(documents: int, config: DedupConfig) -> int:
    """A power of two, so that a partition is a prefix of the key."""
    keys = documents * (config.bands * config.minhash + config.exact)
    return 1 << max(0, (keys // config.keys_per_partition)).bit_length()


def signatures_stage(root: str, config: DedupConfig, curated: Input) -> Stage:
    """Keys and attributes of every document, shard by shard."""
    settings = {k: v for k, v in to_dict(config).items() if k not in ("priority", "source_rank")}

    def plan() -> list[Shard]:
        documents = finished(curated)
        partitions = partitions_for(documents.rows("documents"), config)
        return [
            Shard(index=i, name=file.path, spec={"uri": storage.join(curated.uri, file.path), "partitions": partitions})
            for i, file in enumerate(documents.files("documents"))
        ]

    return Stage(
        name="signatures",
        version=1,
        root=root,
        config=settings,
        inputs=(curated,),
        plan=plan,
        make_worker=functools.partial(SignatureWorker, config),
    )


class SignatureWorker:
    """One shard of documents to its keys and attributes."""

    def __init__(self, config: DedupConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        keys_table, attributes = out.table("keys", KEYS), out.table("attributes", ATTRIBUTES)
        keys: list[U64] = []
        rows: list[npt.NDArray[np.uint32]] = []
        seen = 0
        with storage.open_read(shard.spec["uri"]) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(BATCH_ROWS, columns=["id", "text", "date", "source"]):
                exact = np.array([exact_hash(text) for text in batch["text"].to_pylist()], np.uint64).reshape(-1, 2)
                attributes.add_batch(self._attributes(batch, exact))
                for column in self._keys(batch["text"], exact):
                    present = column != 0
                    keys.append(column[present])
                    rows.append((np.flatnonzero(present) + seen).astype(np.uint32))
                seen += batch.num_rows
                size = int(pc.sum(pc.binary_length(batch["text"])).as_py() or 0)
                out.progress.add(documents=batch.num_rows, bytes=size)
        all_keys = np.concatenate([np.empty(0, np.uint64), *keys])
        all_rows = np.concatenate([np.empty(0, np.uint32), *rows])
        order = np.lexsort((all_rows, all_keys))
        all_keys, all_rows = all_keys[order], all_rows[order]
        partitions = int(shard.spec["partitions"])
        borders = np.searchsorted(all_keys, partition_starts(partitions))
        for start, end in zip(borders, [*borders[1:], len(all_keys)], strict=True):
            keys_table.add_batch(pa.table({"key": all_keys[start:end], "row": all_rows[start:end]}, schema=KEYS))
        return {"documents": seen, "keys": len(all_keys), "partitions": partitions}

    def _attributes(self, batch: pa.RecordBatch, exact: U64) -> pa.Table:
        columns = {"id": batch["id"], "exact_high": exact[:, 0], "exact_low": exact[:, 1]}
        columns["length"] = pc.cast(pc.utf8_length(batch["text"]), pa.uint32())
        return pa.table({**columns, "date": batch["date"], "source": batch["source"]}, schema=ATTRIBUTES)

    def _keys(self, text: pa.Array, exact: U64) -> Iterator[U64]:
        """Columns of keys; 0 where a document has none (no words: it can only equal another exactly)."""
        if self.config.exact:
            yield exact[:, 1] | np.uint64(1)
        if not self.config.minhash:
            return
        data, offsets = utf8_buffers(text)
        count = self.config.bands * self.config.rows_per_band
        signature = np.empty((len(text), count), np.uint32)
        words = np.empty(len(text), np.uint32)
        multipliers, additions = kernels.permutations(count, self.config.seed)
        fold = kernels.folding_table(self.config.fold_digits)
        kernels.signatures(data, offsets, fold, multipliers, additions, self.config.shingle_words, signature, words)
        bands = np.empty((len(text), self.config.bands), np.uint64)
        kernels.band_keys(signature, self.config.bands, self.config.rows_per_band, bands)
        for band in range(self.config.bands):
            yield np.where(words > 0, bands[:, band] | np.uint64(1), np.uint64(0))


def exact_hash(text: str) -> tuple[int, int]:
    """128 bits of the text without regard to case and white space, as (high, low)."""
    digest = xxhash.xxh3_128_intdigest(" ".join(text.lower().split()).encode("utf-8"))
    return digest >> 64, digest & 0xFFFFFFFFFFFFFFFF


def utf8_buffers(text: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of a string column and the ``len(text) + 1`` offsets into them, without a copy of the text."""
    large = text.cast(pa.large_string())
    _, offsets, data = large.buffers()
    borders = np.frombuffer(offsets, np.int64)[large.offset : large.offset + len(large) + 1]
    return np.frombuffer(data or b"", np.uint8), borders


def partition_starts(partitions: int) -> U64:
    """The smallest key of each partition."""
    return np.array([i * ((1 << 64) // partitions) for i in range(partitions)], np.uint64)


def duplicates_stage(root: str, config: DedupConfig, signatures: Input) -> Stage:
    """Edges between documents that share a key, partition by partition."""

    def plan() -> list[Shard]:
        keys = finished(signatures)
        count = int(keys.shards[0].counters["partitions"]) if keys.shards else 0
        spec = {"uris": keys.uris("keys")}
        return [Shard(index=i, name=f"partition {i}", spec={**spec, "partition": i}) for i in range(count)]

    return Stage(
        name="duplicates", version=1, root=root, config={}, inputs=(signatures,), plan=plan, make_worker=DuplicateWorker
    )


class DuplicateWorker:
    """One partition of keys, from all shards, to star edges."""

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        keys, nodes = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for index, uri in enumerate(shard.spec["uris"]):
            with storage.open_read(uri) as stream:
                group = pq.ParquetFile(stream).read_row_group(int(shard.spec["partition"]))
            keys.append(group["key"].to_numpy())
            nodes.append(group["row"].to_numpy().astype(np.uint64) | np.uint64(index) << ROW_BITS)
        all_keys, all_nodes = np.concatenate(keys), np.concatenate(nodes)
        order = np.lexsort((all_nodes, all_keys))
        firsts, others = np.empty_like(all_keys), np.empty_like(all_keys)
        count = kernels.star_edges(all_keys[order], all_nodes[order], firsts, others)
        # Near-duplicates meet in many bands: the same edge up to 15 times.
        edges = np.unique(np.stack([firsts[:count], others[:count]], axis=1), axis=0)
        out.table("edges", EDGES).add_batch(pa.table({"first": edges[:, 0], "other": edges[:, 1]}, schema=EDGES))
        return {"keys": len(all_keys), "edges": len(edges)}


def clusters_stage(root: str, config: DedupConfig, signatures: Input, duplicates: Input) -> Stage:
    """Connected components and the best of each, on one node."""

    def plan() -> list[Shard]:
        spec = {
            "edges": finished(duplicates).uris("edges"),
            "attributes": finished(signatures).uris("attributes"),
        }
        return [Shard(index=0, name="all edges", spec=spec)]

    return Stage(
        name="clusters",
        version=1,
        root=root,
        config={"priority": list(config.priority), "source_rank": list(config.source_rank)},
        inputs=(signatures, duplicates),
        plan=plan,
        make_worker=functools.partial(ClusterWorker, config),
    )


class ClusterWorker:
    """All edges to one decision file per input shard."""

    def __init__(self, config: DedupConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        edges = pa.concat_tables([EDGES.empty_table(), *map(_read_table, shard.spec["edges"])])
        nodes, compact = np.unique(
            np.concatenate([edges["first"].to_numpy(), edges["other"].to_numpy()]), return_inverse=True
        )
        root = kernels.components(compact[: edges.num_rows], compact[edges.num_rows :], len(nodes))
        members = self._members(nodes, shard.spec["attributes"])
        best = self._best_of_each(root, members)
        sizes = np.bincount(root, minlength=len(nodes))[root]
        keep = best[root] == np.arange(len(nodes))
        kept = members.take(pa.array(best[root]))
        exact = np.logical_and(
            members["exact_high"].to_numpy() == kept["exact_high"].to_numpy(),
            members["exact_low"].to_numpy() == kept["exact_low"].to_numpy(),
        )
        decisions = pa.table(
            {
                "row": (nodes & np.uint64(0xFFFFFFFF)).astype(np.uint32),
                "keep": keep,
                "cluster_size": sizes.astype(np.uint32),
                "kept_id": kept["id"],
                "reason": np.where(exact, "exact_duplicate", "near_duplicate"),
            },
            schema=DECISIONS,
        )
        for index, (start, end) in enumerate(_runs(nodes, len(shard.spec["attributes"]))):
            out.table("decisions", DECISIONS, part=index).add_batch(decisions.slice(start, end - start))
        clusters = int(np.count_nonzero(keep))
        assert clusters == len(np.unique(root)), f"{clusters} documents kept for {len(np.unique(root))} clusters"
        assert keep[best[root]].all(), "a document lost to one that is not kept"
        counters = {"clusters": clusters, "documents_in_clusters": len(nodes), "edges": edges.num_rows}
        for size, count in zip(*np.unique(sizes[keep], return_counts=True), strict=True):
            counters[f"clusters_of_size.{size}"] = int(count)
        return counters

    def _members(self, nodes: U64, attribute_uris: Sequence[str]) -> pa.Table:
        """Attributes of the documents that are in a cluster, in the order of ``nodes``."""
        parts = [ATTRIBUTES.empty_table()]
        for uri, (start, end) in zip(attribute_uris, _runs(nodes, len(attribute_uris)), strict=True):
            if end > start:
                rows = nodes[start:end] & np.uint64(0xFFFFFFFF)
                parts.append(_read_table(uri).take(pa.array(rows)))
        return pa.concat_tables(parts).combine_chunks()

    def _best_of_each(self, root: npt.NDArray[np.int64], members: pa.Table) -> npt.NDArray[np.int64]:
        """For each component's smallest node the index of its best document; other entries are not used."""
        position = np.arange(len(root))
        keys = [position, *(self._sort_key(name, members) for name in reversed(self.config.priority)), root]
        order = np.lexsort(keys)
        best = np.zeros(len(root), np.int64)
        leading = np.flatnonzero(np.r_[True, root[order][1:] != root[order][:-1]]) if len(root) else position
        best[root[order][leading]] = order[leading]
        return best

    def _sort_key(self, name: str, members: pa.Table) -> npt.NDArray[Any]:
        """A column that sorts better documents first."""
        if name == "length":
            return np.negative(np.asarray(members["length"], np.int64))
        if name == "date":  # an unknown date is later than any other
            return np.array([date or "\U0010ffff" for date in members["date"].to_pylist()], np.str_)
        ranks = {source: i for i, source in enumerate(self.config.source_rank)}
        return np.array([ranks.get(source, len(ranks)) for source in members["source"].to_pylist()], np.int64)


def _runs(nodes: U64, shards: int) -> list[tuple[int, int]]:
    """Where each shard's documents stand in sorted ``nodes``."""
    borders = np.searchsorted(nodes, np.arange(shards + 1, dtype=np.uint64) << ROW_BITS)
    return list(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True))


def _read_table(uri: str) -> pa.Table:
    with storage.open_read(uri) as stream:
        return pq.ParquetFile(stream).read()


def dedup_stage(root: str, config: DedupConfig, curated: Input, clusters: Input) -> Stage:
    """Documents without duplicates, and the duplicates that were removed."""

    def plan() -> list[Shard]:
        decisions = finished(clusters).uris("decisions")
        documents = finished(curated).uris("documents")
        return [
            Shard(index=i, name=storage.name_of(uri), spec={"documents": uri, "decisions": decision})
            for i, (uri, decision) in enumerate(zip(documents, decisions, strict=True))
        ]

    return Stage(
        name="dedup",
        version=1,
        root=root,
        config={"exact": config.exact, "minhash": config.minhash},
        inputs=(curated, clusters),
        plan=plan,
        make_worker=DedupWorker,
        finish=functools.partial(_summary, clusters, config),
    )


class DedupWorker:
    """Merges one shard's documents with its decisions."""

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        decisions = _read_table(shard.spec["decisions"])
        counters = {"documents_in": 0, "documents_kept": 0, "bytes_in": 0, "bytes_kept": 0}
        with storage.open_read(shard.spec["documents"]) as stream:
            file = pq.ParquetFile(stream)
            columns = file.schema_arrow.remove_metadata()
            kept = out.table("documents", columns.append(pa.field("cluster_size", pa.uint32())))
            removed = out.table(
                "removed", pa.schema([*columns, *(pa.field(name, kind) for name, kind in schema.REMOVED_FIELDS)])
            )
            for batch in file.iter_batches(BATCH_ROWS):
                self._merge(pa.table(batch), decisions, counters, kept, removed)
                out.progress.add(documents=batch.num_rows)
        return counters

    def _merge(self, batch: pa.Table, decisions: pa.Table, counters: dict[str, int], kept: Any, removed: Any) -> None:
        first = counters["documents_in"]
        own = decisions.filter(
            pc.and_(pc.greater_equal(decisions["row"], first), pc.less(decisions["row"], first + batch.num_rows))
        )
        rows = own["row"].to_numpy().astype(np.int64) - first
        sizes = np.ones(batch.num_rows, np.uint32)
        sizes[rows] = own["cluster_size"].to_numpy()
        stays = np.ones(batch.num_rows, np.bool_)
        stays[rows] = own["keep"].to_numpy()
        kept.add_batch(batch.append_column("cluster_size", pa.array(sizes)).filter(pa.array(stays)))
        gone = own.filter(pc.invert(own["keep"]))
        lost = batch.take(pa.array(gone["row"].to_numpy().astype(np.int64) - first))
        columns = {"stage": ["dedup"] * gone.num_rows, "reason": gone["reason"], "detail": gone["kept_id"]}
        for name, values in columns.items():
            lost = lost.append_column(name, values if not isinstance(values, list) else pa.array(values, pa.string()))
        removed.add_batch(lost)
        counters["documents_in"] += batch.num_rows
        counters["documents_kept"] += int(stays.sum())
        lengths = pc.binary_length(batch["text"]).to_numpy()
        counters["bytes_in"] += int(lengths.sum())
        counters["bytes_kept"] += int(lengths[stays].sum())
        for reason in gone["reason"].to_pylist():
            counters[f"removed.{reason}"] = counters.get(f"removed.{reason}", 0) + 1


def _summary(clusters: Input, config: DedupConfig, records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    """Checks what was removed against the clusters; their sizes and the curve of the settings for the report."""
    found = finished(clusters).counters
    removed = sum(v for k, v in manifest.sum_counters(records).items() if k.startswith("removed."))
    expected = found["documents_in_clusters"] - found["clusters"]
    assert removed == expected, f"{removed} documents removed, but the clusters say {expected}"
    prefix = "clusters_of_size."
    sizes = {int(key.removeprefix(prefix)): count for key, count in found.items() if key.startswith(prefix)}
    return {
        "cluster_sizes": {str(size): sizes[size] for size in sorted(sizes)},
        "join_probability": {f"{s:.1f}": round(config.probability(s), 4) for s in (0.5, 0.6, 0.7, 0.8, 0.9)},
    }
