"""A decoder from a folder as ``save_pretrained`` writes it: ``config.json`` and safetensors, in one file or several.

In: the URI of a folder that holds a Llama, Qwen 2, Qwen 3, Starcoder 2 or GPT-NeoX (families.py). Out: the Decoder in
float32 on the CPU, its ``vocabulary_size`` and ``max_positions`` those of the folder.

Costs the weights in float32 and one of their files. Needs no transformers. Whatever is missing, unknown, of another
shape or not to be expressed here is an error of one line; pickled weights are not read.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from caravela import storage
from caravela.errors import UserError
from caravela.model import weights
from caravela.model.conversion import from_transformers, to_transformers
from caravela.model.families import from_config_json
from caravela.model.transformer import Decoder

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
# Tables that older versions of transformers stored; they follow from the config.
DERIVED = re.compile(r"\.rotary_emb\.inv_freq$|\.attention\.(masked_)?bias$")
OUTPUT_MATRICES = ("lm_head.weight", "embed_out.weight")
"""GPT-NeoX's is called either, by the version of transformers."""


def from_hugging_face(directory_uri: str) -> Decoder:
    """The model of a folder.

    Raises:
        UserError: a file is missing, the config asks for what the decoder does not have, or weights do not fit it.
    """
    uri = storage.join(directory_uri, CONFIG)
    content = _json(uri)
    if content is None:
        raise UserError(f"{uri}: missing; expected a folder that transformers' save_pretrained wrote")
    config, family = from_config_json(content, uri), str(content["model_type"])
    with torch.device("meta"):
        expected = to_transformers(Decoder(config).state_dict(), config, family)
    output = next(name for name in OUTPUT_MATRICES if name in expected)
    theirs: dict[str, Tensor] = {}
    for stored_name, tensor in _tensors(directory_uri):
        name = output if stored_name in OUTPUT_MATRICES else stored_name
        if DERIVED.search(name) or (name == output and config.tied_embeddings):
            continue
        if name not in expected:
            raise UserError(f"{directory_uri}: weight {name} is unknown to the model that config.json describes")
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{directory_uri}: weight {name} is {list(tensor.shape)}, but config.json makes it "
                f"{list(expected[name].shape)}"
            )
        theirs[name] = tensor.float()
    optional = {output} if config.tied_embeddings else set()
    if missing := [name for name in expected if name not in theirs and name not in optional]:
        raise UserError(f"{directory_uri}: weight {missing[0]} is missing (and {len(missing) - 1} more)")
    return weights.decoder_of(from_transformers(theirs, config, family), config)


def _tensors(directory_uri: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by name, file by file."""
    index = _json(storage.join(directory_uri, INDEX))
    names = [weights.WEIGHTS] if index is None else sorted(set(index["weight_map"].values()))
    for file_name in names:
        uri = storage.join(directory_uri, file_name)
        with tempfile.TemporaryDirectory(prefix="caravela-weights-") as folder:
            local = os.path.join(folder, "part.safetensors") if "://" in uri else uri
            try:
                if local != uri:
                    storage.fetch(uri, local)
                file: Any = safe_open(local, "pt")
            except FileNotFoundError:
                raise UserError(f"{uri}: missing; expected weights as safetensors") from None
            with file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    yield name, file.get_tensor(name)


def _json(uri: str) -> dict[str, Any] | None:
    """The content of a JSON file; None where there is none."""
    try:
        text = storage.read_text(uri)
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{uri}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{uri}: expected a JSON object")
    return content
