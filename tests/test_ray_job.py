"""``ray job submit`` against a head of our own, as README shows it; the head is ended by its pid."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from caravela import manifest
from tests.running import DEMO, TINY, end, run, start, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

BINARIES = Path(sys.executable).parent


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


@pytest.fixture
def head() -> Iterator[dict[str, str]]:
    """A head with two CPUs; gives the environment in which the ray command finds it."""
    folder = tempfile.mkdtemp(prefix="ray-head-", dir="/tmp")  # Ray's socket paths must stay short
    port, dashboard, agent = free_ports(3)
    environment = {
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "PATH": f"{BINARIES}:{os.environ['PATH']}",
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    options = ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--num-cpus", "2"]
    options += ["--dashboard-agent-listen-port", str(agent), "--include-dashboard", "true", "--disable-usage-stats"]
    head_environment = {k: v for k, v in environment.items() if k != "RAY_ADDRESS"}
    process = start(
        [str(BINARIES / "ray"), "start", "--head", "--block", "--port", str(port), *options], head_environment
    )

    def answers() -> bool:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", dashboard)) == 0

    try:
        wait_until(answers, "the dashboard's port", timeout=60)
        yield environment
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def test_submitted_pipeline_succeeds_with_summary_lines(head: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "run"
    settings = [a for s in (f"root={root}", *TINY) for a in ("--set", s)]
    submit = [str(BINARIES / "ray"), "job", "submit", "--runtime-env", "jobs/runtime_env.yaml", "--working-dir", "."]
    done = run([*submit, "--", "python", "jobs/pipeline.py", "--config", DEMO, *settings], head, timeout=400)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "succeeded" in output
    assert "pretrain" in output
    assert "\r" not in output
    assert any("shards" in line and "elapsed" in line for line in output.splitlines()), output
    assert {"curate", "dedup", "pretrain", "export", "report"} <= set(manifest.read_run_index(str(root)))
    listed = run([str(BINARIES / "ray"), "job", "list"], head)
    assert "SUCCEEDED" in listed.stdout + listed.stderr
