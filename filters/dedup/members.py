"""Stage ``members``: each shard's labels, joined with the attributes of its documents, by a hash of the cluster's root.

Of a shard of the index it is also noted which documents its own run removed: they can be nobody's keeper here, however
this run's priority ranks them.

Memory: a shard's attributes, 120 bytes per document, and its labels.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.errors import UserError
from caravela.manifest import Input
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import partitions, tables
from filters.dedup.config import DedupConfig
from filters.dedup.index import IndexRun
from filters.dedup.signatures import sketch_bytes
from filters.dedup.tables import DECISIONS, LABELS, by_partition, nodes_of, spread


def members_stage(
    root: str, config: DedupConfig, components: Input, signatures: Input, index: Sequence[IndexRun] = ()
) -> Stage:
    """Clustered documents of the index and of the run, in order, with their attributes."""

    def plan() -> list[Shard]:
        labels = finished(components)
        count = 1 << max(0, labels.counters["documents_in_clusters"] // config.members_per_partition).bit_length()
        shards: list[dict[str, Any]] = []
        for run in index:
            decisions = partitions.files(finished(run.clusters).uris("decisions"))
            attributes = finished(run.signatures).uris("attributes")
            of = len(attributes)
            shards += [
                {"attributes": uri, "decisions": {"files": decisions, "shard": i, "of": of}}
                for i, uri in enumerate(attributes)
            ]
        shards += [{"attributes": uri} for uri in finished(signatures).uris("attributes")]
        spec = {"labels": partitions.files(labels.uris("labels")), "shards": len(shards), "partitions": count}
        return [Shard(index=i, name=f"attributes {i}", spec={**spec, **own}) for i, own in enumerate(shards)]

    return Stage(
        name="members",
        version=2,
        root=root,
        config={"members_per_partition": config.members_per_partition, "sketch_bytes": sketch_bytes(config)},
        inputs=(components, *(run.signatures for run in index), signatures, *(run.clusters for run in index)),
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
        root, row = labels["root"].to_numpy(), labels["row"].to_numpy()
        own = attributes.take(labels["row"])
        columns = {
            "node": nodes_of(shard.index, row),
            "root": root,
            "removed_before": np.isin(row, _removed_rows(shard.spec.get("decisions"))),
            **{name: own[name] for name in own.column_names},
        }
        parts = by_partition(pa.table(columns, schema=self.members), spread(root) % np.uint64(count), count)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="members"), self.members, parts)
        return {"members": labels.num_rows, "partitions": count}


def _removed_rows(decisions: Mapping[str, Any] | None) -> npt.NDArray[np.uint32]:
    """The rows of a shard of the index that its run removed; none of a shard of this run."""
    if decisions is None:
        return np.empty(0, np.uint32)
    try:
        found = list(partitions.read_all(decisions["files"], int(decisions["shard"]), int(decisions["of"]), DECISIONS))
    except FileNotFoundError as error:
        raise UserError(
            f"{decisions['files']['prefix']}: these decisions of a run of dedup.index are gone; run its dedup again"
        ) from error
    table = pa.concat_tables([DECISIONS.empty_table(), *found])
    gone: npt.NDArray[np.uint32] = table["row"].to_numpy()[~table["keep"].to_numpy()]
    return gone
