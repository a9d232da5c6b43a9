"""Weights on storage: ``model.safetensors`` (Hugging Face's Llama names) and ``model.json`` (ModelConfig).

Written by the pretrain stage, read by evaluate and export. Weights are float32 and complete: a tied output matrix is
left out, as it is the embedding; anything else that is missing, unknown or of another shape is an error of one line. No
pickle anywhere.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from caravela import storage
from caravela.config import build
from caravela.errors import UserError
from caravela.model.config import ModelConfig
from caravela.model.transformer import Decoder

WEIGHTS = "model.safetensors"
CONFIG = "model.json"
OUTPUT_MATRIX = "lm_head.weight"


def save_model(model_state: Mapping[str, Tensor], config: ModelConfig, local_folder: str) -> None:
    """Writes both files to a local folder, from where the caller publishes them.

    Args:
        model_state: all parameters by name, in any dtype and on any device, as ``Decoder.state_dict`` gives them.
        config: with ``vocabulary_size`` and ``max_positions`` filled.
        local_folder: must exist.
    """
    save_weights(model_state, config, os.path.join(local_folder, WEIGHTS), torch.float32)
    with open(os.path.join(local_folder, CONFIG), "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(config), file, indent=1)


def save_weights(model_state: Mapping[str, Tensor], config: ModelConfig, path: str, dtype: torch.dtype) -> None:
    """Writes the weights alone, cast to ``dtype``."""
    check_state(model_state, config, path)
    untied = {
        name: tensor for name, tensor in model_state.items() if not (config.tied_embeddings and name == OUTPUT_MATRIX)
    }
    write_tensors(untied, path, dtype)


def write_tensors(tensors: Mapping[str, Tensor], path: str, dtype: torch.dtype) -> None:
    """Writes a safetensors file under the names given, cast to ``dtype``."""
    kept = {name: tensor.detach().to(device="cpu", dtype=dtype).contiguous() for name, tensor in tensors.items()}
    save_file(kept, path, metadata={"format": "pt"})  # without this entry transformers refuses the file


def read_model_config(directory_uri: str) -> ModelConfig:
    """The shape of the model that a directory holds.

    Raises:
        UserError: there is none.
    """
    uri = storage.join(directory_uri, CONFIG)
    try:
        return build(ModelConfig, json.loads(storage.read_text(uri)), uri)
    except FileNotFoundError:
        raise UserError(f"{uri}: missing; expected the directory of a finished pretrain stage") from None


def load_model(directory_uri: str) -> Decoder:
    """The model of a directory, in float32 on the CPU.

    Raises:
        UserError: a file is missing, or weights and ``model.json`` contradict one another.
    """
    config = read_model_config(directory_uri)
    uri = storage.join(directory_uri, WEIGHTS)
    with tempfile.TemporaryDirectory(prefix="caravela-weights-") as folder:
        local = os.path.join(folder, WEIGHTS)
        try:
            storage.fetch(uri, local)
        except FileNotFoundError:
            raise UserError(f"{uri}: missing; expected the directory of a finished pretrain stage") from None
        state = load_file(local)
    check_state(state, config, uri)
    return decoder_of(state, config)


def decoder_of(state: Mapping[str, Tensor], config: ModelConfig) -> Decoder:
    """A decoder in float32 that holds these weights, of which a tied output matrix may be missing."""
    with torch.device("meta"):
        model = Decoder(config)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False, assign=True)
    model.tie_weights()
    return model


def check_state(state: Mapping[str, Tensor], config: ModelConfig, where: str) -> None:
    """Compares names and shapes with what the config asks for.

    Raises:
        UserError: naming the first weight that is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in Decoder(config).state_dict().items()}
    optional = {OUTPUT_MATRIX} if config.tied_embeddings else set()
    for name, shape in expected.items():
        if name not in state and name not in optional:
            raise UserError(f"{where}: weight {name} {list(shape)} is missing")
        if name in state and tuple(state[name].shape) != shape:
            raise UserError(
                f"{where}: weight {name} is {list(state[name].shape)}, but the model's config makes it {list(shape)}"
            )
    if unknown := sorted(set(state) - set(expected)):
        raise UserError(f"{where}: weight {unknown[0]} is unknown to the model's config (and {len(unknown) - 1} more)")
