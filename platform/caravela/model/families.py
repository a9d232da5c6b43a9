"""Which of transformers' model classes a decoder is, and its ``config.json``, both ways. No torch: a driver can ask.

In: a ModelConfig, or the content of a ``config.json``. Out: the other; an error of one line where there is none.

A family is a table of the switches that its class has. What the table does not hold is free (sizes, tied embeddings) or
has no place in any class and is folded into weights first (multipliers, see conversion.py). Reading takes what
transformers takes: a key that a class has a default for may be missing, and version 4 wrote ``rope_theta`` and
``rope_scaling`` where version 5 writes ``rope_parameters``; both are written here.
"""

from collections.abc import Mapping
from typing import Any

from caravela.config import build
from caravela.errors import UserError
from caravela.model.config import ModelConfig

RMS_SWIGLU: dict[str, tuple[Any, ...]] = {
    "norm": ("rms",),
    "feed_forward": ("swiglu",),
    "positions": ("rotary",),
    "rotary_share": (1.0,),
    "parallel_residual": (False,),
}
LAYER_GELU: dict[str, tuple[Any, ...]] = {
    "norm": ("layer",),
    "norm_bias": (True,),
    "feed_forward": ("gelu", "gelu_tanh"),
    "positions": ("rotary",),
    "qk_norm": (False,),
    "qkv_bias": (False,),
}
FAMILIES: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": {**RMS_SWIGLU, "qk_norm": (False,), "qkv_bias": (False,)},
    "qwen2": {
        **RMS_SWIGLU,
        "qk_norm": (False,),
        "qkv_bias": (True,),
        "attention_bias": (False,),
        "mlp_bias": (False,),
    },
    "qwen3": {**RMS_SWIGLU, "qk_norm": (True,), "qkv_bias": (False,), "mlp_bias": (False,)},
    "starcoder2": {**LAYER_GELU, "rotary_share": (1.0,), "parallel_residual": (False,)},
    "gpt_neox": {**LAYER_GELU, "mlp_bias": (True,), "head_dim": (0,)},
}
"""By ``model_type``: the fields of ModelConfig that a class fixes, and their values. First fit is taken."""
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
}
GELU_NAMES = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
GELU_READ = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh"}
"""``gelu_new`` and ``gelu_fast`` are the tanh approximation written out."""
NORM_KEYS = {"starcoder2": "norm_epsilon", "gpt_neox": "layer_norm_eps"}
KV_HEADS_UNLESS_SAID = {"qwen2": 32, "qwen3": 32, "starcoder2": 2}
"""What transformers takes where ``num_key_value_heads`` is missing; null, and other families, take the query heads."""
SIZES = {
    "vocabulary_size": "vocab_size",
    "max_positions": "max_position_embeddings",
    "hidden_size": "hidden_size",
    "feed_forward_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
}


def family_of(config: ModelConfig) -> str:
    """The ``model_type`` whose class computes what the decoder computes.

    Raises:
        UserError: no class does; with what stands in the way of the nearest one.
    """
    misfits = {family: _misfits(config, family) for family in FAMILIES}
    for family, found in misfits.items():
        if not found:
            return family
    nearest = min(misfits, key=lambda family: len(misfits[family]))
    raise UserError(
        f"transformers has no class for this model; the nearest is {ARCHITECTURES[nearest]}, which needs "
        f"{', '.join(misfits[nearest])}"
    )


def _misfits(config: ModelConfig, family: str) -> list[str]:
    """What would have to be otherwise: ``norm = layer (found rms)``."""
    found = [
        f"{name} = {' or '.join(map(str, allowed))} (found {getattr(config, name)})"
        for name, allowed in FAMILIES[family].items()
        if getattr(config, name) not in allowed
    ]
    if family == "starcoder2" and config.attention_bias != config.mlp_bias:
        found.append(f"mlp_bias = attention_bias (found {config.mlp_bias} and {config.attention_bias})")
    if family == "llama" and config.hidden_size % config.num_heads:
        found.append(f"hidden_size = a multiple of {config.num_heads} (found {config.hidden_size})")
    if family == "gpt_neox" and config.num_kv_heads != config.num_heads:
        found.append(f"num_kv_heads = {config.num_heads} (found {config.num_kv_heads})")
    return found


def to_config_json(config: ModelConfig) -> dict[str, Any]:
    """``config.json`` of the decoder, without dtype and control tokens, which are not of its shape.

    Raises:
        UserError: transformers has no class for it.
    """
    assert config.vocabulary_size > 0, "vocabulary_size is filled in before export"
    assert config.max_positions > 0, "max_positions is filled in before export"
    family = family_of(config)
    rms = config.norm == "rms"
    content: dict[str, Any] = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
        "hidden_act": "silu" if rms else GELU_NAMES[config.feed_forward],
        NORM_KEYS.get(family, "rms_norm_eps"): config.norm_epsilon,
        "rope_parameters": _rope_parameters(config),
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": config.initializer_std,
        "attention_dropout": 0.0,
        "use_cache": True,
    }
    if family == "gpt_neox":
        content |= {"rotary_emb_base": config.rope_theta, "rotary_pct": config.rotary_share}
        content |= {"use_parallel_residual": config.parallel_residual, "attention_bias": config.attention_bias}
        content |= {"hidden_dropout": 0.0}
    else:
        content |= {"rope_theta": config.rope_theta, "num_key_value_heads": config.num_kv_heads}
    if config.rope_scaling != "none":
        content["rope_scaling"] = {k: v for k, v in _rope_parameters(config).items() if k != "rope_theta"}
    if config.head_dim or family in ("llama", "qwen3"):
        content["head_dim"] = config.head_size
    if family in ("llama", "qwen3"):
        content["attention_bias"] = config.attention_bias
    if family == "llama":
        content["mlp_bias"] = config.mlp_bias
    if family == "starcoder2":
        content |= {"use_bias": config.mlp_bias, "residual_dropout": 0.0, "embedding_dropout": 0.0}
        content["sliding_window"] = None
    if family in ("qwen2", "qwen3"):
        content["use_sliding_window"] = False
    return content


def _rope_parameters(config: ModelConfig) -> dict[str, Any]:
    kind = "default" if config.rope_scaling == "none" else config.rope_scaling
    found: dict[str, Any] = {"rope_type": kind, "rope_theta": config.rope_theta}
    if config.rotary_share != 1:
        found["partial_rotary_factor"] = config.rotary_share
    if kind != "default":
        found["factor"] = config.rope_scaling_factor
    if kind == "llama3":
        found["low_freq_factor"] = config.rope_low_frequency_factor
        found["high_freq_factor"] = config.rope_high_frequency_factor
        found["original_max_position_embeddings"] = config.rope_original_positions
    return found


def from_config_json(content: Mapping[str, Any], where: str) -> ModelConfig:
    """The decoder that a ``config.json`` describes; dropouts, which are for training there, are passed over.

    Raises:
        UserError: an unknown ``model_type``, a missing size, or a setting that the decoder does not have; ``where``
            begins the message.
    """
    family = content.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{where}: model_type = {family!r}: expected one of {', '.join(FAMILIES)}")
    for key in SIZES.values():
        if not isinstance(content.get(key), int):
            raise UserError(f"{where}: {key} = {content.get(key)!r}: expected a whole number")
    _refuse_what_is_not_there(content, family, where)
    found: dict[str, Any] = {ours: content[theirs] for ours, theirs in SIZES.items()}
    found["num_kv_heads"] = content.get("num_key_value_heads", KV_HEADS_UNLESS_SAID.get(family)) or found["num_heads"]
    found["initializer_std"] = content.get("initializer_range", 0.018042 if family == "starcoder2" else 0.02)
    found["tied_embeddings"] = content.get("tie_word_embeddings", family == "starcoder2")
    found |= _norm_and_feed_forward(content, family, where)
    found |= _rope(content, family, where)
    if family != "gpt_neox":
        head_dim = content.get("head_dim") or (128 if family == "qwen3" else 0)
        found["head_dim"] = 0 if head_dim * found["num_heads"] == found["hidden_size"] else head_dim
    if family in ("llama", "qwen3"):
        found["attention_bias"] = content.get("attention_bias", False)
        found["qk_norm"] = family == "qwen3"
    if family == "llama":
        found["mlp_bias"] = content.get("mlp_bias", False)
    if family == "qwen2":
        found["qkv_bias"] = True
    if family == "starcoder2":
        found["attention_bias"] = found["mlp_bias"] = content.get("use_bias", True)
    if family == "gpt_neox":
        found["mlp_bias"] = True
        found["attention_bias"] = content.get("attention_bias", True)
        found["parallel_residual"] = content.get("use_parallel_residual", True)
    return build(ModelConfig, found, where)


def _refuse_what_is_not_there(content: Mapping[str, Any], family: str, where: str) -> None:
    if content.get("quantization_config"):
        raise UserError(f"{where}: quantization_config: expected weights that are not quantized")
    window = content.get("sliding_window")
    used = content.get("use_sliding_window", False) if family in ("qwen2", "qwen3") else family == "starcoder2"
    if used and window is not None and window < content["max_position_embeddings"]:
        raise UserError(
            f"{where}: sliding_window = {window}: expected none, or one as long as max_position_embeddings = "
            f"{content['max_position_embeddings']}; attention here sees the whole row"
        )


def _norm_and_feed_forward(content: Mapping[str, Any], family: str, where: str) -> dict[str, Any]:
    key = NORM_KEYS.get(family)
    if key is None:
        if (activation := content.get("hidden_act", "silu")) not in ("silu", "swish"):
            raise UserError(f"{where}: hidden_act = {activation!r}: expected 'silu'")
        return {"norm_epsilon": content.get("rms_norm_eps", 1e-6)}
    activation = content.get("hidden_act", "gelu" if family == "gpt_neox" else "gelu_pytorch_tanh")
    if activation not in GELU_READ:
        raise UserError(f"{where}: hidden_act = {activation!r}: expected one of {', '.join(GELU_READ)}")
    return {
        "norm": "layer",
        "norm_bias": True,
        "norm_epsilon": content.get(key, 1e-5),
        "feed_forward": GELU_READ[activation],
    }


def _rope(content: Mapping[str, Any], family: str, where: str) -> dict[str, Any]:
    rope = dict(content.get("rope_scaling") or content.get("rope_parameters") or {})
    older = ("rotary_emb_base", "rotary_pct") if family == "gpt_neox" else ("rope_theta", "partial_rotary_factor")
    theta = rope.get("rope_theta") or content.get(older[0]) or content.get("rope_theta") or 10_000.0
    share = rope.get("partial_rotary_factor", content.get(older[1], 0.25 if family == "gpt_neox" else 1.0))
    if share != 1 and family != "gpt_neox":
        raise UserError(f"{where}: partial_rotary_factor = {share}: expected 1 for {family}")
    found: dict[str, Any] = {"rope_theta": theta, "rotary_share": share}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return found
    if kind not in ("linear", "llama3"):
        raise UserError(f"{where}: rope_type = {kind!r}: expected one of default, linear, llama3")
    needed = ("factor", "low_freq_factor", "high_freq_factor") if kind == "llama3" else ("factor",)
    if missing := [key for key in needed if key not in rope]:
        raise UserError(f"{where}: rope_type = {kind!r}: expected {', '.join(missing)} beside it")
    found |= {"rope_scaling": kind, "rope_scaling_factor": rope["factor"]}
    if kind == "llama3":
        found["rope_low_frequency_factor"] = rope["low_freq_factor"]
        found["rope_high_frequency_factor"] = rope["high_freq_factor"]
        original = rope.get("original_max_position_embeddings")
        found["rope_original_positions"] = original or content["max_position_embeddings"]
    return found
