"""A node that starts although its agents are late, and Ray left as it was for everyone else."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray._private.parameter
import ray._private.services

from caravela.ray_start import AGENT_PORTS, agents_at_known_ports, free_ports

# What every Python process runs first: Ray's agents, and they alone, are late by more than the 15 s that Ray allows.
LATE_AGENT = """
import sys, time
if any(argument.endswith("dashboard/agent.py") for argument in sys.orig_argv):
    time.sleep(18)
"""
DRIVER = """
import ray
from caravela.cluster import ClusterConfig, connect
connect(ClusterConfig(num_cpus=1, dashboard=False))
print(ray.get(ray.remote(lambda: "a task ran").remote()))
"""


def parameters(**given: Any) -> Any:
    return ray._private.parameter.RayParams(**given)


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(1024 < port < 65536 for port in ports)


def test_agents_get_ports_of_their_own_and_those_that_are_asked_for() -> None:
    with agents_at_known_ports():
        ours = parameters(runtime_env_agent_port=4321, num_cpus=3)
        others = parameters()
    assert (ours.runtime_env_agent_port, ours.num_cpus) == (4321, 3)
    assert len({getattr(each, name) for each in (ours, others) for name in AGENT_PORTS}) == 8


def test_node_alone_is_told_where_the_dashboard_agent_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(ray._private.services, "start_ray_process", lambda command, *_, **__: started.append(command))
    with agents_at_known_ports():
        port = parameters(dashboard_agent_listen_port=5432).dashboard_agent_listen_port
        ray._private.services.start_ray_process(["raylet"], "raylet", False)
        ray._private.services.start_ray_process(["gcs"], "gcs_server", False)
    ray._private.services.start_ray_process(["raylet"], "raylet", False)
    assert started == [["raylet", f"--dashboard_agent_listen_port={port}"], ["gcs"], ["raylet"]]


def test_ray_is_left_as_it_was_after_an_error_too() -> None:
    before = ray._private.parameter.RayParams, ray._private.services.start_ray_process
    with pytest.raises(RuntimeError, match="no node"), agents_at_known_ports():
        raise RuntimeError("no node")
    assert (ray._private.parameter.RayParams, ray._private.services.start_ray_process) == before


@pytest.mark.ray
@pytest.mark.slow
def test_local_ray_starts_although_its_agent_is_late(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LATE_AGENT, "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert "a task ran" in done.stdout, done.stdout + done.stderr
