"""What every worker runs: restore, train, keep, and hand over the model.

In: the directories of the pretrain and pack stages, mixture and settings; ``torch.distributed`` is initialised.
Out, in the pretrain stage's directory: ``checkpoints/``, ``metrics/``, and at the end ``model.safetensors``,
``model.json``, ``metrics.jsonl`` and the shard's record.

The state of a run is (weights, moments, step). Rate, order and data are functions of the step, so the loop that resumes
is the loop that starts. Metrics are rows by step: ``loss``, ``learning_rate``, ``grad_norm``, ``tokens`` (so far),
``tokens_per_second``, ``seconds`` (of the whole step, including ``seconds_data`` of waiting for rows and
``seconds_checkpoint`` of the snapshot taken since the step before), and ``validation_loss`` and
``validation_bits_per_byte`` where they were measured. They are stored in segments, each before the metadata of the
checkpoint that ends it, so what a resumed run does again it also writes again.
"""

import collections
import itertools
import json
import os
import resource
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed

from caravela import manifest, storage
from caravela.data.loader import Batch, BatchRows, Loader, held_out_batches
from caravela.data.rows import counted_targets
from caravela.data.sources import MixtureConfig, training_order
from caravela.data.training_order import data_hash
from caravela.errors import UserError
from caravela.manifest import FileRecord, Input, ShardRecord
from caravela.model import weights
from caravela.model.config import ModelConfig, num_parameters
from caravela.model.transformer import document_segments
from caravela.progress import Poster, clock
from caravela.stages import finished
from caravela.train import checkpoint
from caravela.train.config import TrainConfig
from caravela.train.engine import Engine, Rows, StepResult
from caravela.train.schedule import learning_rate
from caravela.train.start import new_model

METRICS_FOLDER = "metrics"
METRICS = "metrics.jsonl"
TRACE_FOLDER = "trace"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, on what, and where it goes; the same on all workers."""

    stage_uri: str
    fingerprint: str
    train: TrainConfig
    model: ModelConfig
    """With vocabulary and positions filled."""
    packs: tuple[Input, ...]
    """Of the mixture's sources, in their order."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)


def train(task: Task, progress: Poster) -> None:
    """Trains to the last step and publishes the model; returns at once if that is done.

    Raises:
        UserError: data that is missing or corrupt, a loss that is not finite, too little memory.
    """
    torch.set_num_threads(task.train.threads or task.train.num_cpus_per_worker)
    _Training(task, progress).run()


class _Training:
    def __init__(self, task: Task, progress: Poster) -> None:
        self.task = task
        self.config = task.train
        self.progress = progress
        self.started = time.monotonic()
        self.rank = torch.distributed.get_rank()
        self.num_ranks = torch.distributed.get_world_size()
        self.packs = [finished(pack) for pack in task.packs]
        self.order = training_order(task.mixture, self.packs, self.config)
        self.data_hash = data_hash(self.order.sources)
        self.padded = any(pack.summary[f"{table}_padding"] for pack in self.packs for table in ("train", "validation"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        device = torch.device("cuda", local_rank) if self.config.use_gpu else torch.device("cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL's collectives over objects go by it
        self.attempt, found = self._agree()
        model = new_model(task.model, self.config.start_from, self.config.seed, found is not None)
        self.engine = Engine(model, self.config, device)
        self.targets_per_step = self.config.batch_rows * task.model.max_positions
        self.metrics: dict[int, dict[str, Any]] = {}
        """Rows by step since the last snapshot."""
        self.handed_over: dict[int, dict[str, Any]] = {}
        """Rows that are on their way to storage with a checkpoint."""
        self.recent_seconds: collections.deque[float] = collections.deque(maxlen=20)
        self.step = self.kept_step = found.progress.step if found else 0
        if found:
            self._check_data(found)
            with tempfile.TemporaryDirectory(prefix="caravela-restore-") as folder:
                self.engine.restore(checkpoint.Reader(found, folder).read, found.progress.adam_step)
        self.writer = checkpoint.Writer(
            task.stage_uri, self.attempt, self.rank, self.num_ranks, self.config.keep_checkpoints, progress.say
        )

    def _agree(self) -> tuple[str, checkpoint.Checkpoint | None]:
        """Rank 0 names the attempt, picks the checkpoint and removes metrics of steps that are done again."""
        chosen: list[Any] = [None, None]
        if self.rank == 0:
            found = checkpoint.latest(self.task.stage_uri)
            chosen = [secrets.token_hex(4), found.uri if found else None]
            for uri in storage.list_files(storage.join(self.task.stage_uri, METRICS_FOLDER)):
                if int(storage.name_of(uri).partition(".")[0]) > (found.progress.step if found else 0):
                    storage.delete_tree(uri)
        torch.distributed.broadcast_object_list(chosen)
        return chosen[0], checkpoint.read(chosen[1]) if chosen[1] else None

    def _check_data(self, found: checkpoint.Checkpoint) -> None:
        """Compares the packed rows with those that the checkpoint was made with.

        Raises:
            UserError: they are others, and the settings do not allow that.
        """
        if found.progress.loader.get("data") == self.data_hash:
            return
        if not self.config.allow_data_change:
            raise UserError(
                f"{found.uri}: made with other packed rows than those of {', '.join(p.uri for p in self.task.packs)}; "
                "put those back, or set train.allow_data_change = true to go on with these"
            )
        self._say(f"goes on from step {found.progress.step} with other packed rows, as train.allow_data_change says")

    def run(self) -> None:
        config = self.config
        self._say(
            f"{num_parameters(self.task.model):,} parameters · {self.num_ranks} workers on "
            f"{self.engine.device.type} · {self.targets_per_step:,} tokens a step · "
            f"{f'resumed from step {self.step}' if self.step else 'from the start'} of {config.steps}"
        )
        try:
            with Loader(self.order, self.rank, self.num_ranks, config.loader_memory_mb) as loader:
                self._train(loader)
            self._publish()
        finally:
            self.writer.close()

    def _train(self, loader: Loader) -> None:
        config, first = self.config, self.step
        if first and self._validation_due():
            self._validate()  # it belongs to a step whose checkpoint was kept before it was measured
        batches = loader.batches(first + 1)
        mark, stall = time.perf_counter(), 0.0
        while self.step < config.steps:
            self.step += 1
            waited = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - waited
            rate = learning_rate(config, self.step)
            result = self._update(batch, rate)
            now = time.perf_counter()
            seconds, mark = now - mark, now
            row = {
                "step": self.step,
                "loss": result.loss,
                "learning_rate": rate,
                "grad_norm": result.grad_norm,
                "tokens": self.step * self.targets_per_step,
                "tokens_per_second": round(self.targets_per_step / seconds, 1),
                "seconds": round(seconds, 6),
                "seconds_data": round(waited, 6),
                "seconds_checkpoint": round(stall, 6),
            }
            self.metrics[self.step] = row
            self.recent_seconds.append(seconds)
            if self.step % config.log_every_steps == 0 or self.step == config.steps:
                self._say(self._line(row))
            stall = 0.0
            if self.step % config.checkpoint_every_steps == 0 or self.step == config.steps:
                self._keep()
                stall = time.perf_counter() - mark
            if self._validation_due():
                self._validate()
                mark = time.perf_counter() - stall  # a step's time is not that of a validation

    def _update(self, batch: Batch, rate: float) -> StepResult:
        if self.config.trace:
            name = f"{self.step:08d}-{self.attempt}-{self.rank:05d}.json"
            storage.write_text(storage.join(self.task.stage_uri, TRACE_FOLDER, name), json.dumps(batch.document_ids))
        try:
            micro_batches = list(self._micro_batches(batch, self.order.context(self.step)))
            return self.engine.step(micro_batches, self._targets(batch), rate, self.step)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"train.micro_batch_rows = {self.config.micro_batch_rows}: step {self.step} does not fit into the "
                f"memory of the GPU; lower it ({' '.join(str(error).split())})"
            ) from error

    def _targets(self, batch: Batch) -> int:
        """Targets of the global batch that count. Only where rows may be padded the ranks must ask one another."""
        return self.engine.sum_over_ranks(batch.num_targets) if self.padded else self.targets_per_step

    def _micro_batches(self, batch: Batch, context: int) -> Iterator[Rows]:
        size = self.config.micro_batch_rows
        for start in range(0, len(batch.tokens), size):
            yield self._rows(batch.rows(start, start + size, context))

    def _rows(self, rows: BatchRows) -> Rows:
        context = rows.tokens.shape[1] - 1
        segments = weights = None
        if self.task.model.mask_documents:
            segments = document_segments(rows.document_starts, context)
        if rows.padding.any():
            weights = torch.from_numpy(counted_targets(rows.padding, context).astype(np.float32))
        return Rows(torch.from_numpy(rows.tokens), segments, weights)

    def _keep(self) -> None:
        """Snapshots in memory and writes in the background."""
        self._settle()
        progress = checkpoint.Progress(
            step=self.step,
            tokens=self.step * self.targets_per_step,
            adam_step=self.engine.adam_step(),
            loader={"next_step": self.step + 1, "seed": self.config.seed, "data": self.data_hash},
            fingerprint=self.task.fingerprint,
        )
        segment = storage.join(self.task.stage_uri, METRICS_FOLDER, f"{self.kept_step + 1:08d}.jsonl")
        self.handed_over, self.metrics = self.metrics, {}
        self.writer.start(progress, self.engine.fragments(), {segment: to_jsonl(self.handed_over)})

    def _settle(self) -> None:
        """Waits for the checkpoint on its way; what it did not bring home goes with the next."""
        self.writer.wait()
        if self.writer.committed_step > self.kept_step:
            self.kept_step = self.writer.committed_step
        else:
            self.metrics = merged(self.handed_over, self.metrics)
        self.handed_over = {}

    def _validation_due(self) -> bool:
        every = self.config.validate_every_steps
        return bool(every) and (self.step % every == 0 or self.step == self.config.steps)

    def _validate(self) -> None:
        if not any(pack.rows("validation") for pack in self.packs):
            return
        size, most, context = self.config.micro_batch_rows, self.config.validation_rows, self.order.row_context
        held_out = itertools.chain.from_iterable(
            held_out_batches(pack, most, size, self.rank, self.num_ranks) for pack in self.packs
        )
        loss, bits = self.engine.held_out_loss(
            (self._rows(batch.rows(0, size, context)), batch.target_bytes) for batch in held_out
        )
        figures = {"validation_loss": loss, "validation_bits_per_byte": bits}
        self.metrics[self.step] = self.metrics.get(self.step, {"step": self.step}) | figures
        self._say(f"step {self.step}: validation loss {loss:.4f}, {bits:.4f} bits per byte")

    def _publish(self) -> None:
        """Rank 0 writes the model, the whole metrics and, last, the record that makes the stage's shard done."""
        self._settle()
        state = self.engine.full_weights()
        if self.rank == 0:
            if self.writer.failures:
                self._say(f"{self.writer.failures} checkpoints could not be written")
            with tempfile.TemporaryDirectory(prefix="caravela-model-") as folder:
                weights.save_model(state, self.task.model, folder)
                with open(os.path.join(folder, METRICS), "w", encoding="utf-8") as file:
                    file.write(to_jsonl(self._all_metrics()))
                files = [_published(folder, name, self.task.stage_uri) for name in sorted(os.listdir(folder))]
            record = ShardRecord(
                index=0,
                name="model",
                files=tuple(files),
                counters={
                    "steps": self.step,
                    "tokens": self.step * self.targets_per_step,
                    "parameters": num_parameters(self.task.model),
                },
                seconds=round(time.monotonic() - self.started, 3),
                peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            )
            manifest.write_record(self.task.stage_uri, record)
        torch.distributed.barrier()

    def _all_metrics(self) -> dict[int, dict[str, Any]]:
        rows: dict[int, dict[str, Any]] = {}
        for uri in storage.list_files(storage.join(self.task.stage_uri, METRICS_FOLDER)):
            segment = map(json.loads, storage.read_text(uri).splitlines())
            rows = merged(rows, {row["step"]: row for row in segment})
        return merged(rows, self.metrics)

    def _line(self, row: dict[str, Any]) -> str:
        left = sum(self.recent_seconds) / len(self.recent_seconds) * (self.config.steps - self.step)
        return (
            f"step {self.step}/{self.config.steps} · loss {row['loss']:.4f} · rate {row['learning_rate']:.2e} · "
            f"grad norm {row['grad_norm']:.2f} · {row['tokens_per_second']:,.0f} tokens/s · {clock(left)} left"
        )

    def _say(self, line: str) -> None:
        if self.rank == 0:
            self.progress.say(line)


def merged(rows: dict[int, dict[str, Any]], more: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Rows of both; a step that is in both gets the columns of both."""
    return {step: rows.get(step, {}) | more.get(step, {}) for step in sorted(rows.keys() | more.keys())}


def to_jsonl(rows: dict[int, dict[str, Any]]) -> str:
    """Rows in the order of their steps, one line each."""
    return "".join(json.dumps(rows[step]) + "\n" for step in sorted(rows))


def _published(folder: str, name: str, stage_uri: str) -> FileRecord:
    local = os.path.join(folder, name)
    storage.publish(local, storage.join(stage_uri, name))
    return FileRecord(table="files", path=name, rows=0, bytes=os.path.getsize(local), sha256=storage.sha256_of(local))
