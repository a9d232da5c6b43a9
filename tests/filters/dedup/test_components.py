"""Connected components: flat and in rounds give the same bytes, which are those of a breadth-first search."""

import random
from collections import defaultdict, deque
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from filters.dedup import components, partitions
from filters.dedup.components import components_stage
from filters.dedup.tables import EDGES, LABELS, by_partition, nodes_of, spread
from tests.road_without_ray import finish

SHARDS = 3
ROWS = 500
Edge = tuple[int, int]


def chain(length: int) -> list[Edge]:
    return [(i, i + 1) for i in range(length - 1)]


def star(size: int) -> list[Edge]:
    return [(size // 2, i) for i in range(size) if i != size // 2]


def at_random(seed: int, nodes: int, edges: int) -> list[Edge]:
    chance = random.Random(seed)
    return [(a, b) for a, b in ((chance.randrange(nodes), chance.randrange(nodes)) for _ in range(edges)) if a != b]


GRAPHS = {
    "none": [],
    "pair": [(5, 900)],
    "chain": chain(300),
    "shuffled chain": [(7 * a % 1201, 7 * b % 1201) for a, b in chain(1200)],
    "star": star(1000),
    "sparse": at_random(1, 1200, 500),
    "dense": at_random(2, 1200, 3000),
    "many small": at_random(3, 1200, 250),
}


class Graph:
    """Stands in for the stage ``duplicates``: each partition holds some of the edges, larger document first."""

    def __init__(self, edges: list[Edge], of: int) -> None:
        self.edges, self.of = edges, of

    def __call__(self, shard: Shard, out: ShardOutput) -> dict[str, int]:
        own = np.array(self.edges[shard.index :: self.of], np.uint64).reshape(-1, 2)
        numbers = nodes_of(0, own % ROWS) | (own // np.uint64(ROWS)) << np.uint64(32)
        node, neighbour = numbers.max(axis=1), numbers.min(axis=1)
        table = pa.table({"node": node, "neighbour": neighbour}, schema=EDGES)
        parts = by_partition(table, spread(node) % np.uint64(self.of), self.of)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="edges"), EDGES, parts)
        return {"edges": len(own)}


def run(root: Path, edges: list[Edge], of: int, memory_bytes: int) -> Manifest:
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(of)]
    made = {
        name: Stage(
            name=name,
            version=1,
            root=str(root),
            config={"of": of},
            inputs=(),
            plan=lambda plan=shards: plan,  # type: ignore[misc]
            make_worker=lambda: Graph(edges, of),
        )
        for name, shards in (("duplicates", plan), ("signatures", plan[:1] * SHARDS))
    }
    finish(made["duplicates"])
    signatures = Stage(
        name="signatures",
        version=1,
        root=str(root),
        config={},
        inputs=(),
        plan=lambda: [Shard(index=i, name=str(i), spec={}) for i in range(SHARDS)],
        make_worker=lambda: lambda shard, out: {"documents": ROWS},
    )
    finish(signatures)
    return finish(components_stage(str(root), made["duplicates"].as_input(), [signatures.as_input()], memory_bytes))


def labels(done: Manifest) -> dict[int, int]:
    found = {}
    for uri in done.uris("labels"):
        for shard in range(SHARDS):
            table = partitions.read(uri, shard, SHARDS, LABELS)
            for row, root in zip(table["row"].to_pylist(), table["root"].to_pylist(), strict=True):
                assert row + shard * ROWS not in found
                found[row + shard * ROWS] = root % 2**32 + (root >> 32) * ROWS
    return found


def searched(edges: list[Edge]) -> dict[int, int]:
    """Node → smallest node of its component, by breadth-first search."""
    near = defaultdict(set)
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    root: dict[int, int] = {}
    for start in sorted(near):
        if start not in root:
            queue = deque([start])
            root[start] = start
            while queue:
                for other in near[queue.popleft()]:
                    if other not in root:
                        root[other] = start
                        queue.append(other)
    return root


@pytest.mark.parametrize(
    ("graph", "of"),
    [
        ("none", 2),
        ("pair", 4),
        ("chain", 1),
        ("shuffled chain", 4),
        ("star", 4),
        ("sparse", 4),
        ("dense", 2),
        ("many small", 8),
    ],
)
def test_components_flat_and_in_rounds_are_those_of_a_search(tmp_path: Path, graph: str, of: int) -> None:
    edges = GRAPHS[graph]
    flat = run(tmp_path / "flat", edges, of, memory_bytes=1 << 30)
    rounds = run(tmp_path / "rounds", edges, of, memory_bytes=-1)
    assert labels(flat) == searched(edges)
    assert [f.sha256 for f in flat.files("labels")] == [f.sha256 for f in rounds.files("labels")]
    assert flat.counters["documents_in_clusters"] == rounds.counters["documents_in_clusters"] == len(searched(edges))
    assert list((tmp_path / "rounds").glob("components/*/round_01"))
    assert not list((tmp_path / "flat").glob("components/*/round_01"))


def test_components_flat_sorts_labels_in_blocks_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", GRAPHS["many small"], 8, memory_bytes=1 << 30)
    monkeypatch.setattr(components, "BLOCK", 100)
    monkeypatch.setattr(components, "STRETCH", 70)
    blocks = run(tmp_path / "blocks", GRAPHS["many small"], 8, memory_bytes=1 << 30)
    assert whole.counters["documents_in_clusters"] > 3 * 100
    assert [f.sha256 for f in blocks.files("labels")] == [f.sha256 for f in whole.files("labels")]


def test_rounds_of_a_long_chain_are_few(tmp_path: Path) -> None:
    run(tmp_path, GRAPHS["shuffled chain"], 4, memory_bytes=-1)
    assert len(list(tmp_path.glob("components/*/round_*"))) <= 2 * 11  # twice log2 of its 1,200 documents
