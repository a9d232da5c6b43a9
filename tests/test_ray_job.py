"""``ray job submit`` against a head of our own, as README shows it; the head is ended by its pid."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from caravela import manifest
from tests.ray_head import BINARIES, free_ports, ray_head
from tests.running import DEMO, HANG_S, TINY, run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2 * HANG_S)]


@pytest.fixture
def head() -> Iterator[dict[str, str]]:
    """A head with two CPUs; gives the environment in which the ray command finds it."""
    with ray_head(*free_ports(1), "--num-cpus", "2", "--include-dashboard", "true") as running:
        yield {**running.environment, "RAY_ADDRESS": f"http://127.0.0.1:{running.dashboard}"}


def test_submitted_pipeline_succeeds_with_summary_lines(head: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "run"
    settings = [a for s in (f"root={root}", *TINY) for a in ("--set", s)]
    submit = [str(BINARIES / "ray"), "job", "submit", "--runtime-env", "jobs/runtime_env.yaml", "--working-dir", "."]
    done = run([*submit, "--", "python", "jobs/pipeline.py", "--config", DEMO, *settings], head)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "succeeded" in output
    assert "pretrain" in output
    assert "\r" not in output
    assert any("shards" in line and "elapsed" in line for line in output.splitlines()), output
    assert {"curate", "dedup", "pretrain", "export", "report"} <= set(manifest.read_run_index(str(root)))
    listed = run([str(BINARIES / "ray"), "job", "list"], head)
    assert "SUCCEEDED" in listed.stdout + listed.stderr
