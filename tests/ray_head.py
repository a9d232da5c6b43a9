"""A Ray head of a test's own, on loopback, with token authentication; ended by its pid.

The module is also the autoscaler's node provider in tests: Ray's fake one, whose nodes are processes on this machine.
"""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

from caravela.ray_start import agents_at_known_ports
from tests.running import HANG_S, REPOSITORY, end, start, wait_until

BINARIES = Path(sys.executable).parent


class Head(NamedTuple):
    """Where a head answers, and the environment that a process needs to speak to it."""

    port: int
    dashboard: int
    environment: dict[str, str]


class PatientNodes(FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's fake nodes, which do not end when their agents are late."""

    def _create_node_with_resources_and_labels(self, *arguments: Any, **options: Any) -> None:
        with agents_at_known_ports():
            super()._create_node_with_resources_and_labels(*arguments, **options)


def free_ports(count: int) -> list[int]:
    """Ports below the range from which Ray takes its workers' (10002 to 19999)."""
    found = []
    for port in range(7000 + os.getpid() % 1000, 9999):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports between 7000 and 9999")


@contextlib.contextmanager
def ray_head(port: int, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Head]:
    """Starts a head with its dashboard and ends it. ``options`` are those of ``ray start``."""
    folder = tempfile.mkdtemp(prefix="ray-head-", dir="/tmp")  # Ray's socket paths must stay short
    dashboard, agent = [found for found in free_ports(3) if found != port][:2]
    joining = {
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "PATH": f"{BINARIES}:{os.environ['PATH']}",
    }
    places = ["--port", port, "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard]
    places += ["--dashboard-agent-listen-port", agent]
    starting = [sys.executable, "-m", "caravela.ray_start", "start", "--head", "--block", "--disable-usage-stats"]
    modules = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    process = start([*starting, *map(str, places), *options], {**joining, **modules, **(environment or {})})

    def answers() -> bool:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", dashboard)) == 0

    try:
        wait_until(answers, "the dashboard's port", timeout=HANG_S)
        yield Head(port, dashboard, joining)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)
