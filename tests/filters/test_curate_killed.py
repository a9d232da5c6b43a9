"""Curation whose workers and their processes are killed at random moments ends with the bytes of an undisturbed one."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from caravela import stages
from caravela.cluster import ClusterConfig, connect
from caravela.data import warc
from caravela.manifest import Manifest
from caravela.sample.crawl import WARC_FILES, build_crawl
from filters.curate import CurateConfig, curate_stages
from tests.road_without_ray import finish

CLUSTER = ClusterConfig(num_cpus=2, dashboard=False)
NUM_SHARDS = 4
RECORDS = 40
KILLS = 4


@pytest.fixture
def on_ray() -> Iterator[None]:
    connect(CLUSTER)
    yield
    ray.shutdown()


def inputs(folder: Path) -> tuple[str, ...]:
    """Shards of some pages each, from the sample crawl."""
    folder.mkdir()
    build_crawl(str(folder), 1)
    records = []
    for name in WARC_FILES[:2]:
        with (folder / name).open("rb") as stream:
            records += [record for record in warc.read_records(stream) if record.type == "response"]
    records = records[: NUM_SHARDS * RECORDS]
    assert len(records) == NUM_SHARDS * RECORDS
    for shard in range(NUM_SHARDS):
        with (folder / f"part{shard}.warc").open("wb") as out:
            for record in records[shard::NUM_SHARDS]:
                head = "".join(f"{name}: {value}\r\n" for name, value in record.headers.items())
                out.write(f"WARC/1.1\r\n{head}\r\n".encode() + record.content + b"\r\n\r\n")
    return tuple(str(path) for path in sorted(folder.glob("part*.warc")))


def digests(done: Manifest) -> dict[str, str]:
    return {file.path: file.sha256 for shard in done.shards for file in shard.files}


class Killer(threading.Thread):
    """Ends a worker of this test's own Ray at a random moment after it has begun, then a process that extracts, ..."""

    def __init__(self, seed: int) -> None:
        super().__init__(daemon=True)
        self.rng = random.Random(seed)
        self.over = threading.Event()
        self.killed: list[int] = []

    def run(self) -> None:
        while len(self.killed) < KILLS and not self.over.is_set():
            find = extracting if len(self.killed) % 2 else working
            if not find():
                time.sleep(0.02)
                continue
            self.over.wait(self.rng.uniform(0.0, 0.8))
            victims = [process for process in find() if process.pid not in self.killed]
            if victims and not self.over.is_set():
                victim = self.rng.choice(victims)
                with contextlib.suppress(psutil.NoSuchProcess):  # it was done
                    victim.send_signal(signal.SIGKILL)
                    self.killed.append(victim.pid)


def working() -> list[psutil.Process]:
    """Processes below this one that do a shard just now: Ray writes what they do into their name."""
    return [p for p, name in below_this() if name.startswith("ray::") and "MapWorker" in name and ".submit" in name]


def extracting() -> list[psutil.Process]:
    """Processes below this one that extract pages."""
    return [process for process, name in below_this() if "extract_process" in name]


def below_this() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            yield process, " ".join(process.cmdline())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_curation_with_workers_killed_at_random_moments_gives_the_same_bytes(tmp_path: Path, on_ray: None) -> None:
    config = CurateConfig(inputs=inputs(tmp_path / "in"))
    (undisturbed,) = curate_stages(str(tmp_path / "undisturbed"), config)
    expected = digests(finish(undisturbed))
    assert len(expected) == 2 * NUM_SHARDS
    (stage,) = curate_stages(str(tmp_path / "killed"), config)
    killer = Killer(seed=7)
    killer.start()
    done = stages.run(stage, CLUSTER)
    killer.over.set()
    killer.join()
    assert len(killer.killed) >= KILLS, "nobody was killed, so nothing was shown"
    assert digests(done) == expected
