"""Starts Ray nodes whose agents may take their time.

Ray 2.60 ends a node whose agents have not written down their ports 15 seconds after its start, a limit fixed in its
code (ray-project/ray, issue 65983): on a busy machine, or where Python imports from a network disk, no node comes up.
A node does not wait for ports that it is told. ``ray.init`` and ``ray start`` can tell only some, and the dashboard
agent's never reaches the node, so both are mended here, for the nodes that this process starts.

``python -m caravela.ray_start start --head ...`` is Ray's own command line with that.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import ray._private.parameter
import ray._private.services
from ray._private import ray_constants

AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
DASHBOARD_WAIT_S = 300
PATIENCE = {
    "RAY_agent_register_timeout_ms": "300000",  # a node asks an agent that does not answer yet; Ray: 30 seconds
    "RAY_worker_register_timeout_seconds": "300",  # and waits for a worker that it started; Ray: 60
}
"""What a node reads from its environment, unless that says something else."""


@contextlib.contextmanager
def agents_at_known_ports() -> Iterator[None]:
    """Nodes that are started within have ports of their own for their agents, where the caller names none."""
    parameters, start_process = ray._private.parameter.RayParams, ray._private.services.start_ray_process
    told: list[str] = []

    def with_ports(**given: Any) -> Any:
        for name, port in zip(AGENT_PORTS, free_ports(len(AGENT_PORTS)), strict=True):
            given[name] = given.get(name) or port
        told[:] = [f"--dashboard_agent_listen_port={given['dashboard_agent_listen_port']}"]
        return parameters(**given)

    def start(command: Sequence[str], process_type: str, *arguments: Any, **options: Any) -> Any:
        more = told if process_type == "raylet" else []
        return start_process([*command, *more], process_type, *arguments, **options)

    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    dashboard_wait = max(DASHBOARD_WAIT_S, ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S)
    with (
        _replaced(ray_constants, "RAY_DASHBOARD_STARTUP_TIMEOUT_S", dashboard_wait),
        _replaced(ray._private.parameter, "RayParams", with_ports),
        _replaced(ray._private.services, "start_ray_process", start),
    ):
        yield


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on just now."""
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def _replaced(module: Any, name: str, replacement: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, original)


def main() -> None:
    """Ray's command line, whose nodes start patiently."""
    from ray.scripts import scripts

    with agents_at_known_ports():
        scripts.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
