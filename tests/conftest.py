"""Fixtures for tests of all packages: servers of our own on loopback, S3's kind with a bucket in it, and the web's."""

import atexit
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

START_TIMEOUT_S = 60
EXIT_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the process with the tests' status, past the interpreter's teardown.

    In that, after all tests had passed and Ray was shut down, one run in many died by a native thread that called what
    was freed already. Workers of pytest-xdist and its master end as usual: they have Ray in none of their tests.
    """
    if hasattr(config, "workerinput") or config.getoption("numprocesses", None) or EXIT_STATUS not in config.stash:
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[EXIT_STATUS])


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of a real S3 server (moto's, in its own process); the standard AWS variables name it to everyone."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    names_it = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in names_it.items():
            patch.setenv(name, value)
        try:
            wait_for(server)
            yield endpoint
        finally:
            server.terminate()
            server.wait(timeout=30)


def wait_for(server: "subprocess.Popen[bytes]") -> None:
    """Returns when the S3 server that the AWS variables name answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            boto3.client("s3").list_buckets()
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.2)


@pytest.fixture
def s3_bucket(s3_server: str, request: pytest.FixtureRequest) -> str:
    """URI of a new, empty bucket."""
    name = f"test-{abs(hash(request.node.nodeid)):x}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty root, on local disk and in S3: what holds for one must hold for the other."""
    if request.param == "s3":
        bucket: str = request.getfixturevalue("s3_bucket")
        return f"{bucket}/root"
    return os.fspath(tmp_path_factory.mktemp("root"))


class Web(NamedTuple):
    """A web server of our own: ``tests/web_server.py`` says what its addresses do."""

    url: str
    folder: Path
    """What it serves."""
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        """Path, status, bytes, client's port and whether a token was shown, of each request since the last call."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        self.log.write_text("", encoding="utf-8")
        return [json.loads(line) for line in lines]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A web server, in its own process, over an empty folder."""
    folder, log = tmp_path / "served", tmp_path / "requests.jsonl"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.web_server", str(folder), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as server:
        assert server.stdout is not None, "asked for as a pipe"
        try:
            yield Web(f"http://127.0.0.1:{int(server.stdout.readline())}", folder, log)
        finally:
            server.terminate()
