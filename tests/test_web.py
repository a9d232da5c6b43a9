"""Reading from web servers through storage: exact ranges, bounded patience, one clear line where it cannot be done."""

import gzip
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from caravela import storage
from caravela import web as web_files
from caravela.storage import StorageError
from tests.conftest import Web, free_port

DATA = os.urandom(300_000)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts that a test can wait for."""
    monkeypatch.setattr(web_files, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(web_files, "LONGEST_PAUSE_S", 0.02)


@pytest.mark.parametrize("manner", ["plain", "flaky", "moved", "labelled"])
def test_range_is_exact_whatever_the_server_does(web: Web, manner: str) -> None:
    (web.folder / "a").write_bytes(DATA)
    uri = f"{web.url}/{manner}/a"
    for start, end in [(0, 1), (7, 100_007), (len(DATA) - 5, len(DATA) + 5), (len(DATA), len(DATA) + 1), (9, 9)]:
        assert storage.read_range(uri, start, end) == DATA[start:end]


def test_range_costs_its_own_bytes_and_no_more(web: Web) -> None:
    (web.folder / "a").write_bytes(DATA)
    storage.read_range(f"{web.url}/plain/a", 1000, 3000)
    assert [request["bytes"] for request in web.requests()] == [2000]


def test_requests_share_a_connection(web: Web) -> None:
    (web.folder / "a").write_bytes(DATA)
    for start in (0, 100, 70_000):
        storage.stat(f"{web.url}/plain/a")
        storage.read_range(f"{web.url}/plain/a", start, start + 50_000)
    assert len({request["peer"] for request in web.requests()}) == 1


@pytest.mark.parametrize(("manner", "keeps"), [("moved", True), ("elsewhere", False)])
def test_redirect_to_another_host_goes_without_the_token(web: Web, manner: str, keeps: bool) -> None:
    (web.folder / "a").write_bytes(DATA)
    token = {"Authorization": "Bearer secret"}
    assert web_files.read_range(f"{web.url}/{manner}/a", 5, 9, token) == DATA[5:9]
    assert [request["authorized"] for request in web.requests()] == [True, keeps]


def test_stat_takes_one_byte_and_its_version_follows_the_content(web: Web) -> None:
    (web.folder / "a").write_bytes(DATA)
    first = storage.stat(f"{web.url}/plain/a")
    assert first["size"] == len(DATA)
    assert sum(request["bytes"] for request in web.requests()) == 1
    assert storage.stat(f"{web.url}/whole/a") == first
    (web.folder / "a").write_bytes(DATA[::-1])
    assert storage.stat(f"{web.url}/plain/a")["version"] != first["version"]


def test_empty_file_is_empty(web: Web) -> None:
    (web.folder / "a").write_bytes(b"")
    assert storage.stat(f"{web.url}/plain/a")["size"] == 0
    assert storage.read_bytes(f"{web.url}/plain/a") == b""


def test_whole_file_through_reader_and_fetch(web: Web, tmp_path: Path) -> None:
    packed = gzip.compress(DATA)
    (web.folder / "a.gz").write_bytes(packed)
    assert storage.read_bytes(f"{web.url}/labelled/a.gz") == packed
    assert [request["bytes"] for request in web.requests()] == [1, len(packed)]
    storage.fetch(f"{web.url}/flaky/a.gz", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == packed
    with storage.open_read(f"{web.url}/plain/a.gz", 1000) as stream:
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == packed[-10:]
        stream.seek(5)
        assert (stream.read(2000), stream.tell()) == (packed[5:2005], 2005)


@pytest.mark.parametrize("manner", ["plain", "gone"])
def test_absent_file_is_file_not_found(web: Web, manner: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.stat(f"{web.url}/{manner}/absent")
    assert storage.glob(f"{web.url}/{manner}/absent") == []


@pytest.mark.parametrize(
    ("manner", "message"),
    [
        ("refused", "cannot read: HTTP 403 Forbidden"),
        ("down", r"cannot read: HTTP 503 Service Unavailable \(tried 6 times\)"),
        ("whole", "cannot read: the server ignores byte ranges"),
        ("away", r"cannot read: http://example.invalid/a: expected https://"),
    ],
)
def test_failure_is_one_line_without_the_query(web: Web, manner: str, message: str) -> None:
    (web.folder / "a").write_bytes(DATA)
    with pytest.raises(StorageError, match=rf"^{web.url}/{manner}/a: {message}") as caught:
        storage.read_range(f"{web.url}/{manner}/a?signature=secret", 5, 10)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_server_that_is_gone_is_an_error_without_the_query() -> None:
    with pytest.raises(StorageError, match=r"cannot read: .*tried 6 times") as caught:
        storage.read_range(f"http://127.0.0.1:{free_port()}/a?signature=secret", 0, 1)
    assert "secret" not in str(caught.value)


def test_server_that_sends_a_byte_now_and_then_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_files, "REQUEST_LIMIT_S", 0.3)
    monkeypatch.setattr(web_files, "MAX_ATTEMPTS", 2)
    stop = threading.Event()

    def trickle(server: socket.socket) -> None:
        while not stop.is_set():
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99999/100000\r\n")
                connection.sendall(b"Content-Length: 100000\r\n\r\n")
                end = time.monotonic() + 1
                while time.monotonic() < end:
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        break
                    time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=(server,), daemon=True)
        thread.start()
        with pytest.raises(StorageError, match=r"of 100000 bytes in 0 s \(tried 2 times\)"):
            storage.read_range(f"http://127.0.0.1:{server.getsockname()[1]}/a", 0, 100_000)
        stop.set()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://a.example/x", "http://a.example/x: expected https://"),
        ("https://me:secret@a.example/x", "a URL with a user name in it"),
    ],
)
def test_address_in_the_clear_or_with_a_password_is_refused(uri: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        storage.stat(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["https://a.example/runs", "hf://datasets/owner/name/runs"])
def test_web_cannot_be_written(uri: str) -> None:
    with pytest.raises(StorageError, match=r"can only be read; expected a local path or s3://bucket/key$"):
        storage.check_writable(uri)


def test_glob_on_a_web_server_says_what_to_do_instead() -> None:
    with pytest.raises(StorageError, match=r"has no listing; name its files, or a \.paths file of them"):
        storage.glob("https://a.example/*.warc.gz")


@pytest.mark.parametrize("root_kind", ["local", pytest.param("s3", marks=pytest.mark.slow)])
def test_range_of_a_disk_and_of_s3(root_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    base = str(tmp_path) if root_kind == "local" else request.getfixturevalue("s3_bucket")
    storage.write_bytes(f"{base}/a", DATA)
    for start, end in [(0, 1), (7, 100_007), (len(DATA) - 5, len(DATA) + 5), (len(DATA) + 3, len(DATA) + 9), (9, 9)]:
        assert storage.read_range(f"{base}/a", start, end) == DATA[start:end]
    with pytest.raises(FileNotFoundError):
        storage.read_range(f"{base}/absent", 0, 1)
