"""A finished pack stage of arithmetic progressions: learnable, and documents are named for where they stand."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caravela import manifest, schema, storage
from caravela.manifest import FileRecord, Manifest, ShardRecord

VOCABULARY, CONTEXT, ROW_GROUP_ROWS = 97, 16, 8
FINGERPRINT = "0123456789abcdef"
TOKENIZER_SHA256 = "ab" * 32


def write_pack(
    uri: str, train_rows: Sequence[int], validation_rows: int = 10, padding: int = 0, filler: int = 2
) -> Manifest:
    """Writes parts of ``train_rows`` rows and the manifest; ids are ``<table>-<part>-<row>`` and the same with a b.

    Of each row the last tokens are ``padding`` times ``filler``.
    """
    generator = np.random.default_rng(0)
    tables = [("train", part, rows, f"part-{part:05d}.parquet") for part, rows in enumerate(train_rows)]
    tables.append(("validation", 0, validation_rows, "validation/part-00000.parquet"))
    files = [_write_part(uri, generator, *table, padding, filler) for table in tables]
    config = {"context": CONTEXT, "row_group_rows": ROW_GROUP_ROWS}
    summary = {
        "context": CONTEXT,
        "vocabulary_size": VOCABULARY,
        "tokenizer_sha256": TOKENIZER_SHA256,
        "train_padding": padding * sum(train_rows),
        "validation_padding": padding * validation_rows,
    }
    return _write_manifest("pack", uri, files, config, summary)


def write_tokenizer(uri: str, sha256: str = TOKENIZER_SHA256) -> Manifest:
    """Writes the manifest of a tokenizer, without the model that it speaks of."""
    file = FileRecord(table="files", path="tokenizer.model", rows=0, bytes=0, sha256=sha256)
    return _write_manifest("tokenizer", uri, [file], {}, {})


def _write_manifest(
    stage: str, uri: str, files: Sequence[FileRecord], config: dict[str, Any], summary: dict[str, Any]
) -> Manifest:
    shard = ShardRecord(index=0, name="all", files=tuple(files), counters={}, seconds=0.0, peak_memory_bytes=0)
    made = Manifest(
        stage=stage,
        version=1,
        fingerprint=FINGERPRINT,
        config=config,
        inputs=(),
        shards=(shard,),
        counters={},
        summary=summary,
        versions={},
        started="2026-01-01T00:00:00+00:00",
        seconds=0.0,
        uri=uri,
    )
    manifest.write(made)
    return made


def _write_part(
    uri: str, generator: np.random.Generator, table: str, part: int, rows: int, path: str, padding: int, filler: int
) -> FileRecord:
    first, pace = generator.integers(0, VOCABULARY, (rows, 1)), generator.integers(1, 4, (rows, 1))
    tokens = (first + pace * np.arange(CONTEXT + 1)) % VOCABULARY
    tokens[:, CONTEXT + 1 - padding :] = filler
    columns = {
        "tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens.ravel().astype(np.uint16)), CONTEXT + 1),
        "document_starts": pa.array([[0, 5]] * rows, pa.list_(pa.int32())),
        "document_ids": pa.array(
            [[f"{table}-{part}-{row}", f"{table}-{part}-{row}b"] for row in range(rows)], pa.list_(pa.string())
        ),
        "target_bytes": pa.array([3 * CONTEXT] * rows, pa.int32()),
        "padding": pa.array([padding] * rows, pa.int32()),
    }
    rows_schema = schema.packed(CONTEXT + 1, VOCABULARY)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "part.parquet"
        pq.write_table(pa.table(columns, schema=rows_schema), local, row_group_size=ROW_GROUP_ROWS)
        storage.publish(str(local), storage.join(uri, path))
        size, digest = local.stat().st_size, storage.sha256_of(str(local))
    return FileRecord(table=table, path=path, rows=rows, bytes=size, sha256=digest)
