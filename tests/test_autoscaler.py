"""A stage on a cluster of cluster.yaml's node types that has no node yet but the head: Ray's autoscaler brings them.

The autoscaler is Ray's own; its nodes are processes on this machine, of one CPU each (Ray's fake node provider).
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from caravela.cluster import most_workers
from tests.ray_head import PatientNodes, free_ports, ray_head
from tests.running import HANG_S, REPOSITORY, run

PROVIDER = f"{PatientNodes.__module__}.{PatientNodes.__name__}"
HEAD = "ray.head.default"  # the only name of a head that this provider knows
DRIVER = """
import sys
import ray
from caravela import stages
from caravela.cluster import ClusterConfig

def shards():
    return [stages.Shard(index=i, name=str(i), spec={}) for i in range(4)]

def worker():
    return lambda shard, out: {"shards": 1}

@ray.remote(num_cpus=1, num_gpus=1, label_selector={"market": "on-demand"})
def speaks_for_all():
    return ray.get_runtime_context().get_node_id()

stage = stages.Stage(
    name="toy", version=1, root=sys.argv[1], config={}, inputs=(), plan=shards, make_worker=worker, actors=True
)
print("counters:", stages.run(stage, ClusterConfig()).counters)
kinds = {node["NodeID"]: node["Labels"].get("kind", "head") for node in ray.nodes()}
print("after the stage:", sorted(set(kinds.values())))
rank0 = ray.get(speaks_for_all.remote())
print("rank 0 on:", {node["NodeID"]: node["Labels"] for node in ray.nodes()}[rank0]["kind"])
"""


def fake_cluster(address: str) -> dict[str, object]:
    """cluster.yaml with its types, limits and labels, on one machine."""
    written = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text("utf-8"))
    kinds = {}
    for name, kind in written["available_node_types"].items():
        small = {"CPU": 1, "object_store_memory": 100_000_000}
        if name.startswith("training"):
            small["GPU"] = 1
        resources = kind["resources"] if name == written["head_node_type"] else small
        fake_name = HEAD if name == written["head_node_type"] else name
        labels = {**kind["labels"], "kind": name}
        kinds[fake_name] = {**kind, "resources": resources, "labels": labels, "node_config": {}}
    provider = {
        "type": "external",
        "module": PROVIDER,
        "gcs_address": address,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
    }
    commands = [f"{who}setup_commands" for who in ("", "head_", "worker_")]
    commands += ["initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"]
    nothing = {
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{name: [] for name in commands},
    }
    changes = {"provider": provider, "available_node_types": kinds, "head_node_type": HEAD, "max_workers": 2}
    return {**written, **nothing, **changes}


@pytest.fixture
def empty_cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head without CPUs and its autoscaler; gives the environment in which a driver joins it."""
    (port,) = free_ports(1)
    address = f"{get_node_ip_address()}:{port}"
    config = tmp_path / "cluster.json"
    config.write_text(json.dumps(fake_cluster(address)), "utf-8")
    heading = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",  # as ray up sets it
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    options = ["--num-cpus", "0", "--object-store-memory", "100000000", "--autoscaling-config", str(config)]
    with ray_head(port, *options, environment=heading) as running:
        yield {**running.environment, "RAY_ADDRESS": address}


def test_actor_pool_on_a_standing_cluster_may_outgrow_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded by the cores of the moment, a pool that meets an empty cluster would stay at one actor."""
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    assert most_workers(640, num_cpus=1) == 640
    assert most_workers(0, num_cpus=1) == 1


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2 * HANG_S)
def test_stage_on_an_empty_cluster_gets_curation_nodes_and_rank_0_its_own(
    empty_cluster: dict[str, str], tmp_path: Path
) -> None:
    done = run([sys.executable, "-c", DRIVER, str(tmp_path)], empty_cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "counters: {'shards': 4}" in done.stdout
    assert "after the stage: ['curation', 'head']" in done.stdout, done.stdout
    assert "rank 0 on: training-rank0" in done.stdout, done.stdout
