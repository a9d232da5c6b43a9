"""Speed of the loader that feeds training: tokens a second of one process, from disk and from an S3 server.

``python jobs/with_local_s3.py -- python benchmarks/loader.py [--rows 8192] [--context 2048] [--runs 3]``

The packed rows hold random tokens, which no compression makes smaller. In one run, each in a process of its own, from
the first batch to the last (what it takes to open is apart): a plain read of the same Parquet files by pyarrow, one
after the other, to NumPy, which is the limit of one core; the loader from local disk, with all rows and with an
eighth of each batch's rows (as one rank of eight); the same from the S3 server that the AWS environment names, and
through a proxy that fails 1 % of the requests and lets another 1 % stall for 30 seconds. ``--needed`` is what the
trainers eat together, of which each of eight ranks must bring an eighth. Medians over the runs. Prints Markdown.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from curation import machine

from caravela import manifest, schema, storage
from caravela.data.loader import Loader
from caravela.data.training_order import Source, TrainingOrder
from caravela.manifest import FileRecord, Manifest, ShardRecord

VOCABULARY = 32_000
ROW_GROUP_ROWS = 256
PARTS = 8
DOCUMENT_TOKENS = 700
FAULTS = ("--fail", "0.01", "--stall", "0.01", "--stall-s", "30")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--batch-rows", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--needed", type=float, default=3.3e6, help="tokens a second of all trainers together")
    parser.add_argument("--bucket", default="s3://caravela", help="where there is an S3 server; it must exist")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "URI", "RANKS"), help="measures one thing; used by itself")
    options = parser.parse_args()
    if options.one:
        kind, uri, ranks = options.one
        print(json.dumps(measured(kind, uri, int(ranks), options.batch_rows)))
        return
    with tempfile.TemporaryDirectory() as folder, faulty_s3(folder) as faulty:
        local, remote = f"{folder}/pack", f"{options.bucket}/benchmark-loader"
        write_pack(local, options.rows, options.context)
        jobs: list[tuple[str, list[str], dict[str, str]]] = [
            ("limit: the same files read by pyarrow", ["plain", local, "1"], {}),
            ("local disk", ["loader", local, "1"], {}),
            ("local disk, one rank of 8", ["loader", local, "8"], {}),
        ]
        if faulty:
            write_pack(remote, options.rows, options.context)
            jobs += [
                ("limit: S3 server, files read whole", ["whole", remote, "1"], {}),
                ("S3 server", ["loader", remote, "1"], {}),
                ("S3 server, one rank of 8", ["loader", remote, "8"], {}),
                ("S3 server, 1 % fails, 1 % stalls", ["loader", remote, "1"], {"AWS_ENDPOINT_URL": faulty}),
            ]
        found: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in jobs}
        for _ in range(options.runs):
            for name, one, environment in jobs:
                found[name].append(in_a_process(options, one, environment))
    print(as_markdown(found, options.needed))


def in_a_process(options: argparse.Namespace, one: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Figures of one measurement."""
    command = [sys.executable, __file__, "--batch-rows", str(options.batch_rows), "--one", *one]
    done = subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measured(kind: str, uri: str, ranks: int, batch_rows: int) -> dict[str, float]:
    """Seconds to open, and tokens a second after that."""
    pa.set_cpu_count(1)
    pack = manifest.read(uri)
    assert pack is not None, uri
    context, rows = int(pack.summary["context"]), pack.rows("train")
    clock = time.perf_counter()
    if kind != "loader":
        tokens = 0
        for file in pack.uris("train"):
            table = pq.read_table(pa.BufferReader(storage.read_bytes(file)))
            if kind == "plain":
                values = table["tokens"].combine_chunks().flatten().to_numpy()
                tokens += len(values.astype(np.int64).reshape(table.num_rows, -1)[:, :-1].ravel())
            else:
                tokens += table.num_rows * context
        return {"open": 0.0, "tokens/s": tokens / (time.perf_counter() - clock), "worst": 0.0}
    steps = max(2, rows // batch_rows)
    source = Source("rows", pack)
    order = TrainingOrder([source], seed=0, batch_rows=batch_rows, steps=steps, window_groups=8)
    with Loader(order, 0, ranks) as loader:
        batches = loader.batches(1)
        next(batches)
        opened, worst, tokens = time.perf_counter(), 0.0, 0
        mark = opened
        for batch in batches:
            tokens += batch.tokens[:, 1:].size
            now = time.perf_counter()
            worst, mark = max(worst, now - mark), now
        seconds = time.perf_counter() - opened
    return {"open": opened - clock, "tokens/s": tokens / seconds, "worst": worst}


@contextlib.contextmanager
def faulty_s3(folder: str) -> Iterator[str]:
    """Endpoint of a proxy before the S3 server; empty where there is no server."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if not endpoint:
        yield ""
        return
    command = [sys.executable, "-m", "tests.faulty_s3", endpoint, *FAULTS, "--log", f"{folder}/requests"]
    where = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=where) as proxy:
        assert proxy.stdout is not None, "asked for as a pipe"
        try:
            yield f"http://127.0.0.1:{int(proxy.stdout.readline())}"
        finally:
            proxy.terminate()


def write_pack(uri: str, rows: int, context: int, vocabulary: int = VOCABULARY) -> None:
    """A finished pack stage of random tokens in documents of about ``DOCUMENT_TOKENS``."""
    generator = np.random.default_rng(0)
    wanted = schema.packed(context + 1, vocabulary)
    files = []
    for part in range(PARTS):
        count = rows // PARTS
        tokens: npt.NDArray[np.uint16] = generator.integers(0, vocabulary, count * (context + 1), np.uint16)
        starts = [list(range(0, context, DOCUMENT_TOKENS)) for _ in range(count)]
        columns = {
            "tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens), context + 1),
            "document_starts": pa.array(starts, pa.list_(pa.int32())),
            "document_ids": [[f"<urn:uuid:{part}-{i}-{k}>" for k in range(len(starts[i]))] for i in range(count)],
            "target_bytes": pa.array([4 * context] * count, pa.int32()),
            "padding": pa.array([0] * count, pa.int32()),
        }
        with tempfile.TemporaryDirectory() as folder:
            local, path = f"{folder}/part.parquet", f"part-{part:05d}.parquet"
            table = pa.table(columns, schema=wanted)
            pq.write_table(table, local, row_group_size=ROW_GROUP_ROWS, compression="zstd", write_page_checksum=True)
            storage.publish(local, storage.join(uri, path))
            size, digest = os.path.getsize(local), storage.sha256_of(local)
        files.append(FileRecord(table="train", path=path, rows=count, bytes=size, sha256=digest))
    shard = ShardRecord(index=0, name="all", files=tuple(files), counters={}, seconds=0.0, peak_memory_bytes=0)
    manifest.write(
        Manifest(
            stage="pack",
            version=1,
            fingerprint="benchmark",
            config={"context": context, "row_group_rows": ROW_GROUP_ROWS},
            inputs=(),
            shards=(shard,),
            counters={},
            summary={
                "context": context,
                "vocabulary_size": vocabulary,
                "tokenizer_sha256": "",
                "train_padding": 0,
                "validation_padding": 0,
            },
            versions={},
            started="",
            seconds=0.0,
            uri=uri,
        )
    )


def as_markdown(found: dict[str, list[dict[str, float]]], needed: float) -> str:
    """The table."""
    about: dict[str, Any] = machine()
    lines = [
        f"{about['cpu']}, {about['cores']} cores; needed: {needed / 1e6:.1f} M tokens/s",
        "",
        "| what | M tokens/s | times what is needed of it | first batch, s | longest wait for a batch, s |",
        "|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        speed, opened, worst = (statistics.median(run[key] for run in runs) for key in ("tokens/s", "open", "worst"))
        share = needed / 8 if name.endswith("one rank of 8") else needed
        tail = "| | | |" if name.startswith("limit") else f"| {speed / share:.1f} | {opened:.2f} | {worst:.2f} |"
        lines.append(f"| {name} | {speed / 1e6:.1f} {tail}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
