"""Stages: what is made from what, where it lands, and the map over shards that makes it.

A stage is a name, a version, a config and inputs; these four give its fingerprint and so its directory. Running it
plans shards, leaves out those whose record is there, maps the rest over Ray Data (a row is a shard descriptor, the
map reads, works, writes and commits its shard, and gives back the record) and writes the manifest.

Promises: a rerun of finished work does nothing; a run that was killed anywhere ends with the same bytes as one that
was not, because a shard's files are a pure function of its descriptor and are written under names that depend on its
index alone. Price: the grain of parallel work and of what is lost with a killed worker is the shard.
"""

import datetime
import functools
import importlib.metadata
import json
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from caravela import cluster, manifest, storage
from caravela.config import build, fingerprint
from caravela.errors import UserError
from caravela.manifest import FileRecord, Input, Manifest, ShardRecord
from caravela.progress import Poster, StageProgress

ROW_GROUP_BYTES = 16 << 20
VERSIONED = (
    "caravela",
    "ray",
    "pyarrow",
    "numpy",
    "datatrove",
    "trafilatura",
    "spacy",
    "sentencepiece",
    "torch",
    "deepspeed",
)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The unit of work and of resume: its place in the order, a name for people, and what the work needs to know."""

    index: int
    name: str
    spec: Mapping[str, Any]
    """Plain JSON types."""


class Worker(Protocol):
    """Does one shard: writes tables and files to ``out`` and returns its counters."""

    def __call__(self, shard: Shard, out: "ShardOutput") -> Mapping[str, int]: ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a road. The same name, version, config and inputs give the same directory and the same bytes."""

    name: str
    version: int
    """Raised when the code changes the output for an unchanged config."""
    root: str
    config: Mapping[str, Any]
    """Everything that the output depends on, and nothing else; plain JSON types."""
    inputs: tuple[Input, ...]
    plan: Callable[[], Sequence[Shard]]
    """The shards, in order. Called only when the inputs are finished."""
    make_worker: Callable[[], Worker]
    """Picklable; called where the work is done, once per actor or per task."""
    actors: bool = False
    """Whether workers are costly to make (a model is loaded) and so are kept in a pool of actors."""
    num_cpus: float = 1
    memory_bytes: int | None = None
    """Asked of Ray per worker, so that a node is not given more workers than it can hold."""
    finish: Callable[[Sequence[ShardRecord], str], Mapping[str, Any]] = field(default=lambda records, uri: {})
    """Given all records and the directory: the manifest's ``summary``. May refuse with UserError."""
    execute: "Callable[[Stage, Sequence[Shard], StageProgress], Iterable[ShardRecord]] | None" = None
    """How shards are run, where not as a map over Ray Data."""
    shortcut: "Callable[[Stage], Stage] | None" = None
    """Asked when there is work to do: may give the stage another plan and worker, which make the same files at less
    cost."""
    in_driver: bool = False
    """Whether the driver itself does the work, without Ray: for what is small and waits for all else."""

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.name, self.version, self.config, [i.fingerprint for i in self.inputs]])

    @property
    def uri(self) -> str:
        return storage.join(self.root, self.name, self.fingerprint)

    def as_input(self) -> Input:
        return Input(name=self.name, fingerprint=self.fingerprint, uri=self.uri)

    def manifest(self) -> Manifest | None:
        return manifest.read(self.uri)


def finished(source: Input) -> Manifest:
    """The manifest of an input stage.

    Raises:
        UserError: the stage has not been run, with the command that runs it.
    """
    found = manifest.read(source.uri)
    if found is None:
        raise UserError(f"{source.uri}: stage {source.name} is not finished; run it first (jobs/pipeline.py runs all)")
    return found


def run(stage: Stage, cluster_config: cluster.ClusterConfig) -> Manifest:
    """Brings a stage to its finished state and returns its manifest; finished already, it only looks."""
    if (found := stage.manifest()) is not None:
        manifest.update_run_index(stage.root, stage.name, stage.uri)
        return found
    storage.check_writable(stage.root)
    started, clock = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), time.monotonic()
    if stage.shortcut is not None:
        stage = stage.shortcut(stage)
    shards = stage.plan()
    records = manifest.read_records(stage.uri)
    todo = [shard for shard in shards if shard.index not in records]
    if todo:
        if not stage.in_driver:
            cluster.connect(cluster_config)
        execute = stage.execute or (run_in_driver if stage.in_driver else map_shards)
        with StageProgress(stage.name, total=len(shards), done=len(records), on_ray=not stage.in_driver) as progress:
            for record in execute(stage, todo, progress):
                records[record.index] = record
                progress.advance()
    ordered = [records[shard.index] for shard in shards]
    counters = manifest.sum_counters(ordered)
    manifest.check_conservation(counters, f"stage {stage.name}")
    done = Manifest(
        stage=stage.name,
        version=stage.version,
        fingerprint=stage.fingerprint,
        config=dict(stage.config),
        inputs=stage.inputs,
        shards=tuple(ordered),
        counters=counters,
        summary=dict(stage.finish(ordered, stage.uri)),
        versions=library_versions(),
        started=started,
        seconds=round(time.monotonic() - clock, 3),
        uri=stage.uri,
    )
    manifest.write(done)
    manifest.update_run_index(stage.root, stage.name, stage.uri)
    return done


def map_shards(stage: Stage, shards: Sequence[Shard], progress: StageProgress) -> Iterable[ShardRecord]:
    """Runs shards as rows of a Ray Dataset and yields their records in the order they finish."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"index": s.index, "name": s.name, "spec": json.dumps(s.spec)} for s in shards]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    dataset.set_name(f"{stage.name}-{stage.fingerprint}")
    task = _named(_ShardActor if stage.actors else _shard_task, stage.name)
    arguments = {"make_worker": stage.make_worker, "directory": stage.uri, "board": progress.board}
    if stage.actors:
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=cluster.most_workers(len(rows), stage.num_cpus))
        how: dict[str, Any] = {"fn_constructor_kwargs": arguments, "compute": pool}
    else:
        how = {"fn_kwargs": arguments}
    results = dataset.map(task, num_cpus=stage.num_cpus, memory=stage.memory_bytes, **how)
    for row in results.iter_rows():
        if row["mistake"]:
            raise UserError(row["mistake"])
        yield _parse_record(row["record"])


def run_in_driver(stage: Stage, shards: Sequence[Shard], progress: StageProgress) -> Iterable[ShardRecord]:
    """Runs shards here, one after the other."""
    worker = stage.make_worker()
    for shard in shards:
        row = {"index": shard.index, "name": shard.name, "spec": json.dumps(shard.spec)}
        yield _parse_record(run_shard(row, worker, stage.uri)["record"])


def _named(function: Any, stage: str) -> Any:
    """A copy of a function or class under the stage's name, which is what the Ray dashboard shows for the operator."""
    if isinstance(function, type):
        return type(stage, (function,), {})

    def task(row: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = function(row, **arguments)
        return result

    task.__name__ = task.__qualname__ = stage
    return task


class _ShardActor:
    """Makes its worker when the first shard comes: what goes wrong in an actor's constructor is lost to the driver."""

    def __init__(self, make_worker: Callable[[], Worker], directory: str, board: Any) -> None:
        self.make_worker = functools.cache(make_worker)
        self.directory = directory
        self.board = board

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _shard_task(row, make_worker=self.make_worker, directory=self.directory, board=self.board)


def _shard_task(
    row: dict[str, Any], *, make_worker: Callable[[], Worker], directory: str, board: Any
) -> dict[str, Any]:
    """The record, or the user's mistake, as a row: of an exception Ray hands on the text of its traceback alone."""
    try:
        return {**run_shard(row, make_worker(), directory, board), "mistake": ""}
    except UserError as error:
        return {"record": "", "mistake": str(error)}


def run_shard(row: Mapping[str, Any], worker: Worker, directory: str, board: Any = None) -> dict[str, Any]:
    """Works one shard, commits its files and then its record; what Ray runs, and callable without Ray."""
    clock = time.monotonic()
    shard = Shard(index=int(row["index"]), name=str(row["name"]), spec=json.loads(row["spec"]))
    with tempfile.TemporaryDirectory(prefix="caravela-shard-") as folder:
        out = ShardOutput(shard.index, directory, folder, Poster(board, f"shard-{shard.index}"))
        counters = dict(worker(shard, out))
        manifest.check_conservation(counters, shard.name)
        record = ShardRecord(
            index=shard.index,
            name=shard.name,
            files=tuple(out.commit()),
            counters=counters,
            seconds=round(time.monotonic() - clock, 3),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        )
    manifest.write_record(directory, record)
    return {"record": storage.read_text(manifest.record_uri(directory, shard.index))}


def _parse_record(text: str) -> ShardRecord:
    return build(ShardRecord, json.loads(text), "shard record")


class ShardOutput:
    """Where a worker writes. Files are built in a local folder and put in place whole, when the work is done."""

    def __init__(self, index: int, directory: str, folder: str, progress: Poster) -> None:
        self.index = index
        self.directory = directory
        self.folder = folder
        self.progress = progress
        self._tables: dict[str, TableWriter] = {}
        self._files: list[tuple[str, str, str]] = []
        self._main = ""

    def table(self, name: str, schema: pa.Schema, part: int | None = None) -> "TableWriter":
        """A Parquet part of this shard; the first table named is the stage's main one and lies at its top.

        ``part`` numbers the parts of a stage whose one shard writes many; the shard's own index otherwise.
        """
        self._main = self._main or name
        folder = "" if name == self._main else f"{name}/"
        relative = f"{folder}part-{self.index if part is None else part:05d}.parquet"
        assert relative not in self._tables, f"{relative}: named twice"
        local = os.path.join(self.folder, f"{len(self._tables)}.parquet")
        self._tables[relative] = TableWriter(name, schema, local)
        return self._tables[relative]

    def local_path(self, relative: str, table: str = "files") -> str:
        """A local path to write any other file to; it is published under ``relative`` and listed under ``table``."""
        local = os.path.join(self.folder, "files", relative)
        os.makedirs(os.path.dirname(local), exist_ok=True)
        self._files.append((table, relative, local))
        return local

    def commit(self) -> Iterable[FileRecord]:
        """Closes, checks and publishes every file."""
        for relative, writer in self._tables.items():
            writer.close()
            rows = pq.ParquetFile(writer.path).metadata.num_rows
            assert rows == writer.rows, f"{relative}: wrote {writer.rows} rows, reads back {rows}"
            yield self._publish(writer.table, relative, writer.path, rows)
        for table, relative, local in self._files:
            yield self._publish(table, relative, local, 0)

    def _publish(self, table: str, relative: str, local: str, rows: int) -> FileRecord:
        storage.publish(local, storage.join(self.directory, relative))
        return FileRecord(
            table=table, path=relative, rows=rows, bytes=os.path.getsize(local), sha256=storage.sha256_of(local)
        )


class TableWriter:
    """Rows to one local Parquet file, in row groups of bounded size, so that memory does not grow with the shard."""

    def __init__(self, table: str, schema: pa.Schema, path: str) -> None:
        self.table = table
        self.schema = schema
        self.path = path
        self.rows = 0
        self._columns = frozenset(schema.names)
        self._waiting: list[Mapping[str, Any]] = []
        self._waiting_bytes = 0
        self._gathered: list[pa.RecordBatch] = []
        self._gathered_bytes = 0
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row; keys that the schema lacks are an error, absent ones are null."""
        # pyarrow would drop such a key without a word.
        assert self._columns.issuperset(row), f"{self.table}: no column for {sorted(set(row) - self._columns)}"
        self._waiting.append(row)
        self._waiting_bytes += sum(len(v) if isinstance(v, str | bytes) else 8 for v in row.values())
        self.rows += 1
        if self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def add_batch(self, batch: pa.RecordBatch | pa.Table, row_group_rows: int | None = None) -> None:
        """Adds columns as they are, in row groups of their own."""
        self._flush()
        self._writer.write_table(pa.table(batch).cast(self.schema), row_group_size=row_group_rows)
        self.rows += batch.num_rows

    def add_columns(self, batch: pa.RecordBatch) -> None:
        """Adds rows as columns, gathered to row groups whose borders depend on the rows alone, not on the batches."""
        assert not self._waiting, f"{self.table}: rows came one by one before"
        ends = self._gathered_bytes + np.cumsum(_bytes_of_rows(batch))
        start = 0
        while start < batch.num_rows:
            # The row with which the group is full is its last.
            stop = min(int(np.searchsorted(ends, ROW_GROUP_BYTES)) + 1, batch.num_rows)
            self._gathered.append(batch.slice(start, stop - start))
            self._gathered_bytes = int(ends[stop - 1])
            start = stop
            if self._gathered_bytes >= ROW_GROUP_BYTES:
                ends -= self._gathered_bytes
                self._flush()
        self.rows += batch.num_rows

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self.schema))
            self._waiting, self._waiting_bytes = [], 0
        if self._gathered:
            # In one piece: Parquet's pages end where a piece ends.
            whole = pa.Table.from_batches(self._gathered).cast(self.schema).combine_chunks()
            self._writer.write_table(whole)
            self._gathered, self._gathered_bytes = [], 0


def _bytes_of_rows(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """What each row takes, about."""
    sizes = np.full(batch.num_rows, 8 * batch.num_columns, np.int64)
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            sizes += pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return sizes


def library_versions() -> dict[str, str]:
    """Versions of what shapes the output, for the manifest; libraries that are not installed are left out."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
