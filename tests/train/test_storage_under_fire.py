"""Training whose checkpoints go to a server that fails, stalls, cuts uploads and is away for a while."""

import os
import threading
import time
from pathlib import Path

import pytest

from caravela import storage
from caravela.errors import UserError
from caravela.manifest import Input
from caravela.train import checkpoint, inspection
from tests.faulty_s3 import FaultyS3
from tests.train.conftest import config
from tests.train.groups import metrics, run_group, train_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Onlooker(threading.Thread):
    """Reads the newest checkpoint again and again, as somebody would who evaluates while the run goes on."""

    def __init__(self, stage: str) -> None:
        super().__init__(daemon=True)
        self.stage, self.over = stage, threading.Event()
        self.seen: set[str] = set()
        self.damage: list[str] = []

    def run(self) -> None:
        while not self.over.wait(0.5):
            found = checkpoint.latest(self.stage)
            if found is None or found.uri in self.seen:
                continue
            self.seen.add(found.uri)
            try:
                self.damage += inspection.mistakes(found.uri)
            except (UserError, OSError) as error:
                if checkpoint.latest(self.stage) == found:  # not because a newer one took its place
                    self.damage.append(str(error))


def test_training_on_a_server_under_fire_ends_with_the_losses_of_a_quiet_run(
    tmp_path: Path, s3_server: str, s3_bucket: str, pack: Input, unbroken: Path
) -> None:
    stage = f"{s3_bucket}/pretrain"
    onlooker = Onlooker(stage)
    with FaultyS3(s3_server, tmp_path / "requests", fail=0.05, stall=0.03, stall_s=5, cut=0.05) as server:
        of_s3 = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

        def away() -> None:
            while not server.fates().get("passed", 0) > 20:
                time.sleep(0.1)
            server.go()
            time.sleep(15)
            server.come()
            came_back.append(time.monotonic())

        came_back: list[float] = []
        outage = threading.Thread(target=away)
        outage.start()
        os.environ["AWS_ENDPOINT_URL"] = s3_server  # the onlooker's way is the straight one
        storage._filesystem.cache_clear()
        onlooker.start()
        run_group(2, train_with, of_s3, stage, config(trace=False, checkpoint_every_steps=4), pack)
        ended = time.monotonic()
        outage.join()
        onlooker.over.set()
        onlooker.join()
        fates = server.fates()
        local = tmp_path / "metrics.jsonl"
        storage.fetch(f"{stage}/metrics.jsonl", os.fspath(local))
        whole = inspection.listed(stage)
    expected = metrics(os.fspath(unbroken))
    assert [row["loss"] for row in metrics(os.fspath(tmp_path)).values()] == [row["loss"] for row in expected.values()]
    assert fates.keys() == {"passed", "failed", "stalled", "cut"}
    assert came_back[0] < ended, "the run was over before the server was away"
    assert len(onlooker.seen) > 1
    assert onlooker.damage == []
    assert [one.state for one in whole] == ["complete"] * len(whole)
