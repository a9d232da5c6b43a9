"""Stage ``duplicates``: each partition of keys, from all shards, to edges between the documents that share a key.

In: the keys of this run and of the runs that are its index, older ones first. Out: ``edges``, each from a document to
the smallest one that its partition connects it with, by a hash of the larger document. Edges of a partition are
contracted before they are written: near-duplicates meet in many bands, and what a partition knows to be connected
needs one edge per document. Linear in a bucket's size: a million copies of one page cost a million edges.

Memory: 70 bytes per key of a partition.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from caravela.manifest import Input, Manifest
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import kernels, partitions
from filters.dedup.signatures import partition_starts
from filters.dedup.tables import EDGES, KEYS, U64, by_partition, nodes_of, spread


def duplicates_stage(root: str, signatures: Input, index: Sequence[Input] = ()) -> Stage:
    """Edges between documents that share a key, partition by partition; ``index`` holds signatures of older runs."""
    sources = (*index, signatures)

    def plan() -> list[Shard]:
        found = [finished(source) for source in sources]
        counts = [partitions_of(keys) for keys in found]
        files = [
            {"files": partitions.files(keys.uris("keys")), "of": of} for keys, of in zip(found, counts, strict=True)
        ]
        most = max(counts)
        return [Shard(index=i, name=f"partition {i}", spec={"files": files, "of": most}) for i in range(most)]

    return Stage(
        name="duplicates", version=2, root=root, config={}, inputs=sources, plan=plan, make_worker=DuplicateWorker
    )


def partitions_of(found: Manifest) -> int:
    """Into how many partitions a stage's files are cut."""
    return int(found.shards[0].counters["partitions"]) if found.shards else 1


class DuplicateWorker:
    """One partition of keys, from all shards, to contracted edges."""

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        of = int(shard.spec["of"])
        keys, nodes = self._keys(shard, of)
        order = np.argsort(keys, kind="stable")  # nodes ascend already, shard by shard
        keys, nodes = keys[order], nodes[order]
        firsts, others = np.empty_like(keys), np.empty_like(keys)
        count = kernels.star_edges(keys, nodes, firsts, others)
        node, root = contracted(firsts[:count], others[:count])
        table = pa.table({"node": node, "neighbour": root}, schema=EDGES)
        parts = by_partition(table, spread(node) % np.uint64(of), of)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="edges"), EDGES, parts)
        return {"keys": len(keys), "edges": len(node)}

    def _keys(self, shard: Shard, of: int) -> tuple[U64, U64]:
        """The partition's keys and documents."""
        keys, nodes = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for number, table in enumerate(tables_of_range(shard.spec["files"], shard.index, of, KEYS)):
            keys.append(table["key"].to_numpy())
            nodes.append(nodes_of(number, table["row"].to_numpy()))
        return np.concatenate(keys), np.concatenate(nodes)


def tables_of_range(
    files: Sequence[Mapping[str, Any]], partition: int, of: int, schema: pa.Schema
) -> Iterator[pa.Table]:
    """One partition's rows of every shard, in order. A run that was cut into fewer partitions is cut further here.

    ``files``: of each run its ``files`` (as ``partitions.files`` has them), sorted by ``key``, and ``of`` how many
    partitions they are.
    """
    starts = [*partition_starts(of).tolist(), 1 << 64]
    first, after = starts[partition], starts[partition + 1]
    for source in files:
        part = partition * int(source["of"]) // of
        for table in partitions.read_all(source["files"], part, int(source["of"]), schema):
            key = table["key"].to_numpy()
            begin = int(np.searchsorted(key, np.uint64(first)))
            end = len(key) if after == 1 << 64 else int(np.searchsorted(key, np.uint64(after)))
            yield table.slice(begin, end - begin)


def contracted(firsts: U64, others: U64) -> tuple[U64, U64]:
    """Each document that an edge connects with a smaller one, ascending, and the smallest that it leads to."""
    nodes, compact = np.unique(np.concatenate([firsts, others]), return_inverse=True)
    root = kernels.components(compact[: len(firsts)], compact[len(firsts) :], len(nodes))
    below = root != np.arange(len(nodes))
    return nodes[below], nodes[root[below]]
