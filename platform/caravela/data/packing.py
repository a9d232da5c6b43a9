"""Documents to rows of a fixed number of tokens.

In: the kept documents of a stage, and a tokenizer. Out: tables ``train`` and ``validation`` of ``context + 1`` tokens a
row (schema.packed). Documents are encoded as ``<s> … </s>``, put one after the other and cut into rows; a row's
targets are its tokens but the first. What is left at the end of a shard is too short for a row and dropped: less than
one row per shard and table, counted.

Which documents validate is decided by a hash of their id, so no text is ever in both.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
import xxhash

from caravela import schema, storage
from caravela.config import ConfigError, to_dict
from caravela.data import tokenizer as tokenizers
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, TableWriter, finished

ENCODE_BATCH_DOCUMENTS = 256
SPLIT_SEED = 0x5EED


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Shape of the rows that training reads."""

    context: int = 2048
    """Tokens that the model sees at once; a row holds one more."""
    validation_share: float = 0.01
    """Share of documents that is held out."""
    row_group_rows: int = 256
    """Rows read at once in training: small enough that a shuffled window is cheap on object storage."""

    def __post_init__(self) -> None:
        if self.context < 8:
            raise ConfigError(f"context = {self.context}: expected 8 or more")
        if not 0 <= self.validation_share < 1:
            raise ConfigError(f"validation_share = {self.validation_share}: expected from 0 to below 1")
        if self.row_group_rows < 1:
            raise ConfigError(f"row_group_rows = {self.row_group_rows}: expected 1 or more")


def pack_stage(root: str, config: PackConfig, documents: Input, tokenizer: Input) -> Stage:
    """The stage that packs the table ``documents`` of one stage with the tokenizer of another."""

    def plan() -> list[Shard]:
        uris = finished(documents).uris("documents")
        finished(tokenizer)
        spec = {"tokenizer": tokenizer.uri}
        return [Shard(index=i, name=storage.name_of(u), spec={**spec, "uri": u}) for i, u in enumerate(uris)]

    return Stage(
        name="pack",
        version=2,
        root=root,
        config=to_dict(config),
        inputs=(documents, tokenizer),
        plan=plan,
        make_worker=functools.partial(PackWorker, config),
        finish=functools.partial(_figures, config, tokenizer),
    )


class PackWorker:
    """Encodes and packs one shard."""

    def __init__(self, config: PackConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        processor = tokenizers.load(shard.spec["tokenizer"])
        sizes = piece_bytes(processor)
        row_schema = schema.packed(self.config.context + 1, len(sizes))
        packers = {
            name: RowPacker(out.table(name, row_schema), sizes, self.config.row_group_rows)
            for name in ("train", "validation")
        }
        documents, text_bytes = 0, 0
        limit = int(self.config.validation_share * (1 << 64))
        for ids, texts in _batches(shard.spec["uri"]):
            for identifier, text, tokens in zip(ids, texts, processor.encode(texts), strict=True):
                held_out = xxhash.xxh3_64_intdigest(identifier.encode("utf-8"), SPLIT_SEED) < limit
                packers["validation" if held_out else "train"].add(identifier, tokens)
                text_bytes += len(text.encode("utf-8"))
            documents += len(ids)
            out.progress.add(documents=len(ids), bytes=sum(len(t.encode("utf-8")) for t in texts))
        counters = {"documents": documents, "text_bytes": text_bytes}
        for name, packer in packers.items():
            packer.close()
            counters |= {
                f"{name}_rows": packer.rows,
                f"{name}_tokens": packer.tokens,
                f"{name}_dropped": packer.dropped,
            }
        return counters


class RowPacker:
    """Fills rows with documents and writes them in full row groups."""

    def __init__(self, table: TableWriter, sizes: npt.NDArray[np.int32], row_group_rows: int) -> None:
        self.table = table
        self.sizes = sizes
        self.width = table.schema.field("tokens").type.list_size
        self.row_group_rows = row_group_rows
        self.rows = self.tokens = self.dropped = 0
        self._waiting: list[npt.NDArray[np.int64]] = []
        self._waiting_tokens = 0
        self._documents: list[tuple[int, str]] = []
        """Where each waiting document begins, counted from the first waiting token, and its id."""

    def add(self, identifier: str, tokens: Sequence[int]) -> None:
        self._documents.append((self._waiting_tokens, identifier))
        document = np.array([tokenizers.BEGIN, *tokens, tokenizers.END], np.int64)
        self._waiting.append(document)
        self._waiting_tokens += len(document)
        self.tokens += len(document)
        while self._waiting_tokens >= self.width * self.row_group_rows:
            self._write(self.row_group_rows)

    def close(self) -> None:
        """Writes the last, smaller row group; what is short of a row is dropped."""
        self._write(self._waiting_tokens // self.width)
        self.dropped = self._waiting_tokens

    def _write(self, rows: int) -> None:
        if rows == 0:
            return
        flat = np.concatenate(self._waiting)
        used, rest = flat[: rows * self.width].reshape(rows, self.width), flat[rows * self.width :]
        starts: list[list[int]] = [[] for _ in range(rows)]
        ids: list[list[str]] = [[] for _ in range(rows)]
        later = []
        for (at, identifier), (end, _) in zip(
            self._documents, [*self._documents[1:], (self._waiting_tokens, "")], strict=True
        ):
            for row in range(max(0, at // self.width), min(rows, -(-end // self.width))):
                starts[row].append(max(0, at - row * self.width))
                ids[row].append(identifier)
            if end > rows * self.width:
                later.append((at - rows * self.width, identifier))
        columns = {
            "tokens": pa.FixedSizeListArray.from_arrays(
                pa.array(used.ravel()).cast(self.table.schema.field("tokens").type.value_type), self.width
            ),
            "document_starts": pa.array(starts, pa.list_(pa.int32())),
            "document_ids": pa.array(ids, pa.list_(pa.string())),
            "target_bytes": pa.array(self.sizes[used[:, 1:]].sum(axis=1), pa.int32()),
        }
        self.table.add_batch(pa.table(columns, schema=self.table.schema), self.row_group_rows)
        self.rows += rows
        self._waiting, self._waiting_tokens, self._documents = [rest], len(rest), later


def piece_bytes(processor: sentencepiece.SentencePieceProcessor) -> npt.NDArray[np.int32]:
    """UTF-8 bytes of text that each token stands for: 1 for a byte piece, 0 for a special one."""
    sizes = np.zeros(processor.get_piece_size(), np.int32)
    for i in range(len(sizes)):
        if processor.is_byte(i):
            sizes[i] = 1
        elif not (processor.is_control(i) or processor.is_unknown(i)):
            sizes[i] = len(processor.id_to_piece(i).replace("\u2581", " ").encode("utf-8"))
    return sizes


def _batches(uri: str) -> Iterator[tuple[list[str], list[str]]]:
    with storage.open_read(uri) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(ENCODE_BATCH_DOCUMENTS, columns=["id", "text"]):
            yield batch["id"].to_pylist(), batch["text"].to_pylist()


def _figures(config: PackConfig, tokenizer: Input, records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    """What training asks of the packed data; refuses data that holds not one row to train on."""
    total = {key: sum(r.counters[key] for r in records) for key in records[0].counters} if records else {}
    if not total.get("train_rows"):
        raise UserError(
            f"pack.context = {config.context}: {total.get('train_tokens', 0)} tokens do not fill one row of it"
        )
    tokens = total["train_tokens"] + total["validation_tokens"]
    return {
        "context": config.context,
        "tokenizer": tokenizer.fingerprint,
        "tokenizer_sha256": tokenizers.tokenizer_sha256(finished(tokenizer)),
        "vocabulary_size": int(tokenizers.load(tokenizer.uri).get_piece_size()),
        **total,
        "dropped_share": round((total["train_dropped"] + total["validation_dropped"]) / max(1, tokens), 6),
    }
