"""SentencePiece trained on a run's own documents.

In: the kept documents of a stage. Out: ``tokenizer.model``, with ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2 and the 256 bytes
after them, so that any text can be encoded and comes back as it was: no normalisation, no dummy prefix, white space
kept, digits split. Those are also the settings under which Hugging Face's tokenizer gives equal ids.

The sample is chosen by a hash of each document's id, so it does not depend on how the documents are sharded.
"""

import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.parquet as pq
import sentencepiece
import xxhash

from caravela import storage
from caravela.config import ConfigError, to_dict
from caravela.errors import UserError
from caravela.manifest import Input, Manifest, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, finished

MODEL_FILE = "tokenizer.model"
UNKNOWN, BEGIN, END = 0, 1, 2
BYTE_PIECES = 256
MAX_SENTENCE_BYTES = 16384


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How the vocabulary is learnt."""

    vocabulary_size: int = 32_000
    """Pieces, with the 3 special ones and 256 bytes among them."""
    algorithm: Literal["unigram", "bpe"] = "bpe"
    """SentencePiece's model type."""
    sample_mb: float = 200.0
    """Text to learn from; a corpus with more is sampled by document."""
    character_coverage: float = 0.9995
    """Share of characters that get a piece; the rest falls back to bytes."""
    seed: int = 1
    """Chooses the sample."""

    def __post_init__(self) -> None:
        if self.vocabulary_size < BYTE_PIECES + 64:
            raise ConfigError(f"vocabulary_size = {self.vocabulary_size}: expected at least {BYTE_PIECES + 64}")


def tokenizer_stage(root: str, config: TokenizerConfig, documents: Input) -> Stage:
    """The stage that trains a tokenizer on the table ``documents`` of another."""

    def plan() -> list[Shard]:
        source = finished(documents)
        size = sum(shard.counters["bytes_kept"] for shard in source.shards)
        spec = {"uris": source.uris("documents"), "bytes": size}
        return [Shard(index=0, name="tokenizer", spec=spec)]

    return Stage(
        name="tokenizer",
        version=1,
        root=root,
        config=to_dict(config),
        inputs=(documents,),
        plan=plan,
        make_worker=functools.partial(TokenizerWorker, config),
        finish=_figures,
    )


class TokenizerWorker:
    """Samples, trains, measures."""

    def __init__(self, config: TokenizerConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        share = min(1.0, self.config.sample_mb * 1e6 / max(1, shard.spec["bytes"]))
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(shard.spec["uris"], share, self.config.seed),
                model_writer=model,
                vocab_size=self.config.vocabulary_size,
                model_type=self.config.algorithm,
                character_coverage=self.config.character_coverage,
                byte_fallback=True,
                split_digits=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                max_sentence_length=MAX_SENTENCE_BYTES,
                unk_id=UNKNOWN,
                bos_id=BEGIN,
                eos_id=END,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(
                f"tokenizer.vocabulary_size = {self.config.vocabulary_size}: SentencePiece cannot learn it from "
                f"{shard.spec['bytes']:,} bytes of text: {str(error).splitlines()[0]}"
            ) from error
        with open(out.local_path(MODEL_FILE), "wb") as file:
            file.write(model.getvalue())
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        return measure(processor, _lines(shard.spec["uris"], share, self.config.seed))


def measure(processor: sentencepiece.SentencePieceProcessor, lines: Iterator[str]) -> dict[str, int]:
    """Counts over lines of text: words (by white space), bytes, tokens, byte-fallback tokens, pieces used."""
    counts = {"lines": 0, "words": 0, "bytes": 0, "tokens": 0, "byte_tokens": 0}
    used: set[int] = set()
    for line in lines:
        ids = processor.encode(line)
        counts["lines"] += 1
        counts["words"] += len(line.split())
        counts["bytes"] += len(line.encode("utf-8"))
        counts["tokens"] += len(ids)
        counts["byte_tokens"] += sum(processor.is_byte(i) for i in ids)
        used.update(ids)
    return {**counts, "pieces": processor.get_piece_size(), "pieces_used": len(used)}


def load(uri: str) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer in a finished tokenizer stage's directory."""
    return sentencepiece.SentencePieceProcessor(model_proto=storage.read_bytes(storage.join(uri, MODEL_FILE)))


def tokenizer_sha256(stage: Manifest) -> str:
    """SHA-256 of the model file of a finished tokenizer stage: equal for tokenizers that encode alike."""
    return next(file.sha256 for file in stage.files("files") if file.path == MODEL_FILE)


def _lines(uris: Sequence[str], share: float, seed: int) -> Iterator[str]:
    """Lines of the sampled documents, in input order."""
    limit = int(share * (1 << 64))
    for uri in uris:
        with storage.open_read(uri) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(1024, columns=["id", "text"]):
                for identifier, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
                    if xxhash.xxh3_64_intdigest(identifier.encode("utf-8"), seed) < limit:
                        yield from (line for line in text.split("\n") if line.strip())


def _figures(records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    counts = records[0].counters
    return {
        "vocabulary_size": counts["pieces"],
        "tokens_per_word": round(counts["tokens"] / max(1, counts["words"]), 4),
        "bytes_per_token": round(counts["bytes"] / max(1, counts["tokens"]), 4),
        "byte_fallback_share": round(counts["byte_tokens"] / max(1, counts["tokens"]), 6),
        "unused_pieces_share": round(1 - counts["pieces_used"] / counts["pieces"], 4),
    }
