"""Checkpoints that any number of workers can read, whatever number wrote them.

On storage, below ``{stage}/checkpoints/step_00000020-<attempt>/``:

* ``rank-00000.safetensors`` ...: what each rank holds of every parameter: pieces of the flattened parameter, float32,
  under ``weight/<name>/<start>``, ``exp_avg/...`` and ``exp_avg_sq/...``.
* ``rank-00000.json`` ...: size, SHA-256 and pieces of that file, written after it.
* ``checkpoint.json``: all of those, the step, Adam's step and the position in the data; written last, by rank 0, when
  every rank's record is there. A directory without it does not exist for readers.

Decisions, with their price:

* Ranks meet on storage and not in a collective, so that all of it runs in a thread beside training. Price: rank 0 asks
  for the others' records every ``POLL_S``.
* A checkpoint that cannot be written is a warning and a count: training goes on, and less is kept if it dies.
* Directories are named for the attempt (one start of the workers), so that what a killed attempt left is never mixed
  with what comes after; it is removed when the next checkpoint is complete.
* numpy and safetensors only: nothing is unpickled, and looking at checkpoints needs no torch.
"""

import dataclasses
import datetime
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from caravela import storage
from caravela.config import build
from caravela.errors import UserError

FOLDER = "checkpoints"
METADATA = "checkpoint.json"
KINDS = ("weight", "exp_avg", "exp_avg_sq")
POLL_S = 0.2
PEERS_TIMEOUT_S = 600.0
CLOSE_PATIENCE_S = 30.0

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Fragment:
    """A contiguous piece of a flattened parameter and its optimizer state; one array for each of ``KINDS``."""

    name: str
    start: int
    arrays: Arrays


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Where a fragment lies: elements ``[start, start + numel)`` of the flattened parameter."""

    name: str
    start: int
    numel: int


@dataclass(frozen=True, kw_only=True)
class RankFile:
    """What one rank wrote."""

    path: str
    bytes: int
    sha256: str
    pieces: tuple[Piece, ...]
    error: str = ""
    """Why there is no file, if the rank could not write it."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training stands, apart from weights and moments. Under 1 KB."""

    step: int
    """Updates made."""
    tokens: int
    """Targets trained on."""
    adam_step: int
    """What Adam's bias correction counts."""
    loader: dict[str, Any]
    """The next batch, and of what data and order."""
    fingerprint: str
    """Of the pretrain stage."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint, as its metadata tells it."""

    progress: Progress
    attempt: str
    num_ranks: int
    files: tuple[RankFile, ...]
    created: str
    """UTC, ISO 8601."""
    uri: str
    """Where it was read from; not written."""


def directory(stage_uri: str, step: int, attempt: str) -> str:
    return storage.join(stage_uri, FOLDER, f"step_{step:08d}-{attempt}")


def read(uri: str) -> Checkpoint:
    """The metadata of a complete checkpoint."""
    where = storage.join(uri, METADATA)
    return build(Checkpoint, {**json.loads(storage.read_text(where)), "uri": uri}, where)


def latest(stage_uri: str) -> Checkpoint | None:
    """The newest complete checkpoint whose files are there in their full size."""
    for uri in reversed(_directories(stage_uri, complete=True)):
        found = read(uri)
        if all(_size(storage.join(uri, file.path)) == file.bytes for file in found.files):
            return found
    return None


def _size(uri: str) -> int | None:
    try:
        return int(storage.stat(uri)["size"])
    except FileNotFoundError:
        return None


def _directories(stage_uri: str, complete: bool) -> list[str]:
    """Directories with metadata, or those without, by step."""
    found: dict[str, set[str]] = {}
    for uri in storage.list_files(storage.join(stage_uri, FOLDER)):
        parent, _, name = uri.rpartition("/")
        found.setdefault(parent, set()).add(name)
    return sorted(uri for uri, names in found.items() if (METADATA in names) == complete)


class Writer:
    """One rank's way to storage. At most one checkpoint is on its way; ``start`` waits for the one before."""

    def __init__(
        self, stage_uri: str, attempt: str, rank: int, num_ranks: int, keep: int, warn: Callable[[str], None]
    ) -> None:
        """Opens the thread.

        Args:
            stage_uri: directory of the pretrain stage.
            attempt: unique name of this start of the workers, the same on all ranks.
            rank: of this process.
            num_ranks: that write together.
            keep: complete checkpoints that stay.
            warn: told, in one line, of what could not be written.
        """
        self.stage_uri = stage_uri
        self.attempt = attempt
        self.rank = rank
        self.num_ranks = num_ranks
        self.keep = keep
        self.warn = warn
        self.failures = 0
        self.committed_step = -1
        """Step of the last checkpoint that this rank knows to be complete (rank 0) or its part of it to be written."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None
        self._closing = threading.Event()

    def start(self, progress: Progress, fragments: Sequence[Fragment], companions: Mapping[str, str]) -> None:
        """Writes in the background; the arrays must not change any more.

        Args:
            progress: the same on all ranks.
            fragments: of this rank.
            companions: texts by URI that rank 0 writes before the metadata; used on rank 0 alone.
        """
        self.wait()
        self._running = self._thread.submit(self._write, progress, fragments, companions)

    def wait(self) -> None:
        """Returns when nothing is on its way any more. Failures are counted, not raised."""
        if self._running is not None:
            self._running.result()
            self._running = None

    def close(self) -> None:
        """Ends the thread. A checkpoint on its way, of a run that fails, still has ``CLOSE_PATIENCE_S`` to arrive."""
        if self._running is not None:
            wait([self._running], CLOSE_PATIENCE_S)
        self._closing.set()
        self._thread.shutdown(wait=True)

    def _write(self, progress: Progress, fragments: Sequence[Fragment], companions: Mapping[str, str]) -> None:
        uri = directory(self.stage_uri, progress.step, self.attempt)
        try:
            self._write_rank(uri, fragments)
            if self.rank == 0:
                for companion, text in companions.items():
                    storage.write_text(companion, text)
                self._commit(uri, progress)
                self._clean(uri)
            self.committed_step = progress.step
        except (UserError, OSError) as error:
            self.failures += 1
            reason = " ".join(str(error).split())
            self.warn(f"checkpoint of step {progress.step} not written by rank {self.rank}: {reason}")
            self._tell_peers(uri, reason)

    def _write_rank(self, uri: str, fragments: Sequence[Fragment]) -> None:
        name = f"rank-{self.rank:05d}.safetensors"
        with tempfile.TemporaryDirectory(prefix="caravela-checkpoint-") as folder:
            local = os.path.join(folder, name)
            tensors = {key(kind, f.name, f.start): array for f in fragments for kind, array in f.arrays.items()}
            safetensors.numpy.save_file(tensors, local)
            storage.publish(local, storage.join(uri, name))
            pieces = tuple(Piece(name=f.name, start=f.start, numel=f.arrays["weight"].size) for f in fragments)
            record = RankFile(path=name, bytes=os.path.getsize(local), sha256=storage.sha256_of(local), pieces=pieces)
        storage.write_text(_record_uri(uri, self.rank), json.dumps(dataclasses.asdict(record)))

    def _tell_peers(self, uri: str, reason: str) -> None:
        """Spares rank 0 the waiting, if storage takes that much."""
        failed = RankFile(path="", bytes=0, sha256="", pieces=(), error=reason)
        try:
            storage.write_text(_record_uri(uri, self.rank), json.dumps(dataclasses.asdict(failed)))
        except (UserError, OSError):
            return  # rank 0 gives up by itself after PEERS_TIMEOUT_S

    def _commit(self, uri: str, progress: Progress) -> None:
        files = tuple(self._await_record(uri, rank) for rank in range(self.num_ranks))
        done = Checkpoint(
            progress=progress,
            attempt=self.attempt,
            num_ranks=self.num_ranks,
            files=files,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            uri=uri,
        )
        table = dataclasses.asdict(done)
        del table["uri"]
        storage.write_text(storage.join(uri, METADATA), json.dumps(table))

    def _await_record(self, uri: str, rank: int) -> RankFile:
        deadline = time.monotonic() + PEERS_TIMEOUT_S
        where = _record_uri(uri, rank)
        while True:
            try:
                record = build(RankFile, json.loads(storage.read_text(where)), where)
            except FileNotFoundError:
                if time.monotonic() > deadline or self._closing.wait(POLL_S):
                    raise UserError(f"{where}: not there after {PEERS_TIMEOUT_S:.0f} s, or training ended") from None
                continue
            if record.error:
                raise UserError(f"rank {rank}: {record.error}")
            return record

    def _clean(self, just_written: str) -> None:
        """Removes complete checkpoints beyond ``keep``, and what unfinished ones left."""
        complete = [uri for uri in _directories(self.stage_uri, complete=True) if uri != just_written]
        for uri in complete[: max(0, len(complete) - (self.keep - 1))]:
            storage.delete_tree(storage.join(uri, METADATA))  # first, so that no reader trusts the rest
            storage.delete_tree(uri)
        for uri in _directories(self.stage_uri, complete=False):
            # A faster rank may have begun the next one of this attempt: its name sorts behind.
            if not uri.endswith(f"-{self.attempt}") or uri < just_written:
                storage.delete_tree(uri)


def key(kind: str, name: str, start: int) -> str:
    return f"{kind}/{name}/{start}"


def _record_uri(uri: str, rank: int) -> str:
    return storage.join(uri, f"rank-{rank:05d}.json")


class Reader:
    """Pieces of a checkpoint in any cut; fetches the files that hold them, and checks each against its SHA-256."""

    def __init__(self, checkpoint: Checkpoint, folder: str) -> None:
        """Indexes the pieces; ``folder`` is a local one for the fetched files, and outlives the reader."""
        self.checkpoint = checkpoint
        self.folder = folder
        self._holders: dict[str, list[tuple[Piece, RankFile]]] = {}
        for file in checkpoint.files:
            for piece in file.pieces:
                self._holders.setdefault(piece.name, []).append((piece, file))
        self._open: dict[str, Any] = {}

    def read(self, name: str, start: int, numel: int) -> Arrays:
        """Elements ``[start, start + numel)`` of a flattened parameter and of its moments.

        Raises:
            UserError: the checkpoint does not hold all of them, or a file is corrupt.
        """
        arrays = {kind: np.empty(numel, np.float32) for kind in KINDS}
        filled = 0
        for piece, file in self._holders.get(name, []):
            low, high = max(start, piece.start), min(start + numel, piece.start + piece.numel)
            if low >= high:
                continue
            for kind in KINDS:
                stored = self._file(file).get_slice(key(kind, name, piece.start))
                arrays[kind][low - start : high - start] = stored[low - piece.start : high - piece.start]
            filled += high - low
        if filled != numel:
            raise UserError(
                f"{self.checkpoint.uri}: holds {filled} of elements {start} to {start + numel} of {name}; "
                "it is of another model, or its metadata is wrong"
            )
        return arrays

    def _file(self, file: RankFile) -> Any:
        if file.path not in self._open:
            uri, local = storage.join(self.checkpoint.uri, file.path), os.path.join(self.folder, file.path)
            storage.fetch(uri, local)
            if (found := storage.sha256_of(local)) != file.sha256:
                raise UserError(
                    f"{uri}: SHA-256 is {found}, but {METADATA} says {file.sha256}; "
                    f"remove {self.checkpoint.uri} to go on from the checkpoint before"
                )
            self._open[file.path] = safetensors.safe_open(local, framework="numpy")
        return self._open[file.path]
