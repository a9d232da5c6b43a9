"""muP: its arithmetic by hand, and activations that keep their size as the model grows wider."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.mup_coordinates import Sizes, coordinates, shape
from caravela.model.config import ModelConfig
from caravela.model.scaling import initial_std, learning_rate_factor, output_scale
from caravela.model.transformer import Decoder
from tests.model.test_transformer import TINY, decoder, tokens

WIDTHS = (64, 128, 256, 512)
STEPS = 4
WIDE = dataclasses.replace(
    TINY,
    hidden_size=192,
    feed_forward_size=400,
    mup_base_hidden_size=48,
    mup_base_feed_forward_size=80.0,
    embedding_multiplier=14.6,
    output_multiplier=2.22,
    attention_bias=True,
    mlp_bias=True,
)


def test_factors_by_hand() -> None:
    """Widths 192 over 48 are 4 times, inner widths 400 over 80 are 5 times the base; the depth is 3."""
    rate, std = {}, {}
    for name, _ in Decoder(WIDE).named_parameters():
        rate[name] = learning_rate_factor(WIDE, name)
        std[name] = initial_std(WIDE, name)
    block = "model.layers.2."
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
        assert rate[f"{block}{part}.weight"] == 1 / 4
        assert std[f"{block}{part}.weight"] == pytest.approx(0.2 / 2)
        assert rate[f"{block}{part}.bias"] == 1
    assert rate[f"{block}self_attn.o_proj.weight"] == 1 / 4
    assert std[f"{block}self_attn.o_proj.weight"] == pytest.approx(0.2 / 2 / math.sqrt(6))
    assert rate[f"{block}mlp.down_proj.weight"] == pytest.approx(1 / 5)
    assert std[f"{block}mlp.down_proj.weight"] == pytest.approx(0.2 / math.sqrt(5) / math.sqrt(6))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert (rate[name], std[name]) == (1, 0.2)
    for name in (f"{block}input_layernorm.weight", "model.norm.weight"):
        assert rate[name] == 1
    assert output_scale(WIDE) == pytest.approx(2.22 / 4)
    same_ratio = dataclasses.replace(WIDE, mup_base_feed_forward_size=0.0)
    assert learning_rate_factor(same_ratio, f"{block}mlp.down_proj.weight") == 1 / 4
    off = dataclasses.replace(same_ratio, mup_base_hidden_size=0)
    assert {learning_rate_factor(off, name) for name in rate} == {1.0}
    assert output_scale(off) == 2.22


def test_initial_weights_have_the_stated_deviations() -> None:
    for name, parameter in Decoder(WIDE).initialize(torch.Generator().manual_seed(4)).named_parameters():
        if parameter.dim() == 2:
            assert parameter.std().item() == pytest.approx(initial_std(WIDE, name), rel=0.03), name


@pytest.mark.parametrize("tied", [False, True])
def test_multipliers_and_attention_scale_equal_scaled_weights(tied: bool) -> None:
    """On every path to logits and losses: a plain model whose matrices carry the factors."""
    model = decoder(dataclasses.replace(WIDE, attention_scale="full", tied_embeddings=tied))
    plain_config = dataclasses.replace(
        WIDE,
        tied_embeddings=False,
        mup_base_hidden_size=0,
        mup_base_feed_forward_size=0.0,
        embedding_multiplier=1.0,
        output_multiplier=1.0,
    )
    plain = Decoder(plain_config)
    plain.load_state_dict(model.state_dict())
    row_BT = tokens(2, 33)
    with torch.no_grad():
        plain.model.embed_tokens.weight *= 14.6
        plain.lm_head.weight *= 2.22 / 4
        for layer in plain.model.layers:
            layer.self_attn.q_proj.weight /= math.sqrt(32)  # scores over 32 and not over its root
            layer.self_attn.q_proj.bias /= math.sqrt(32)
        torch.testing.assert_close(model(row_BT), plain(row_BT), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            model.token_losses(row_BT[:, :-1], row_BT[:, 1:]), plain.token_losses(row_BT[:, :-1], row_BT[:, 1:])
        )
    torch.testing.assert_close(
        model.loss(row_BT[:, :-1], row_BT[:, 1:]).total, plain.loss(row_BT[:, :-1], row_BT[:, 1:]).total
    )


def drift(base: int, factor: Callable[[ModelConfig, str], float] = learning_rate_factor, **changes: Any) -> Sizes:
    """Largest over smallest size among the widths, by place, the most of all steps (from the first step on)."""
    found = [coordinates(shape(width, base, **changes), STEPS, 0.01, factor) for width in WIDTHS]
    return {
        place: max(
            max(by_step[step][place] for by_step in found) / min(by_step[step][place] for by_step in found)
            for step in range(1, STEPS + 1)
        )
        for place in found[0][0]
    }


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "layer", "norm_bias": True, "feed_forward": "gelu", "positions": "alibi"}, {"num_kv_heads": 4}],
    ids=str,
)
def test_activations_keep_their_size_with_the_width(changes: dict[str, Any]) -> None:
    """Over eight times the width, no place's size changes by a factor of 2 or more."""
    found = drift(WIDTHS[0], **changes)
    assert set(found) == {"logits", *(f"layers.{i}{part}" for i in range(2) for part in ("", ".self_attn", ".mlp"))}
    assert max(found.values()) < 2, found


def test_activations_grow_with_the_width_where_a_part_of_mup_is_missing() -> None:
    """So the check above can fail: without muP, and with muP's weights and logits but one rate for all."""
    without = drift(0)
    assert min(without.values()) > 4, without
    one_rate = drift(WIDTHS[0], factor=lambda config, name: 1.0)
    assert min(size for place, size in one_rate.items() if place != "logits") > 4, one_rate
