"""Calls that outlast an outage, against a real S3 server whose address goes away and comes back."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caravela import storage
from caravela.outage import outlasting
from caravela.storage import StorageError
from tests.faulty_s3 import FaultyS3

pytestmark = pytest.mark.slow


@pytest.fixture
def server(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The way to the server, with little patience of the client's own."""
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(storage, "MAX_ROUNDS", 1)
    with FaultyS3(s3_server, tmp_path / "requests") as made:
        yield made


def test_outlasting_a_server_that_is_away_for_a_while(server: FaultyS3, s3_bucket: str) -> None:
    storage.write_text(f"{s3_bucket}/a", "before")
    server.go()
    back = threading.Timer(4.0, server.come)
    back.start()
    said: list[str] = []
    begun = time.monotonic()
    outlasting(lambda: storage.write_text(f"{s3_bucket}/a", "after"), 120, said.append)
    assert time.monotonic() - begun > 3
    back.join()
    assert storage.read_text(f"{s3_bucket}/a") == "after"
    assert len(said) == 1
    assert said[0].startswith(f"{s3_bucket}/a: cannot write: ")


def test_outlasting_gives_up_when_its_patience_is_over(server: FaultyS3, s3_bucket: str) -> None:
    server.go()
    begun = time.monotonic()
    with pytest.raises(StorageError, match=f"{s3_bucket}/a: cannot read"):
        outlasting(lambda: storage.read_text(f"{s3_bucket}/a"), 2.0)
    assert 2.0 < time.monotonic() - begun < 60
    server.come()


def test_outlasting_does_not_wait_for_what_will_not_come(server: FaultyS3, s3_bucket: str) -> None:
    begun = time.monotonic()
    with pytest.raises(FileNotFoundError):
        outlasting(lambda: storage.read_text(f"{s3_bucket}/never"), 60)
    with pytest.raises(StorageError, match="no-such-bucket"):
        outlasting(lambda: storage.write_text("s3://no-such-bucket/a", ""), 60)
    assert time.monotonic() - begun < 30
