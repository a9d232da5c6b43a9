"""Storage on local disk and on a real S3 server: the same calls, the same results, whole objects or none."""

import hashlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from caravela import storage
from caravela.storage import StorageError, join
from tests.conftest import free_port

BIG = 20 << 20  # more than one read-ahead block of S3


@pytest.mark.parametrize(
    ("base", "parts", "joined"),
    [
        ("s3://bucket/", ("a", "c.parquet"), "s3://bucket/a/c.parquet"),
        ("s3://bucket/run", ("/a/", "b/c"), "s3://bucket/run/a/b/c"),
        ("runs/demo", ("pack",), "runs/demo/pack"),
        ("/data/", ("x",), "/data/x"),
        ("runs", (), "runs"),
    ],
)
def test_join_keeps_scheme_and_single_slashes(base: str, parts: tuple[str, ...], joined: str) -> None:
    assert join(base, *parts) == joined


@pytest.mark.parametrize("uri", ["s3://b/a/c.parquet", "a/c.parquet/", "c.parquet"])
def test_name_of_is_the_last_component(uri: str) -> None:
    assert storage.name_of(uri) == "c.parquet"


def test_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(StorageError, match=r"^gs://bucket/x: unknown scheme; expected a local path, s3://bucket/key, "):
        storage.exists("gs://bucket/x")


def test_write_then_read_gives_the_same_bytes_and_replaces(root: str) -> None:
    uri = join(root, "a", "b.bin")
    for data in (b"first", b"", os.urandom(100_000)):
        storage.write_bytes(uri, data)
        assert storage.read_bytes(uri) == data
        assert storage.stat(uri)["size"] == len(data)


def test_text_is_utf8(root: str) -> None:
    uri = join(root, "ção.txt")
    storage.write_text(uri, "à\u2028né")
    assert storage.read_bytes(uri) == "à\u2028né".encode()
    assert storage.read_text(uri) == "à\u2028né"
    assert storage.list_files(root) == [uri]


def test_stat_version_changes_with_the_content_and_only_then(root: str) -> None:
    uri = join(root, "a")
    storage.write_bytes(uri, b"one")
    first = storage.stat(uri)
    assert storage.stat(uri) == first
    storage.write_bytes(uri, b"two")
    assert storage.stat(uri)["version"] != first["version"]


def test_publish_and_fetch_carry_a_file_of_many_blocks(root: str, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(BIG))
    storage.publish(str(source), join(root, "deep", "er", "big.bin"))
    storage.fetch(join(root, "deep", "er", "big.bin"), str(copy))
    assert storage.sha256_of(str(copy)) == hashlib.sha256(source.read_bytes()).hexdigest()


def test_open_read_seeks_anywhere(root: str) -> None:
    data = os.urandom(BIG)
    storage.write_bytes(join(root, "big"), data)
    with storage.open_read(join(root, "big")) as file:
        for start, size in [(BIG - 5, 10), (0, 3), (9 << 20, 7), (BIG, 1), (17 << 20, 2 << 20)]:
            file.seek(start)
            assert file.read(size) == data[start : start + size]


@pytest.mark.parametrize("call", ["read_bytes", "read_text", "open_read", "stat"])
def test_read_of_a_missing_object_is_file_not_found(root: str, call: str) -> None:
    with pytest.raises(FileNotFoundError):
        getattr(storage, call)(join(root, "absent"))


def test_exists(root: str) -> None:
    storage.write_bytes(join(root, "a", "b"), b"x")
    assert storage.exists(join(root, "a", "b"))
    assert not storage.exists(join(root, "a", "c"))


def test_list_files_is_sorted_deep_and_ends_at_the_folder(root: str) -> None:
    names = ["run/b", "run/a/2", "run/a/10", "run/é", "run2/x", "runx"]
    for name in names:
        storage.write_bytes(join(root, name), b"x")
    assert storage.list_files(join(root, "run")) == [join(root, n) for n in ("run/a/10", "run/a/2", "run/b", "run/é")]
    assert storage.list_files(join(root, "run") + "/") == storage.list_files(join(root, "run"))
    assert storage.list_files(join(root, "absent")) == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.warc.gz", ["1.warc.gz", "2.warc.gz"]),
        ("?.warc.gz", ["1.warc.gz", "2.warc.gz"]),
        ("[2-9].warc.gz", ["2.warc.gz"]),
        ("*", ["1.warc.gz", "2.warc.gz", "notes.txt"]),
        ("**/*.warc.gz", ["1.warc.gz", "2.warc.gz", "deep/3.warc.gz"]),
        ("deep/*", ["deep/3.warc.gz"]),
        ("notes.txt", ["notes.txt"]),
        ("absent.txt", []),
        ("absent/*", []),
        ("deep", []),
    ],
)
def test_glob_names_files_and_no_folders(root: str, pattern: str, found: list[str]) -> None:
    for name in ("1.warc.gz", "2.warc.gz", "notes.txt", "deep/3.warc.gz"):
        storage.write_bytes(join(root, name), b"x")
    assert storage.glob(join(root, pattern)) == [join(root, name) for name in found]


def test_delete_tree_takes_the_folder_and_no_neighbour(root: str) -> None:
    for name in ("run/a", "run/b/c", "run2/d"):
        storage.write_bytes(join(root, name), b"x")
    storage.delete_tree(join(root, "run"))
    storage.delete_tree(join(root, "run"))
    assert storage.list_files(root) == [join(root, "run2/d")]


def test_check_writable_leaves_nothing(root: str) -> None:
    storage.check_writable(join(root, "new"))
    assert storage.list_files(root) == []


@pytest.fixture
def blocked(tmp_path: Path) -> Iterator[str]:
    """A local root that cannot be written, not even by the superuser: below a file."""
    (tmp_path / "file").write_bytes(b"")
    yield str(tmp_path / "file" / "root")
    assert (tmp_path / "file").read_bytes() == b""


def test_unwritable_local_root_is_one_line_that_names_it(blocked: str) -> None:
    with pytest.raises(StorageError) as caught:
        storage.check_writable(blocked)
    assert str(caught.value).startswith(f"{blocked}: cannot write to this root: ")
    with pytest.raises(StorageError, match="cannot write: "):
        storage.write_bytes(join(blocked, "a"), b"x")


@pytest.mark.slow
@pytest.mark.parametrize("call", ["check_writable", "write_bytes", "publish"])
def test_write_to_a_missing_bucket_is_one_line_that_names_it(s3_server: str, tmp_path: Path, call: str) -> None:
    (tmp_path / "x").write_bytes(b"x")
    uri = "s3://no-such-bucket/x"
    arguments = {"check_writable": (uri,), "write_bytes": (uri, b"x"), "publish": (str(tmp_path / "x"), uri)}[call]
    with pytest.raises(StorageError, match=r"^s3://no-such-bucket/x: cannot write.*bucket") as caught:
        getattr(storage, call)(*arguments)
    assert "\n" not in str(caught.value)


def test_write_that_fails_leaves_the_old_object_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.mkdir()  # os.replace cannot put a file in a folder's place
    (target / "kept").write_bytes(b"old")
    with pytest.raises(StorageError):
        storage.write_bytes(str(target), b"new")
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(target) == ["kept"]


def test_write_replaces_in_one_step_while_others_read(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    versions = [bytes([value]) * (1 << 20) for value in range(2)]
    storage.write_bytes(uri, versions[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for data in versions:
                storage.write_bytes(uri, data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            assert storage.read_bytes(uri) in versions
    finally:
        stop.set()
        writer.join()


def test_written_file_is_readable_by_others(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "a"), b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_writer_killed_midway_leaves_nothing_that_a_reader_sees(tmp_path: Path) -> None:
    (tmp_path / ".writing-abc").write_bytes(b"half")  # what SIGKILL leaves
    storage.write_bytes(str(tmp_path / "a"), b"x")
    assert storage.list_files(str(tmp_path)) == [str(tmp_path / "a")]
    assert storage.glob(str(tmp_path / "*")) == [str(tmp_path / "a")]


def test_relative_and_home_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    storage.write_bytes("runs/a", b"x")
    storage.write_bytes("~/b", b"y")
    assert storage.list_files("runs") == ["runs/a"]
    assert storage.glob("runs/*") == ["runs/a"]
    assert (tmp_path / "home" / "b").read_bytes() == b"y"


@pytest.mark.slow
def test_s3_object_is_what_boto3_sees(s3_bucket: str) -> None:
    storage.write_bytes(f"{s3_bucket}/a/b", b"through storage")
    bucket = boto3.resource("s3").Bucket(storage.name_of(s3_bucket))
    assert [(entry.key, entry.size) for entry in bucket.objects.all()] == [("a/b", 15)]
    bucket.put_object(Key="a/c", Body=b"through boto3")
    assert storage.list_files(f"{s3_bucket}/a") == [f"{s3_bucket}/a/b", f"{s3_bucket}/a/c"]
    assert storage.read_bytes(f"{s3_bucket}/a/c") == b"through boto3"


@pytest.mark.slow
def test_s3_works_in_a_forked_child_of_a_process_that_used_it(s3_bucket: str) -> None:
    storage.write_bytes(f"{s3_bucket}/a", b"x")
    child = os.fork()
    if child == 0:
        os._exit(0 if storage.read_bytes(f"{s3_bucket}/a") == b"x" else 1)
    assert os.waitpid(child, 0)[1] == 0


def failing_read(port: int, *, settings: str = "") -> tuple[str, float]:
    """What a process of its own says, and how long it takes, when it reads from an S3 server that is no help."""
    code = f"from caravela import storage\n{settings}\nstorage.read_bytes('s3://bucket/key')"
    places = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **places}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1], time.monotonic() - start


@pytest.mark.slow
def test_s3_endpoint_that_is_gone_is_one_clear_error_within_half_a_minute() -> None:
    port = free_port()
    message, seconds = failing_read(port)
    assert message.startswith("caravela.storage.StorageError: s3://bucket/key: cannot read: ")
    assert f"127.0.0.1:{port}" in message
    assert seconds < 40  # of which several are for starting Python on a busy machine


@pytest.mark.slow
def test_s3_endpoint_that_never_answers_is_given_up_after_a_bounded_number_of_attempts() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        settings = "storage.READ_TIMEOUT_S, storage.MAX_ATTEMPTS = 0.2, 2"
        message, seconds = failing_read(server.getsockname()[1], settings=settings)
        server.setblocking(False)
        attempts = 0
        while True:
            try:
                server.accept()[0].close()
            except BlockingIOError:
                break
            attempts += 1
    assert message.startswith("caravela.storage.StorageError: s3://bucket/key: cannot read: ")
    assert attempts == 2 * storage.MAX_ROUNDS
    assert seconds < 60
