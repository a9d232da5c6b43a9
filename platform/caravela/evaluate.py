"""Stage ``evaluate``: how well the trained model predicts held-out text, and what it writes.

In: the pretrain stage (``model.safetensors``, ``model.json``), the pack stage's ``validation`` table, the tokenizer.
Out: ``evaluation.json`` with ``loss`` (nats per token), ``perplexity``, ``bits_per_byte``, ``rows``, ``tokens``,
``bytes`` and ``samples`` (``prompt``, ``text``: what the model added, ``decoding``). The manifest's summary holds the
same.

All is one shard. Rows are read in batches, so memory is that of the model and one batch. torch is loaded where the
work is done and not in the driver, which only plans.
"""

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from caravela import storage
from caravela.config import to_dict
from caravela.data import tokenizer as tokenizers
from caravela.errors import UserError
from caravela.manifest import Input, Manifest, ShardRecord
from caravela.model.config import ModelConfig
from caravela.stages import Shard, ShardOutput, Stage, finished

RESULT = "evaluation.json"
PROMPTS = (
    "Era uma vez, numa vila à beira do rio,",
    "Para trocar a lâmpada da cozinha, primeiro",
    "A prefeitura anunciou ontem que",
    "Nos termos do presente contrato, o locatário",
    "A língua portuguesa nasceu",
)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured on the trained model."""

    max_rows: int = 512
    """Most validation rows that are scored, spread evenly over the table."""
    batch_rows: int = 8
    """Rows per forward pass."""
    prompts: tuple[str, ...] = PROMPTS
    """Openings that the model continues, each once greedily and once by sampling."""
    max_new_tokens: int = 48
    """Most tokens added to a prompt."""
    temperature: float = 0.8
    """Of the sampled texts."""
    top_k: int = 50
    """Of the sampled texts: how many of the most probable tokens are drawn from; 0 means all."""
    seed: int = 0
    """Of the sampled texts."""
    num_cpus: int = 1
    """Cores that the work asks of Ray; the output does not depend on it."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "batch_rows", "num_cpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        for name in ("max_new_tokens", "top_k"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 or more")
        if not self.temperature > 0:
            raise ValueError(f"temperature = {self.temperature}: expected a number above 0 (greedy texts come anyway)")


def evaluate_stage(root: str, config: EvaluateConfig, pretrain: Input, pack: Input, tokenizer: Input) -> Stage:
    """The stage; its inputs need not be finished before it runs."""
    settings = to_dict(config)
    del settings["num_cpus"]
    return Stage(
        name="evaluate",
        version=1,
        root=root,
        config=settings,
        inputs=(pretrain, pack, tokenizer),
        plan=lambda: [Shard(index=0, name="validation", spec={})],
        make_worker=functools.partial(Evaluation, config=config, pretrain=pretrain, pack=pack, tokenizer=tokenizer),
        num_cpus=config.num_cpus,
        finish=_summary,
    )


def _summary(records: Sequence[ShardRecord], directory: str) -> Mapping[str, Any]:
    result: dict[str, Any] = json.loads(storage.read_text(storage.join(directory, RESULT)))
    return result


class PackedRows(NamedTuple):
    """Some packed rows, as numbers."""

    tokens: npt.NDArray[np.int64]
    """[rows, context + 1]."""
    document_starts: list[list[int]]
    target_bytes: int
    """Sum over the rows."""
    padding: npt.NDArray[np.int64]
    """Tokens at each row's end that are no targets."""


def validation_rows(pack: Manifest, max_rows: int, batch_rows: int) -> Iterator[PackedRows]:
    """At most ``max_rows`` rows of the validation table, spread evenly, in their order.

    Raises:
        UserError: the table has no rows.
    """
    total = pack.rows("validation")
    if total == 0:
        raise UserError(f"{pack.uri}: the packed rows hold none for validation; pack more text or hold out more of it")
    wanted = min(total, max_rows)
    chosen = np.zeros(total, dtype=bool)
    chosen[np.arange(wanted) * total // wanted] = True
    position = 0
    for uri in pack.uris("validation"):
        with storage.open_read(uri) as file:
            columns = ["tokens", "document_starts", "target_bytes", "padding"]
            for batch in pq.ParquetFile(file).iter_batches(batch_size=batch_rows, columns=columns):
                keep = chosen[position : position + batch.num_rows]
                position += batch.num_rows
                batch = batch.filter(pa.array(keep))
                if batch.num_rows:
                    tokens = batch["tokens"].flatten().to_numpy().astype(np.int64).reshape(batch.num_rows, -1)
                    size, padding = (batch[name].to_numpy() for name in ("target_bytes", "padding"))
                    starts = batch["document_starts"].to_pylist()
                    yield PackedRows(tokens, starts, int(np.sum(size)), padding.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The worker of the stage."""

    config: EvaluateConfig
    pretrain: Input
    pack: Input
    tokenizer: Input

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        # Here and not at the top: the driver imports this module and must not wait for torch.
        from caravela.model import generate, scoring, weights

        finished(self.pretrain)
        model = weights.load_model(self.pretrain.uri).eval()
        processor = self._processor(model.config)
        total, rows = scoring.Score(), 0
        for batch in validation_rows(finished(self.pack), self.config.max_rows, self.config.batch_rows):
            total += scoring.score(model, *batch)
            rows += len(batch.tokens)
            out.progress.add(bytes=batch.target_bytes)
        if not math.isfinite(total.perplexity):
            raise UserError(f"{self.pretrain.uri}: the loss of this model is {total.loss}; its training diverged")
        if total.bytes == 0:
            raise UserError(f"{self.pack.uri}: the validation rows stand for no text (target_bytes is 0)")
        sampling = generate.Sampling(
            temperature=self.config.temperature, top_k=self.config.top_k, seed=self.config.seed
        )
        ways = {"greedy": generate.Sampling(), f"temperature {sampling.temperature}, top {sampling.top_k}": sampling}
        prompts = [[processor.bos_id(), *processor.encode(prompt)] for prompt in self.config.prompts]
        samples = [
            {"prompt": prompt, "text": continuation(processor, ids, added), "decoding": name}
            for name, way in ways.items()
            for prompt, ids, added in zip(
                self.config.prompts,
                prompts,
                generate.generate(model, prompts, self.config.max_new_tokens, processor.eos_id(), way),
                strict=True,
            )
        ]
        counters = {"rows": rows, "tokens": total.tokens, "bytes": total.bytes}
        figures = {"loss": total.loss, "perplexity": total.perplexity, "bits_per_byte": total.bits_per_byte}
        with open(out.local_path(RESULT), "w", encoding="utf-8") as file:
            json.dump({**figures, **counters, "samples": samples}, file, ensure_ascii=False, indent=1)
        return counters

    def _processor(self, model: ModelConfig) -> tokenizers.Tokenizer:
        processor = tokenizers.load(finished(self.tokenizer).uri)
        if processor.vocab_size() > model.vocabulary_size:
            raise UserError(
                f"{self.tokenizer.uri}: {processor.vocab_size()} tokens, but the model {self.pretrain.uri} knows "
                f"{model.vocabulary_size}; they are not of the same run"
            )
        return processor


def continuation(processor: tokenizers.Tokenizer, prompt: list[int], added: list[int]) -> str:
    """The text of added tokens. Decoded with the prompt, as bytes of a letter may be on both sides."""
    whole: str = processor.decode(prompt + added)
    return whole[len(processor.decode(prompt)) :]
