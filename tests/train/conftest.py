"""A small packed set, and groups of real training processes without Ray."""

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caravela import manifest, schema, storage
from caravela.manifest import FileRecord, Input, Manifest, ShardRecord
from caravela.model.config import ModelConfig

VOCABULARY, CONTEXT, ROW_GROUP_ROWS = 97, 16, 8
MODEL = ModelConfig(
    num_layers=2,
    hidden_size=32,
    feed_forward_size=48,
    num_heads=4,
    num_kv_heads=2,
    vocabulary_size=VOCABULARY,
    max_positions=CONTEXT,
)


def write_pack(uri: str, folder: Path, train_rows: Sequence[int], validation_rows: int = 10, seed: int = 0) -> Manifest:
    """A finished pack stage of arithmetic progressions, one document a row, named for where it stands."""
    generator = np.random.default_rng(seed)
    row_schema = schema.packed(CONTEXT + 1, VOCABULARY)

    def write(table: str, part: int, rows: int, path: str) -> FileRecord:
        first, pace = generator.integers(0, VOCABULARY, (rows, 1)), generator.integers(1, 4, (rows, 1))
        tokens = (first + pace * np.arange(CONTEXT + 1)) % VOCABULARY
        flat = pa.array(tokens.ravel().astype(np.uint16))
        columns = {
            "tokens": pa.FixedSizeListArray.from_arrays(flat, CONTEXT + 1),
            "document_starts": pa.array([[0, 5]] * rows, pa.list_(pa.int32())),
            "document_ids": pa.array([[f"{table}-{part}-{row}", f"{table}-{part}-{row}b"] for row in range(rows)]),
            "target_bytes": pa.array([3 * CONTEXT] * rows, pa.int32()),
        }
        local = folder / "part.parquet"
        pq.write_table(pa.table(columns, schema=row_schema), local, row_group_size=ROW_GROUP_ROWS)
        storage.publish(str(local), storage.join(uri, path))
        size, digest = local.stat().st_size, storage.sha256_of(str(local))
        return FileRecord(table=table, path=path, rows=rows, bytes=size, sha256=digest)

    files = [write("train", part, rows, f"part-{part:05d}.parquet") for part, rows in enumerate(train_rows)]
    if validation_rows:
        files.append(write("validation", 0, validation_rows, "validation/part-00000.parquet"))
    shard = ShardRecord(index=0, name="all", files=tuple(files), counters={}, seconds=0.0, peak_memory_bytes=0)
    made = Manifest(
        stage="pack",
        version=1,
        fingerprint="0123456789abcdef",
        config={"context": CONTEXT, "row_group_rows": ROW_GROUP_ROWS},
        inputs=(),
        shards=(shard,),
        counters={},
        summary={"context": CONTEXT, "vocabulary_size": VOCABULARY},
        versions={},
        started="2026-01-01T00:00:00+00:00",
        seconds=0.0,
        uri=uri,
    )
    manifest.write(made)
    return made


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Input:
    folder = tmp_path_factory.mktemp("pack")
    made = write_pack(str(folder / "pack"), folder, [60, 41, 9])
    return Input(name="pack", fingerprint=made.fingerprint, uri=made.uri)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _enter(rank: int, num_ranks: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_ranks),
        LOCAL_WORLD_SIZE=str(num_ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    function(*arguments)
    torch.distributed.destroy_process_group()


def run_group(num_ranks: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Calls a module's function in ``num_ranks`` fresh processes joined by gloo; an error in one is raised here."""
    import torch.multiprocessing

    torch.multiprocessing.spawn(_enter, (num_ranks, free_port(), function, arguments), nprocs=num_ranks)
