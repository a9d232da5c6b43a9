"""One rank's way from fragments in memory to a complete checkpoint on storage, beside training.

Decisions, with their price:

* Ranks meet on storage and not in a collective, so that all of it runs in a thread. Price: rank 0 asks for the others'
  records every ``POLL_S``.
* A server that is away for ``OUTAGE_S`` is waited for, training meanwhile, until the next checkpoint is due.
* A checkpoint that cannot be written is a warning and a count: training goes on, and less is kept if it dies.
* What an attempt that was killed has left is removed when the next checkpoint is complete, as are complete ones that
  no rule keeps (train.retention). That cleaning fails is a warning, too: the checkpoint is there.
"""

import dataclasses
import datetime
import functools
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import safetensors.numpy

from caravela import storage
from caravela.config import build
from caravela.errors import UserError
from caravela.outage import OUTAGE_S, outlasting
from caravela.train.checkpoint import (
    METADATA,
    Checkpoint,
    Fragment,
    Piece,
    Progress,
    RankFile,
    directories,
    directory,
    key,
    record_uri,
    remove,
    stored,
)
from caravela.train.retention import Rules, superfluous

POLL_S = 0.2
PEERS_TIMEOUT_S = 600.0
CLOSE_PATIENCE_S = 30.0

Result = TypeVar("Result")


class Writer:
    """One rank's way to storage. At most one checkpoint is on its way; ``start`` waits for the one before."""

    def __init__(
        self,
        stage_uri: str,
        attempt: str,
        rank: int,
        num_ranks: int,
        rules: Rules,
        warn: Callable[[str], None],
    ) -> None:
        """Opens the thread.

        Args:
            stage_uri: directory of the pretrain stage.
            attempt: unique name of this start of the workers, the same on all ranks.
            rank: of this process.
            num_ranks: that write together.
            rules: say which complete checkpoints stay.
            warn: told, in one line, of what could not be written.
        """
        self.stage_uri = stage_uri
        self.attempt = attempt
        self.rank = rank
        self.num_ranks = num_ranks
        self.rules = rules
        self.warn = warn
        self.failures = 0
        self.committed_step = -1
        """Step of the last checkpoint that this rank knows to be complete (rank 0) or its part of it to be written."""
        self.seconds = 0.0
        """From the snapshot to the end of this rank's part, of the last one that was written."""
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
        uri, begun = directory(self.stage_uri, progress.step, self.attempt), time.monotonic()
        try:
            self._write_rank(uri, fragments)
            if self.rank == 0:
                for companion, text in companions.items():
                    self._outlasting(functools.partial(storage.write_text, companion, text))
                self._commit(uri, progress)
            self.committed_step, self.seconds = progress.step, time.monotonic() - begun
        except (UserError, OSError) as error:
            self.failures += 1
            reason = " ".join(str(error).split())
            self.warn(f"checkpoint of step {progress.step} not written by rank {self.rank}: {reason}")
            self._tell_peers(uri, reason)
            return
        if self.rank == 0:
            try:
                self._clean(uri)
            except (UserError, OSError) as error:
                self.warn(f"old checkpoints not removed: {' '.join(str(error).split())}")

    def _write_rank(self, uri: str, fragments: Sequence[Fragment]) -> None:
        name = f"rank-{self.rank:05d}.safetensors"
        with tempfile.TemporaryDirectory(prefix="caravela-checkpoint-") as folder:
            local = os.path.join(folder, name)
            tensors = {key(kind, f.name, f.start): array for f in fragments for kind, array in f.arrays.items()}
            safetensors.numpy.save_file(tensors, local)
            self._outlasting(lambda: storage.publish(local, storage.join(uri, name)))
            pieces = tuple(
                Piece(name=f.name, start=f.start, numel=f.arrays["weight"].size, shape=f.shape) for f in fragments
            )
            record = RankFile(path=name, bytes=os.path.getsize(local), sha256=storage.sha256_of(local), pieces=pieces)
        text = json.dumps(dataclasses.asdict(record))
        self._outlasting(lambda: storage.write_text(record_uri(uri, self.rank), text))

    def _outlasting(self, call: Callable[[], Result]) -> Result:
        return outlasting(call, OUTAGE_S, self.warn, self._closing)

    def _tell_peers(self, uri: str, reason: str) -> None:
        """Spares rank 0 the waiting, if storage takes that much."""
        failed = RankFile(path="", bytes=0, sha256="", pieces=(), error=reason)
        try:
            storage.write_text(record_uri(uri, self.rank), json.dumps(dataclasses.asdict(failed)))
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
        self._outlasting(lambda: storage.write_text(storage.join(uri, METADATA), json.dumps(table)))

    def _await_record(self, uri: str, rank: int) -> RankFile:
        deadline = time.monotonic() + PEERS_TIMEOUT_S
        where = record_uri(uri, rank)
        while True:
            try:
                record = build(RankFile, json.loads(self._outlasting(lambda: storage.read_text(where))), where)
            except FileNotFoundError:
                if time.monotonic() > deadline or self._closing.wait(POLL_S):
                    raise UserError(f"{where}: not there after {PEERS_TIMEOUT_S:.0f} s, or training ended") from None
                continue
            if record.error:
                raise UserError(f"rank {rank}: {record.error}")
            return record

    def _clean(self, just_written: str) -> None:
        """Removes complete checkpoints that no rule keeps, and what unfinished ones left."""
        for old in superfluous(self.rules, stored(self.stage_uri), datetime.datetime.now(datetime.UTC)):
            if old.uri != just_written:
                remove(old.uri)
        for uri in directories(self.stage_uri, complete=False):
            # A faster rank may have begun the next one of this attempt: its name sorts behind.
            if not uri.endswith(f"-{self.attempt}") or uri < just_written:
                storage.delete_tree(uri)
