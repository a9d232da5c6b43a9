"""One training step by DeepSpeed's ZeRO, and its state as fragments. The only module that imports deepspeed.

In: micro-batches of rows, the number of targets of the whole global batch, a learning rate. Out: the loss of the global
batch in nats per target, also by source, and the norm of its gradient; the same on every rank.

Decisions, with their price:

* The loss is divided by the targets of the *global* batch, so that any split of it into ranks and micro-batches gives
  the same update to rounding. Every rank does the same number of micro-batches (ZeRO 2 reduces after each); one that
  has fewer rows fills up with a row of weight 0.
* Gradients are summed in float32, also when the model is bfloat16: 4 bytes a parameter more on each rank.
* A loss or gradient that is not finite ends the run on all ranks before the update. Price: one more reduction, of a
  scalar, which the losses by source go along with.
* Nothing in training is random: there is no dropout, and the order of rows is a function of the step. So there is no
  state of a generator to keep.
* torch's AdamW, and on CPU no shared-memory op, because DeepSpeed would compile both in the user's session. The table
  of ops is DeepSpeed's own affair, as are the fragments; so its version is pinned and tests guard both.
"""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import deepspeed
import deepspeed.comm
import torch
import torch.distributed
from torch import Tensor, nn

from caravela.model.config import ModelConfig, num_parameters
from caravela.model.scaling import learning_rate_factor
from caravela.model.transformer import Decoder
from caravela.train import partition
from caravela.train.blocks import prepare_blocks
from caravela.train.checkpoint import Arrays, Fragment
from caravela.train.config import TrainConfig
from caravela.train.faults import NonFiniteError

logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
# DeepSpeed calls collectives by names that torch 2.13 warns about, at every step's first call in every process.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
RATE_FACTOR = "learning_rate_factor"


class Rows(NamedTuple):
    """One micro-batch."""

    tokens: Tensor
    """[rows, context + 1]."""
    segments: Tensor | None = None
    """[rows, context] ids of documents that must not see one another."""
    weights: Tensor | None = None
    """[rows, context] 0 for a target that does not count, else 1; None where all do."""
    sources: Tensor | None = None
    """[rows] number of each row's source, where the loss is wanted by source."""


class StepResult(NamedTuple):
    loss: float
    grad_norm: float
    """Before clipping."""
    source_losses: tuple[float | None, ...]
    """Nats per target of each source, None where it has no target in this global batch; empty if not asked for."""


class _Loss(nn.Module):
    """What DeepSpeed calls: rows to the summed loss, and the share of each row in it."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor, weights: Tensor | None, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        loss = self.decoder.loss(tokens[:, :-1], tokens[:, 1:], weights, segments)
        return loss.total, loss.rows_B


class Engine:
    """A model in training. Made and called by all ranks together, after ``torch.distributed`` is initialised."""

    def __init__(self, model: Decoder, config: TrainConfig, device: torch.device, num_sources: int = 0) -> None:
        """Hands the model over to DeepSpeed.

        Args:
            model: with its initial weights.
            config: settings of training.
            device: that the model computes on.
            num_sources: that the loss is also wanted for, one by one; 0 if it is not.
        """
        self.config = config
        self.device = device
        self.num_sources = num_sources
        self.num_ranks = torch.distributed.get_world_size()
        if device.type == "cpu":
            # Merely starting the CPU backend would compile this op; gloo reduces without it.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        prepare_blocks(model, config, device)
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            fused=True,  # on the CPU too: one pass over weights and moments instead of ten
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints memory figures, whatever its log level
            self._engine, *_ = deepspeed.initialize(
                model=_Loss(model), optimizer=optimizer, config=deepspeed_settings(config, model.config, self.num_ranks)
            )
        self._zero = self._engine.optimizer
        partition.set_adam_step(self._zero, 0)

    @property
    def decoder(self) -> Decoder:
        """The model, in the precision that it computes in."""
        decoder: Decoder = self._engine.module.decoder
        return decoder

    def step(self, micro_batches: Sequence[Rows], targets: int, learning_rate: float, step: int) -> StepResult:
        """Updates the weights once. After an error the engine is as it was, and can go on.

        Args:
            micro_batches: this rank's rows; a rank may have none.
            targets: that count, of the global batch.
            learning_rate: of this update.
            step: for the error message.

        Raises:
            NonFiniteError: on all ranks, before the update.
        """
        self._engine.train()
        for group in self._zero.param_groups:
            group["lr"] = learning_rate * group[RATE_FACTOR]
        # the loss; then, for each source, loss and targets
        sums = torch.zeros(1 + 2 * self.num_sources, dtype=torch.float64, device=self.device)
        losses = []
        for rows, loss, row_losses in self._passes(micro_batches, targets):
            sums[0] += loss
            self._add_by_source(sums[1:].view(2, -1), rows, row_losses)
            losses.append(row_losses)
        torch.distributed.all_reduce(sums)
        total, *by_source = sums.tolist()
        mean = total / targets
        if not math.isfinite(mean):
            self._discard()
            num_rows = sum(len(rows.tokens) for rows in micro_batches)
            guilty = (~torch.cat(losses)[:num_rows].isfinite()).nonzero()[:, 0].tolist()
            raise self._fault(step, f"the loss is {mean}", guilty)
        self._engine.step()
        if self._zero.overflow:  # DeepSpeed has seen it on all ranks and left the weights alone
            guilty = self._rows_of_bad_gradient(micro_batches, targets)
            raise self._fault(step, f"the gradient is not finite (loss {mean:.4f})", guilty)
        totals, counts = by_source[: self.num_sources], by_source[self.num_sources :]
        source_losses = tuple(loss / n if n else None for loss, n in zip(totals, counts, strict=True))
        return StepResult(mean, float(self._engine.get_global_grad_norm()), source_losses)

    def _passes(self, micro_batches: Sequence[Rows], targets: int) -> Iterator[tuple[Rows, Tensor, Tensor]]:
        """Adds up the gradients; gives each micro-batch, its summed loss, and that of each row."""
        padded = list(self._equal_count(micro_batches))
        for i, rows in enumerate(padded):
            last = i == len(padded) - 1
            self._engine.set_gradient_accumulation_boundary(last)
            rows = self._here(rows)
            loss, row_losses = self._engine(rows.tokens, rows.weights, rows.segments)
            # DeepSpeed takes the mean over ranks; ours is a sum.
            self._engine.backward(loss * (self.num_ranks / targets), scale_wrt_gas=False)
            if not last:
                self._engine.step()
            yield rows, loss.detach(), row_losses

    def _discard(self) -> None:
        """Throws the gradients away, in DeepSpeed's own way."""
        partition.spoil_gradients(self._zero)
        self._engine.step()
        assert self._zero.overflow, "gradients that are not finite were taken"
        partition.clear_gradients(self._zero)

    def _rows_of_bad_gradient(self, micro_batches: Sequence[Rows], targets: int) -> list[int]:
        """Rows of this rank's micro-batches whose gradient is not finite; all passes are made again to find them.

        When DeepSpeed sees it, gradients of all ranks are summed already.
        """
        finite: list[Tensor] = []

        def look(gradient: Tensor) -> None:
            finite.append(gradient.isfinite().all())

        hooks = [parameter.register_hook(look) for parameter in self.decoder.parameters()]  # type: ignore[no-untyped-call]
        guilty: list[int] = []
        first, num_rows = 0, sum(len(rows.tokens) for rows in micro_batches)
        for rows, _, _ in self._passes(micro_batches, targets):
            if first < num_rows and not all(finite):
                guilty += range(first, first + len(rows.tokens))
            first += len(rows.tokens)
            finite.clear()
        for hook in hooks:
            hook.remove()
        self._discard()
        return guilty

    def _fault(self, step: int, what: str, rows: Sequence[int]) -> NonFiniteError:
        """The error of all ranks, which names those that have such rows."""
        has_rows: list[Any] = [None] * self.num_ranks
        torch.distributed.all_gather_object(has_rows, bool(rows))
        ranks = tuple(rank for rank in range(self.num_ranks) if has_rows[rank])
        named = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}" if ranks else "no rank by itself"
        return NonFiniteError(f"step {step}: {what} on {named}; stopped before the update", step, ranks, tuple(rows))

    def _add_by_source(self, sums: Tensor, rows: Rows, row_losses: Tensor) -> None:
        """Adds each row's loss and targets to those of its source; ``sums`` is [2, sources]."""
        if self.num_sources == 0 or rows.sources is None:  # an empty micro-batch has no source
            return
        context = rows.tokens.shape[1] - 1
        counts = torch.full_like(row_losses, context) if rows.weights is None else rows.weights.sum(dim=1)
        sums.index_add_(1, rows.sources, torch.stack([row_losses, counts]).double())

    def sum_over_ranks(self, number: int) -> int:
        """The sum of a whole number of each rank's, on all ranks."""
        total = torch.tensor(number, dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(total)
        return int(total)

    def _here(self, rows: Rows) -> Rows:
        """The same on the device that computes."""
        segments, weights, sources = (
            None if each is None else each.to(self.device, non_blocking=True)
            for each in (rows.segments, rows.weights, rows.sources)
        )
        return Rows(rows.tokens.to(self.device, non_blocking=True), segments, weights, sources)

    def _equal_count(self, micro_batches: Sequence[Rows]) -> Iterator[Rows]:
        """The rank's micro-batches, and as many empty ones as the rank with the most rows makes necessary."""
        most_rows = -(-self.config.batch_rows // self.num_ranks)
        count = -(-most_rows // self.config.micro_batch_rows)
        assert len(micro_batches) <= count, f"{len(micro_batches)} micro-batches, but no rank has more than {count}"
        yield from micro_batches
        for _ in range(count - len(micro_batches)):
            yield self._empty()

    def _empty(self) -> Rows:
        """A row without targets: for a rank that has nothing to do where others have."""
        context = self.decoder.config.max_positions
        return Rows(torch.zeros(1, context + 1, dtype=torch.int64), weights=torch.zeros(1, context))

    @torch.no_grad()
    def held_out_sums(self, batches: Iterable[Rows]) -> list[tuple[float, float]]:
        """Loss in nats and number of targets of each of this rank's batches, which are not trained on.

        Every rank must come with as many batches.
        """
        self._engine.eval()
        sums = []
        for rows in batches:
            rows = self._here(rows)
            loss, _ = self._engine(rows.tokens, rows.weights, rows.segments)
            count = rows.tokens[:, 1:].numel() if rows.weights is None else float(rows.weights.sum())
            sums.append((float(loss), float(count)))
        return sums

    def adam_step(self) -> int:
        """Updates that the optimizer has made."""
        return partition.adam_step(self._zero)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all parameters, by name. A tied matrix comes once."""
        return {name: partition.shape(parameter) for name, parameter in self.decoder.named_parameters()}

    def fragments(self) -> list[Fragment]:
        """A copy, in CPU memory, of this rank's share of weights and moments."""
        return [
            Fragment(
                piece.name,
                piece.start,
                {kind: tensor.detach().to("cpu", copy=True).numpy() for kind, tensor in piece.tensors.items()},
                piece.shape,
            )
            for piece in partition.pieces(self._zero, self.decoder)
        ]

    @torch.no_grad()
    def restore(self, read: Callable[[str, int, int], Arrays], adam_step: int) -> None:
        """Takes over weights, moments and Adam's step; all ranks together.

        Args:
            read: gives elements ``[start, start + numel)`` of a parameter by name, as ``checkpoint.Reader.read`` does.
            adam_step: updates made.
        """
        partition.set_adam_step(self._zero, adam_step)
        for piece in partition.pieces(self._zero, self.decoder):
            arrays = read(piece.name, piece.start, piece.numel)
            for kind, tensor in piece.tensors.items():
                tensor.copy_(torch.from_numpy(arrays[kind]))
        partition.refresh(self._zero)

    def full_weights(self) -> dict[str, Tensor]:
        """All weights in float32 on the CPU, on rank 0; empty on the others. A tied matrix comes once."""
        weights = {}
        for name, parameter in self.decoder.named_parameters():
            whole = partition.full_weight(self._zero, parameter)
            if torch.distributed.get_rank() == 0:
                weights[name] = whole.to("cpu", copy=True)
        return weights


def parameter_groups(model: Decoder, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms and biases do not. Under muP some learn at another rate (``model.scaling``)."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        kind = (parameter.dim() >= 2, learning_rate_factor(model.config, name))
        groups.setdefault(kind, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, RATE_FACTOR: factor}
        for (decays, factor), parameters in groups.items()
    ]


def deepspeed_settings(config: TrainConfig, shape: ModelConfig, num_ranks: int) -> dict[str, Any]:
    """What DeepSpeed is told. Its batch sizes are bookkeeping: we set the boundaries of accumulation ourselves.

    No bucket is larger than the model. ZeRO 3 leaves norms and biases whole, as gathering them is nothing but waiting.
    """
    bucket = min(500_000_000, num_parameters(shape))
    settings: dict[str, Any] = {
        "train_batch_size": num_ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip,
        "steps_per_print": 1 << 60,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": config.zero_stage,
            "reduce_bucket_size": bucket,
            "stage3_param_persistence_threshold": 4 * shape.hidden_size,
        },
    }
    if not config.use_gpu and config.zero_stage == 1:
        # A buffer for all gradients costs a copy of them; it is there for the memory of GPUs, which would be in pieces.
        settings["zero_optimization"]["contiguous_gradients"] = False
    if config.precision == "bf16":
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
        settings["communication_data_type"] = "fp32"
    return settings
