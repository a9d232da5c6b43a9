"""Calls that outlast an outage, against a real S3 server that goes away and comes back at its port."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import boto3
import pytest

from caravela import storage
from caravela.outage import outlasting
from caravela.storage import StorageError
from tests.conftest import free_port, wait_for


class Server:
    """An S3 server that forgets all when it is ended."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.process)
        boto3.client("s3").create_bucket(Bucket="bucket")

    def end(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One of this test's own, which the client goes to, with little patience of its own."""
    made = Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(storage, "MAX_ROUNDS", 1)
    storage._filesystem.cache_clear()
    made.start()
    yield made
    made.end()
    storage._filesystem.cache_clear()


@pytest.mark.slow
def test_outlasting_an_s3_server_that_is_away_for_a_while(server: Server) -> None:
    storage.write_text("s3://bucket/a", "before")
    server.end()
    back = threading.Timer(4.0, server.start)
    back.start()
    said: list[str] = []
    begun = time.monotonic()
    outlasting(lambda: storage.write_text("s3://bucket/a", "after"), 120, said.append)
    assert time.monotonic() - begun > 3
    back.join()
    assert storage.read_text("s3://bucket/a") == "after"
    assert len(said) == 1
    assert said[0].startswith("s3://bucket/a: cannot write: ")


@pytest.mark.slow
def test_outlasting_gives_up_when_its_patience_is_over(server: Server) -> None:
    server.end()
    begun = time.monotonic()
    with pytest.raises(StorageError, match="s3://bucket/a: cannot read"):
        outlasting(lambda: storage.read_text("s3://bucket/a"), 2.0)
    assert 2.0 < time.monotonic() - begun < 60
    server.start()


@pytest.mark.slow
def test_outlasting_does_not_wait_for_what_will_not_come(server: Server) -> None:
    begun = time.monotonic()
    with pytest.raises(FileNotFoundError):
        outlasting(lambda: storage.read_text("s3://bucket/never"), 60)
    with pytest.raises(StorageError, match="no-such-bucket"):
        outlasting(lambda: storage.write_text("s3://no-such-bucket/a", ""), 60)
    assert time.monotonic() - begun < 30
