"""Stage ``components``: edges to the connected component of each document, named by its smallest document.

In: ``edges``. Out: ``labels`` (row, root) by shard, one file for each partition of the edges, and in file p the
components whose root hashes to p. Two ways lead there and give the same bytes:

* flat: one task reads partition after partition of the edges and joins them by union-find in one array over all
  documents; it holds 40 bytes per document at most, however many edges there are;
* rounds: where that would pass ``clustering_memory_mb`` (by the number of documents, before anything is read), tasks
  over partitions contract the edges that they hold: each document gets an edge to the smallest one that these lead
  to. Edges go in turn to the partition of their larger document and to those of both, until a round of the second
  kind changes nothing: then every document has one edge, to its root. Each round is a stage of its own below this
  one's directory, so a killed run goes on at the round that it had reached.

Source: the alternation is that of Kiveris et al. 2014, "Connected Components in MapReduce and Beyond" (small-star and
large-star, O(log² n) rounds); contracting all that a partition holds, instead of each neighbourhood, needs fewer.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela import stages
from caravela.cluster import ClusterConfig
from caravela.manifest import Input, Manifest, ShardRecord
from caravela.progress import StageProgress
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import kernels, partitions
from filters.dedup.duplicates import contracted
from filters.dedup.tables import EDGES, LABELS, ROW_BITS, ROW_MASK, U64, by_partition, spread

BYTES_PER_DOCUMENT = 40
"""Of the flat way, if all are in clusters: its parent, its place, its partition of labels and the sort by that."""
CHUNK = 1 << 20
"""Documents at a time, where a copy would take more than what is kept."""


def components_stage(root: str, duplicates: Input, signatures: Sequence[Input], memory_bytes: int) -> Stage:
    """The stage; ``signatures`` are those of the index and of the run, in order, which number the shards."""

    def plan() -> list[Shard]:
        edges = finished(duplicates)
        rows = rows_of(signatures)
        spec = {"uris": edges.uris("edges"), "of": len(edges.shards), "shards": len(rows)}
        if is_flat(sum(rows), memory_bytes):
            return [Shard(index=0, name="all edges", spec={**spec, "rows": rows})]
        return [Shard(index=i, name=f"partition {i}", spec=spec) for i in range(len(edges.shards))]

    return Stage(
        name="components",
        version=1,
        root=root,
        config={},
        inputs=(duplicates, *signatures),
        plan=plan,
        make_worker=FlatWorker,
        execute=functools.partial(_execute, duplicates, signatures, memory_bytes),
    )


def rows_of(signatures: Sequence[Input]) -> list[int]:
    """How many documents each shard has, in the order that numbers them."""
    return [shard.counters["documents"] for source in signatures for shard in finished(source).shards]


def is_flat(documents: int, memory_bytes: int) -> bool:
    """Whether one task can hold all documents."""
    return documents * BYTES_PER_DOCUMENT <= memory_bytes


def _execute(
    duplicates: Input,
    signatures: Sequence[Input],
    memory_bytes: int,
    stage: Stage,
    shards: Sequence[Shard],
    progress: StageProgress,
) -> Iterable[ShardRecord]:
    """One task, or rounds until nothing changes and then one task per partition."""
    run = stages.run_in_driver if stage.in_driver else stages.map_shards
    if is_flat(sum(rows_of(signatures)), memory_bytes):
        return run(stage, shards, progress)
    stars = rounds(stage.uri, duplicates, in_driver=stage.in_driver)
    spec = {**shards[0].spec, "uris": stars.uris("edges")}
    todo = [dataclasses.replace(shard, spec=spec) for shard in shards]
    return run(dataclasses.replace(stage, make_worker=LabelWorker), todo, progress)


def rounds(root: str, duplicates: Input, *, in_driver: bool) -> Manifest:
    """Contracts until nothing changes: the manifest of the round before that, whose edges are stars, from both ends."""
    source = duplicates
    for number in itertools.count(1):
        from_both_ends = number % 2 == 0
        stage = _round_stage(root, number, source, to_both_ends=not from_both_ends, in_driver=in_driver)
        done = stages.run(stage, ClusterConfig())
        if from_both_ends and done.counters["changed"] == 0:
            return finished(source)
        source = stage.as_input()
    raise AssertionError("unreachable")


def _round_stage(root: str, number: int, source: Input, *, to_both_ends: bool, in_driver: bool) -> Stage:
    def plan() -> list[Shard]:
        edges = finished(source)
        spec = {"uris": edges.uris("edges"), "of": len(edges.shards)}
        return [Shard(index=i, name=f"partition {i}", spec=spec) for i in range(len(edges.shards))]

    return Stage(
        name=f"round_{number:02d}",
        version=1,
        root=root,
        config={"to_both_ends": to_both_ends},
        inputs=(source,),
        plan=plan,
        make_worker=functools.partial(RoundWorker, to_both_ends),
        in_driver=in_driver,
    )


class FlatWorker:
    """All edges to labels, by union-find; a document's place among all counts the rows of the shards before its own."""

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        of, starts = int(shard.spec["of"]), np.cumsum([0, *shard.spec["rows"]], dtype=np.int64)
        documents = int(starts[-1])
        parent = np.arange(documents, dtype=np.uint32 if documents <= 1 << 32 else np.int64)
        count = 0
        for uri, part in itertools.product(shard.spec["uris"], range(of)):
            edges = partitions.read(uri, part, of, EDGES)
            ends = (_places(edges[name].to_numpy(), starts) for name in ("neighbour", "node"))
            kernels.join(parent, *ends)
            count += edges.num_rows
        clustered = np.flatnonzero(kernels.flatten(parent)).astype(parent.dtype)
        place = np.empty(len(clustered), np.uint16 if of <= 1 << 16 else np.uint32)
        clusters = 0
        for i in range(0, len(clustered), CHUNK):
            inside = clustered[i : i + CHUNK]
            place[i : i + CHUNK] = spread(_numbers(parent[inside], starts)) % np.uint64(of)
            clusters += int((parent[inside] == inside).sum())
        order = np.argsort(place, kind="stable")
        borders = np.cumsum([0, *np.bincount(place, minlength=of)]).tolist()
        del place
        for part, (a, b) in enumerate(itertools.pairwise(borders)):
            own = clustered[order[a:b]]
            _write_labels(out, part, _numbers(own, starts), _numbers(parent[own], starts), len(starts) - 1)
        return {"edges": count, "clusters": clusters, "documents_in_clusters": len(clustered)}


def _places(nodes: U64, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of documents by their numbers."""
    return starts[(nodes >> ROW_BITS).astype(np.int64)] + (nodes & ROW_MASK).astype(np.int64)


def _numbers(places: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> U64:
    """Of documents by their places."""
    shard = np.searchsorted(starts, places, side="right") - 1
    found: U64 = (places - starts[shard]).astype(np.uint64) | shard.astype(np.uint64) << ROW_BITS
    return found


class RoundWorker:
    """Contracts the edges of one partition; each goes on to the partition of its larger document, or of both."""

    def __init__(self, to_both_ends: bool) -> None:
        self.to_both_ends = to_both_ends

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        of = int(shard.spec["of"])
        larger, smaller = _partition_of_edges(shard)
        node, root = contracted(smaller, larger)
        changed = len(node) != len(larger) or bool((node != larger).any() or (root != smaller).any())
        if self.to_both_ends:
            node, root = np.concatenate([node, root]), np.concatenate([root, node])
        table = pa.table({"node": node, "neighbour": root}, schema=EDGES)
        parts = by_partition(table, spread(node) % np.uint64(of), of)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="edges"), EDGES, parts)
        return {"edges": len(node), "changed": int(changed)}


class LabelWorker:
    """One partition of finished stars to labels: of the roots that hash to it, and of the documents below them."""

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        of = int(shard.spec["of"])
        node, root = _partition_of_edges(shard)
        own = spread(root) % np.uint64(of) == shard.index  # the others are here for the document below
        node, root = node[own], root[own]
        roots = np.unique(root)
        every = np.concatenate([node, roots])
        _write_labels(out, shard.index, every, np.concatenate([root, roots]), int(shard.spec["shards"]))
        return {"edges": len(node), "clusters": len(roots), "documents_in_clusters": len(every)}


def _partition_of_edges(shard: Shard) -> tuple[U64, U64]:
    """The larger and the smaller document of the partition's edges from all files, sorted and each once."""
    of = int(shard.spec["of"])
    found = [EDGES.empty_table(), *partitions.read_all(shard.spec["uris"], shard.index, of, EDGES)]
    edges = pa.concat_tables(found)
    node, neighbour = edges["node"].to_numpy(), edges["neighbour"].to_numpy()
    larger, smaller = np.maximum(node, neighbour), np.minimum(node, neighbour)
    order = np.lexsort((smaller, larger))
    larger, smaller = larger[order], smaller[order]
    first = np.ones(len(larger), np.bool_)
    first[1:] = (larger[1:] != larger[:-1]) | (smaller[1:] != smaller[:-1])
    return larger[first], smaller[first]


def _write_labels(out: ShardOutput, part: int, every: U64, root: U64, shards: int) -> None:
    order = np.argsort(every)
    every, root = every[order], root[order]
    table = pa.table({"row": (every & ROW_MASK).astype(np.uint32), "root": root}, schema=LABELS)
    borders = np.searchsorted(every >> ROW_BITS, np.arange(shards + 1, dtype=np.uint64)).tolist()
    parts = [table.slice(a, b - a) for a, b in itertools.pairwise(borders)]
    partitions.write(out.local_path(f"labels/part-{part:05d}.parts", table="labels"), LABELS, parts)
