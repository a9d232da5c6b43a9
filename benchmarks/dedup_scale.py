"""Time, memory and disk of deduplication's clustering, from one to tens of millions of documents.

``python benchmarks/dedup_scale.py --root FOLDER [--millions 1 5 20] [--rounds 1 5] [--largest 0.01] [--out F.json]``

Signatures are generated, in the files that the stage writes: what grows with the corpus is what is measured, not the
reading of texts. Clusters have the sizes that FineWeb-2 publishes for Portuguese (misc/rehydration, por_Latn.json), and
one has a share ``--largest`` of all documents. Of a cluster's other documents three in ten are exact copies; the
MinHashes of the rest agree with the first one's with a probability of 0.6 to 1 each. The documents hold an id and a
short text, 100,000 in a shard. Then the stages themselves run, each in two new processes, with the default settings;
for sizes in ``--rounds`` once more with clustering in rounds over partitions, whose labels must be the same bytes.

Prints, for each size and stage: seconds on the clock; processor seconds of all tasks (other processes on the machine
hardly change those) and microseconds of them per document; the largest resident memory of a task's process, all of it
(about 170 MB are Python and its libraries); bytes on disk per document. Exits with 1 if processor time per document
grows by more than a quarter from the smallest to the largest size. About 500 bytes of disk per document are needed, and
removed at the end of each size.
"""

import argparse
import functools
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from cluster_sizes import sizes_and_shares

from caravela import manifest, stages
from caravela.cluster import ClusterConfig
from caravela.manifest import Manifest, ShardRecord
from caravela.progress import StageProgress, table
from caravela.stages import Shard, ShardOutput, Stage, Worker
from filters.dedup import partitions, tables
from filters.dedup.components import components_stage
from filters.dedup.config import DedupConfig
from filters.dedup.road import dedup_stages
from filters.dedup.signatures import partitions_for, sketch_bytes, write_keys
from filters.dedup.tables import U64, spread

EXACT = 0.3
"""Share of a cluster's other documents that are exact copies of the first."""
LEAST_SIMILARITY = 0.6
SHARD_DOCUMENTS = 100_000
PROCESSES = 2
MOST_GROWTH = 1.25
NEW = multiprocessing.get_context("forkserver")
"""New processes for each stage, so that the memory of each is its own; what they import is imported once."""
DOCUMENTS = pa.schema([("id", pa.string()), ("text", pa.string())])


@dataclass
class Figures:
    """What the tasks of one stage took."""

    clock: float = 0.0
    processor: float = 0.0
    peak_bytes: int = 0
    disk_bytes: int = 0
    tasks: int = 0


@dataclass
class TwoProcesses:
    """Runs shards in processes of its own, where ``stages.run_in_driver`` would run them in this one."""

    measured: Figures = field(default_factory=Figures)

    def __call__(self, stage: Stage, shards: Sequence[Shard], progress: StageProgress) -> Iterable[ShardRecord]:
        rows = [{"index": s.index, "name": s.name, "spec": json.dumps(s.spec)} for s in shards]
        work = functools.partial(_task, stage.make_worker, stage.uri)
        with ProcessPoolExecutor(PROCESSES, NEW) as pool:
            for processor, peak in pool.map(work, rows):
                self.measured.processor += processor
                self.measured.peak_bytes = max(self.measured.peak_bytes, peak)
                self.measured.tasks += 1
        records = manifest.read_records(stage.uri)
        found = [records[shard.index] for shard in shards]
        self.measured.disk_bytes += sum(file.bytes for record in found for file in record.files)
        return found


def _task(make_worker: Any, directory: str, row: Mapping[str, Any]) -> tuple[float, int]:
    """Processor seconds of a shard and the peak memory of this process."""
    worker, before = make_worker(), time.process_time()
    stages.run_shard(row, worker, directory)
    return time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="a folder for what is written, which is removed again")
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 5, 20])
    parser.add_argument("--rounds", type=float, nargs="*", default=[1, 5])
    parser.add_argument("--largest", type=float, default=0.01, help="share of the documents that are one cluster")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args()
    NEW.set_forkserver_preload(["filters.dedup.road"])
    per_document, everything = {}, {}
    for millions in options.millions:
        root = Path(options.root, f"{millions:g}-million")
        documents = int(millions * 1e6)
        try:
            figures = measured(root, documents, options.largest, in_rounds=millions in options.rounds)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        everything[f"{millions:g}"] = {name: vars(each) for name, each in figures.items()}
        per_document[millions] = cost(figures) / documents
        print(f"\n{millions:g} million documents\n")
        print(as_table(figures, documents), flush=True)
        if options.out:
            options.out.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    growth = per_document[max(per_document)] / per_document[min(per_document)]
    shown = ", ".join(f"{size:g} M: {1e6 * each:.1f}" for size, each in per_document.items())
    print(f"\nprocessor time per document, µs: {shown}; from the smallest to the largest × {growth:.2f}")
    return 1 if growth > MOST_GROWTH else 0


def cost(figures: Mapping[str, Figures]) -> float:
    """Processor seconds of the stages that every run has."""
    return sum(each.processor for name, each in figures.items() if name in REAL)


REAL = ("duplicates", "components", "members", "clusters", "dedup")


def as_table(figures: Mapping[str, Figures], documents: int) -> str:
    whole = [each for name, each in figures.items() if name in REAL]
    total = Figures(
        clock=sum(each.clock for each in whole),
        processor=sum(each.processor for each in whole),
        peak_bytes=max(each.peak_bytes for each in whole),
        disk_bytes=sum(each.disk_bytes for each in whole),
        tasks=sum(each.tasks for each in whole),
    )
    rows = [
        (name, f"{each.tasks}", f"{each.clock:.1f}", f"{each.processor:.1f}", f"{1e6 * each.processor / documents:.2f}",
         f"{each.peak_bytes / 1e6:.0f}", f"{each.disk_bytes / documents:.1f}")
        for name, each in {**figures, "all of a run": total}.items()
    ]  # fmt: skip
    headings = ("stage", "tasks", "seconds", "processor s", "µs/document", "peak MB", "bytes/document")
    return table(headings, rows)


def measured(root: Path, documents: int, largest: float, *, in_rounds: bool) -> dict[str, Figures]:
    """One size: stage → what it took."""
    root.mkdir(parents=True)
    config = DedupConfig()
    cluster, copy = places(documents, largest)
    np.save(root / "cluster.npy", cluster)
    np.save(root / "copy.npy", copy)
    clusters, shards = int(cluster.max()) + 1, -(-documents // SHARD_DOCUMENTS)
    del cluster, copy
    plan = [Shard(index=i, name=f"shard {i}", spec={}) for i in range(shards)]

    def generated(name: str, make_worker: Any) -> Stage:
        return Stage(
            name=name, version=1, root=str(root), config={}, inputs=(), plan=lambda: plan, make_worker=make_worker
        )

    figures = {}
    curated = generated("curate", functools.partial(DocumentWriter, str(root)))
    real = dedup_stages(str(root), config, curated.as_input())
    keys = replace(
        real[0],
        plan=lambda: plan,
        make_worker=functools.partial(SignatureWriter, str(root), partitions_for(documents, config)),
    )
    for stage in (curated, keys, *real[1:]):
        figures[stage.name], done = run(stage)
        if stage.name == "components" and in_rounds:
            figures["(components in rounds)"] = rounds(root, real, done)
    kept = done.counters["documents_kept"]
    print(f"{documents:,} documents of {clusters:,} clusters: {kept:,} kept", file=sys.stderr)
    return figures


def run(stage: Stage) -> tuple[Figures, Manifest]:
    """Brings a stage to its end in two processes."""
    two, clock = TwoProcesses(), time.perf_counter()
    stages.run_in_driver = two  # also for what a stage runs below itself
    done = stages.run(replace(stage, in_driver=True), ClusterConfig())
    two.measured.clock = time.perf_counter() - clock
    print(f"  {stage.name}: {two.measured}", file=sys.stderr, flush=True)
    return two.measured, done


def rounds(root: Path, real: Sequence[Stage], flat: Manifest) -> Figures:
    """Components once more, in rounds, at another root."""
    signatures, duplicates = real[0].as_input(), real[1].as_input()
    elsewhere = root / "rounds"
    figures, done = run(components_stage(str(elsewhere), duplicates, [signatures], 0))
    same = [f.sha256 for f in done.files("labels")] == [f.sha256 for f in flat.files("labels")]
    assert same, "labels in rounds are not those of the flat way"
    print(f"  {len(list(elsewhere.glob('components/*/round_*')))} rounds", file=sys.stderr)
    shutil.rmtree(elsewhere)
    return figures


def places(documents: int, largest: float) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Cluster and copy of every document, at random places of the corpus."""
    chance = np.random.default_rng(1)
    sizes, shares = sizes_and_shares()
    mean = (sizes * shares).sum()
    drawn = chance.choice(sizes, int(documents / mean * 1.2) + 100, p=shares)
    drawn = np.concatenate([[max(1, int(documents * largest))], drawn])
    drawn = drawn[: int(np.searchsorted(np.cumsum(drawn), documents)) + 1]
    cluster = np.repeat(np.arange(len(drawn), dtype=np.int32), drawn)[:documents]
    copy = (np.arange(documents) - np.repeat(np.cumsum(drawn) - drawn, drawn)[:documents]).astype(np.int32)
    order = chance.permutation(documents)
    return cluster[order], copy[order]


class DocumentWriter(Worker):
    """A shard of documents: an id, and the least text that tells them apart."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        cluster, copy = own(self.root, shard.index)
        names = ids(cluster, copy)
        batch = pa.table({"id": names, "text": names}, schema=DOCUMENTS).combine_chunks().to_batches()[0]
        out.table("documents", DOCUMENTS).add_columns(batch)
        return {"documents_in": len(cluster), "documents_kept": len(cluster)}


class SignatureWriter(Worker):
    """Keys and attributes of a shard, as ``SignatureWorker`` writes them, from MinHashes that are drawn.

    Eight MinHashes, of which a byte each is drawn, are the eight bytes of a number; so a band is one number.
    """

    def __init__(self, root: str, partition_count: int) -> None:
        self.root, self.count = root, partition_count

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        cluster, copy = own(self.root, shard.index)
        config, chance = DedupConfig(), np.random.default_rng(shard.index)
        number, bands = len(cluster), config.bands
        assert config.rows_per_band == 8, "a band is a number of eight bytes"
        each_band: U64 = np.arange(bands, dtype=np.uint64)
        seeds: U64 = cluster[:, None].astype(np.uint64) * np.uint64(64) + each_band
        first = spread(seeds)
        exact = np.logical_or(copy == 0, chance.random(number) < EXACT)
        alike = np.where(exact, 1.0, chance.uniform(LEAST_SIMILARITY, 1.0, number))
        sketch = first.view(np.uint8)
        changed = chance.random(sketch.shape, np.float32) >= alike[:, None]
        sketch = np.where(changed, chance.integers(0, 256, sketch.shape, np.uint8), sketch)
        # Two texts that differ have two exact hashes, from (cluster, 0) and (cluster, copy).
        text: U64 = spread(cluster.astype(np.uint64) << np.uint64(32) | np.where(exact, 0, copy).astype(np.uint64))
        band = spread(sketch.view(np.uint64) ^ (each_band + np.uint64(1) << np.uint64(56)))
        columns = [text, *band.T]
        rows = np.arange(number, dtype=np.uint32)
        count = write_keys(out, [each | np.uint64(1) for each in columns], [rows] * len(columns), self.count)
        days = pa.array([f"2026-{day // 28 + 1:02d}-{day % 28 + 1:02d}T08:00:00Z" for day in range(336)])
        width = sketch_bytes(config)
        attributes = pa.table(
            {
                "id": ids(cluster, copy),
                "exact_high": text,
                "exact_low": spread(text),
                "length": chance.integers(200, 20_000, number).astype(np.uint32),
                "quality": chance.random(number, np.float32),
                "date": days.take(pa.array(chance.integers(0, len(days), number))),
                "source": pa.array(["web", "news", "wiki"]).take(pa.array(chance.integers(0, 3, number))),
                "sketch": pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(width), number, [None, pa.py_buffer(np.ascontiguousarray(sketch))]
                ),
            },
            schema=tables.attributes(width),
        )
        path = out.local_path(f"attributes/part-{shard.index:05d}.parts", table="attributes")
        partitions.write(path, attributes.schema, [attributes])
        return {"documents": number, "keys": count, "partitions": self.count}


def own(root: str, shard: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cluster and copy of a shard's documents."""
    part = slice(shard * SHARD_DOCUMENTS, (shard + 1) * SHARD_DOCUMENTS)
    cluster, copy = (np.load(Path(root, f"{name}.npy"), mmap_mode="r")[part] for name in ("cluster", "copy"))
    return cluster.astype(np.int64), copy.astype(np.int64)


def ids(cluster: npt.NDArray[np.int64], copy: npt.NDArray[np.int64]) -> pa.Array:
    texts = (pc.cast(pa.array(each), pa.string()) for each in (cluster, copy))
    return pc.binary_join_element_wise(*texts, "-")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
