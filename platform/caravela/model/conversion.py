"""Weights between the decoder and transformers' classes: other names, fused projections, multipliers folded in.

In: a state by name and its ModelConfig. Out: another. Nothing is rounded but by the multiplications of ``folded``.

Shapes: H heads, E features of a head, D hidden.
"""

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from caravela.model.config import ModelConfig
from caravela.model.scaling import output_scale

RENAMED: dict[str, tuple[tuple[str, str], ...]] = {
    "starcoder2": ((".up_proj.", ".c_fc."), (".down_proj.", ".c_proj.")),
    "gpt_neox": (
        ("model.embed_tokens.", "gpt_neox.embed_in."),
        ("model.layers.", "gpt_neox.layers."),
        ("model.norm.", "gpt_neox.final_layer_norm."),
        ("lm_head.", "embed_out."),
        (".self_attn.", ".attention."),
        (".o_proj.", ".dense."),
        (".up_proj.", ".dense_h_to_4h."),
        (".down_proj.", ".dense_4h_to_h."),
    ),
}
"""Parts of names, ours and theirs; the other families have our names."""
FUSED = ".query_key_value."
PARTS = (".q_proj.", ".k_proj.", ".v_proj.")


def folded(state: Mapping[str, Tensor], config: ModelConfig) -> tuple[dict[str, Tensor], ModelConfig]:
    """The same function without multipliers: they go into the embedding, the last norm and the queries."""
    state = dict(state)

    def multiply(ending: str, factor: float) -> None:
        for name in state:
            if factor != 1 and name.rpartition(".")[0].endswith(ending):
                state[name] = state[name] * factor

    if config.attention_scale == "full":
        multiply("q_norm" if config.qk_norm else "q_proj", 1 / math.sqrt(config.head_size))
    multiply("model.embed_tokens", config.embedding_multiplier)
    if config.tied_embeddings:  # the output projection has the embedding's factor too, which the norm takes back
        multiply("lm_head", config.embedding_multiplier)
        multiply("model.norm", output_scale(config) / config.embedding_multiplier)
    else:
        multiply("model.norm", output_scale(config))
    return state, dataclasses.replace(
        config,
        attention_scale="sqrt",
        embedding_multiplier=1.0,
        output_multiplier=1.0,
        mup_base_hidden_size=0,
        mup_base_feed_forward_size=0.0,
    )


def to_transformers(state: Mapping[str, Tensor], config: ModelConfig, family: str) -> dict[str, Tensor]:
    """Under the names of a family's class (families.py). The config holds no multipliers."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if family == "gpt_neox" and any(part in name for part in PARTS):
            if PARTS[0] in name:
                theirs[_renamed(name.replace(PARTS[0], FUSED), family)] = _fused(state, name, config)
        else:
            theirs[_renamed(name, family)] = tensor
    return theirs


def from_transformers(theirs: Mapping[str, Tensor], config: ModelConfig, family: str) -> dict[str, Tensor]:
    """The way back."""
    state: dict[str, Tensor] = {}
    for their_name, tensor in theirs.items():
        name = their_name
        for ours, other in RENAMED.get(family, ()):
            name = name.replace(other, ours)
        if FUSED in name:
            by_head = tensor.reshape(config.num_heads, 3, config.head_size, *tensor.shape[1:])
            for part, part_tensor in zip(PARTS, by_head.unbind(1), strict=True):
                state[name.replace(FUSED, part)] = part_tensor.flatten(0, 1)
        else:
            state[name] = tensor
    return state


def _renamed(name: str, family: str) -> str:
    for ours, theirs in RENAMED.get(family, ()):
        name = name.replace(ours, theirs)
    return name


def _fused(state: Mapping[str, Tensor], query_name: str, config: ModelConfig) -> Tensor:
    """Queries, keys and values of a head one after the other: [H, 3, E, D] (or without D) laid flat."""
    parts = [state[query_name.replace(PARTS[0], part)] for part in PARTS]
    by_head = [part.reshape(config.num_heads, config.head_size, *part.shape[1:]) for part in parts]
    return torch.stack(by_head, dim=1).flatten(0, 2)
