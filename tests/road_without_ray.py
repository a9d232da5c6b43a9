"""Runs stages in this process, shard after shard, for tests that are about the work and not about Ray."""

import dataclasses

from caravela import stages
from caravela.cluster import ClusterConfig
from caravela.manifest import Manifest
from caravela.stages import Stage


def finish(stage: Stage) -> Manifest:
    """Brings a stage to its finished state in the driver."""
    return stages.run(dataclasses.replace(stage, in_driver=True), ClusterConfig())
