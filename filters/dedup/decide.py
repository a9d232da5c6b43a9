"""Stage ``dedup``: each shard of documents, merged with its decisions, to documents without duplicates.

Out: ``documents`` with ``cluster_size`` (this one included) and ``repeats`` (for the mixture, from the rehydration
table); ``removed`` with ``detail`` (the id of the document that was kept instead), ``cluster`` and ``similarity``.

At the end of every run, before there is a manifest, it is checked that each clustered document is kept or removed, that
as many were kept as there are clusters without a document of the index, and that every removed document names one that
is kept in its own cluster, by the ids in the tables that were written (``filters.dedup.keepers``).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caravela import manifest, schema, storage
from caravela.config import to_dict
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import keepers, partitions, rehydration, verification
from filters.dedup.config import DedupConfig
from filters.dedup.tables import DECISIONS

BATCH_ROWS = 4096
KEPT_FIELDS = [("cluster_size", pa.uint32()), ("repeats", pa.uint8())]
REMOVED_FIELDS = [*schema.REMOVED_FIELDS, ("cluster", pa.uint64()), ("similarity", pa.float32())]


def dedup_stage(root: str, config: DedupConfig, curated: Input, clusters: Input) -> Stage:
    """Documents without duplicates, and the duplicates that were removed."""

    def plan() -> list[Shard]:
        decisions = partitions.files(finished(clusters).uris("decisions"))
        documents = finished(curated).uris("documents")
        spec = {"decisions": decisions, "shards": len(documents)}
        return [
            Shard(index=i, name=storage.name_of(uri), spec={**spec, "documents": uri})
            for i, uri in enumerate(documents)
        ]

    return Stage(
        name="dedup",
        version=3,
        root=root,
        config={"exact": config.exact, "minhash": config.minhash, "rehydration": to_dict(config.rehydration)},
        inputs=(curated, clusters),
        plan=plan,
        make_worker=functools.partial(DedupWorker, config),
        finish=functools.partial(_summary, clusters, config),
    )


class DedupWorker:
    """Merges one shard's documents with its decisions."""

    def __init__(self, config: DedupConfig) -> None:
        self.repeats = config.rehydration.table

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        found = partitions.read_all(shard.spec["decisions"], shard.index, int(shard.spec["shards"]), DECISIONS)
        decisions = pa.concat_tables([DECISIONS.empty_table(), *found]).sort_by("row").combine_chunks()
        counters = {"documents_in": 0, "documents_kept": 0, "bytes_in": 0, "bytes_kept": 0, "repeats": 0}
        counters["clustered"], counters["clustered_kept"] = (
            decisions.num_rows,
            int(pc.sum(decisions["keep"]).as_py() or 0),
        )
        counters["keepers_kept"] = counters["keepers_named"] = 0
        with storage.open_read(shard.spec["documents"]) as stream:
            file = pq.ParquetFile(stream)
            columns = file.schema_arrow.remove_metadata()
            kept = out.table("documents", pa.schema([*columns, *(pa.field(*field) for field in KEPT_FIELDS)]))
            removed = out.table("removed", pa.schema([*columns, *(pa.field(*field) for field in REMOVED_FIELDS)]))
            for batch in file.iter_batches(BATCH_ROWS):
                self._merge(pa.table(batch), decisions, counters, kept, removed)
                out.progress.add(documents=batch.num_rows)
        for name in ("keepers_kept", "keepers_named"):
            counters[name] %= keepers.MODULUS
        return counters

    def _merge(self, batch: pa.Table, decisions: pa.Table, counters: dict[str, int], kept: Any, removed: Any) -> None:
        first = counters["documents_in"]
        row = decisions["row"].to_numpy()
        begin, end = np.searchsorted(row, [first, first + batch.num_rows]).tolist()
        own = decisions.slice(begin, end - begin)
        rows = own["row"].to_numpy().astype(np.int64) - first
        sizes, stays = np.ones(batch.num_rows, np.uint32), np.ones(batch.num_rows, np.bool_)
        sizes[rows], stays[rows] = own["cluster_size"].to_numpy(), own["keep"].to_numpy()
        repeats = rehydration.repeats(sizes, self.repeats)
        counted = batch.append_column("cluster_size", pa.array(sizes)).append_column("repeats", pa.array(repeats))
        kept.add_batch(counted if stays.all() else counted.filter(pa.array(stays)))
        here = own.filter(own["keep"])
        ids = batch["id"].take(pa.array(here["row"].to_numpy().astype(np.int64) - first))
        lost_there = here["cluster_size"].to_numpy() - 1
        counters["keepers_kept"] += keepers.checksum(here["cluster"].to_numpy(), ids, lost_there)
        gone = own.filter(pc.invert(own["keep"]))
        if gone.num_rows:
            lost = batch.take(pa.array(gone["row"].to_numpy().astype(np.int64) - first))
            stage = pa.array(["dedup"] * gone.num_rows, pa.string())
            why = (stage, gone["reason"], gone["kept_id"], gone["cluster"], gone["similarity"])
            for (name, _), values in zip(REMOVED_FIELDS, why, strict=True):
                lost = lost.append_column(name, values)
            removed.add_batch(lost)
            counters["keepers_named"] += keepers.checksum(lost["cluster"].to_numpy(), lost["detail"])
        lengths = pc.fill_null(pc.binary_length(batch["text"]), 0).to_numpy()
        counters["documents_in"] += batch.num_rows
        counters["documents_kept"] += int(stays.sum())
        counters["bytes_in"] += int(lengths.sum())
        counters["bytes_kept"] += int(lengths[stays].sum())
        counters["repeats"] += int(repeats[stays].sum())
        for entry in pc.value_counts(gone["reason"]).to_pylist():
            name = f"removed.{entry['values']}"
            counters[name] = counters.get(name, 0) + int(entry["counts"])


def _summary(clusters: Input, config: DedupConfig, records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    """Checks what was removed against the clusters; their sizes and the curve of the settings for the report.

    Raises:
        UserError: what was removed is not what the clusters say, or names what was not kept.
    """
    found, total = finished(clusters).counters, manifest.sum_counters(records)
    removed = sum(v for k, v in total.items() if k.startswith("removed."))
    kept = total.get("keepers_kept", 0) + found.get("index_keepers", 0)
    way_out = f"delete {uri} and {clusters.uri} and run again"
    for name, here, there in (
        ("documents in clusters", total.get("clustered", 0), found.get("documents_here", 0)),
        ("kept documents of clusters", total.get("clustered_kept", 0), found.get("clusters_kept_here", 0)),
        ("removed documents", removed, found.get("documents_here", 0) - found.get("clusters_kept_here", 0)),
    ):
        if here != there:
            raise UserError(f"{uri}: {here} {name}, but the clusters say {there}; {way_out}")
    if (total.get("keepers_named", 0) - kept) % keepers.MODULUS:
        raise UserError(
            f"{uri}: removed documents name as kept what is not kept, or not in their cluster; {way_out}. Were the "
            "documents replaced since, delete the signatures too"
        )
    prefix = "clusters_of_size."
    sizes = {int(key.removeprefix(prefix)): count for key, count in found.items() if key.startswith(prefix)}
    return {
        "cluster_sizes": {str(size): sizes[size] for size in sorted(sizes)},
        "join_probability": {f"{s:.1f}": round(config.probability(s), 4) for s in (0.5, 0.6, 0.7, 0.8, 0.9)},
        **({} if config.verify == "off" else {"verification": verification.summary(found, config)}),
    }
