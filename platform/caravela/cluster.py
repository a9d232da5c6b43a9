"""The connection to Ray: the cluster this process was submitted to, or one of its own on this machine.

A driver started by ``ray job submit`` (or with ``RAY_ADDRESS`` set) joins that cluster; any other starts a local Ray
that ends with it. Nothing here starts before a stage has work to do: a rerun of a finished road needs no Ray.
"""

import logging
import os
from dataclasses import dataclass

import ray

from caravela.ray_start import agents_at_known_ports


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Resources of a local Ray; on a standing cluster they come from its nodes."""

    num_cpus: int | None = None
    """Cores that a local Ray may use; all of the machine's by default."""
    object_store_mb: int = 512
    """Shared memory of a local Ray. Stages hand over file names, not data, so little is needed."""
    dashboard: bool = True
    """Whether a local Ray serves its dashboard (on loopback)."""


def on_standing_cluster() -> bool:
    return bool(os.environ.get("RAY_ADDRESS"))


def connect(config: ClusterConfig) -> None:
    """Connects once; further calls do nothing."""
    if ray.is_initialized():
        return
    if on_standing_cluster():
        ray.init(address="auto", logging_level=logging.WARNING, log_to_driver=False)
        return
    with agents_at_known_ports():
        context = ray.init(
            address="local",
            num_cpus=config.num_cpus,
            include_dashboard=config.dashboard,
            object_store_memory=config.object_store_mb << 20,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    if config.dashboard and context.dashboard_url:
        print(f"Ray dashboard: http://{context.dashboard_url}", flush=True)


def most_workers(shards: int, num_cpus: float) -> int:
    """How many actors are worth having for so many shards, each with ``num_cpus`` cores.

    A standing cluster may have no node yet: its autoscaler brings them for actors that wait, so all may be asked for.
    """
    if on_standing_cluster():
        return max(1, shards)
    cores = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    return max(1, min(shards, int(cores / (num_cpus or 1))))
