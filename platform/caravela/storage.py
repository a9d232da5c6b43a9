"""Files on a local disk, in S3, on web servers and on the Hugging Face Hub, addressed by URI strings.

In: a URI: a local path (``runs/demo``) or ``s3://bucket/key``, to read and write; ``https://`` (``caravela.web``) and
``hf://datasets/...`` (``caravela.hub``), to read. Credentials and endpoint of S3 come from the standard AWS environment
variables and files (``AWS_ENDPOINT_URL``, ``AWS_PROFILE`` ...).
Out: bytes, file objects, sorted lists of URIs. The only module that knows fsspec.

Decisions, with their price:

* A path is a ``str``: ``pathlib`` eats the second slash of a URI.
* An object appears whole or not at all. Local: temporary name in the same folder, fsync, ``os.replace``. S3: one PUT
  (multipart above 50 MB). So whatever is written is built first, in memory or on local disk.
* Every remote call has a connect and a read time-out and a bounded number of retries with backoff (botocore's
  ``standard`` mode), so that an endpoint that is gone is one clear error within half a minute, and one that takes
  connections and never answers within a quarter of an hour, not a hang.
"""

import contextlib
import functools
import glob as local_glob
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import fsspec
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.exceptions import FSTimeoutError
from fsspec.utils import glob_translate

from caravela import hub, web
from caravela.errors import UserError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
MAX_ATTEMPTS = 5
# s3fs tries again on its own, above botocore: its default of 5 makes 25 attempts of a minute each on a dead server.
MAX_ROUNDS = 3
MAX_STALLS = 3
COPY_BLOCK_BYTES = 1 << 20
READ_AHEAD_BYTES = 8 << 20
READ_ONLY = ("https", "http", "hf")
SCHEMES = ("s3", *READ_ONLY)


class StorageError(UserError):
    """A storage call that failed for good: which URI, which call, why."""

    may_pass = False
    """Whether the same call may do later: a server was away or overloaded (``caravela.outage``)."""


def is_remote(uri: str) -> bool:
    return _scheme(uri) in SCHEMES


def _scheme(uri: str) -> str:
    return uri.partition("://")[0] if "://" in uri else "file"


def _is_web(uri: str) -> bool:
    return _scheme(uri) in READ_ONLY


def shown(uri: str) -> str:
    """A URI as it may stand in messages and manifests: without the query of a web address, which may be a signature."""
    return web.shown(uri) if _scheme(uri) in ("https", "http") else uri


def join(base: str, *parts: str) -> str:
    """Joins with single slashes and leaves the scheme alone: ``join("s3://b/", "a", "c") == "s3://b/a/c"``."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(uri: str) -> str:
    """A URI that means the same in every process: workers have another working directory than the driver."""
    return uri if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def name_of(uri: str) -> str:
    """The last component: ``name_of("s3://b/a/c.parquet") == "c.parquet"``."""
    return shown(uri).rstrip("/").rsplit("/", 1)[-1]


@functools.cache
def _filesystem(scheme: str, process_id: int) -> fsspec.AbstractFileSystem:
    """One file system per scheme and process: an S3 client must not cross a fork."""
    if scheme == "s3":
        remote = fsspec.filesystem(
            "s3",
            use_listings_cache=False,
            skip_instance_cache=True,
            default_block_size=READ_AHEAD_BYTES,
            config_kwargs={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "retries": {"total_max_attempts": MAX_ATTEMPTS, "mode": "standard"},
            },
        )
        remote.retries = MAX_ROUNDS
        return remote
    return fsspec.filesystem("file")


def _split(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    scheme = _scheme(uri)
    if scheme == "s3":
        return _filesystem("s3", os.getpid()), uri
    if scheme in READ_ONLY:
        raise StorageError(f"{shown(uri)}: {scheme}:// can only be read; expected a local path or s3://bucket/key")
    if scheme != "file":
        raise StorageError(
            f"{uri}: unknown scheme; expected a local path, s3://bucket/key, https://host/path or hf://datasets/..."
        )
    return _filesystem("file", os.getpid()), os.path.abspath(os.path.expanduser(uri))


@contextlib.contextmanager
def _translated(uri: str, call: str, writes: bool = False) -> Iterator[None]:
    """Turns the many exceptions of the storage libraries into one line.

    What a read misses is FileNotFoundError; what a write misses is its bucket, and no write can do without.
    """
    try:
        yield
    except (OSError, BotoCoreError, ClientError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not writes:
            raise FileNotFoundError(*error.args) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        failed = StorageError(f"{shown(uri)}: cannot {call}: {reason}")
        failed.may_pass = is_remote(uri) and not isinstance(error, PermissionError | FileNotFoundError)
        raise failed from error


def exists(uri: str) -> bool:
    if _is_web(uri):
        try:
            stat(uri)
        except FileNotFoundError:
            return False
        return True
    fs, path = _split(uri)
    with _translated(uri, "look up"):
        return bool(fs.exists(path))


def stat(uri: str) -> dict[str, Any]:
    """Size in bytes, and what changes when the content does: ETag (S3, web), content hash (Hub), time (disk)."""
    if _is_web(uri):
        with _translated(uri, "look up"):
            found = hub.stat(uri) if _scheme(uri) == "hf" else web.stat(uri)
        return {"size": found.size, "version": found.version}
    fs, path = _split(uri)
    with _translated(uri, "look up"):
        info = fs.info(path)
    version = str(info["ETag"]).strip('"') if is_remote(uri) else str(os.stat(path).st_mtime_ns)
    return {"size": int(info["size"]), "version": version}


def open_read(uri: str, block_bytes: int = READ_AHEAD_BYTES) -> IO[bytes]:
    """A seekable binary reader; what is not local is read ahead in blocks, so memory stays bounded.

    Small blocks suit who reads columns out of a large Parquet file and wants no more of it.
    """
    if is_remote(uri):
        return io.BufferedReader(_RemoteReader(uri, stat(uri)["size"]), block_bytes)
    fs, path = _split(uri)
    with _translated(uri, "open"):
        reader: IO[bytes] = fs.open(path, "rb")
    return reader


class _RemoteReader(io.RawIOBase):
    """A file that is not local: each read is one request for a range, and fails as ``read_range`` does.

    fsspec's own files raise whatever the library below them raises, and have no ``readline`` with a limit.
    """

    def __init__(self, uri: str, size: int) -> None:
        self._uri, self._size, self._at = uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = read_range(self._uri, self._at, min(self._size, self._at + len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """All that is left, block by block; the base class would ask for 8 KiB at a time."""
        blocks = []
        while self._at < self._size:
            blocks.append(read_range(self._uri, self._at, min(self._size, self._at + READ_AHEAD_BYTES)))
            self._at += len(blocks[-1])
            if not blocks[-1]:
                break  # the file has become shorter
        return b"".join(blocks)


def read_range(uri: str, start: int, end: int, patience_s: float | None = None) -> bytes:
    """The bytes from ``start`` up to, not including, ``end``, and no others; fewer only where the file ends.

    With ``patience_s`` an S3 server that takes longer is asked anew, each time with twice the patience: of many small
    reads one that stalls must not hold up the rest for ``READ_TIMEOUT_S``.
    """
    if end <= start:
        return b""
    with _translated(uri, "read"):
        if _is_web(uri):
            if _scheme(uri) == "hf":
                return web.read_range(hub.parse(uri).url, start, end, hub.headers())
            return web.read_range(uri, start, end)
        fs, path = _split(uri)
        if _scheme(uri) == "file":
            with open(path, "rb") as file:
                file.seek(start)
                return file.read(end - start)
        try:
            return _patient_read(fs, path, start, end, patience_s)
        except OSError as error:
            if "range" in str(error).lower() and start >= fs.info(path)["size"]:
                return b""
            raise


def _patient_read(fs: fsspec.AbstractFileSystem, path: str, start: int, end: int, patience_s: float | None) -> bytes:
    if patience_s is not None:
        for attempt in range(MAX_STALLS):
            with contextlib.suppress(FSTimeoutError):
                return bytes(fs.cat_file(path, start=start, end=end, timeout=patience_s * 2**attempt))
    return bytes(fs.cat_file(path, start=start, end=end))


def read_bytes(uri: str) -> bytes:
    if _is_web(uri):
        with open_read(uri) as stream:
            return stream.read()
    fs, path = _split(uri)
    with _translated(uri, "read"):
        return bytes(fs.cat_file(path))


def read_text(uri: str) -> str:
    return read_bytes(uri).decode("utf-8")


def write_bytes(uri: str, data: bytes) -> None:
    """Puts one whole object in place, replacing what was there."""
    fs, path = _split(uri)
    with _translated(uri, "write", writes=True):
        if is_remote(uri):
            fs.pipe_file(path, data)
        else:
            with _replacing(path) as file:
                file.write(data)


def write_text(uri: str, text: str) -> None:
    write_bytes(uri, text.encode("utf-8"))


def publish(local_path: str, uri: str) -> None:
    """Copies a finished local file to its place in one step."""
    fs, path = _split(uri)
    with _translated(uri, "write", writes=True):
        if is_remote(uri):
            fs.put_file(local_path, path)
        else:
            with open(local_path, "rb") as source, _replacing(path) as file:
                shutil.copyfileobj(source, file, COPY_BLOCK_BYTES)


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[IO[bytes]]:
    """A file that takes its place whole when the block ends, and leaves nothing behind when the block fails."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def fetch(uri: str, local_path: str) -> None:
    """Copies an object to a local file (the folder must exist)."""
    if _is_web(uri):
        with open_read(uri) as stream, open(local_path, "wb") as file:
            shutil.copyfileobj(stream, file, READ_AHEAD_BYTES)
        return
    fs, path = _split(uri)
    with _translated(uri, "read"):
        fs.get_file(path, local_path)


def list_files(prefix: str) -> list[str]:
    """Every file below a folder, as sorted URIs; an absent folder is empty. Unfinished local writes are left out."""
    fs, path = _split(prefix)
    with _translated(prefix, "list"):
        if is_remote(prefix):
            found = [f"s3://{name}" for name in fs.find(path)]
        else:
            base = prefix.rstrip("/")
            found = [base + name[len(path) :] for name in fs.find(path) if not name_of(name).startswith(".writing-")]
    return sorted(found)


def glob(pattern: str) -> list[str]:
    """The files that a pattern names (``*``, ``?``, ``[ab]``, ``**``), sorted; a plain URI is itself if it is one.

    A web server has no listing, and ``?`` in its addresses begins a query; so only a plain one can be asked for.
    """
    if _is_web(pattern):
        return _web_glob(pattern)
    fs, path = _split(pattern)
    with _translated(pattern, "list"):
        if not any(mark in pattern for mark in "*?["):
            return [pattern] if fs.exists(path) and fs.info(path)["type"] == "file" else []
        if is_remote(pattern):
            entries = fs.glob(path, detail=True).items()
            return sorted(f"s3://{name}" for name, entry in entries if entry["type"] == "file")
        return sorted(p for p in local_glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(p))


def _web_glob(pattern: str) -> list[str]:
    if _scheme(pattern) != "hf":
        if any(mark in shown(pattern) for mark in "*["):
            raise StorageError(
                f"{shown(pattern)}: a web server has no listing; name its files, or a .paths file of them"
            )
        return [pattern] if exists(pattern) else []
    with _translated(pattern, "list"):
        where = hub.parse(pattern)
        fixed = re.split(r"[*?\[]", where.path, maxsplit=1)[0]
        if fixed == where.path:
            return [pattern] if exists(pattern) else []
        matches = re.compile(glob_translate(where.path)).match
        return [uri for uri in hub.find(pattern, fixed.rpartition("/")[0]) if matches(uri[len(where.prefix) :])]


def delete_tree(prefix: str) -> None:
    """Removes a folder and all below it; an absent one is fine."""
    fs, path = _split(prefix)
    with _translated(prefix, "delete"):
        if fs.exists(path):
            fs.rm(path, recursive=True)


def check_writable(root: str) -> None:
    """Writes and removes a probe object, so that a read-only root is known before any work is done.

    Raises:
        StorageError: naming the root and the reason.
    """
    probe = join(root, f".probe-{os.getpid()}")
    fs, path = _split(probe)
    with _translated(root, "write to this root", writes=True):
        if is_remote(root):
            fs.pipe_file(path, b"")
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb"):
                pass
        fs.rm_file(path)


def sha256_of(local_path: str) -> str:
    """Hexadecimal SHA-256 of a local file, read in blocks."""
    digest = hashlib.sha256()
    with open(local_path, "rb") as file:
        while block := file.read(COPY_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
