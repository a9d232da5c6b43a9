"""To and from transformers' classes: equal logits with them, in both directions, and errors of one line."""

import dataclasses
import json
import os
import pathlib
import re
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from caravela.errors import UserError
from caravela.model.config import num_parameters
from caravela.model.families import family_of, from_config_json, to_config_json
from caravela.model.from_hugging_face import from_hugging_face
from caravela.model.hugging_face import write_model
from tests.model.test_transformer import TINY, decoder, tokens

LLAMA3 = {
    "rope_theta": 100.0,  # of four wavelengths one is kept, one blended, two stretched
    "rope_scaling": "llama3",
    "rope_scaling_factor": 8.0,
    "rope_original_positions": 32,
}
LINEAR = {"rope_scaling": "linear", "rope_scaling_factor": 2.5}
MUP = {"mup_base_hidden_size": 16, "embedding_multiplier": 3.0, "output_multiplier": 2.2, "attention_scale": "full"}
BIASES = {"attention_bias": True, "mlp_bias": True}
GELU = {"norm": "layer", "norm_bias": True, "feed_forward": "gelu"}
NEOX = {**GELU, **BIASES, "num_kv_heads": 6, "rotary_share": 0.25, "parallel_residual": True}
TIED = {"tied_embeddings": True}
EXPORTED: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", LINEAR),
    ("llama", LLAMA3),
    ("llama", {**LLAMA3, **BIASES, **TIED, "num_kv_heads": 6}),
    ("llama", {"head_dim": 12}),
    ("llama", MUP),
    ("llama", {**MUP, **BIASES, **TIED}),
    ("qwen2", {"qkv_bias": True}),
    ("qwen2", {"qkv_bias": True, **LLAMA3, **TIED, "num_kv_heads": 6}),
    ("qwen2", {"qkv_bias": True, "head_dim": 12, **LINEAR}),
    ("qwen3", {"qk_norm": True, "head_dim": 12}),
    ("qwen3", {"qk_norm": True, "attention_bias": True, **LINEAR, **TIED, "num_kv_heads": 6}),
    ("qwen3", {"qk_norm": True, **MUP}),
    ("starcoder2", {**GELU, **BIASES}),
    ("starcoder2", {**GELU, "num_kv_heads": 6, **LLAMA3, **TIED}),
    ("starcoder2", {**GELU, **BIASES, "feed_forward": "gelu_tanh", "norm_epsilon": 0.1, "head_dim": 12}),
    ("starcoder2", {**GELU, **BIASES, **TIED, **MUP}),
    ("gpt_neox", NEOX),
    ("gpt_neox", {**NEOX, "parallel_residual": False, **TIED}),
    ("gpt_neox", {**NEOX, "rotary_share": 1.0, "attention_bias": False, **LINEAR}),
    ("gpt_neox", {**NEOX, "feed_forward": "gelu_tanh", "rotary_share": 0.5, **LLAMA3, **MUP}),
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(("family", "changes"), EXPORTED, ids=lambda value: str(value))
def test_export_gives_transformers_equal_logits_and_comes_back(
    tmp_path: pathlib.Path, family: str, changes: dict[str, Any]
) -> None:
    model = decoder(dataclasses.replace(TINY, **changes))
    folder = str(tmp_path)
    write_model(model, "float32", {"bos_token_id": 1, "eos_token_id": 2}, folder)
    theirs, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert theirs.config.model_type == family
    assert not any(report.values())
    assert sum(parameter.numel() for parameter in theirs.parameters()) == num_parameters(model.config)
    back = from_hugging_face(folder)
    tokens_BT = tokens(2, 64)
    with torch.no_grad():
        ours_BTV = model(tokens_BT)
        assert relative_difference(theirs.eval()(tokens_BT).logits, ours_BTV) <= 1e-5
        assert relative_difference(back(tokens_BT), ours_BTV) <= 1e-5
    if "mup_base_hidden_size" not in changes:
        assert back.config == model.config
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, back.state_dict()[name]), name


def size(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 101,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": 64,
        **more,
    }


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **more}}


THEIR_LLAMA3 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
IMPORTED: list[transformers.PreTrainedConfig] = [
    transformers.LlamaConfig(**size()),
    transformers.LlamaConfig(**size(num_key_value_heads=2, attention_bias=True, mlp_bias=True, **THEIR_LLAMA3)),
    transformers.LlamaConfig(**size(num_key_value_heads=1, tie_word_embeddings=True, **rope("linear", factor=3.0))),
    transformers.LlamaConfig(**size(head_dim=12, rms_norm_eps=0.1)),
    transformers.Qwen2Config(**size(num_key_value_heads=6)),
    transformers.Qwen2Config(**size(num_key_value_heads=2, tie_word_embeddings=True, **rope("default"))),
    transformers.Qwen2Config(**size(num_key_value_heads=2, use_sliding_window=True, sliding_window=64)),
    transformers.Qwen3Config(**size(num_key_value_heads=2)),
    transformers.Qwen3Config(**size(num_key_value_heads=6, head_dim=8, attention_bias=True, **THEIR_LLAMA3)),
    transformers.Starcoder2Config(**size()),
    transformers.Starcoder2Config(
        **size(num_key_value_heads=6, use_bias=False, tie_word_embeddings=False, hidden_act="gelu", norm_epsilon=0.1)
    ),
    transformers.GPTNeoXConfig(**size()),
    transformers.GPTNeoXConfig(
        **size(use_parallel_residual=False, tie_word_embeddings=True, attention_bias=False, hidden_act="gelu_new"),
        **rope("linear", factor=2.0, partial_rotary_factor=1.0),
    ),
    transformers.GPTNeoXConfig(**size(hidden_act="gelu_fast", rotary_pct=0.5, rotary_emb_base=500)),
]


def random_model(config: transformers.PreTrainedConfig) -> Any:
    """Of transformers' own class, every weight, bias and norm random."""
    theirs: Any = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in theirs.parameters():
            spread = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(spread * 0.2 if parameter.dim() == 2 else parameter + spread * 0.3)
    return theirs.eval()


@pytest.mark.parametrize("config", IMPORTED, ids=lambda config: config.model_type)
@pytest.mark.parametrize("files", ["one", "several"])
def test_import_gives_the_logits_of_transformers(
    tmp_path: pathlib.Path, config: transformers.PreTrainedConfig, files: str
) -> None:
    theirs = random_model(config)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB" if files == "several" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (files == "several")
    ours = from_hugging_face(str(tmp_path))
    assert num_parameters(ours.config) == sum(parameter.numel() for parameter in theirs.parameters())
    tokens_BT = tokens(2, 64)
    with torch.no_grad():
        assert relative_difference(ours(tokens_BT), theirs(tokens_BT).logits) <= 1e-5
    ours.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).total.backward()  # what comes in can be trained on
    assert all(parameter.grad is not None for parameter in ours.parameters())


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Starcoder2", "GPTNeoX"])
def test_a_key_that_is_missing_means_what_transformers_takes(family: str) -> None:
    """Older folders hold only what differs from the class's defaults; its own complete dictionary is the oracle."""
    config = getattr(transformers, f"{family}Config")(**size(num_attention_heads=32, hidden_size=256))
    given = size(model_type=config.model_type, num_attention_heads=32, hidden_size=256)
    complete = from_config_json(config.to_dict(), "complete")
    assert from_config_json(given, "given") == complete
    theirs = AutoModelForCausalLM.from_config(config)
    assert num_parameters(complete) == sum(parameter.numel() for parameter in theirs.parameters())


def test_import_reads_what_version_4_wrote(tmp_path: pathlib.Path) -> None:
    """Names of before ``rope_parameters``, and GPT-NeoX's output matrix and stored tables."""
    pythia = size(model_type="gpt_neox", rotary_pct=0.5, rotary_emb_base=500, torch_dtype="float32")
    theirs = random_model(transformers.GPTNeoXConfig(**pythia))
    state = {name.replace("lm_head", "embed_out"): tensor for name, tensor in theirs.state_dict().items()}
    state["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 64, 64).tril()
    state["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    state["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(4)
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(pythia))
    tokens_BT = tokens(2, 64)
    with torch.no_grad():
        ours_BTV = from_hugging_face(str(tmp_path))(tokens_BT)
        assert relative_difference(ours_BTV, theirs(tokens_BT).logits) <= 1e-5

    scaling = {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    old = size(model_type="llama", rope_theta=100, rope_scaling={**scaling, "original_max_position_embeddings": 32})
    new = from_config_json(size(model_type="llama", **THEIR_LLAMA3), "new")
    assert from_config_json(old, "old") == new
    assert (new.rope_scaling, new.rope_scaling_factor, new.rope_original_positions) == ("llama3", 8.0, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"positions": "alibi", "norm": "layer", "norm_bias": True},
            "the nearest is LlamaForCausalLM, which needs norm = rms (found layer), positions = rotary (found alibi)",
        ),
        ({"norm": "layer"}, "the nearest is LlamaForCausalLM, which needs norm = rms (found layer)"),
        ({"feed_forward": "gelu"}, "the nearest is LlamaForCausalLM, which needs feed_forward = swiglu (found gelu)"),
        (
            {**NEOX, "num_kv_heads": 2},
            "the nearest is GPTNeoXForCausalLM, which needs num_kv_heads = 6 (found 2)",
        ),
        ({**GELU, "mlp_bias": True}, "which needs mlp_bias = attention_bias (found True and False)"),
        ({"hidden_size": 50, "head_dim": 8}, "which needs hidden_size = a multiple of 6 (found 50)"),
    ],
)
def test_a_model_that_transformers_has_no_class_for_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    config = dataclasses.replace(TINY, **changes)
    with pytest.raises(UserError, match=re.escape(message)):
        family_of(config)
    with pytest.raises(UserError, match=r"^transformers has no class for this model"):
        to_config_json(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (size(), "model_type = None: expected one of llama, qwen2, qwen3, starcoder2, gpt_neox"),
        (size(model_type="mamba"), "model_type = 'mamba': expected one of llama"),
        ({"model_type": "llama"}, "vocab_size = None: expected a whole number"),
        (size(model_type="llama", hidden_act="gelu"), "hidden_act = 'gelu': expected 'silu'"),
        (size(model_type="gpt_neox", hidden_act="relu"), "hidden_act = 'relu': expected one of gelu"),
        (size(model_type="llama", **rope("yarn", factor=2.0)), "rope_type = 'yarn': expected one of default"),
        (size(model_type="llama", **rope("llama3", factor=2.0)), "rope_type = 'llama3': expected low_freq_factor, hi"),
        (size(model_type="llama", partial_rotary_factor=0.5), "partial_rotary_factor = 0.5: expected 1 for llama"),
        (size(model_type="starcoder2", sliding_window=32), "sliding_window = 32: expected none, or one as long as"),
        (size(model_type="qwen2", use_sliding_window=True, sliding_window=8), "sliding_window = 8: expected none"),
        (size(model_type="llama", quantization_config={"bits": 4}), "quantization_config: expected weights that are"),
        (size(model_type="llama", num_key_value_heads=4), "num_kv_heads = 4: expected a divisor of num_heads = 6"),
        (size(model_type="llama", rms_norm_eps="small"), "norm_epsilon = 'small': expected a finite number"),
    ],
)
def test_a_config_that_the_decoder_cannot_be_is_one_clear_line(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^here: {re.escape(message)}"):
        from_config_json(content, "here")


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    model = decoder(dataclasses.replace(TINY, **NEOX))
    write_model(model, "float32", {"bos_token_id": 1, "eos_token_id": 2}, str(tmp_path))
    return str(tmp_path)


def changed(folder: str, name: str, tensor: torch.Tensor | None) -> None:
    path = os.path.join(folder, "model.safetensors")
    state = load_file(path)
    state.pop(name, None)
    save_file(state if tensor is None else {**state, name: tensor}, path)


def test_weights_that_contradict_config_json_are_one_clear_line(folder: str) -> None:
    name = "gpt_neox.layers.1.attention.query_key_value.weight"
    changed(folder, name, None)
    with pytest.raises(UserError, match=rf"weight {name} is missing \(and 0 more\)"):
        from_hugging_face(folder)
    changed(folder, name, torch.zeros(48, 144))
    with pytest.raises(UserError, match=rf"weight {name} is \[48, 144\], but config.json makes it \[144, 48\]"):
        from_hugging_face(folder)
    changed(folder, name, torch.zeros(144, 48))
    changed(folder, "gpt_neox.extra", torch.zeros(3))
    with pytest.raises(UserError, match=r"weight gpt_neox.extra is unknown to the model that config.json describes"):
        from_hugging_face(folder)


def test_a_folder_without_its_files_is_one_clear_line(folder: str) -> None:
    os.remove(os.path.join(folder, "model.safetensors"))
    with pytest.raises(UserError, match=r"model\.safetensors: missing; expected weights as safetensors"):
        from_hugging_face(folder)
    os.remove(os.path.join(folder, "config.json"))
    with pytest.raises(UserError, match=r"config\.json: missing; expected a folder that transformers"):
        from_hugging_face(folder)
