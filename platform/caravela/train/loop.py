"""What every worker runs: restore, train, keep, and hand over the model.

In: the directories of the pretrain and pack stages, mixture and settings; ``torch.distributed`` is initialised.
Out, in the pretrain stage's directory: ``checkpoints/``, ``metrics/``, ``tensorboard/``, ``reached.json``, and at the
end ``model.safetensors``, ``model.json``, ``metrics.jsonl`` (columns: train.monitor) and the shard's record.

The state of a run is (weights, moments, step). Rate, order and data are functions of the step, so the loop that resumes
is the loop that starts. A step is done in this order: update, row of metrics, checkpoint, validation. So a validation
that fails costs no checkpoint, and its figures go to storage with the next one (train.journal); a run that resumes from
a step where validation was due begins with it.
"""

import json
import os
import resource
import secrets
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed

from caravela import manifest, storage
from caravela.config import to_dict
from caravela.data.loader import Batch, Loader
from caravela.data.sources import MixtureConfig, training_order
from caravela.data.training_order import data_hash
from caravela.errors import UserError
from caravela.manifest import FileRecord, Input, ShardRecord
from caravela.model import weights
from caravela.model.config import ModelConfig, num_parameters
from caravela.outage import outlasting
from caravela.progress import Poster
from caravela.stages import finished
from caravela.train import checkpoint, goodput, journal
from caravela.train.batches import micro_batches
from caravela.train.cadence import Cadence, Measured, is_measured
from caravela.train.checkpoint_writer import Writer
from caravela.train.config import TrainConfig
from caravela.train.energy import local_rank
from caravela.train.engine import Engine, StepResult
from caravela.train.faults import NonFiniteError, out_of_memory, with_documents
from caravela.train.goodput import Ledger
from caravela.train.journal import Journal
from caravela.train.monitor import Monitor
from caravela.train.retention import Rules
from caravela.train.schedule import learning_rate
from caravela.train.spikes import SpikeDetector
from caravela.train.start import new_model
from caravela.train.validation import HeldOut
from caravela.train.watchdog import Watchdog

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
    launch: str = ""
    """Names the driver that started the workers: attempts that follow one another with the same name lost time between
    them."""


def train(task: Task, progress: Poster) -> None:
    """Trains to the last step and publishes the model; returns at once if that is done.

    Raises:
        UserError: data that is missing or corrupt, a loss that is not finite, too little memory.
    """
    torch.set_num_threads(task.train.threads or task.train.num_cpus_per_worker)
    try:
        _Training(task, progress).run()
    except torch.OutOfMemoryError as error:
        raise out_of_memory(error, task.train) from error


class _Training:
    def __init__(self, task: Task, progress: Poster) -> None:
        self.task = task
        self.config = task.train
        self.progress = progress
        self.started, started_at = time.perf_counter(), time.time()
        self.rank = torch.distributed.get_rank()
        self.num_ranks = torch.distributed.get_world_size()
        self.packs = [finished(pack) for pack in task.packs]
        self.order = training_order(task.mixture, self.packs, self.config)
        self.data_hash = data_hash(self.order.sources)
        self.padded = any(pack.summary[f"{table}_padding"] for pack in self.packs for table in ("train", "validation"))
        device = torch.device("cuda", local_rank()) if self.config.use_gpu else torch.device("cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL's collectives over objects go by it
        self.attempt, found = self._agree()
        model = new_model(task.model, self.config.start_from, self.config.seed, found is not None)
        num_sources = len(self.order.sources)
        self.engine = Engine(model, self.config, device, num_sources if num_sources > 1 else 0)
        self.targets_per_step = self.config.batch_rows * task.model.max_positions
        self.step = found.progress.step if found else 0
        if found:
            checkpoint.check(found, self.engine.shapes(), to_dict(task.model), self.config.seed)
            self._check_data(found)
            with tempfile.TemporaryDirectory(prefix="caravela-restore-") as folder:
                self.engine.restore(checkpoint.Reader(found, folder).read, found.progress.adam_step)
        self.journal = Journal(task.stage_uri, self.step)
        self.monitor = Monitor(
            stage_uri=task.stage_uri,
            run=task.fingerprint[:12],
            launch=task.launch,
            config=self.config,
            model=task.model,
            source_names=[source.name for source in self.order.sources],
            engine=self.engine,
            rank=self.rank,
            first_step=self.step + 1,
            ledger=self._ledger(started_at),
            started=self.started,
            journal=self.journal,
            say=self._say,
        )
        self.held_out = HeldOut(
            [(source.name, source.pack) for source in self.order.sources],
            max_rows=self.config.validation_rows,
            batch_rows=self.config.micro_batch_rows,
            mask_documents=task.model.mask_documents,
            rank=self.rank,
            num_ranks=self.num_ranks,
        )
        self.cadence = Cadence(self.config, self.step)
        self.spikes = SpikeDetector(self.config)
        self.watchdog = Watchdog(
            self.config.hang_timeout_s, task.stage_uri, f"{self.attempt}-{self.rank:05d}", progress.say
        )
        rules = Rules(
            newest=self.config.keep_checkpoints,
            every_steps=self.config.keep_every_steps,
            hours=self.config.keep_hours,
        )
        self.writer = Writer(task.stage_uri, self.attempt, self.rank, self.num_ranks, rules, progress.say)

    def _agree(self) -> tuple[str, checkpoint.Checkpoint | None]:
        """Rank 0 names the attempt, picks the checkpoint and removes metrics of steps that are done again."""
        chosen: list[Any] = [None, None]
        if self.rank == 0:
            found = outlasting(lambda: checkpoint.latest(self.task.stage_uri), say=self._say)
            chosen = [secrets.token_hex(4), found.uri if found else None]
            journal.forget_after(self.task.stage_uri, found.progress.step if found else 0)
        torch.distributed.broadcast_object_list(chosen)
        return chosen[0], outlasting(lambda: checkpoint.read(chosen[1])) if chosen[1] else None

    def _ledger(self, now: float) -> Ledger:
        """Times of the attempts before; on rank 0, who keeps them."""
        if self.rank:
            return Ledger()
        kept = journal.stored_row(self.task.stage_uri, self.step)
        kept_good = kept.get("goodput", 0.0) * kept.get("seconds_wall", 0.0)
        return goodput.taken_up(goodput.read(self.task.stage_uri), self.step, kept_good, self.task.launch, now)

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
            with self.watchdog:
                with Loader(self.order, self.rank, self.num_ranks, config.loader_memory_mb) as loader:
                    self._train(loader)
                self.watchdog.beat("handing over the model")
                self._publish()
        finally:
            self.writer.close()
            self.monitor.close()

    def _train(self, loader: Loader) -> None:
        config, first = self.config, self.step
        self.monitor.begin()
        if first and self._validation_due():
            self._validate()  # it belongs to a step whose checkpoint was kept before it was measured
        batches = loader.batches(first + 1)
        mark, kept_step = time.perf_counter(), first
        while self.step < config.steps:
            self.step += 1
            self.watchdog.beat(f"step {self.step}")
            waited = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - waited
            rate, context = learning_rate(config, self.step), self.order.context(self.step)
            result = self._update(batch, rate, context)
            if config.spikes == "report" and (jump := self.spikes.judge(result.loss, result.grad_norm)):
                self._say(f"step {self.step}: {jump}; jobs/explain.py --step {self.step} names its documents")
            keeps = self.cadence.is_due(self.step)
            self.monitor.step_done(self.step, result, rate, context, waited, keeps)
            if keeps:
                begun = time.perf_counter()
                self._keep()
                stall = time.perf_counter() - begun
                if is_measured(config):
                    times = ((begun - mark) / (self.step - kept_step), stall, self.writer.seconds)
                    self.cadence.made(self.step, Measured(*map(self._mean_over_ranks, times)))
                mark, kept_step = time.perf_counter(), self.step
            if self._validation_due():
                self.watchdog.beat(f"validation after step {self.step}")
                self._validate()

    def _mean_over_ranks(self, seconds: float) -> float:
        return self.engine.sum_over_ranks(round(seconds * 1e6)) / 1e6 / self.num_ranks

    def _update(self, batch: Batch, rate: float, context: int) -> StepResult:
        if self.config.trace:
            name = f"{self.step:08d}-{self.attempt}-{self.rank:05d}.json"
            storage.write_text(storage.join(self.task.stage_uri, TRACE_FOLDER, name), json.dumps(batch.document_ids))
        try:
            size, masks = self.config.micro_batch_rows, self.task.model.mask_documents
            rows = list(micro_batches(batch, size, context, masks))
            return self.engine.step(rows, self._targets(batch), rate, self.step)
        except NonFiniteError as error:
            raise with_documents(error, batch.document_ids, self.order.row_context // context) from None

    def _targets(self, batch: Batch) -> int:
        """Targets of the global batch that count. Only where rows may be padded the ranks must ask one another."""
        return self.engine.sum_over_ranks(batch.num_targets) if self.padded else self.targets_per_step

    def _keep(self) -> None:
        """Snapshots in memory and writes in the background."""
        begun = time.perf_counter()
        self._settle()
        progress = checkpoint.Progress(
            step=self.step,
            tokens=self.step * self.targets_per_step,
            adam_step=self.engine.adam_step(),
            loader={"next_step": self.step + 1, "seed": self.config.seed, "data": self.data_hash},
            fingerprint=self.task.fingerprint,
            model=dict(to_dict(self.task.model)),
        )
        self.writer.start(progress, self.engine.fragments(), self.journal.hand_over())
        self.monitor.stalled(time.perf_counter() - begun)

    def _settle(self) -> None:
        """Waits for the checkpoint on its way; what it did not bring home goes with the next."""
        self.writer.wait()
        self.journal.settle(self.writer.committed_step)

    def _validation_due(self) -> bool:
        every = self.config.validate_every_steps
        return bool(every and self.held_out) and (self.step % every == 0 or self.step == self.config.steps)

    def _validate(self) -> None:
        self.monitor.validated(self.step, self.held_out.columns(self.engine))

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
                    file.write(journal.to_jsonl(outlasting(self.journal.all_rows)))
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
                seconds=round(time.perf_counter() - self.started, 3),
                peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            )
            outlasting(lambda: manifest.write_record(self.task.stage_uri, record))
        torch.distributed.barrier()

    def _say(self, line: str) -> None:
        if self.rank == 0:
            self.progress.say(line)


def _published(folder: str, name: str, stage_uri: str) -> FileRecord:
    local = os.path.join(folder, name)
    outlasting(lambda: storage.publish(local, storage.join(stage_uri, name)))
    return FileRecord(table="files", path=name, rows=0, bytes=os.path.getsize(local), sha256=storage.sha256_of(local))
