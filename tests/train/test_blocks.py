"""Blocks whose activations are made again, and compiled ones: the same losses, gradients and names of weights."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from caravela.model.transformer import Decoder
from caravela.train.blocks import prepare_blocks
from caravela.train.config import TrainConfig
from tests.train.groups import batch, new_model


def prepared(**settings: Any) -> Decoder:
    model = new_model()
    prepare_blocks(model, TrainConfig(steps=1, batch_rows=4, learning_rate=1.0, **settings), torch.device("cpu"))
    return model


def loss_and_gradients(model: Decoder) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    tokens = batch(1, 4)
    loss = model.loss(tokens[:, :-1], tokens[:, 1:], segments_BT=torch.arange(16).expand(4, -1) // 5).total
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("every", "calls"), [(0, [1, 1]), (1, [2, 2]), (2, [2, 1]), (3, [2, 1])])
def test_blocks_made_again_give_the_same_loss_and_gradients(every: int, calls: list[int]) -> None:
    model = prepared(activation_checkpointing=every)
    counts: Counter[int] = Counter()
    for i, block in enumerate(model.model.layers):
        block.mlp.register_forward_pre_hook(lambda *_, i=i: counts.update([i]))
    (loss, gradients), (plain_loss, plain_gradients) = loss_and_gradients(model), loss_and_gradients(new_model())
    assert [counts[0], counts[1]] == calls
    assert loss == plain_loss
    assert list(gradients) == list(plain_gradients)
    assert all(torch.equal(gradients[name], plain_gradients[name]) for name in gradients)
    assert list(model.state_dict()) == list(new_model().state_dict())


def test_blocks_made_again_hold_less() -> None:
    def held(model: Decoder) -> int:
        """Elements that the forward pass keeps for the backward pass, apart from weights."""
        kept, weights = Counter[int](), {parameter.data_ptr() for parameter in model.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in weights:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().size()
            return tensor

        tokens = batch(1, 4)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.loss(tokens[:, :-1], tokens[:, 1:])
        return kept.total()

    plain, half, none = (
        held(new_model()),
        held(prepared(activation_checkpointing=2)),
        held(prepared(activation_checkpointing=1)),
    )
    assert none < half < plain
    assert none < plain / 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPU")
def test_blocks_compiled_give_the_same_loss_and_gradients_to_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = prepared(compile="on", activation_checkpointing=2)
    (loss, gradients), (plain_loss, plain_gradients) = loss_and_gradients(model), loss_and_gradients(new_model())
    assert list(tmp_path.rglob("*.cpp")), "nothing was compiled"
    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=0)
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == list(new_model().state_dict())


@pytest.mark.parametrize("compile_setting", ["auto", "off"])
def test_blocks_are_not_compiled_on_cpu_unless_told(compile_setting: str) -> None:
    model = prepared(compile=compile_setting)
    assert all("forward" not in vars(block) for block in model.model.layers)
