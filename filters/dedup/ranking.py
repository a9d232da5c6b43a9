"""A partition of clusters, whole, and the order in which its members deserve to be kept.

In: the files of ``members``. Order: cluster by cluster; in each, runs of the index first, older before newer, and of
one run what it kept before what it removed; then the config's priority; then the order of the input.

Memory: about 570 bytes a member. A cluster lies in one partition, so a cluster of a hundred million copies needs 57 GB
in its task; one of a million, 0.6 GB.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.manifest import Input
from caravela.stages import Shard, finished
from filters.dedup import partitions, tables
from filters.dedup.config import DedupConfig
from filters.dedup.index import IndexRun
from filters.dedup.signatures import sketch_bytes
from filters.dedup.tables import ROW_BITS, U64

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


class Partition(NamedTuple):
    """The members of some clusters; an array has one value for each, in no order that matters."""

    members: pa.Table
    node: U64
    root: U64
    is_new: Mask
    """Whether it is a document of this run."""
    order: Places
    """Places of the members, best first within each cluster."""

    @property
    def opens(self) -> Mask:
        """Along ``order``: whether a cluster begins here."""
        return starts(self.root[self.order])

    def best(self) -> Places:
        """For each member the place of the best one of its cluster."""
        best, opens = np.empty(len(self.node), np.int64), self.opens
        best[self.order] = self.order[opens][np.cumsum(opens) - 1]
        return best


def starts(*columns: U64) -> Mask:
    """Where rows begin that differ from the row before; the first one does."""
    first = np.zeros(len(columns[0]), np.bool_)
    first[:1] = True
    for column in columns:
        first[1:] |= column[1:] != column[:-1]
    return first


def plan(members: Input, signatures: Input, index: tuple[IndexRun, ...]) -> list[Shard]:
    """A shard for each partition."""
    found = finished(members)
    count = int(found.shards[0].counters["partitions"]) if found.shards else 1
    old = [len(finished(run.signatures).shards) for run in index]
    spec = {
        "members": partitions.files(found.uris("members")),
        "of": count,
        "old_shards": old,
        "new": len(finished(signatures).shards),
    }
    return [Shard(index=i, name=f"partition {i}", spec=spec) for i in range(count)]


def read(shard: Shard, config: DedupConfig) -> Partition:
    """One partition.

    Where every removal is verified, without what a run of the index removed: it can neither keep nor be removed here.
    """
    schema, old = tables.members(sketch_bytes(config)), list(shard.spec["old_shards"])
    found = partitions.read_all(shard.spec["members"], shard.index, int(shard.spec["of"]), schema)
    members = pa.concat_tables([schema.empty_table(), *found])
    if config.verify == "all":
        members = members.filter(pa.array(~members["removed_before"].to_numpy()))
    members = members.combine_chunks()
    node, root = members["node"].to_numpy(), members["root"].to_numpy()
    run = np.searchsorted(np.cumsum([0, *old]), (node >> ROW_BITS).astype(np.int64), side="right") - 1
    by_priority = [_sort_key(name, members, config) for name in reversed(config.priority)]
    order = np.lexsort([node, *by_priority, members["removed_before"].to_numpy(), run, root])
    return Partition(members, node, root, run == len(old), order)


def _sort_key(name: str, members: pa.Table, config: DedupConfig) -> npt.NDArray[Any]:
    """A column that sorts better documents first."""
    if name == "length":
        return np.negative(np.asarray(members["length"], np.int64))
    if name == "quality":
        return np.negative(np.floor(np.asarray(members["quality"], np.float64) / config.quality_step + 1e-6))
    encoded = members[name].dictionary_encode("encode").combine_chunks()
    different = encoded.dictionary.to_pylist()
    if name == "date":  # an unknown date is later than any other
        ordered = {date: i for i, date in enumerate(sorted({date for date in different if date}))}
        ranks = [ordered.get(date, len(ordered)) for date in different]
    else:
        wanted = {source: i for i, source in enumerate(config.source_rank)}
        ranks = [wanted.get(source, len(wanted)) for source in different]
    key: npt.NDArray[np.int64] = np.array(ranks, np.int64)[encoded.indices.to_numpy()]
    return key
