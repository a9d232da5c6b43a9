"""Runs stages in this process, shard after shard, for tests that are about the work and not about Ray."""

import json

from caravela import manifest, stages
from caravela.manifest import Manifest, ShardRecord
from caravela.stages import Stage


def finish(stage: Stage) -> Manifest:
    """Does what ``stages.run`` does, without Ray."""
    records = []
    for shard in stage.plan():
        row = {"index": shard.index, "name": shard.name, "spec": json.dumps(shard.spec)}
        stages.run_shard(row, stage.make_worker(), stage.uri)
    found: dict[int, ShardRecord] = manifest.read_records(stage.uri)
    records = [found[i] for i in sorted(found)]
    counters = manifest.sum_counters(records)
    manifest.check_conservation(counters, stage.name)
    done = Manifest(
        stage=stage.name,
        version=stage.version,
        fingerprint=stage.fingerprint,
        config=dict(stage.config),
        inputs=stage.inputs,
        shards=tuple(records),
        counters=counters,
        summary=dict(stage.finish(records, stage.uri)),
        versions={},
        started="",
        seconds=0.0,
        uri=stage.uri,
    )
    manifest.write(done)
    return done
