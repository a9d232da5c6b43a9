"""What a run will need, from its settings alone: memory per GPU, operations, days, money, energy. Pure arithmetic.

In: the sections ``model`` (with vocabulary and positions), ``train``, ``mixture`` and ``estimate``. Out: numbers, and
lines for a dry run. No torch, no data, no cluster.

Memory per GPU, with N parameters, W workers, e bytes a weight (bf16 2, fp32 4), as DeepSpeed 0.19.8 under
``train.engine`` holds it (``tests/train/test_estimate.py`` counts it there):

=======  ===============  =======================================  =========
ZeRO     weights          gradients                                optimizer
=======  ===============  =======================================  =========
1        e N              4 N (float32 sums); bf16 2 N beside it   12 N / W
2        e N              4 N / W                                  12 N / W
3        e N / W          4 N / W                                  12 N / W
=======  ===============  =======================================  =========

The optimizer is a float32 copy of the weights and Adam's two moments. ZeRO 3 gathers what it computes with: the
largest part and a prefetch of 50 million. Buckets in which gradients travel hold N, at most 500 million, in float32,
and in bf16 also as they come.

Activations are what autograd holds, per token and layer, in e bytes: 4 D (the stream before and after both norms),
queries and attention's output 2 Q, keys and values 2 K, and the feed-forward's 4 F (SwiGLU) or 2 F (GELU); the sums of
softmax and norms in float32. Scores are not held (flash attention; Korthikanti et al., arXiv 2205.05198, section 4,
count bytes alike, with dropout and with scores). With activation checkpointing a layer holds D, and one layer at a time
the rest. The loss holds the gradients of hidden states and output matrix, and a chunk of logits twice
(model.cross_entropy). Neither the allocator's slack nor the context of CUDA, about 1 GB, is in it.

Operations are 6 N + 12 L d T a token, as MFU is counted everywhere here (d: the width of all heads, T: the context).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from caravela.data.sources import MixtureConfig
from caravela.model.config import BIAS_FEATURES, LOGIT_BYTES, ModelConfig, num_parameters
from caravela.progress import table
from caravela.train.config import TrainConfig
from caravela.train.metrics import flops_per_token, peak_tflops


class Gpu(NamedTuple):
    """From the maker's data sheet."""

    name: str
    """As ``train.metrics`` knows its peak by."""
    memory_gb: float
    watts: float
    """Most that it draws."""

    @property
    def tflops(self) -> float:
        """Peak in dense bfloat16."""
        peak = peak_tflops(self.name)
        assert peak is not None, f"{self.name} has no peak in train.metrics"
        return peak


GPUS = {
    "a100-40gb": Gpu("A100", 40, 400),
    "a100-80gb": Gpu("A100", 80, 400),
    "h100": Gpu("H100", 80, 700),
    "h200": Gpu("H200", 141, 700),
    "b200": Gpu("B200", 180, 1000),
    "l4": Gpu("L4", 24, 72),
    "l40s": Gpu("L40S", 48, 350),
    "rtx-4090": Gpu("RTX 4090", 24, 450),
}
BUCKET, PREFETCH = 500_000_000, 50_000_000
STAGES = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """What a dry run assumes; nothing that is run depends on it."""

    gpu: str = "h200"
    """A name in ``train.estimate.GPUS``."""
    mfu: float = 0.4
    """Share of its peak that is reached."""
    price_per_gpu_hour: float = 3.5
    """In any currency."""

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise ValueError(f"gpu = {self.gpu!r}: expected one of {', '.join(GPUS)}")
        if not 0 < self.mfu <= 1:
            raise ValueError(f"mfu = {self.mfu}: expected above 0 and at most 1")
        if not self.price_per_gpu_hour >= 0:
            raise ValueError(f"price_per_gpu_hour = {self.price_per_gpu_hour}: expected 0 or more")


class Memory(NamedTuple):
    """Bytes on each GPU."""

    weights: float
    gradients: float
    optimizer: float
    buckets: float
    activations: float
    loss: float

    @property
    def total(self) -> float:
        return sum(self)


def memory(model: ModelConfig, train: TrainConfig, zero_stage: int, checkpointing: bool) -> Memory:
    """What a worker holds at the worst moment, the end of a backward pass being as full as its beginning."""
    parameters, workers = num_parameters(model), train.num_workers
    element = 2 if train.precision == "bf16" else 4
    weights = float(element * parameters)
    if zero_stage == 3:
        gathered = min(parameters, largest_part(model) + PREFETCH) if workers > 1 else 0
        weights = weights / workers + element * gathered
    gradients = 4.0 * parameters / (workers if zero_stage > 1 else 1)
    if zero_stage == 1 and train.precision == "bf16":
        gradients += 2 * parameters
    bucket = min(BUCKET, parameters) * (4 + (element if element == 2 and zero_stage > 1 else 0))
    rows = min(train.micro_batch_rows, -(-train.batch_rows // workers))
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=12.0 * parameters / workers,
        buckets=float(bucket),
        activations=activations(model, rows, element, checkpointing),
        loss=loss_bytes(model, rows, element),
    )


def largest_part(model: ModelConfig) -> int:
    """Parameters of a block, or of the output matrix if that has more."""
    embeddings = model.vocabulary_size * model.hidden_size
    outside = embeddings * (1 if model.tied_embeddings else 2) + model.hidden_size * (2 if model.norm_bias else 1)
    return max(embeddings, (num_parameters(model) - outside) // model.num_layers)


def activations(model: ModelConfig, rows: int, element: int, checkpointing: bool) -> float:
    """Bytes that autograd holds of one micro-batch of whole rows, and the attention mask where there is one."""
    tokens, hidden = rows * model.max_positions, model.hidden_size
    wide = 4 if model.feed_forward == "swiglu" else 2
    per_token = 4 * hidden + 2 * model.query_size + 2 * model.kv_size + wide * model.feed_forward_size
    if model.positions == "alibi":  # wider heads, and attention's output also without what makes them wide
        per_token += 2 * BIAS_FEATURES * (model.num_heads + model.num_kv_heads) + model.query_size
    if model.qk_norm:
        per_token += model.query_size + model.kv_size
    sums = 4 * (model.num_heads + (4 if model.norm == "layer" else 2))
    layer = tokens * (element * per_token + sums)
    whole = model.num_layers * tokens * element * hidden + layer if checkpointing else model.num_layers * layer
    return float(whole + tokens * element * 2 * hidden + mask_bytes(model, rows))  # 2: the last norm's


def mask_bytes(model: ModelConfig, rows: int) -> int:
    """Bytes of what says who may look where; plain causal attention needs none, with ALiBi neither."""
    return rows * model.max_positions**2 if model.mask_documents else 0


def loss_bytes(model: ModelConfig, rows: int, element: int) -> float:
    """Gradients of hidden states and of the output matrix, and the chunk of logits that is in work."""
    tokens = rows * model.max_positions
    chunk = min(tokens * model.vocabulary_size, LOGIT_BYTES // 4)
    matrix = model.vocabulary_size * model.hidden_size
    return float(
        chunk * (4 + element) + matrix * (4 + (element if element == 2 else 0)) + tokens * model.hidden_size * element
    )


class Work(NamedTuple):
    """A run as a whole."""

    tokens: int
    flops: float
    hours: float
    """Of all workers together in time; each works so long."""
    gpu_hours: float
    cost: float
    kwh: float
    """If every GPU draws the most that it may all the time; nothing else is counted."""


def work(model: ModelConfig, train: TrainConfig, mixture: MixtureConfig, assumed: EstimateConfig) -> Work:
    """Tokens, operations, and what they take on the GPU that is assumed."""
    tokens = train.steps * train.batch_rows * model.max_positions
    stages = [(stage.share, stage.context or model.max_positions) for stage in mixture.stages]
    flops = sum(
        share * tokens * flops_per_token(model, context) for share, context in stages or [(1.0, model.max_positions)]
    )
    gpu = GPUS[assumed.gpu]
    gpu_hours = flops / (gpu.tflops * 1e12 * assumed.mfu) / 3600
    return Work(
        tokens=tokens,
        flops=flops,
        hours=gpu_hours / train.num_workers,
        gpu_hours=gpu_hours,
        cost=gpu_hours * assumed.price_per_gpu_hour,
        kwh=gpu_hours * gpu.watts / 1000,
    )


def chinchilla_loss(parameters: float, tokens: float) -> float:
    """Loss in nats a token that Hoffmann et al. fitted (arXiv 2203.15556, equation 10), on English text of theirs.

    To compare runs with, not a promise: another text or vocabulary has another scale.
    """
    return 1.69 + 406.4 / math.pow(parameters, 0.34) + 410.7 / math.pow(tokens, 0.28)


def as_text(model: ModelConfig, train: TrainConfig, mixture: MixtureConfig, assumed: EstimateConfig) -> str:
    """What a dry run prints."""
    parameters, needed = num_parameters(model), work(model, train, mixture, assumed)
    gpu = GPUS[assumed.gpu]
    lines = [
        f"estimate      {parameters:,} parameters · {needed.tokens / 1e9:,.2f} billion tokens in {train.steps:,} steps "
        f"of {train.batch_rows * model.max_positions:,}",
        f"operations    {needed.flops:.3g} in all, {needed.flops / needed.tokens:.3g} a token (6N + 12·L·d·T)",
        f"time          {needed.hours / 24:,.1f} days ({needed.hours:,.1f} hours) on {train.num_workers} {assumed.gpu} "
        f"at {assumed.mfu:.0%} of {gpu.tflops:,g} TFLOP/s each",
        f"cost          {needed.gpu_hours:,.0f} GPU-hours · {needed.cost:,.0f} at {assumed.price_per_gpu_hour:g} an "
        f"hour · at most {needed.kwh:,.0f} kWh in the GPUs",
    ]
    if not train.start_from:
        lines.append(
            f"loss          {chinchilla_loss(parameters, needed.tokens):.2f} nats a token, by Chinchilla's fit"
        )
    rows = min(train.micro_batch_rows, -(-train.batch_rows // train.num_workers))
    head = f"GB per GPU of {gpu.memory_gb:g}, {rows} rows of {model.max_positions:,} tokens at once, {train.precision}:"
    return "\n".join([*lines, "", head, _memory_table(model, train, gpu)])


def _memory_table(model: ModelConfig, train: TrainConfig, gpu: Gpu) -> str:
    found: list[tuple[str, ...]] = []
    for stage in STAGES:
        for checkpointing in (False, True):
            each = memory(model, train, stage, checkpointing)
            fits = "" if each.total <= gpu.memory_gb * 1e9 else "too much"
            name = f"{stage}, activations made again" if checkpointing else str(stage)
            found.append((name, *(f"{part / 1e9:,.2f}" for part in (*each, each.total)), fits))
    return table(("ZeRO", *Memory._fields, "total", ""), found)
