"""Settings of pretraining. No torch here: the driver reads this.

``RESULT_FREE`` names the settings that change where and how fast a model is trained and what is logged, but not the
model beyond rounding; they stay out of the stage's fingerprint, so that a run goes on with other workers.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RESULT_FREE = (
    "micro_batch_rows",
    "zero_stage",
    "activation_checkpointing",
    "compile",
    "num_workers",
    "num_cpus_per_worker",
    "use_gpu",
    "rank0_labels",
    "threads",
    "checkpoint_every_steps",
    "checkpoint_every_minutes",
    "mean_hours_between_failures",
    "keep_checkpoints",
    "keep_every_steps",
    "keep_hours",
    "log_every_steps",
    "validate_every_steps",
    "validation_rows",
    "hang_timeout_s",
    "spikes",
    "spike_window",
    "spike_deviations",
    "tensorboard",
    "prometheus",
    "peak_tflops",
    "co2_kg_per_kwh",
    "cost_per_worker_hour",
    "max_failures",
    "loader_memory_mb",
    "allow_data_change",
    "trace",
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the model is trained. A step is one update of the weights."""

    steps: int
    """Updates in all."""
    batch_rows: int
    """Packed rows per step, over all workers; fixed, whatever their number."""
    micro_batch_rows: int = 8
    """Most rows that a worker passes through the model at once; bounds memory."""
    learning_rate: float
    """Peak of the schedule."""
    min_learning_rate_ratio: float = 0.1
    """Floor of the schedule, as a share of the peak."""
    warmup_steps: int = 0
    """Steps in which the rate climbs linearly to the peak."""
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """What follows the warm-up; wsd is constant and then falls over ``decay_share``."""
    decay_share: float = 0.1
    """Share of the steps in which wsd falls to the floor."""
    decay_shape: Literal["linear", "one_minus_sqrt"] = "linear"
    """How wsd falls: in a line, or by 1 - sqrt(t) (arXiv 2405.18392)."""
    floor_at: float = 1.0
    """Share of the steps after which the rate is at the floor, where it stays; 1 is with the last step."""
    restart_after_steps: tuple[int, ...] = ()
    """Steps after each of which the schedule starts again: it climbs from the floor to the peak in ``warmup_steps`` and
    falls to the floor until the next of them or the end. Shares are then of such a stretch."""
    weight_decay: float = 0.1
    """Of matrices; norms and biases have none."""
    beta1: float = 0.9
    """AdamW's decay of the gradient's mean."""
    beta2: float = 0.95
    """AdamW's decay of the gradient's square."""
    epsilon: float = 1e-8
    """AdamW's guard of the division."""
    clip: float = 1.0
    """Largest norm of the whole gradient; 0 is no limit."""
    start_from: str = ""
    """Weights to start from: a local folder or s3:// prefix with ``config.json`` and safetensors, as transformers'
    ``save_pretrained`` writes it, of a model of the same shape. Empty: random ones."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of weights and activations; master weights, moments and summed gradients are float32 in any case."""
    seed: int = 0
    """Of the initial weights and of the order of rows."""
    shuffle_row_groups: int = 8
    """Row groups whose rows are shuffled together."""
    zero_stage: Literal[1, 2, 3] = 1
    """What DeepSpeed splits over workers: 1 optimizer state, 2 gradients too, 3 weights too."""
    activation_checkpointing: int = 0
    """Of every n-th block, activations are made again in the backward pass instead of held: 1 is all blocks, 0 none.
    Saves memory, and costs up to a third more time."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether blocks go through torch.compile, which needs a C++ compiler on CPU; auto is: on GPU with ZeRO 1 or 2."""
    num_workers: int = 1
    """Processes that train together."""
    num_cpus_per_worker: int = 1
    """Cores that each worker asks of Ray."""
    use_gpu: bool = False
    """Whether each worker has a GPU of its own."""
    rank0_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the node that rank 0 must be on: { market = "on-demand" } with cluster.yaml, whose other GPU nodes are
    spot. Ray Train cannot hand a preemption on where rank 0 is itself preempted."""
    threads: int = 0
    """Threads of PyTorch in a worker; 0 is one per core of the worker."""
    checkpoint_every_steps: int = 100
    """Cadence of checkpoints; there is one at the last step in any case."""
    checkpoint_every_minutes: float = 0.0
    """Cadence by the clock, in place of steps; 0 is off."""
    mean_hours_between_failures: float = 0.0
    """Of the whole group of workers; above 0, the cadence is the one that loses the least time (train.cadence)."""
    keep_checkpoints: int = 2
    """Newest complete checkpoints that stay on storage."""
    keep_every_steps: int = 0
    """Checkpoints at multiples of this stay too; 0 is none."""
    keep_hours: float = 0.0
    """Checkpoints that are younger stay too."""
    log_every_steps: int = 10
    """Cadence of lines for people; every step is in metrics.jsonl."""
    validate_every_steps: int = 100
    """Cadence of the loss on held-out rows, also measured at the last step; 0 is never."""
    validation_rows: int = 64
    """Most held-out rows that are scored of each source, spread evenly over its table."""
    spikes: Literal["off", "report"] = "report"
    """Whether a step whose loss or gradient jumps is told in a line (train.spikes)."""
    spike_window: int = 100
    """Steps that a step is compared with."""
    spike_deviations: float = 10.0
    """How far above their median, in scaled median absolute deviations, a step is a spike."""
    hang_timeout_s: float = 1800.0
    """Seconds without progress after which a worker ends with its stacks stored; longer than a step, a validation or a
    start from a checkpoint takes. 0 is no limit."""
    tensorboard: bool = True
    """Whether every step's figures also go to event files below ``tensorboard/`` in the stage's directory."""
    prometheus: bool = True
    """Whether they also go to gauges that Ray exports (``ray_caravela_train_loss`` ...)."""
    peak_tflops: float = 0.0
    """Peak of one worker's device that MFU is a share of, in TFLOP/s; 0 is that of the GPU's name in dense bfloat16,
    and for a CPU or an unknown GPU the measured rate of matrix multiplication."""
    co2_kg_per_kwh: float = 0.0
    """Kilograms of CO2 that a kilowatt-hour stands for where the machines are; 0 leaves CO2 out."""
    cost_per_worker_hour: float = 0.0
    """Price of one worker for an hour, in any currency; 0 leaves costs out."""
    max_failures: int = 3
    """Times that the workers are started again after one was lost; -1 is no limit."""
    loader_memory_mb: float = 4096.0
    """Most memory that a worker holds packed rows in, read ahead; less than two windows of every source is refused."""
    allow_data_change: bool = False
    """Whether a run goes on from a checkpoint although the packed rows are others than those it was made with."""
    trace: bool = False
    """Whether every worker stores the ids of the documents of every step; for tests."""

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch_rows": 1, "micro_batch_rows": 1, "shuffle_row_groups": 1, "num_workers": 1}
        least |= {"num_cpus_per_worker": 1, "checkpoint_every_steps": 1, "keep_checkpoints": 1, "log_every_steps": 1}
        least |= {"warmup_steps": 0, "validate_every_steps": 0, "validation_rows": 1, "threads": 0, "max_failures": -1}
        least |= {"keep_every_steps": 0, "spike_window": 8}
        least |= {"activation_checkpointing": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} = {getattr(self, name)}: expected {value} or more")
        for name in ("learning_rate", "epsilon", "loader_memory_mb", "spike_deviations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected a number above 0")
        times = ("checkpoint_every_minutes", "mean_hours_between_failures", "keep_hours", "hang_timeout_s")
        for name in ("weight_decay", "clip", "peak_tflops", "co2_kg_per_kwh", "cost_per_worker_hour", *times):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 or more")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected from 0 to below 1")
        for name in ("min_learning_rate_ratio", "decay_share", "floor_at"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected from 0 to 1")
        self._check_schedule()
        if self.num_workers > self.batch_rows:
            raise ValueError(f"num_workers = {self.num_workers}: expected at most batch_rows = {self.batch_rows}")

    def _check_schedule(self) -> None:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps = {self.warmup_steps}: expected fewer than steps = {self.steps}")
        borders = [0, *self.restart_after_steps, self.steps]
        for begin, end in itertools.pairwise(borders):
            if end - begin <= self.warmup_steps:
                raise ValueError(
                    f"restart_after_steps = {list(self.restart_after_steps)}: expected more than warmup_steps = "
                    f"{self.warmup_steps} steps between 0, these and steps = {self.steps}; {begin} to {end} are fewer"
                )
            if self.schedule != "constant" and self.floor_at * (end - begin) <= self.warmup_steps:
                raise ValueError(
                    f"floor_at = {self.floor_at}: expected a share of {end - begin} steps above warmup_steps = "
                    f"{self.warmup_steps}"
                )
