"""Finished stages of a toy run, made without Ray: what the tests of evaluation and export stand on."""

import importlib.resources
import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import sentencepiece
import torch

from caravela import schema
from caravela.manifest import Input
from caravela.model import weights
from caravela.model.config import ModelConfig
from caravela.model.transformer import Decoder
from caravela.stages import Shard, ShardOutput, Stage
from tests.road_without_ray import finish

VOCABULARY = 640
CONTEXT = 48
TOY = ModelConfig(
    num_layers=2,
    hidden_size=32,
    feed_forward_size=48,
    num_heads=4,
    num_kv_heads=2,
    initializer_std=0.3,  # large, so that the tokens' losses differ much
    vocabulary_size=VOCABULARY,
    max_positions=CONTEXT,
)


def sample_texts(folder: str = "pt-BR/howto") -> list[str]:
    """Some of the project's own texts."""
    texts = importlib.resources.files("caravela.sample") / "texts" / folder
    return [file.read_text("utf-8") for file in sorted(texts.iterdir(), key=lambda file: file.name)]


def sentencepiece_model(texts: Sequence[str], **changes: Any) -> bytes:
    """A small vocabulary with the tokenizer stage's settings; ``changes`` override them."""
    settings = {
        "vocab_size": VOCABULARY,
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": -1,
        "num_threads": 1,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    lines = (line for text in texts for line in text.split("\n") if line)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **{**settings, **changes})
    return model.getvalue()


def finished_stage(
    root: str, name: str, write: Callable[[ShardOutput], None], summary: Mapping[str, Any] | None = None
) -> Input:
    """A stage whose directory holds what ``write`` writes."""

    def work(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        write(out)
        return {}

    stage = Stage(
        name=name,
        version=1,
        root=root,
        config={},
        inputs=(),
        plan=lambda: [Shard(index=0, name=name, spec={})],
        make_worker=lambda: work,
        finish=lambda records, uri: summary or {},
    )
    finish(stage)
    return stage.as_input()


def tokenizer_input(root: str, model: bytes) -> Input:
    def write(out: ShardOutput) -> None:
        with open(out.local_path("tokenizer.model"), "wb") as file:
            file.write(model)

    return finished_stage(root, "tokenizer", write)


def pretrain_input(
    root: str,
    config: ModelConfig,
    summary: Mapping[str, Any] | None = None,
    change: Callable[[Decoder], None] = lambda model: None,
) -> Input:
    """A model that has seen nothing; ``change`` is done to its weights."""

    def write(out: ShardOutput) -> None:
        folder = os.path.dirname(out.local_path(weights.WEIGHTS))
        out.local_path(weights.CONFIG)
        model = Decoder(config).initialize(torch.Generator().manual_seed(0))
        with torch.no_grad():
            change(model)
        weights.save_model(model.state_dict(), config, folder)

    return finished_stage(root, "pretrain", write, summary)


def pack_input(root: str, model: bytes, texts: Sequence[str]) -> Input:
    """All texts as validation rows; the bytes of a token are counted from its piece."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    stream, begins = [], []
    for text in texts:
        begins.append(len(stream))
        stream += [1, *processor.encode(text), 2]

    def size(token: int) -> int:
        if processor.is_control(token):
            return 0
        return 1 if processor.is_byte(token) else len(processor.id_to_piece(token).replace("\u2581", " ").encode())

    length = CONTEXT + 1
    rows = [
        {
            "tokens": stream[at : at + length],
            "document_starts": [b - at for b in begins if at <= b < at + length],
            "document_ids": [],
            "target_bytes": sum(size(token) for token in stream[at + 1 : at + length]),
            "padding": 0,
        }
        for at in range(0, len(stream) - length + 1, length)
    ]

    def write(out: ShardOutput) -> None:
        form = schema.packed(length, VOCABULARY)
        out.table("train", form).add_batch(pa.Table.from_pylist([], schema=form))
        out.table("validation", form).add_batch(pa.Table.from_pylist(rows, schema=form), row_group_rows=7)

    return finished_stage(root, "pack", write)


def by_hand_nats(logits: "np.ndarray[Any, np.dtype[np.float64]]", targets: Sequence[int]) -> float:
    """Summed cross-entropy of one row: log of the sum of exponentials, minus the target's logit."""
    peak = logits.max(axis=-1)
    log_sums = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=-1))
    return float(sum(log_sums[i] - logits[i, target] for i, target in enumerate(targets)))
