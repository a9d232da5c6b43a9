"""Stage ``components``: edges to the connected component of each document, named by its smallest document.

In: ``edges``. Out: ``labels`` (row, root) by shard, one file for each partition of the edges, and in file p the
components whose root hashes to p. Two ways lead there and give the same bytes:

* flat: one task holds one number for each document, and joins by union-find the edges that it reads file by file.
  Memory: 9 bytes for each document, 60 for each clustered one of up to ``BLOCK`` and one file of edges;
* rounds: where that would pass ``clustering_memory_mb``, tasks over partitions contract the edges that they hold:
  each document gets an edge to the smallest one that these lead to. Edges go in turn to the partition of their larger
  document and to those of both, until a round of the second kind changes nothing: then every document has one edge, to
  its root. Each round is a stage of its own below this one's directory, so a killed run goes on at the round that it
  had reached.

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

BYTES_PER_DOCUMENT = 9
"""Of the flat way: a document's number of its root, and whether it is clustered."""
BYTES_PER_LABEL = 60
BLOCK = 1 << 27
"""Labels that the flat way sorts by partition at a time."""
STRETCH = 1 << 22
"""Documents that it looks at in one step."""


def components_stage(root: str, duplicates: Input, signatures: Sequence[Input], memory_bytes: int) -> Stage:
    """The stage; ``signatures`` are those of the index and of the run, in order, which number the shards."""

    def plan() -> list[Shard]:
        edges = finished(duplicates)
        sizes = shard_sizes(signatures)
        spec = {"edges": partitions.files(edges.uris("edges")), "of": len(edges.shards), "shards": len(sizes)}
        if is_flat(sum(sizes), memory_bytes):
            return [Shard(index=0, name="all edges", spec={**spec, "sizes": sizes})]
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


def shard_sizes(signatures: Sequence[Input]) -> list[int]:
    """Documents of every shard, those of the index first."""
    return [shard.counters["documents"] for source in signatures for shard in finished(source).shards]


def is_flat(documents: int, memory_bytes: int) -> bool:
    """Whether one task can hold all documents."""
    return documents * BYTES_PER_DOCUMENT + min(documents, BLOCK) * BYTES_PER_LABEL <= memory_bytes


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
    if is_flat(sum(shard_sizes(signatures)), memory_bytes):
        return run(stage, shards, progress)
    stars = rounds(stage.uri, duplicates, in_driver=stage.in_driver)
    spec = {**shards[0].spec, "edges": partitions.files(stars.uris("edges"))}
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
        spec = {"edges": partitions.files(edges.uris("edges")), "of": len(edges.shards)}
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
    """All edges to labels, by union-find over one number for each document: its place among those of all shards."""

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        of, starts = int(shard.spec["of"]), np.cumsum([0, *shard.spec["sizes"]])
        parent, count = np.arange(starts[-1]), 0
        for uri in partitions.uris_of(shard.spec["edges"]):
            for edges in partitions.read_whole(uri, of, EDGES):
                node, neighbour = (_places(edges[name].to_numpy(), starts) for name in ("node", "neighbour"))
                kernels.join(parent, neighbour, node)
                count += len(node)
        kernels.flatten(parent)
        below = parent != np.arange(len(parent))
        roots = np.unique(parent[below])
        clustered = below
        clustered[roots] = True
        documents = int(clustered.sum())
        _number(parent, starts)
        for parts in np.array_split(np.arange(of), min(of, documents // BLOCK + 1)):
            _write_block(out, parent.view(np.uint64), clustered, starts, range(parts[0], parts[-1] + 1), of)
        return {"edges": count, "clusters": len(roots), "documents_in_clusters": documents}


def _places(nodes: U64, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    places: npt.NDArray[np.int64] = starts[(nodes >> ROW_BITS).astype(np.int64)] + (nodes & ROW_MASK).astype(np.int64)
    return places


def _number(places: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> None:
    """Turns places into the numbers of documents, in the array itself."""
    for begin in range(0, len(places), STRETCH):
        some = places[begin : begin + STRETCH]
        shard = np.searchsorted(starts, some, side="right") - 1
        some += (shard << int(ROW_BITS)) - starts[shard]


def _write_block(
    out: ShardOutput, root: U64, clustered: npt.NDArray[np.bool_], starts: npt.NDArray[np.int64], parts: range, of: int
) -> None:
    """The labels of some partitions."""
    found_place, found_document = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
    for begin in range(0, len(root), STRETCH):
        document = np.flatnonzero(clustered[begin : begin + STRETCH]) + begin
        place = (spread(root[document]) % np.uint64(of)).astype(np.uint32)
        inside = (place >= parts[0]) & (place <= parts[-1])
        found_place.append(place[inside])
        found_document.append(document[inside])
    place, document = np.concatenate(found_place), np.concatenate(found_document)
    del found_place, found_document
    table = pa.table({"document": document})
    for part, own in zip(parts, by_partition(table, place - np.uint32(parts[0]), len(parts)), strict=True):
        documents = own["document"].to_numpy()
        borders = np.searchsorted(documents, starts)
        row = documents - np.repeat(starts[:-1], np.diff(borders))
        labels = pa.table({"row": row.astype(np.uint32), "root": root[documents]}, schema=LABELS)
        _write_labels(out, part, labels, borders)


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
        order = np.argsort(every)
        every, root = every[order], np.concatenate([root, roots])[order]
        labels = pa.table({"row": (every & ROW_MASK).astype(np.uint32), "root": root}, schema=LABELS)
        shards = np.arange(int(shard.spec["shards"]) + 1, dtype=np.uint64)
        _write_labels(out, shard.index, labels, np.searchsorted(every >> ROW_BITS, shards))
        return {"edges": len(node), "clusters": len(roots), "documents_in_clusters": len(every)}


def _partition_of_edges(shard: Shard) -> tuple[U64, U64]:
    """The larger and the smaller document of the partition's edges from all files, sorted and each once."""
    of = int(shard.spec["of"])
    found = [EDGES.empty_table(), *partitions.read_all(shard.spec["edges"], shard.index, of, EDGES)]
    edges = pa.concat_tables(found)
    node, neighbour = edges["node"].to_numpy(), edges["neighbour"].to_numpy()
    larger, smaller = np.maximum(node, neighbour), np.minimum(node, neighbour)
    order = np.lexsort((smaller, larger))
    larger, smaller = larger[order], smaller[order]
    first = np.ones(len(larger), np.bool_)
    first[1:] = (larger[1:] != larger[:-1]) | (smaller[1:] != smaller[:-1])
    return larger[first], smaller[first]


def _write_labels(out: ShardOutput, part: int, labels: pa.Table, borders: npt.NDArray[np.integer[Any]]) -> None:
    """A partition of labels, sorted by document; those of a shard lie between two borders."""
    parts = [labels.slice(a, b - a) for a, b in itertools.pairwise(borders.tolist())]
    partitions.write(out.local_path(f"labels/part-{part:05d}.parts", table="labels"), LABELS, parts)
