"""ALiBi against its paper's definition (arXiv 2108.12409, section 3), computed number by number in plain Python."""

import dataclasses
import math
from typing import Literal

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from caravela.model.transformer import alibi_slopes, linear_bias
from tests.model.test_transformer import TINY, decoder, tokens

ALIBI = dataclasses.replace(TINY, positions="alibi")


def test_slopes_by_hand() -> None:
    assert alibi_slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]  # the paper's example
    assert alibi_slopes(1) == [1 / 256]
    # 16 heads: the geometric mean of neighbours in between (the paper's second example)
    assert alibi_slopes(16) == pytest.approx([2 ** (-head / 2) for head in range(1, 17)])
    # 12 heads: the 8 of the power below, then every second one of the 16 above, as in the paper's code
    assert alibi_slopes(12) == pytest.approx([*alibi_slopes(8), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    assert alibi_slopes(6) == pytest.approx([1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", ["sqrt", "full"])
def test_features_by_hand(dtype: torch.dtype, scale: Literal["sqrt", "full"]) -> None:
    """Beside the key at the query's own place, each key loses slope * distance; numbers are exact in either dtype."""
    config = dataclasses.replace(
        TINY, hidden_size=64, num_heads=4, num_kv_heads=2, head_dim=16, positions="alibi", attention_scale=scale
    )
    bias = linear_bias(config, 8192, torch.zeros(1, dtype=dtype))
    assert bias.query_HF.dtype == bias.key_TF.dtype == dtype
    scores_HT = bias.query_HF.double() @ bias.key_TF.double().T * (1 / 4 if scale == "sqrt" else 1 / 16)
    for head, slope in enumerate([1 / 4, 1 / 16, 1 / 64, 1 / 256]):
        distances_T = torch.arange(8192, dtype=torch.float64) - 8191
        assert torch.equal(scores_HT[head] - scores_HT[head, -1], slope * distances_T)


def test_memory_does_not_grow_with_the_square_of_the_context() -> None:
    config = dataclasses.replace(ALIBI, max_positions=2048)
    model, row_BT = decoder(config), tokens(1, 2049)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model.loss(row_BT[:, :-1], row_BT[:, 1:]).total.backward()
    largest = max(event.cpu_memory_usage for event in seen.events())
    assert largest < 2048 * 2048, "a mask of one head alone would be four times that"


def attention_by_hand(
    queries: list[list[float]], keys: list[list[float]], values: list[list[float]], slope: float
) -> list[list[float]]:
    """softmax(q . k / sqrt(E) + slope * (key - query)) over keys at or before the query, times values; one head."""
    mixed = []
    for i, query in enumerate(queries):
        scores = [
            sum(a * b for a, b in zip(query, keys[j], strict=True)) / math.sqrt(len(query)) + slope * (j - i)
            for j in range(i + 1)
        ]
        weights = [math.exp(score) for score in scores]
        total = sum(weights)
        mixed.append([sum(w * values[j][e] for j, w in enumerate(weights)) / total for e in range(len(values[0]))])
    return mixed


@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
def test_attention_equals_the_definition(num_kv_heads: int) -> None:
    config = dataclasses.replace(ALIBI, num_kv_heads=num_kv_heads, attention_bias=True)
    attention = decoder(config).double().model.layers[0].self_attn
    x_BTD = torch.randn(1, 7, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    slopes = [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]
    with torch.no_grad():
        found_TD = attention(x_BTD, linear_bias(config, 7, x_BTD), None)[0]
        q_TD, k_TD, v_TD = (
            projection(x_BTD)[0] for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        heads = []
        for head, slope in enumerate(slopes):
            shared = head * num_kv_heads // 6
            query, key = slice(8 * head, 8 * head + 8), slice(8 * shared, 8 * shared + 8)
            heads.append(
                torch.tensor(
                    attention_by_hand(q_TD[:, query].tolist(), k_TD[:, key].tolist(), v_TD[:, key].tolist(), slope),
                    dtype=torch.float64,
                )
            )
        expected_TD = attention.o_proj(torch.cat(heads, dim=1))
    torch.testing.assert_close(found_TD, expected_TD, rtol=1e-7, atol=1e-7)


def test_gradients_reach_every_weight() -> None:
    model = decoder(ALIBI)
    row_BT = tokens(1, 21)
    model.loss(row_BT[:, :-1], row_BT[:, 1:]).total.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
