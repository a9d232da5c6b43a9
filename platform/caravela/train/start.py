"""Weights that a run starts from in place of random ones: a folder as transformers' ``save_pretrained`` writes it.

In: ``train.start_from`` and the model section. Out: for the driver, what identifies the folder's content and whether
the model is the same; for a worker, the decoder. A run that has a checkpoint does not look into the folder again.

Every rank reads the folder by itself, so it must lie in object storage or where every node has it, and each holds the
weights in float32 in CPU memory until DeepSpeed has its share of them, as with random ones. The driver hashes local
files whenever it starts, at the speed of the disk or of SHA-256; of remote ones it takes size and ETag.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from caravela import storage
from caravela.errors import MissingInputError, UserError
from caravela.model.config import ModelConfig
from caravela.model.families import from_config_json

if TYPE_CHECKING:
    from caravela.model.transformer import Decoder

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
# Initial weights are not used, and what is masked or how long rows are does not change the weights' meaning.
FREE = ("initializer_std", "initializer_truncation", "mask_documents", "head_dim", "max_positions")
# Filled from other sections: where the user finds it.
SET_ELSEWHERE = {"vocabulary_size": "tokenizer.vocabulary_size"}


def identity(uri: str) -> str:
    """A hash of what the folder holds: its config and all its weights.

    Raises:
        MissingInputError: a file is not there.
    """
    index = _json(uri, INDEX) if storage.exists(storage.join(uri, INDEX)) else {"weight_map": {"": WEIGHTS}}
    names = [CONFIG, *([INDEX] if "metadata" in index else []), *sorted(set(index["weight_map"].values()))]
    contents = {}
    for name in names:
        path = storage.join(uri, name)
        try:
            found = storage.stat(path)
        except FileNotFoundError:
            raise _missing(uri, name) from None
        version = found["version"]
        contents[name] = f"{found['size']}-{version}" if storage.is_remote(path) else _sha256(path, version)
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


@functools.cache
def _sha256(path: str, version: str) -> str:
    return storage.sha256_of(path)


def check(model: ModelConfig, uri: str) -> None:
    """Compares the model section with the folder's ``config.json``.

    Raises:
        UserError: they contradict one another, or the decoder has no such model.
    """
    where = storage.join(uri, CONFIG)
    theirs = from_config_json(_json(uri, CONFIG), where)
    for name in vars(theirs):
        ours, expected = getattr(model, name), getattr(theirs, name)
        if name not in FREE and ours != expected:
            setting = SET_ELSEWHERE.get(name, f"model.{name}")
            raise UserError(f"{setting} = {ours}: expected {expected}, as {where} has it (train.start_from)")
    if model.head_size != theirs.head_size:
        raise UserError(f"model.head_dim = {model.head_dim}: expected {theirs.head_size}, as {where} has it")
    if model.max_positions > theirs.max_positions:
        raise UserError(
            f"pack.context = {model.max_positions}: expected at most {theirs.max_positions}, as {where} has it "
            "(train.start_from)"
        )


def new_model(model: ModelConfig, start_from: str, seed: int, resumed: bool) -> "Decoder":
    """What a worker begins with; of a resumed run the weights do not matter, as its checkpoint has them.

    Raises:
        UserError: the folder does not hold this model, whole.
    """
    import torch

    from caravela.model import weights
    from caravela.model.from_hugging_face import from_hugging_face
    from caravela.model.transformer import Decoder

    if start_from and not resumed:
        check(model, start_from)
        return weights.decoder_of(from_hugging_face(start_from).state_dict(), model)
    return Decoder(model).initialize(torch.Generator().manual_seed(seed))


def _json(uri: str, name: str) -> Mapping[str, Any]:
    path = storage.join(uri, name)
    try:
        content = json.loads(storage.read_text(path))
    except FileNotFoundError:
        raise _missing(uri, name) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object")
    return content


def _missing(uri: str, name: str) -> UserError:
    return MissingInputError(
        f"train.start_from = {storage.shown(uri)}: {name} is missing; expected a folder that transformers' "
        "save_pretrained wrote, with safetensors"
    )
