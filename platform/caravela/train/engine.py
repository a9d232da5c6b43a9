"""One training step by DeepSpeed's ZeRO 1 or 2, and its state as fragments. The only module that imports deepspeed.

In: micro-batches of rows, the number of targets of the whole global batch, a learning rate. Out: the loss of the global
batch in nats per target, also by source, and the norm of its gradient; the same on every rank.

Decisions, with their price:

* The loss is divided by the targets of the *global* batch, so that any split of it into ranks and micro-batches gives
  the same update to rounding. Every rank does the same number of micro-batches (ZeRO 2 reduces after each); one that
  has fewer rows fills up with a row of weight 0.
* Gradients are summed in float32, also when the model is bfloat16: 4 bytes a parameter more on each rank.
* A loss or gradient that is not finite ends the run on all ranks before the update. Price: one more reduction, of a
  scalar, which the losses by source go along with.
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

from caravela.errors import UserError
from caravela.model.scaling import learning_rate_factor
from caravela.model.transformer import Decoder
from caravela.train.checkpoint import Arrays, Fragment
from caravela.train.config import TrainConfig

logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
# DeepSpeed calls collectives by names that torch 2.13 warns about, at every step's first call in every process.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
MOMENTS = ("exp_avg", "exp_avg_sq")
RATE_FACTOR = "learning_rate_factor"


class NonFiniteError(UserError):
    """The loss or the gradient of a step is infinite or not a number; the weights are those of the step before."""


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
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            fused=device.type == "cuda",
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints memory figures, whatever its log level
            self._engine, *_ = deepspeed.initialize(
                model=_Loss(model), optimizer=optimizer, config=deepspeed_settings(config, self.num_ranks)
            )
        self._zero = self._engine.optimizer
        self._adam = self._zero.optimizer
        self._set_adam_step(0)

    def _set_adam_step(self, adam_step: int) -> None:
        """Gives every group its Adam state, with moments of zero, and links it to the parameters' fragments.

        Adam would make it in its first step. DeepSpeed links it after the step of the *first* group, when the others
        have none yet, and then never again.
        """
        for group in self._adam.param_groups:
            for flat in group["params"]:
                count = torch.tensor(float(adam_step), device=flat.device if group["fused"] else "cpu")
                self._adam.state[flat] = {"step": count} | {kind: torch.zeros_like(flat) for kind in MOMENTS}
        self._zero._hp_optimizer_states_linked = False
        self._zero._lazy_init_hp_params_optimizer_state()

    @property
    def decoder(self) -> Decoder:
        """The model, in the precision that it computes in."""
        decoder: Decoder = self._engine.module.decoder
        return decoder

    def step(self, micro_batches: Sequence[Rows], targets: int, learning_rate: float, step: int) -> StepResult:
        """Updates the weights once.

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
        padded = list(self._equal_count(micro_batches))
        for i, rows in enumerate(padded):
            self._engine.set_gradient_accumulation_boundary(i == len(padded) - 1)
            rows = self._here(rows)
            loss, row_losses = self._engine(rows.tokens, rows.weights, rows.segments)
            sums[0] += loss.detach()
            self._add_by_source(sums[1:].view(2, -1), rows, row_losses)
            # DeepSpeed takes the mean over ranks; ours is a sum.
            self._engine.backward(loss * (self.num_ranks / targets), scale_wrt_gas=False)
            if i < len(padded) - 1:
                self._engine.step()
        torch.distributed.all_reduce(sums)
        total, *by_source = sums.tolist()
        mean = total / targets
        if not math.isfinite(mean):
            raise NonFiniteError(f"step {step}: the loss is {mean}; stopped before the update")
        self._engine.step()
        if self._zero.overflow:  # DeepSpeed has seen it on all ranks and left the weights alone
            raise NonFiniteError(
                f"step {step}: the gradient is not finite (loss {mean:.4f}); stopped before the update"
            )
        losses, counts = by_source[: self.num_sources], by_source[self.num_sources :]
        source_losses = tuple(loss / n if n else None for loss, n in zip(losses, counts, strict=True))
        return StepResult(mean, float(self._engine.get_global_grad_norm()), source_losses)

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
        return Rows(*(None if each is None else each.to(self.device, non_blocking=True) for each in rows))

    def _equal_count(self, micro_batches: Sequence[Rows]) -> Iterator[Rows]:
        """The rank's micro-batches, and as many empty ones as the rank with the most rows makes necessary."""
        most_rows = -(-self.config.batch_rows // self.num_ranks)
        count = -(-most_rows // self.config.micro_batch_rows)
        assert len(micro_batches) <= count, f"{len(micro_batches)} micro-batches, but no rank has more than {count}"
        yield from micro_batches
        for _ in range(count - len(micro_batches)):
            context = self.decoder.config.max_positions
            tokens = torch.zeros(1, context + 1, dtype=torch.int64)
            yield Rows(tokens, weights=torch.zeros(1, context))

    @torch.no_grad()
    def held_out_sums(self, batches: Iterable[Rows]) -> list[tuple[float, float]]:
        """Loss in nats and number of targets of each of this rank's batches, which are not trained on.

        Every rank must come with as many batches.
        """
        self._engine.eval()
        sums = []
        for rows in batches:
            rows = self._here(rows)
            loss = self.decoder.loss(rows.tokens[:, :-1], rows.tokens[:, 1:], rows.weights, rows.segments)
            sums.append((float(loss.total), float(loss.num_targets)))
        return sums

    def adam_step(self) -> int:
        """Updates that the optimizer has made, which its bias correction depends on."""
        steps = {int(state["step"]) for state in self._adam.state.values()}
        assert len(steps) == 1, f"parameter groups disagree about Adam's step: {steps}"
        return steps.pop()

    def fragments(self) -> list[Fragment]:
        """A copy, in CPU memory, of this rank's share of weights and moments."""
        copies = []
        for name, piece in self._pieces():
            start = int(piece.lp_fragment_address.start)
            tensors = {"weight": piece.get_hp_fragment(), **{kind: piece.get_hp_fragment(kind) for kind in MOMENTS}}
            arrays = {kind: tensor.detach().to("cpu", copy=True).numpy() for kind, tensor in tensors.items()}
            copies.append(Fragment(name, start, arrays))
        return copies

    @torch.no_grad()
    def restore(self, read: Callable[[str, int, int], Arrays], adam_step: int) -> None:
        """Takes over weights, moments and Adam's step; all ranks together.

        Args:
            read: gives elements ``[start, start + numel)`` of a parameter by name, as ``checkpoint.Reader.read`` does.
            adam_step: updates made.
        """
        self._set_adam_step(adam_step)
        for name, piece in self._pieces():
            address = piece.lp_fragment_address
            arrays = read(name, int(address.start), int(address.numel))
            piece.get_hp_fragment().copy_(torch.from_numpy(arrays["weight"]))
            for kind in MOMENTS:
                piece.get_hp_fragment(kind).copy_(torch.from_numpy(arrays[kind]))
        self._zero.update_lp_params()  # else the model computes with its old weights until the next update

    def _pieces(self) -> Iterator[tuple[str, Any]]:
        """DeepSpeed's record of what this rank holds of each parameter."""
        for name, parameter in self.decoder.named_parameters():
            if (piece := parameter._hp_mapping) is not None:  # type: ignore[attr-defined]
                yield name, piece

    def full_weights(self) -> dict[str, Tensor]:
        """All weights in float32 on the CPU, on rank 0; empty on the others. A tied matrix comes once."""
        weights = {}
        for name, parameter in self.decoder.named_parameters():
            whole = parameter.get_full_hp_param()  # type: ignore[attr-defined]
            if torch.distributed.get_rank() == 0:
                weights[name] = whole.cpu()
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


def deepspeed_settings(config: TrainConfig, num_ranks: int) -> dict[str, Any]:
    """What DeepSpeed is told. Its batch sizes are bookkeeping: we set the boundaries of accumulation ourselves."""
    settings: dict[str, Any] = {
        "train_batch_size": num_ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip,
        "steps_per_print": 1 << 60,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": config.zero_stage},
    }
    if config.precision == "bf16":
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
        settings["communication_data_type"] = "fp32"
    return settings
