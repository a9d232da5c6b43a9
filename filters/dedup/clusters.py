"""Stages ``members`` and ``clusters``: labels to the best document of each cluster, and a decision for every other.

``members``: each shard's labels, joined with the attributes of its documents, by a hash of the cluster's root.
``clusters``: each partition of clusters whole, so that the best document is a sort: runs of the index first, older
before newer, then the config's priority, then the order of the input. Out: decisions by shard of this run.

Memory: a shard's attributes; a partition's members, about 400 bytes each. A cluster lies in one partition, so a cluster
of a hundred million copies needs 40 GB in its task; one of a million, 0.4 GB.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.config import to_dict
from caravela.manifest import Input
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import partitions, tables
from filters.dedup.config import DedupConfig
from filters.dedup.signatures import sketch_bytes
from filters.dedup.tables import DECISIONS, LABELS, ROW_BITS, ROW_MASK, U64, by_partition, nodes_of, spread

SKETCH_VALUES = 256
"""Values of a byte: so many times one in which two sketches agree by chance."""


def members_stage(root: str, config: DedupConfig, components: Input, signatures: Sequence[Input]) -> Stage:
    """Clustered documents with their attributes; ``signatures`` are those of the index and of the run, in order."""

    def plan() -> list[Shard]:
        labels = finished(components)
        count = 1 << max(0, labels.counters["documents_in_clusters"] // config.members_per_partition).bit_length()
        attributes = [uri for source in signatures for uri in finished(source).uris("attributes")]
        spec = {"labels": labels.uris("labels"), "shards": len(attributes), "partitions": count}
        return [
            Shard(index=i, name=f"attributes {i}", spec={**spec, "attributes": uri}) for i, uri in enumerate(attributes)
        ]

    return Stage(
        name="members",
        version=1,
        root=root,
        config={"members_per_partition": config.members_per_partition, "sketch_bytes": sketch_bytes(config)},
        inputs=(components, *signatures),
        plan=plan,
        make_worker=functools.partial(MemberWorker, sketch_bytes(config)),
    )


class MemberWorker:
    """One shard's labels and attributes to rows by cluster."""

    def __init__(self, sketch: int) -> None:
        self.attributes, self.members = tables.attributes(sketch), tables.members(sketch)

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        shards, count = int(shard.spec["shards"]), int(shard.spec["partitions"])
        found = partitions.read_all(shard.spec["labels"], shard.index, shards, LABELS)
        labels = pa.concat_tables([LABELS.empty_table(), *found]).sort_by("row").combine_chunks()
        attributes = partitions.read(shard.spec["attributes"], 0, 1, self.attributes)
        root = labels["root"].to_numpy()
        own = attributes.take(labels["row"])
        node = nodes_of(shard.index, labels["row"].to_numpy())
        columns = {"node": node, "root": root, **{name: own[name] for name in own.column_names}}
        parts = by_partition(pa.table(columns, schema=self.members), spread(root) % np.uint64(count), count)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="members"), self.members, parts)
        return {"members": labels.num_rows, "partitions": count}


def clusters_stage(
    root: str, config: DedupConfig, members: Input, signatures: Input, index: Sequence[Input] = ()
) -> Stage:
    """The best document of each cluster, partition by partition."""

    def plan() -> list[Shard]:
        found = finished(members)
        count = int(found.shards[0].counters["partitions"]) if found.shards else 1
        old = [len(finished(source).shards) for source in index]
        spec = {"uris": found.uris("members"), "of": count, "old_shards": old, "new": len(finished(signatures).shards)}
        return [Shard(index=i, name=f"partition {i}", spec=spec) for i in range(count)]

    priority = {name: value for name, value in to_dict(config).items() if name in ("priority", "source_rank")}
    return Stage(
        name="clusters",
        version=2,
        root=root,
        config={
            **priority,
            "quality_column": config.quality_column,
            "quality_step": config.quality_step,
            "sketch_bytes": sketch_bytes(config),
            "index": [source.fingerprint for source in index],
        },
        inputs=(members, signatures, *index),
        plan=plan,
        make_worker=functools.partial(ClusterWorker, config),
    )


class ClusterWorker:
    """One partition of clusters to decisions."""

    def __init__(self, config: DedupConfig) -> None:
        self.config = config
        self.schema = tables.members(sketch_bytes(config))

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        of, old, new = int(shard.spec["of"]), list(shard.spec["old_shards"]), int(shard.spec["new"])
        found = partitions.read_all(shard.spec["uris"], shard.index, of, self.schema)
        members = pa.concat_tables([self.schema.empty_table(), *found]).combine_chunks()
        node, root = members["node"].to_numpy(), members["root"].to_numpy()
        run = np.searchsorted(np.cumsum([0, *old]), (node >> ROW_BITS).astype(np.int64), side="right") - 1
        best, sizes = self._best(members, run)
        is_new = run == len(old)
        keep = best == np.arange(len(node))
        # What an index keeps stays where it is: a cluster with a document of the index keeps none of this run.
        assert (root[best] == root).all(), "a document lost to one of another cluster"
        assert keep[best].all(), "a document lost to one that is not kept"
        kept = members.take(pa.array(best))
        exact = np.logical_and(
            members["exact_high"].to_numpy() == kept["exact_high"].to_numpy(),
            members["exact_low"].to_numpy() == kept["exact_low"].to_numpy(),
        )
        decisions = pa.table(
            {
                "row": (node & ROW_MASK).astype(np.uint32),
                "keep": keep,
                "cluster": root,
                "cluster_size": sizes,
                "kept_id": kept["id"],
                "similarity": np.where(exact, 1.0, _similarity(members, best)).astype(np.float32),
                "reason": np.where(exact, "exact_duplicate", "near_duplicate"),
            },
            schema=DECISIONS,
        )
        place = (node >> ROW_BITS).astype(np.int64) - sum(old)
        inside = np.flatnonzero(is_new)
        ordered = inside[np.argsort(node[inside])]
        parts = by_partition(decisions.take(pa.array(ordered)), place[ordered], new)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="decisions"), DECISIONS, parts)
        return self._counters(keep, is_new, sizes, root)

    def _best(
        self, members: pa.Table, run: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """For each document the place of the best one of its cluster, and the cluster's size."""
        node, root = members["node"].to_numpy(), members["root"].to_numpy()
        by_priority = [self._sort_key(name, members) for name in reversed(self.config.priority)]
        order = np.lexsort([node, *by_priority, run, root])
        first = np.ones(len(node), np.bool_)
        first[1:] = root[order][1:] != root[order][:-1]
        cluster = np.cumsum(first) - 1
        sizes = np.bincount(cluster, minlength=int(first.sum())).astype(np.uint32)
        best, size = np.empty(len(node), np.int64), np.empty(len(node), np.uint32)
        best[order], size[order] = order[first][cluster], sizes[cluster]
        return best, size

    def _sort_key(self, name: str, members: pa.Table) -> npt.NDArray[Any]:
        """A column that sorts better documents first."""
        if name == "length":
            return np.negative(np.asarray(members["length"], np.int64))
        if name == "quality":
            return np.negative(np.floor(np.asarray(members["quality"], np.float64) / self.config.quality_step + 1e-6))
        if name == "date":  # an unknown date is later than any other
            return np.array([date or "\U0010ffff" for date in members["date"].to_pylist()], np.str_)
        ranks = {source: i for i, source in enumerate(self.config.source_rank)}
        return np.array([ranks.get(source, len(ranks)) for source in members["source"].to_pylist()], np.int64)

    def _counters(
        self, keep: npt.NDArray[np.bool_], is_new: npt.NDArray[np.bool_], sizes: npt.NDArray[np.uint32], root: U64
    ) -> dict[str, int]:
        counters = {
            "clusters": int(keep.sum()),
            "documents_in_clusters": len(keep),
            "clusters_kept_here": int((keep & is_new).sum()),
            "documents_here": int(is_new.sum()),
        }
        assert counters["clusters"] == len(np.unique(root)), "not one document kept for each cluster"
        for size, count in zip(*np.unique(sizes[keep], return_counts=True), strict=True):
            counters[f"clusters_of_size.{size}"] = int(count)
        return counters


def _similarity(members: pa.Table, best: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Of each document and the best of its cluster: the share of MinHashes that agree, without those by chance."""
    width = members.schema.field("sketch").type.byte_width
    if not width or not members.num_rows:
        return np.zeros(members.num_rows)
    column = members["sketch"].combine_chunks()
    sketch = np.frombuffer(column.buffers()[1], np.uint8)[: (column.offset + len(column)) * width]
    sketch = sketch[column.offset * width :].reshape(-1, width)
    share = np.empty(len(sketch))
    step = 1 << 16  # rows at a time: the copy of the best ones' sketches is what takes memory
    for i in range(0, len(sketch), step):
        share[i : i + step] = (sketch[i : i + step] == sketch[best[i : i + step]]).mean(axis=1)
    return np.clip((share - 1 / SKETCH_VALUES) / (1 - 1 / SKETCH_VALUES), 0.0, 1.0)
