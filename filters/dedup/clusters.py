"""Stage ``clusters``: each partition of clusters to the best document of each, and a decision for every other.

In: ``members`` and, where removals are verified, ``shingles``. Out: decisions by shard of this run. The order in which
documents deserve to be kept, and what a partition takes, is said in ``filters.dedup.ranking``; what verification
changes, in ``filters.dedup.verification``. A cluster is named by its smallest document; where verification splits one,
each part is a cluster from here on, of its own name and size.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.config import to_dict
from caravela.manifest import Input
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import keepers, partitions, ranking, verification
from filters.dedup.config import DedupConfig
from filters.dedup.index import IndexRun
from filters.dedup.ranking import Mask, Partition, Places
from filters.dedup.signatures import sketch_bytes
from filters.dedup.tables import DECISIONS, ROW_BITS, ROW_MASK, U64, by_partition
from filters.dedup.verification import Verified

SKETCH_VALUES = 256
"""Values of a byte: so many times one in which two sketches agree by chance."""


def clusters_stage(
    root: str,
    config: DedupConfig,
    members: Input,
    signatures: Input,
    index: tuple[IndexRun, ...] = (),
    shingles: Input | None = None,
) -> Stage:
    """The best document of each cluster, partition by partition; ``shingles`` where removals are verified."""

    def plan() -> list[Shard]:
        shards = ranking.plan(members, signatures, index)
        if shingles is None:
            return shards
        files = partitions.files(finished(shingles).uris("shingles"))
        return [Shard(index=s.index, name=s.name, spec={**s.spec, "shingles": files}) for s in shards]

    priority = {name: value for name, value in to_dict(config).items() if name in ("priority", "source_rank")}
    return Stage(
        name="clusters",
        version=3,
        root=root,
        config={
            **priority,
            "quality_column": config.quality_column,
            "quality_step": config.quality_step,
            "sketch_bytes": sketch_bytes(config),
            "index": [run.signatures.fingerprint for run in index],
            **_verification(config),
        },
        inputs=(members, signatures, *(run.signatures for run in index), *([shingles] if shingles else ())),
        plan=plan,
        make_worker=functools.partial(ClusterWorker, config),
    )


def _verification(config: DedupConfig) -> dict[str, Any]:
    names = {"off": (), "sample": ("verify_similarity", "verify_share"), "all": ("verify_similarity",)}[config.verify]
    return {"verify": config.verify, **{name: getattr(config, name) for name in names}}


class ClusterWorker:
    """One partition of clusters to decisions."""

    def __init__(self, config: DedupConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        partition = ranking.read(shard, self.config)
        members, node, root, is_new, _ = partition
        found = self._verified(shard, partition, out)
        best = found.best
        keep = best == np.arange(len(node))
        # What an index keeps stays where it is: documents of this run that lose to one of the index keep none here.
        assert (root[best] == root).all(), "a document lost to one of another cluster"
        assert keep[best].all(), "a document lost to one that is not kept"
        assert not members["removed_before"].to_numpy()[best].any(), "a document lost to one that the index removed"
        kept = members.take(pa.array(best))
        exact = np.logical_and(
            members["exact_high"].to_numpy() == kept["exact_high"].to_numpy(),
            members["exact_low"].to_numpy() == kept["exact_low"].to_numpy(),
        )
        alike = _similarity(members, best) if found.similarity is None else found.similarity
        cluster, sizes = _named(node, best)
        decisions = pa.table(
            {
                "row": (node & ROW_MASK).astype(np.uint32),
                "keep": keep,
                "cluster": cluster,
                "cluster_size": sizes,
                "kept_id": kept["id"],
                "similarity": np.where(exact, 1.0, alike).astype(np.float32),
                "reason": np.where(exact, "exact_duplicate", "near_duplicate"),
            },
            schema=DECISIONS,
        )
        old, new = sum(shard.spec["old_shards"]), int(shard.spec["new"])
        place = (node >> ROW_BITS).astype(np.int64) - old
        inside = np.flatnonzero(is_new)
        ordered = inside[np.argsort(node[inside])]
        parts = by_partition(decisions.take(pa.array(ordered)), place[ordered], new)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="decisions"), DECISIONS, parts)
        to_index = decisions.filter(pa.array(is_new & ~is_new[best]))
        promised = {"index_keepers": keepers.checksum(to_index["cluster"].to_numpy(), to_index["kept_id"])}
        return {**_counters(keep, is_new, sizes, cluster), **found.counters, **promised}

    def _verified(self, shard: Shard, partition: Partition, out: ShardOutput) -> Verified:
        """The keeper of each document, verified if that is asked for."""
        if self.config.verify == "off":
            return Verified(partition.best(), None, {})
        texts = verification.texts_of(partition)
        wanted = verification.needed(partition, texts, self.config)
        nodes, files = partition.node[texts.best], shard.spec["shingles"]
        sets = verification.read_sets(files, shard.index, int(shard.spec["of"]), nodes, wanted, out.folder)
        return verification.verify(partition, texts, sets, self.config)


def _named(node: U64, best: Places) -> tuple[U64, npt.NDArray[np.uint32]]:
    """Of each document the smallest one of its cluster, which names it, and the cluster's size."""
    smallest = np.full(len(node), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, best, node)
    return smallest[best], np.bincount(best, minlength=len(best))[best].astype(np.uint32)


def _counters(keep: Mask, is_new: Mask, sizes: npt.NDArray[np.uint32], cluster: U64) -> dict[str, int]:
    """Of clusters whose documents stand alone, as verification leaves some, the size is not counted."""
    counters = {
        "clusters": int(keep.sum()),
        "documents_in_clusters": len(keep),
        "clusters_kept_here": int((keep & is_new).sum()),
        "documents_here": int(is_new.sum()),
    }
    assert counters["clusters"] == len(np.unique(cluster)), "not one document kept for each cluster"
    for size, count in zip(*np.unique(sizes[keep & (sizes > 1)], return_counts=True), strict=True):
        counters[f"clusters_of_size.{size}"] = int(count)
    return counters


def _similarity(members: pa.Table, best: Places) -> npt.NDArray[np.float64]:
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
