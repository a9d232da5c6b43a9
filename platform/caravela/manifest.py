"""What a finished stage says of itself: shard records, then the manifest, and the run's index of stages.

On storage, below ``{root}/{stage}/{fingerprint}/``:

* ``part-00000.parquet`` ... and ``<table>/part-00000.parquet`` ...: the shards.
* ``_records/00000.json``: one record a shard, written after the shard's files. Resume reads these.
* ``manifest.json``: written last. A directory without it does not exist for readers.

``{root}/run.json`` maps each stage to its latest finished directory.
"""

import dataclasses
import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from caravela import storage
from caravela.config import build
from caravela.errors import UserError

MANIFEST = "manifest.json"
RECORDS = "_records"
RUN_INDEX = "run.json"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of a shard."""

    table: str
    """Which table it is a part of: ``documents``, ``removed``, ``packed`` ... or ``files`` for anything else."""
    path: str
    """Relative to the stage's directory."""
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What one shard brought."""

    index: int
    name: str
    files: tuple[FileRecord, ...]
    counters: dict[str, int]
    """Sums over the shard: documents and bytes in, kept, and removed per reason."""
    seconds: float
    peak_memory_bytes: int
    """Largest resident size of the process that did the work, which may have done others before."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a stage was made from."""

    name: str
    fingerprint: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished stage. Equal config and inputs give equal ``fingerprint`` and equal files."""

    stage: str
    version: int
    fingerprint: str
    config: dict[str, Any]
    inputs: tuple[Input, ...]
    shards: tuple[ShardRecord, ...]
    counters: dict[str, int]
    summary: dict[str, Any] = field(default_factory=dict)
    """What the stage found out over all shards: figures for the report."""
    versions: dict[str, str]
    started: str
    """UTC, ISO 8601."""
    seconds: float
    """Wall time of the run that wrote this manifest; shards resumed from before are not in it."""
    uri: str
    """Where it was read from; not written."""

    def files(self, table: str) -> list[FileRecord]:
        """The parts of a table in shard order."""
        return [file for shard in self.shards for file in shard.files if file.table == table]

    def uris(self, table: str) -> list[str]:
        return [storage.join(self.uri, file.path) for file in self.files(table)]

    def rows(self, table: str) -> int:
        return sum(file.rows for file in self.files(table))


def read(directory: str) -> Manifest | None:
    """The manifest of a stage directory, or None where there is none yet."""
    uri = storage.join(directory, MANIFEST)
    try:
        table = _read_json(uri)
    except FileNotFoundError:
        return None
    return build(Manifest, {**table, "uri": directory}, uri)


def latest(root: str, stage: str) -> Manifest | None:
    """The latest finished directory of a stage of a run, None where there is none; a run may be moved as a whole."""
    base = storage.absolute(root)
    relative = read_run_index(base).get(stage)
    return read(storage.join(base, relative)) if relative else None


def write(manifest: Manifest) -> None:
    table = dataclasses.asdict(manifest)
    del table["uri"]
    storage.write_text(storage.join(manifest.uri, MANIFEST), json.dumps(table, ensure_ascii=False, indent=1))


def record_uri(directory: str, index: int) -> str:
    return storage.join(directory, RECORDS, f"{index:05d}.json")


def read_records(directory: str) -> dict[int, ShardRecord]:
    """The records of the shards that are finished, by index."""
    found = {}
    for uri in storage.list_files(storage.join(directory, RECORDS)):
        record = build(ShardRecord, _read_json(uri), uri)
        found[record.index] = record
    return found


def write_record(directory: str, record: ShardRecord) -> None:
    text = json.dumps(dataclasses.asdict(record), ensure_ascii=False)
    storage.write_text(record_uri(directory, record.index), text)


def sum_counters(records: Iterable[ShardRecord]) -> dict[str, int]:
    """Counters over shards, keys sorted. Sums run in shard order, so that they do not depend on who finished first."""
    total: dict[str, int] = {}
    for record in sorted(records, key=lambda r: r.index):
        for key, value in record.counters.items():
            total[key] = total.get(key, 0) + value
    return dict(sorted(total.items()))


def check_conservation(counters: Mapping[str, int], where: str) -> None:
    """In = kept + removed, wherever a stage counts documents.

    Raises:
        AssertionError: a document was lost or doubled; a bug of ours, never the user's.
    """
    if "documents_in" not in counters:
        return
    gone = sum(value for key, value in counters.items() if key.startswith("removed."))
    assert counters["documents_in"] == counters["documents_kept"] + gone, (
        f"{where}: {counters['documents_in']} documents in, but {counters['documents_kept']} kept + {gone} removed"
    )


def verify(manifest: Manifest) -> None:
    """Reads the footer of every Parquet part and compares rows with the manifest.

    Raises:
        UserError: naming the file that is missing or differs.
    """
    for record in (file for shard in manifest.shards for file in shard.files):
        uri = storage.join(manifest.uri, record.path)
        try:
            size = storage.stat(uri)["size"]
        except FileNotFoundError:
            raise UserError(f"{uri}: named in the manifest of {manifest.stage}, but missing") from None
        if size != record.bytes:
            raise UserError(f"{uri}: {size} bytes, but the manifest of {manifest.stage} says {record.bytes}")
        if posixpath.splitext(uri)[1] == ".parquet":
            with storage.open_read(uri) as file:
                rows = pq.ParquetFile(file).metadata.num_rows
            if rows != record.rows:
                raise UserError(f"{uri}: {rows} rows, but the manifest of {manifest.stage} says {record.rows}")


def update_run_index(root: str, stage: str, directory: str) -> None:
    """Points ``run.json`` at a stage's finished directory, written relative to the root so that a run can be moved."""
    uri = storage.join(root, RUN_INDEX)
    index = read_run_index(root)
    relative = directory.removeprefix(root.rstrip("/") + "/")
    if index.get(stage) != relative:
        storage.write_text(uri, json.dumps({**index, stage: relative}, indent=1, sort_keys=True))


def read_run_index(root: str) -> dict[str, str]:
    """Stage name → its latest finished directory, relative to the root; empty for a new root."""
    try:
        return _read_json(storage.join(root, RUN_INDEX))
    except FileNotFoundError:
        return {}


def _read_json(uri: str) -> dict[str, Any]:
    text = storage.read_text(uri)
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{uri}: not valid JSON: {error}; remove it, and what it spoke for is made again") from error
    if not isinstance(table, dict):
        raise UserError(f"{uri}: holds a {type(table).__name__}, not an object")
    return table
