"""Stage ``signatures``: each shard of documents to its keys and attributes.

In: a table ``documents``. Out, per shard: ``keys`` (one for the exact text, one per MinHash band) by range of the key,
and ``attributes`` (what the priority and the estimate of similarity need). Where a scope is set, its columns are mixed
into every key, so that documents of different scopes never meet.

Memory: one shard's keys, 12 bytes each, and 120 bytes per document.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from caravela import storage
from caravela.config import to_dict
from caravela.data import document_fields
from caravela.data.columns import utf8_buffers
from caravela.manifest import Input
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import kernels, partitions, tables
from filters.dedup.config import DedupConfig
from filters.dedup.exact import exact_hashes
from filters.dedup.folded_words import folding_table
from filters.dedup.tables import KEYS, U64

VERSION = 3
BATCH_ROWS = 1024
_OF_LATER_STAGES = frozenset(
    {
        *("priority", "source_rank", "quality_step", "index", "rehydration", "spans"),
        *("verify", "verify_similarity", "verify_share", "clustering_memory_mb", "members_per_partition"),
    }
)


def signature_settings(config: DedupConfig) -> dict[str, Any]:
    """Those settings that keys and attributes depend on."""
    return {name: value for name, value in to_dict(config).items() if name not in _OF_LATER_STAGES}


def sketch_bytes(config: DedupConfig) -> int:
    return config.bands * config.rows_per_band if config.minhash else 0


def partitions_for(documents: int, config: DedupConfig) -> int:
    """How many partitions of keys: a power of two, so that those of two runs nest."""
    keys = documents * (config.bands * config.minhash + config.exact)
    return 1 << max(0, keys // config.keys_per_partition).bit_length()


def partition_starts(count: int) -> U64:
    """The smallest key of each partition."""
    return np.array([i * ((1 << 64) // count) for i in range(count)], np.uint64)


def signatures_stage(root: str, config: DedupConfig, curated: Input) -> Stage:
    """Keys and attributes of every document, shard by shard."""

    def plan() -> list[Shard]:
        documents = finished(curated)
        count = partitions_for(documents.rows("documents"), config)
        return [
            Shard(index=i, name=file.path, spec={"uri": storage.join(curated.uri, file.path), "partitions": count})
            for i, file in enumerate(documents.files("documents"))
        ]

    return Stage(
        name="signatures",
        version=VERSION,
        root=root,
        config=signature_settings(config),
        inputs=(curated,),
        plan=plan,
        make_worker=functools.partial(SignatureWorker, config),
    )


class SignatureWorker:
    """One shard of documents to its keys and attributes."""

    def __init__(self, config: DedupConfig) -> None:
        self.config = config
        self.schema = tables.attributes(sketch_bytes(config))

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        keys: list[U64] = []
        rows: list[npt.NDArray[np.uint32]] = []
        attributes: list[pa.Table] = []
        seen = 0
        with storage.open_read(shard.spec["uri"]) as stream:
            file = pq.ParquetFile(stream)
            columns = self._columns(file.schema_arrow.names, shard.spec["uri"])
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                exact = exact_hashes(batch["text"])
                signature, words = self._signature(batch["text"])
                attributes.append(self._attributes(batch, exact, signature))
                salt = scope_salt(batch, self.config.scope)
                for column in self._keys(exact, signature, words):
                    present = column != 0
                    keys.append((column if salt is None else tables.spread(column ^ salt) | np.uint64(1))[present])
                    rows.append((np.flatnonzero(present) + seen).astype(np.uint32))
                seen += batch.num_rows
                size = int(pc.sum(pc.binary_length(batch["text"])).as_py() or 0)
                out.progress.add(documents=batch.num_rows, bytes=size)
        count = write_keys(out, keys, rows, int(shard.spec["partitions"]))
        whole = pa.concat_tables([self.schema.empty_table(), *attributes])
        path = out.local_path(f"attributes/part-{shard.index:05d}.parts", table="attributes")
        partitions.write(path, self.schema, [whole])
        return {"documents": seen, "keys": count, "partitions": int(shard.spec["partitions"])}

    def _columns(self, present: Sequence[str], uri: str) -> list[str]:
        """What is read of a shard."""
        quality = [self.config.quality_column] if self.config.quality_column else []
        scope = document_fields.columns_of(self.config.scope)
        document_fields.check_columns([*scope, *quality], present, uri, "dedup")
        return list(dict.fromkeys(["id", "text", "date", "source", *scope, *quality]))

    def _attributes(self, batch: pa.RecordBatch, exact: U64, signature: kernels.U32) -> pa.Table:
        count = signature.shape[1]
        sketch = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(count), len(signature), [None, pa.py_buffer(signature.astype(np.uint8))]
        )
        name = self.config.quality_column
        quality = pc.cast(batch[name], pa.float32()) if name else pa.nulls(batch.num_rows, pa.float32())
        columns = {
            "id": batch["id"],
            "exact_high": exact[:, 0],
            "exact_low": exact[:, 1],
            "length": pc.cast(pc.utf8_length(batch["text"]), pa.uint32()),
            "quality": pc.fill_null(quality, 0.0),
        }
        return pa.table(
            {**columns, "date": batch["date"], "source": batch["source"], "sketch": sketch}, schema=self.schema
        )

    def _signature(self, text: pa.Array) -> tuple[kernels.U32, kernels.U32]:
        """MinHashes of every text, and how many words it has."""
        count = sketch_bytes(self.config)
        signature = np.empty((len(text), count), np.uint32)
        words = np.zeros(len(text), np.uint32)
        if count:
            data, offsets = utf8_buffers(text)
            permutations = kernels.permutations(count, self.config.seed)
            fold = folding_table(self.config.fold_digits)
            kernels.signatures(data, offsets, fold, permutations, self.config.shingle_words, signature, words)
        return signature, words

    def _keys(self, exact: U64, signature: kernels.U32, words: kernels.U32) -> Iterator[U64]:
        """Columns of keys; 0 where a document has none (no words: it can only equal another exactly)."""
        if self.config.exact:
            yield exact[:, 1] | np.uint64(1)
        if self.config.minhash:
            bands = np.empty((len(signature), self.config.bands), np.uint64)
            kernels.band_keys(signature, self.config.bands, self.config.rows_per_band, bands)
            for band in range(self.config.bands):
                yield np.where(words > 0, bands[:, band] | np.uint64(1), np.uint64(0))


def scope_salt(batch: pa.RecordBatch, scope: Sequence[str]) -> U64 | None:
    """A number for the scope of each document; None where all are in one."""
    if not scope:
        return None
    scopes = document_fields.values(batch, scope)
    return np.array([xxhash.xxh3_64_intdigest(json.dumps(scope).encode()) for scope in scopes], np.uint64)


def write_keys(
    out: ShardOutput, keys: Sequence[U64], rows: Sequence[npt.NDArray[np.uint32]], partition_count: int
) -> int:
    """Writes a shard's keys by range, from columns of keys and their rows; returns how many."""
    all_keys = np.concatenate([np.empty(0, np.uint64), *keys])
    all_rows = np.concatenate([np.empty(0, np.uint32), *rows])
    order = np.lexsort((all_rows, all_keys))
    table = pa.table({"key": all_keys[order], "row": all_rows[order]}, schema=KEYS)
    borders = np.searchsorted(all_keys[order], partition_starts(partition_count)).tolist()
    parts = [table.slice(a, b - a) for a, b in zip(borders, [*borders[1:], table.num_rows], strict=True)]
    partitions.write(out.local_path(f"keys/part-{out.index:05d}.parts", table="keys"), KEYS, parts)
    return int(table.num_rows)
