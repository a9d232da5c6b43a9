"""What a dry run says of a run to come, by hand, and beside what torch and DeepSpeed really hold."""

import dataclasses
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from caravela.config import build
from caravela.data.sources import MixtureConfig
from caravela.model.config import ModelConfig, num_parameters
from caravela.model.transformer import Decoder
from caravela.train import estimate
from caravela.train.config import TrainConfig
from caravela.train.estimate import EstimateConfig
from caravela.train.metrics import flops_per_token
from tests.train.groups import run_group

LLAMA_7B = ModelConfig(
    num_layers=32,
    hidden_size=4096,
    feed_forward_size=11008,
    num_heads=32,
    num_kv_heads=32,
    vocabulary_size=32000,
    max_positions=4096,
)
SMALL = ModelConfig(
    num_layers=3,
    hidden_size=64,
    feed_forward_size=96,
    num_heads=4,
    num_kv_heads=2,
    vocabulary_size=101,
    max_positions=64,
)


def config(**changed: Any) -> TrainConfig:
    usual = {"steps": 10, "batch_rows": 8, "learning_rate": 1e-3, "micro_batch_rows": 2}
    return TrainConfig(**{**usual, **changed})


def test_memory_by_hand() -> None:
    """Llama 2 7B has 6,738,415,616 parameters; on 8 GPUs in bf16 the optimizer is 12 bytes of each over 8."""
    n = 6_738_415_616
    assert num_parameters(LLAMA_7B) == n
    one, two, three = (estimate.memory(LLAMA_7B, config(num_workers=8), stage, False) for stage in (1, 2, 3))
    assert (one.weights, one.gradients, one.optimizer) == (2 * n, 6 * n, 12 * n / 8)
    assert (two.weights, two.gradients, two.optimizer) == (2 * n, 4 * n / 8, 12 * n / 8)
    block = 4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096
    assert (three.weights, three.gradients) == (2 * n / 8 + 2 * (block + 50_000_000), 4 * n / 8)
    # batch_rows = 8 over 8 workers: one row of 4,096 tokens, of 4 + 4 widths of 4,096 and 4 of 11,008 in each layer
    layer = 4096 * (2 * (8 * 4096 + 4 * 11008) + 4 * (32 + 2))
    assert one.activations == 32 * layer + 4096 * 2 * 2 * 4096
    again = estimate.memory(LLAMA_7B, config(num_workers=8), 1, True)
    assert again.activations == 32 * 4096 * 2 * 4096 + layer + 4096 * 2 * 2 * 4096
    assert one.loss == (1 << 26) * (4 + 2) + 32000 * 4096 * (4 + 2) + 4096 * 4096 * 2
    assert one.total == sum(one)


def test_memory_of_masks_by_hand() -> None:
    assert estimate.mask_bytes(dataclasses.replace(SMALL, mask_documents=True), 8) == 8 * 64 * 64
    assert estimate.mask_bytes(SMALL, 8) == 0


def test_work_by_hand() -> None:
    """Half of the tokens with half of the context cost half of the attention there."""
    train = config(steps=1000, batch_rows=256, num_workers=8)
    table = {"stages": [{"share": 0.5, "context": 2048}, {"share": 0.5}]}
    assumed = EstimateConfig(gpu="a100-80gb", mfu=0.5, price_per_gpu_hour=2.0)
    found = estimate.work(LLAMA_7B, train, build(MixtureConfig, table, "mixture"), assumed)
    tokens = 1000 * 256 * 4096
    flops = tokens * (6 * 6_738_415_616 + 12 * 32 * 4096 * 3072)
    assert found.tokens == tokens
    assert found.flops == pytest.approx(flops, rel=1e-12)
    gpu_hours = flops / 156e12 / 3600
    assert found.gpu_hours == pytest.approx(gpu_hours)
    assert found.hours == pytest.approx(gpu_hours / 8)
    assert found.cost == pytest.approx(2 * gpu_hours)
    assert found.kwh == pytest.approx(0.4 * gpu_hours)


def test_biatron_takes_as_many_operations_as_derived_from_its_shapes() -> None:
    model = ModelConfig(
        num_layers=32,
        hidden_size=960,
        feed_forward_size=3840,
        num_heads=15,
        num_kv_heads=5,
        norm="layer",
        norm_bias=True,
        feed_forward="gelu",
        attention_bias=True,
        mlp_bias=True,
        tied_embeddings=True,
        vocabulary_size=32000,
        max_positions=4096,
    )
    assert flops_per_token(model, 4096) == 6 * 345_653_120 + 12 * 32 * 960 * 4096  # 3.58e9


def test_chinchilla_gives_its_own_models_loss() -> None:
    """70 billion parameters and 1.4 trillion tokens: 1.69 + 0.083 + 0.163 nats; Gopher, 280 and 0.3: 1.993."""
    assert estimate.chinchilla_loss(70e9, 1.4e12) == pytest.approx(1.936, abs=2e-3)
    assert estimate.chinchilla_loss(280e9, 300e9) == pytest.approx(1.993, abs=2e-3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"gpu": "h300"}, "gpu = 'h300': expected one of a100-40gb, a100-80gb, h100, h200"),
        ({"mfu": 0.0}, "mfu = 0.0: expected above 0 and at most 1"),
        ({"price_per_gpu_hour": -1.0}, "price_per_gpu_hour = -1.0: expected 0 or more"),
    ],
)
def test_estimate_config_names_what_is_wrong(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EstimateConfig(**table)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 4},
        {"qk_norm": True},
        {"positions": "alibi"},
        {
            "norm": "layer",
            "norm_bias": True,
            "feed_forward": "gelu",
            "attention_bias": True,
            "mlp_bias": True,
            "tied_embeddings": True,
        },
    ],
    ids=str,
)
def test_activations_are_what_autograd_holds(changes: dict[str, Any]) -> None:
    """Every storage that the forward pass keeps for the backward pass, but for the weights. Rotary tables are small."""
    model = dataclasses.replace(SMALL, **changes)
    decoder = Decoder(model).initialize(torch.Generator().manual_seed(0))
    own = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    held: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage
        return tensor

    tokens = torch.zeros(4, model.max_positions, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = decoder.model(tokens)
    found = sum(storage.nbytes() for storage in held.values())
    assert output.requires_grad
    expected = estimate.activations(model, 4, 4, checkpointing=False)
    if model.norm == "rms":  # on a CPU, torch makes it of parts and holds its input twice
        features = (2 * model.num_layers + 1) * model.hidden_size
        features += model.qk_norm * model.num_layers * (model.query_size + model.kv_size)
        expected += 4 * tokens.numel() * features
    assert found == pytest.approx(expected, rel=0.05)


def held_bytes() -> int:
    """Of all tensors that are alive in this process, gradients and their float32 sums among them."""
    gc.collect()
    seen = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            for tensor in (thing, thing.grad if thing.is_leaf else None, getattr(thing, "grad_accum", None)):
                if isinstance(tensor, torch.Tensor):
                    seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(seen.values())


def _counted(update: Callable[[], None], full: list[int], before: int) -> Callable[[], None]:
    def counted() -> None:
        full.append(held_bytes() - before)
        update()

    return counted


def hold(folder: str, cases: list[tuple[int, str]]) -> None:
    """Bytes before the update of each case, without what was there before it."""
    from caravela.train.engine import Engine, Rows

    found: list[int] = []
    alive = []  # an engine that goes while another is measured would be taken off
    for stage, precision in cases:
        before = held_bytes()
        settings = config(zero_stage=stage, precision=precision, batch_rows=4, micro_batch_rows=1)
        engine = Engine(Decoder(SMALL).initialize(torch.Generator()), settings, torch.device("cpu"))
        alive.append(engine)
        full: list[int] = []
        engine._engine.step = _counted(engine._engine.step, full, before)
        rows = Rows(torch.zeros(1, SMALL.max_positions + 1, dtype=torch.int64))
        engine.step([rows] * (4 // torch.distributed.get_world_size()), 4 * SMALL.max_positions, 1e-3, 1)
        found.append(full[-1])
    Path(folder, f"{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_weights_gradients_and_optimizer_are_what_deepspeed_holds(tmp_path: Path, num_ranks: int) -> None:
    cases = [(1, "bf16"), (2, "bf16"), (1, "fp32"), (2, "fp32")]
    run_group(num_ranks, hold, os.fspath(tmp_path), cases)
    for rank in range(num_ranks):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for (stage, precision), full in zip(cases, found, strict=True):
            said = estimate.memory(SMALL, config(precision=precision, num_workers=num_ranks), stage, False)
            # In float32, ZeRO 1 has by now let go of what is other ranks' to update; a moment before it held all.
            share = num_ranks if (stage, precision) == (1, "fp32") else 1
            expected = said.weights + said.gradients / share + said.optimizer
            assert full == pytest.approx(expected, rel=0.03), (stage, precision)
