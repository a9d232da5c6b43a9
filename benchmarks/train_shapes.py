"""What the benchmarks of training share: shapes, arithmetic of operations, and loops that a model is trained in.

A ``Loop`` takes rows of tokens, updates the weights once and returns the loss. ``PlainLoop`` is PyTorch and nothing
else, over our decoder or over the Hugging Face model with the same weights; ``EngineLoop`` is the project's engine. All
three get the same settings: AdamW in one fused pass, decay of matrices alone, clipping, the mean over the targets of
all rows. In bfloat16 all keep float32 master weights and sum gradients in float32.

Nothing here needs Ray; what needs DeepSpeed or transformers imports it when it is asked for, so that a machine without
them can measure the rest.
"""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.distributed
from torch import Tensor, nn

from caravela.model.config import ModelConfig
from caravela.model.conversion import to_transformers
from caravela.model.transformer import Decoder

RECIPES = Path(__file__).parents[1] / "jobs" / "configs" / "recipes"
LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, CLIP = 3e-4, (0.9, 0.95), 1e-8, 0.1, 1.0


class Shape(NamedTuple):
    """A model and the rows of one update of it."""

    model: ModelConfig
    batch_rows: int
    micro_batch_rows: int

    @property
    def tokens_per_step(self) -> int:
        return self.batch_rows * self.model.max_positions


def llama(
    layers: int, hidden: int, inner: int, heads: int, kv_heads: int, vocabulary: int, context: int
) -> ModelConfig:
    """A Llama without biases and with matrices of its own for input and output."""
    return ModelConfig(
        num_layers=layers,
        hidden_size=hidden,
        feed_forward_size=inner,
        num_heads=heads,
        num_kv_heads=kv_heads,
        vocabulary_size=vocabulary,
        max_positions=context,
    )


def of_recipe(name: str) -> ModelConfig:
    """The model of a recipe, with the vocabulary and context that it is packed with."""
    with open(RECIPES / f"{name}.toml", "rb") as file:
        recipe = tomllib.load(file)
    sizes = {"vocabulary_size": recipe["tokenizer"]["vocabulary_size"], "max_positions": recipe["pack"]["context"]}
    return ModelConfig(**recipe["model"], **sizes)


def shapes() -> dict[str, Shape]:
    """By name. Steps of the GPU's shapes are of 131,072 tokens; micro-batches leave half of an H200's memory free."""
    return {
        "toy": Shape(llama(2, 64, 128, 4, 2, 640, 32), 4, 2),
        "6m": Shape(llama(6, 256, 640, 4, 2, 4096, 128), 8, 8),
        "10m": Shape(llama(8, 256, 704, 4, 4, 8192, 256), 4, 4),
        "160m": Shape(of_recipe("ttl-160m"), 64, 32),
        "345m": Shape(of_recipe("biatron-345m"), 32, 8),
        "460m": Shape(of_recipe("ttl-460m"), 64, 16),
        "1.1b": Shape(llama(22, 2048, 5632, 32, 4, 32_000, 2048), 64, 16),  # Tucano-1b1
    }


class Loop(Protocol):
    """A model in training."""

    def step(self, rows_BT: Tensor, learning_rate: float | None = None) -> float:
        """Updates the weights once with rows [rows, context + 1]; the loss before it, in nats per target."""

    def held_out_loss(self, rows_BT: Tensor) -> float:
        """The loss of rows that are not trained on, in nats per target."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one training."""

    device: str = "cpu"
    precision: str = "fp32"
    micro_batch_rows: int = 4
    compile: bool = False
    """Whether torch.compile is laid on the model, of ours on the trunk."""
    learning_rate: float = LEARNING_RATE


SummedLoss = Callable[[Any, Tensor], Tensor]
"""A model and rows [rows, context + 1] to the sum of losses in nats."""


def our_loss(model: Decoder, rows_BT: Tensor) -> Tensor:
    return model.loss(rows_BT[:, :-1], rows_BT[:, 1:]).total


def their_loss(model: Any, rows_BT: Tensor) -> Tensor:
    """Hugging Face's own loss, of the same targets: their default would shift inputs and lose the last one."""
    inputs_BT, targets_BT = rows_BT[:, :-1], rows_BT[:, 1:].contiguous()
    loss: Tensor = model(input_ids=inputs_BT, labels=inputs_BT, shift_labels=targets_BT, use_cache=False).loss
    return loss * targets_BT.numel()


def hugging_face_twin(decoder: Decoder) -> Any:
    """The Llama or Starcoder 2 of transformers with the same weights, in float32 on the CPU.

    Its config is written out here, although ``caravela.model.families`` has it too, because that module needs the
    libraries of object storage.
    """
    import transformers

    ours = decoder.config
    sizes = {
        "vocab_size": ours.vocabulary_size,
        "hidden_size": ours.hidden_size,
        "intermediate_size": ours.feed_forward_size,
        "num_hidden_layers": ours.num_layers,
        "num_attention_heads": ours.num_heads,
        "num_key_value_heads": ours.num_kv_heads,
        "max_position_embeddings": ours.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": ours.rope_theta},
        "tie_word_embeddings": ours.tied_embeddings,
    }
    if ours.norm == "rms":
        family, content = "llama", {**sizes, "rms_norm_eps": ours.norm_epsilon}
    else:
        family, content = "starcoder2", {**sizes, "norm_epsilon": ours.norm_epsilon, "hidden_act": "gelu"}
        content |= {"use_bias": True, "residual_dropout": 0.0, "embedding_dropout": 0.0}
    config = transformers.AutoConfig.for_model(family, **content)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    theirs.load_state_dict(to_transformers(decoder.state_dict(), ours, family))
    return theirs


class PlainLoop:
    """PyTorch alone: forward, backward, clip, AdamW."""

    def __init__(self, model: nn.Module, summed_loss: SummedLoss, settings: Settings) -> None:
        self.summed_loss, self.settings = summed_loss, settings
        dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        self.parameters: list[Tensor] = list(model.to(settings.device).parameters())
        self.masters: list[Tensor] = [nn.Parameter(p.detach().clone()) for p in self.parameters]
        self.model = model.to(dtype).train()
        if dtype == torch.float32:
            self.masters = self.parameters
        groups = [
            {"params": [p for p in self.masters if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in self.masters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS, eps=EPSILON, fused=True)
        if settings.compile:
            (model.model if isinstance(model, Decoder) else model).compile()

    def step(self, rows_BT: Tensor, learning_rate: float | None = None) -> float:
        for group in self.adam.param_groups:
            group["lr"] = learning_rate or self.settings.learning_rate
        rows_BT = rows_BT.to(self.settings.device)
        targets = rows_BT[:, 1:].numel()
        total = torch.zeros((), device=rows_BT.device)
        for rows in rows_BT.split(self.settings.micro_batch_rows):
            loss = self.summed_loss(self.model, rows)
            total += loss.detach()
            (loss / targets).backward()
            self._take_over()
        nn.utils.clip_grad_norm_(self.masters, CLIP, foreach=True)
        self.adam.step()
        self.adam.zero_grad()
        if self.masters is not self.parameters:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self.masters)
        return float(total) / targets

    @torch.no_grad()
    def held_out_loss(self, rows_BT: Tensor) -> float:
        self.model.eval()
        batches = rows_BT.to(self.settings.device).split(self.settings.micro_batch_rows)
        total = sum(float(self.summed_loss(self.model, rows)) for rows in batches)
        self.model.train()
        return total / rows_BT[:, 1:].numel()

    def _take_over(self) -> None:
        """Adds gradients in bfloat16 to those in float32, of which the optimizer knows alone."""
        if self.masters is self.parameters:
            return
        fresh = [cast(Tensor, p.grad) for p in self.parameters]
        if self.masters[0].grad is None:
            for master, gradient in zip(self.masters, fresh, strict=True):
                master.grad = gradient.float()
        else:
            torch._foreach_add_([cast(Tensor, m.grad) for m in self.masters], fresh)
        for parameter in self.parameters:
            parameter.grad = None


class EngineLoop:
    """The project's engine: DeepSpeed's ZeRO 1 in a process group of one."""

    def __init__(self, model: Decoder, batch_rows: int, settings: Settings) -> None:
        from caravela.train.config import TrainConfig
        from caravela.train.engine import Engine, Rows

        self.rows = Rows
        self.config = TrainConfig(
            steps=1 << 30,
            batch_rows=batch_rows,
            micro_batch_rows=settings.micro_batch_rows,
            learning_rate=settings.learning_rate,
            schedule="constant",
            weight_decay=WEIGHT_DECAY,
            beta1=BETAS[0],
            beta2=BETAS[1],
            epsilon=EPSILON,
            clip=CLIP,
            precision="bf16" if settings.precision == "bf16" else "fp32",
            use_gpu=settings.device != "cpu",
        )
        process_group_of_one(settings.device)
        self.engine = Engine(model, self.config, torch.device(settings.device))
        self.steps = 0

    def step(self, rows_BT: Tensor, learning_rate: float | None = None) -> float:
        self.steps += 1
        micro_batches = [self.rows(rows) for rows in rows_BT.split(self.config.micro_batch_rows)]
        rate = learning_rate or self.config.learning_rate
        return self.engine.step(micro_batches, rows_BT[:, 1:].numel(), rate, self.steps).loss

    def held_out_loss(self, rows_BT: Tensor) -> float:
        batches = [self.rows(rows) for rows in rows_BT.split(self.config.micro_batch_rows)]
        nats, targets = map(sum, zip(*self.engine.held_out_sums(batches), strict=True))
        return nats / targets


def process_group_of_one(device: str) -> None:
    """What Ray Train would have set up."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    if not torch.distributed.is_initialized():
        backend = "gloo" if device == "cpu" else "nccl"
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)


def random_rows(model: ModelConfig, rows: int, seed: int) -> Tensor:
    """Rows [rows, context + 1] of tokens, none likelier than another."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.vocabulary_size, (rows, model.max_positions + 1), generator=generator)


def loop_of(kind: str, shape: Shape, settings: Settings) -> Loop:
    """``plain``, ``engine`` or ``hugging_face``, all from the same initial weights."""
    decoder = Decoder(shape.model).initialize(torch.Generator().manual_seed(0))
    if kind == "plain":
        return PlainLoop(decoder, our_loss, settings)
    if kind == "engine":
        return EngineLoop(decoder, shape.batch_rows, settings)
    assert kind == "hugging_face", kind
    return PlainLoop(hugging_face_twin(decoder), their_loss, settings)
