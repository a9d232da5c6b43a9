"""The decoder against Hugging Face's Llama, plain cross-entropy, and published parameter counts."""

import dataclasses
import itertools
import json
import math
from typing import Any, Literal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from caravela.errors import UserError
from caravela.model import weights
from caravela.model.config import ModelConfig, num_parameters
from caravela.model.cross_entropy import chunk_length, summed_loss, token_losses
from caravela.model.generate import Sampling, generate
from caravela.model.transformer import Decoder, document_mask, document_segments

TINY = ModelConfig(
    num_layers=3,
    hidden_size=48,
    feed_forward_size=80,
    num_heads=6,
    num_kv_heads=2,
    initializer_std=0.2,
    vocabulary_size=101,
    max_positions=64,
)


def shape(layers: int, hidden: int, inner: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "num_layers": layers,
        "hidden_size": hidden,
        "feed_forward_size": inner,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
    }


LLAMA_32K = {"vocabulary_size": 32_000}
BLOCKS_WITH_BIASES = {"norm": "layer", "norm_bias": True, "attention_bias": True, "mlp_bias": True}
PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "ttl-160m": (162_417_408, LLAMA_32K | shape(12, 768, 3072, 12, 12)),
    "ttl-460m": (468_239_360, LLAMA_32K | shape(24, 1024, 4096, 16, 16)),
    "tucano-630m": (630_253_568, LLAMA_32K | shape(14, 2048, 4096, 16, 4)),
    "tucano-1b1": (1_100_048_384, LLAMA_32K | shape(22, 2048, 5632, 32, 4)),
    "biatron-345m": (
        345_653_120,
        LLAMA_32K
        | shape(32, 960, 3840, 15, 5)
        | BLOCKS_WITH_BIASES
        | {"feed_forward": "gelu", "tied_embeddings": True},
    ),
    "btlm-3b-8k": (
        2_646_255_776,
        shape(32, 2560, 6826, 32, 32)
        | BLOCKS_WITH_BIASES
        | {"vocabulary_size": 50_257, "positions": "alibi", "tied_embeddings": True},
    ),
    # Those of Hugging Face's model cards: Qwen/Qwen2.5-0.5B and Qwen/Qwen3-0.6B as loaded, EleutherAI/pythia-160m.
    "qwen2.5-0.5b": (
        494_032_768,
        shape(24, 896, 4864, 14, 2) | {"vocabulary_size": 151_936, "qkv_bias": True, "tied_embeddings": True},
    ),
    "qwen3-0.6b": (
        596_049_920,
        shape(28, 1024, 3072, 16, 8)
        | {"vocabulary_size": 151_936, "head_dim": 128, "qk_norm": True, "tied_embeddings": True},
    ),
    "pythia-160m": (
        162_322_944,
        shape(12, 768, 3072, 12, 12)
        | BLOCKS_WITH_BIASES
        | {"vocabulary_size": 50_304, "feed_forward": "gelu", "rotary_share": 0.25, "parallel_residual": True},
    ),
}


def decoder(config: ModelConfig, seed: int = 0) -> Decoder:
    """A decoder whose biases and norms are random too, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    model = Decoder(config).initialize(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.3
    return model


def hugging_face(model: Decoder) -> LlamaForCausalLM:
    c = model.config
    config = LlamaConfig(
        vocab_size=c.vocabulary_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.feed_forward_size,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        num_key_value_heads=c.num_kv_heads,
        max_position_embeddings=c.max_positions,
        rms_norm_eps=c.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        attention_bias=c.attention_bias,
        mlp_bias=c.mlp_bias,
        tie_word_embeddings=c.tied_embeddings,
    )
    theirs = LlamaForCausalLM(config)
    missing, unexpected = theirs.load_state_dict(model.state_dict(), strict=True)
    assert not missing
    assert not unexpected
    return theirs.eval()


def tokens(rows: int, length: int, vocabulary: int = TINY.vocabulary_size, seed: int = 1) -> torch.Tensor:
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 6},
        {"num_kv_heads": 1},
        {"tied_embeddings": True},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True, "tied_embeddings": True},
        {"rope_theta": 500_000.0},
        {"norm_epsilon": 1e-2},
    ],
    ids=str,
)
def test_logits_equal_those_of_hugging_face(changes: dict[str, Any]) -> None:
    model = decoder(dataclasses.replace(TINY, **changes))
    theirs = hugging_face(model)
    tokens_BT = tokens(2, 64)
    with torch.no_grad():
        difference = (model(tokens_BT) - theirs(tokens_BT).logits).abs().max().item()
    assert difference <= 1e-5


def test_gradients_equal_those_of_hugging_face() -> None:
    model = decoder(dataclasses.replace(TINY, attention_bias=True, tied_embeddings=True))
    theirs = hugging_face(model)
    row_BT = tokens(2, 33)
    total, num_targets, _ = model.loss(row_BT[:, :-1], row_BT[:, 1:])
    (total / num_targets).backward()
    their_loss = theirs(row_BT, labels=row_BT).loss
    their_loss.backward()
    assert total.item() / num_targets.item() == pytest.approx(their_loss.item(), rel=1e-6)
    their_gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, their_gradients[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk_tokens", [1, 7, 60, 1000])
def test_summed_loss_and_gradients_equal_plain_cross_entropy(chunk_tokens: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    hidden_ND = torch.randn(60, 16, generator=generator, dtype=torch.float32, requires_grad=True)
    matrix_VD = torch.randn(50, 16, generator=generator, dtype=torch.float32, requires_grad=True)
    targets_N = torch.randint(50, (60,), generator=generator)
    weights_N = torch.randint(0, 3, (60,), generator=generator).float() if weighted else None

    plain_N = torch.nn.functional.cross_entropy(hidden_ND @ matrix_VD.T, targets_N, reduction="none")
    plain = (plain_N if weights_N is None else plain_N * weights_N).sum()
    expected = torch.autograd.grad(plain / 17, [hidden_ND, matrix_VD])
    total, losses_N = summed_loss(hidden_ND, matrix_VD, targets_N, weights_N, chunk_tokens)
    found = torch.autograd.grad(total / 17, [hidden_ND, matrix_VD])

    torch.testing.assert_close(total, plain, rtol=1e-6, atol=0)
    torch.testing.assert_close(losses_N, (plain_N if weights_N is None else plain_N * weights_N).detach())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(token_losses(hidden_ND, matrix_VD, targets_N, chunk_tokens), plain_N.detach())
    with torch.no_grad():
        without_gradient = summed_loss(hidden_ND, matrix_VD, targets_N, weights_N, chunk_tokens)
    torch.testing.assert_close(without_gradient, (plain.detach(), losses_N))


def test_summed_loss_in_bfloat16_is_as_close_as_the_plain_one() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden_ND = torch.randn(512, 32, generator=generator)
    matrix_VD = torch.randn(64, 32, generator=generator)
    targets_N = torch.randint(64, (512,), generator=generator)

    def gradients(dtype: torch.dtype, chunk_tokens: int | None) -> list[torch.Tensor]:
        leaves = [tensor.bfloat16().to(dtype).requires_grad_() for tensor in (hidden_ND, matrix_VD)]
        if chunk_tokens:
            loss, _ = summed_loss(*leaves, targets_N, None, chunk_tokens)
        else:
            loss = torch.nn.functional.cross_entropy((leaves[0] @ leaves[1].T).float(), targets_N, reduction="sum")
        return [gradient.double() for gradient in torch.autograd.grad(loss, leaves)]

    exact = gradients(torch.float64, None)
    plain, chunked = gradients(torch.bfloat16, None), gradients(torch.bfloat16, 8)
    for right, one, other in zip(exact, plain, chunked, strict=True):
        assert (other - right).norm() <= 1.1 * (one - right).norm()


def test_chunk_length_bounds_the_logits_in_memory() -> None:
    assert chunk_length(32_000) == 2097
    assert chunk_length(10**12) == 1


class LargestTensor(TorchDispatchMode):
    """Watches every operation of PyTorch for the largest result."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_logits_of_all_tokens_are_never_held() -> None:
    hidden_ND = torch.randn(400, 8, requires_grad=True)
    matrix_VD = torch.randn(300, 8, requires_grad=True)
    with LargestTensor() as largest:
        summed_loss(hidden_ND, matrix_VD, torch.zeros(400, dtype=torch.int64), None, chunk_tokens=20)[0].backward()
    assert largest.elements == 20 * 300
    with LargestTensor() as largest:
        torch.nn.functional.cross_entropy(hidden_ND @ matrix_VD.T, torch.zeros(400, dtype=torch.int64)).backward()
    assert largest.elements == 400 * 300  # the watch works


def test_loss_leaves_out_targets_of_weight_zero() -> None:
    model = decoder(TINY)
    row_BT = tokens(2, 21)
    inputs_BT, targets_BT = row_BT[:, :-1], row_BT[:, 1:]
    weights_BT = torch.ones_like(targets_BT, dtype=torch.float32)
    weights_BT[1, 5:] = 0
    total, num_targets, rows_B = model.loss(inputs_BT, targets_BT, weights_BT)
    losses_BT = model.token_losses(inputs_BT, targets_BT)
    assert num_targets.item() == 25
    assert rows_B.tolist() == pytest.approx([losses_BT[0].sum().item(), losses_BT[1, :5].sum().item()], rel=1e-6)
    assert total.item() == pytest.approx(rows_B.sum().item(), rel=1e-6)
    assert model.loss(inputs_BT, targets_BT).num_targets.item() == 40


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_document_mask_equals_running_the_documents_apart(positions: Literal["rotary", "alibi"]) -> None:
    model = decoder(dataclasses.replace(TINY, positions=positions))
    tokens_BT = tokens(2, 40)
    starts = [[0, 9, 10, 31], [17, 40]]
    with torch.no_grad():
        masked_BTV = model(tokens_BT, document_segments(starts, 40))
        apart = [
            torch.cat([model(tokens_BT[row : row + 1, a:b])[0] for a, b in itertools.pairwise(edges)])
            for row, edges in enumerate([[0, 9, 10, 31, 40], [0, 17, 40]])
        ]
        unmasked_BTV = model(tokens_BT)
    torch.testing.assert_close(masked_BTV, torch.stack(apart), rtol=0, atol=2e-5)
    assert (masked_BTV - unmasked_BTV).abs().max() > 0.1


def test_one_document_in_a_row_is_plain_causal_attention() -> None:
    model = decoder(TINY)
    tokens_BT = tokens(2, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens_BT, document_segments([[0], []], 40)), model(tokens_BT))


def test_document_segments_and_mask_by_hand() -> None:
    segments_BT = document_segments([[0, 3], [2]], 5)
    assert segments_BT.tolist() == [[1, 1, 1, 2, 2], [0, 0, 1, 1, 1]]
    assert document_segments([[4, 5]], 5).tolist() == [[0, 0, 0, 0, 1]]
    assert document_mask(segments_BT)[1, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_num_parameters_equals_the_published_count(name: str) -> None:
    published, changes = PUBLISHED[name]
    config = ModelConfig(**changes)
    assert num_parameters(config) == published
    with torch.device("meta"):
        model = Decoder(config)
    slopes = config.num_heads if config.positions == "alibi" else 0  # counted by those who publish, not trained
    assert sum(parameter.numel() for parameter in model.parameters()) == published - slopes


SWITCHES: dict[str, dict[str, dict[str, Any]]] = {
    "norm": {"rms": {}, "layer": {"norm": "layer"}, "layer with bias": {"norm": "layer", "norm_bias": True}},
    "feed-forward": {"swiglu": {}, "gelu": {"feed_forward": "gelu"}, "mlp_bias": {"mlp_bias": True}},
    "heads": {"": {}, "wide": {"head_dim": 10}, "multi-head": {"num_kv_heads": 6, "qk_norm": True}},
    "biases": {"": {}, "attention": {"attention_bias": True}, "qkv": {"qkv_bias": True}},
    "embeddings": {"": {}, "tied": {"tied_embeddings": True}},
    "positions": {"rotary": {}, "alibi": {"positions": "alibi"}},
}


def test_num_parameters_equals_the_built_model_in_every_combination() -> None:
    for choices in itertools.product(*(kinds.values() for kinds in SWITCHES.values())):
        changes = {name: value for choice in choices for name, value in choice.items()}
        config = dataclasses.replace(TINY, **changes)
        with torch.device("meta"):
            built = sum(parameter.numel() for parameter in Decoder(config).parameters())
        assert num_parameters(config) == built + 6 * (config.positions == "alibi"), changes


def test_initialize_draws_the_stated_deviations() -> None:
    config = dataclasses.replace(
        TINY,
        num_layers=8,
        hidden_size=256,
        feed_forward_size=512,
        num_heads=4,
        initializer_std=0.05,
        attention_bias=True,
        mlp_bias=True,
        vocabulary_size=1000,
    )
    model = Decoder(config).initialize(torch.Generator().manual_seed(4))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            residual = "o_proj" in name or "down_proj" in name
            expected = 0.05 / math.sqrt(16) if residual else 0.05
            assert parameter.std().item() == pytest.approx(expected, rel=0.02), name
            assert abs(parameter.mean().item()) < 5 * expected / math.sqrt(parameter.numel()), name


def test_initialize_cuts_the_distribution_where_told() -> None:
    config = dataclasses.replace(
        TINY, hidden_size=240, feed_forward_size=500, initializer_std=0.073, initializer_truncation=2.0
    )
    model = Decoder(config).initialize(torch.Generator().manual_seed(4))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            std = 0.073 / math.sqrt(6) if "o_proj" in name or "down_proj" in name else 0.073
            assert 1.9 * std < parameter.abs().max().item() <= 2 * std * (1 + 1e-6), name
            # variance of a normal distribution cut at 2: 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.7737
            assert parameter.std().item() == pytest.approx(math.sqrt(0.7737) * std, rel=0.02), name


def test_initialize_depends_on_the_generator_alone() -> None:
    one, same, other = (Decoder(TINY).initialize(torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    for name, parameter in one.state_dict().items():
        assert torch.equal(parameter, same.state_dict()[name])
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers = 0: expected at least 1"),
        ({"hidden_size": 50}, "hidden_size = 50: expected a multiple of num_heads = 6"),
        ({"hidden_size": 54}, r"hidden_size = 54: expected an even number .* num_heads = 6 .*found 9"),
        ({"num_kv_heads": 4}, "num_kv_heads = 4: expected a divisor of num_heads = 6"),
        ({"norm_epsilon": 0.0}, r"norm_epsilon = 0.0: expected a number above 0"),
        ({"rope_theta": float("nan")}, r"rope_theta = nan: expected a number above 0"),
        ({"vocabulary_size": -1}, r"vocabulary_size = -1: expected 0 \(filled in later\) or more"),
        ({"head_dim": 7}, r"head_dim = 7: expected an even number"),
        ({"head_dim": -2}, r"head_dim = -2: expected 0 \(hidden_size / num_heads\) or more"),
        ({"norm_bias": True}, r'norm_bias = True: expected norm = "layer" beside it'),
        ({"qkv_bias": True, "attention_bias": True}, r"qkv_bias = True: expected no attention_bias beside it"),
        ({"rotary_share": 0.0}, r"rotary_share = 0.0: expected more than 0 and at most 1"),
        ({"rotary_share": 0.4}, r"rotary_share = 0.4: expected an even number .* of a head of 8 .* found 3"),
        ({"rotary_share": 0.1}, r"rotary_share = 0.1: expected an even number of features, two at least.* found 0"),
        ({"positions": "alibi", "rope_scaling": "linear"}, r'rope_scaling = linear: expected positions = "rotary"'),
        ({"positions": "alibi", "rotary_share": 0.5}, r'rotary_share = 0.5: expected positions = "rotary" beside it'),
        ({"rope_scaling_factor": 2.0}, r"rope_scaling_factor = 2.0: expected a kind of rope_scaling for it"),
        ({"rope_scaling": "linear", "rope_scaling_factor": 0.5}, r"rope_scaling_factor = 0.5: expected at least 1"),
        ({"rope_high_frequency_factor": 1.0}, r"rope_high_frequency_factor = 1.0: expected more than rope_low_freq"),
        ({"initializer_truncation": -1.0}, r"initializer_truncation = -1.0: expected 0 \(not cut\) or more"),
        ({"output_multiplier": 0.0}, r"output_multiplier = 0.0: expected a number above 0"),
        ({"mup_base_feed_forward_size": 8.0}, r"mup_base_feed_forward_size = 8.0: expected mup_base_hidden_size too"),
    ],
)
def test_config_names_the_value_that_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize("tied", [False, True])
def test_weights_come_back_as_they_were(tmp_path: Any, tied: bool) -> None:
    model = decoder(dataclasses.replace(TINY, tied_embeddings=tied, mask_documents=True))
    weights.save_model(model.state_dict(), model.config, str(tmp_path))
    loaded = weights.load_model(str(tmp_path))
    assert loaded.config == model.config
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, loaded.state_dict()[name]), name
    row_BT = tokens(1, 9)
    loaded.loss(row_BT[:, :-1], row_BT[:, 1:]).total.backward()  # they are parameters, and can be trained on
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_a_model_json_from_before_the_switches_reads_as_the_llama_it_was(tmp_path: Any) -> None:
    before = {
        "num_layers": 1,
        "hidden_size": 8,
        "feed_forward_size": 12,
        "num_heads": 2,
        "num_kv_heads": 1,
        "rope_theta": 500.0,
        "norm_epsilon": 1e-06,
        "tied_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_std": 0.02,
        "mask_documents": True,
        "vocabulary_size": 5,
        "max_positions": 16,
    }
    (tmp_path / "model.json").write_text(json.dumps(before))
    config = weights.read_model_config(str(tmp_path))
    assert before.items() <= dataclasses.asdict(config).items()
    block = "model.layers.0."
    # In this order: the generator's draws go by it, so a weight that moves changes every run's start.
    assert [name for name, _ in Decoder(config).named_parameters()] == [
        "model.embed_tokens.weight",
        f"{block}input_layernorm.weight",
        *(f"{block}self_attn.{part}_proj.weight" for part in "qkvo"),
        f"{block}post_attention_layernorm.weight",
        *(f"{block}mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
        "model.norm.weight",
        "lm_head.weight",
    ]


def test_weights_that_contradict_the_config_are_one_clear_line(tmp_path: Any) -> None:
    model = decoder(TINY)
    state = model.state_dict()
    folder = str(tmp_path)
    name = "model.layers.1.self_attn.k_proj.weight"
    with pytest.raises(UserError, match=rf"weight {name} \[16, 48\] is missing"):
        weights.save_model({key: value for key, value in state.items() if key != name}, TINY, folder)
    with pytest.raises(UserError, match=rf"weight {name} is \[48, 16\], but the model's config makes it \[16, 48\]"):
        weights.save_model({**state, name: state[name].T}, TINY, folder)
    with pytest.raises(UserError, match=r"weight extra is unknown to the model's config"):
        weights.save_model({**state, "extra": state[name]}, TINY, folder)
    with pytest.raises(UserError, match=r"model\.json: missing; expected the directory of a finished pretrain stage"):
        weights.load_model(folder)


def greedy_by_hand(model: Decoder, prompt: list[int], max_tokens: int, stop_id: int) -> list[int]:
    text = list(prompt)
    while len(text) < min(len(prompt) + max_tokens, model.config.max_positions):
        with torch.no_grad():
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
        if text[-1] == stop_id:
            return text[len(prompt) : -1]
    return text[len(prompt) :]


def test_generate_equals_one_prompt_at_a_time() -> None:
    model = decoder(TINY).eval()
    prompts = [[1, 5, 9], [1], [1, *range(10, 70)], [1, 2, 3, 4, 5, 6, 7, 8]]
    plain = [greedy_by_hand(model, prompt, 12, stop_id=-1) for prompt in prompts]
    assert [len(text) for text in plain] == [12, 12, 3, 12]  # the third meets the end of the context
    stop_id = plain[1][4]
    for stop in (-1, stop_id):
        expected = [greedy_by_hand(model, prompt, 12, stop) for prompt in prompts]
        assert generate(model, prompts, 12, stop, Sampling()) == expected


def test_generate_draws_with_the_softmax_of_the_top_k() -> None:
    model = decoder(TINY).eval()
    sampling = Sampling(temperature=1.7, top_k=3, seed=11)
    drawn = [text[0] for text in generate(model, [[1, 5, 9]] * 4000, 1, -1, sampling)]
    with torch.no_grad():
        logits_V = model(torch.tensor([[1, 5, 9]]))[0, -1].double() / 1.7
    best = sorted(range(101), key=lambda token: -logits_V[token])[:3]
    total = sum(math.exp(logits_V[token]) for token in best)
    assert set(drawn) <= set(best)
    for token in best:
        share = math.exp(logits_V[token]) / total
        assert drawn.count(token) / 4000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 4000))
    assert generate(model, [[1, 5, 9]], 20, -1, sampling) == generate(model, [[1, 5, 9]], 20, -1, sampling)
    assert generate(model, [[1, 5, 9]], 20, -1, sampling) != generate(
        model, [[1, 5, 9]], 20, -1, dataclasses.replace(sampling, seed=12)
    )
