"""Speed of deduplication on one core, part by part, beside datatrove, other tools, and the floor.

``python benchmarks/dedup_speed.py [--megabytes 330] [--runs 3] [--reference 20] [--peer-python VENV/bin/python] ...``

The corpus is that of ``dedup_corpus.py``: the cluster sizes of the Portuguese web, as Parquet. In one run:

* the floor: the same Parquet read and written again by pyarrow;
* our six stages, from Parquet to Parquet, each by itself and all of them; what ``signatures`` and ``dedup`` consist of;
* datatrove's four MinHash stages from Parquet to Parquet on the first ``--reference`` megabytes of the same corpus, as
  they take a hundred times as long: one task, 14 bands of 8, 5-grams, Portuguese words, numbers folded (its default);
* with --peer-python, once for each virtual environment, Data-Juicer's Ray MinHash and text-dedup, whichever it has, on
  the same part: what it takes beyond a run on a hundred documents, so that starting does not count;
* resident bytes per document of the clustering, flat, for ``--clustered`` documents.

One core is seconds of processor time (other processes do not count, and of a peer all its processes do), with pyarrow
held to one thread; seconds on the clock stand beside. Our stages run in this process one after the other, as workers
run them. Medians over the runs, each of which does everything in turn. Prints Markdown; --out writes JSON.
"""

import argparse
import functools
import io
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from curation import machine
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.logging import logger
from dedup_corpus import corpus_stage, places
from dedup_peers import peers_of, run_peer

from caravela.data.columns import utf8_buffers
from caravela.manifest import Input, Manifest
from caravela.stages import Shard, ShardOutput
from filters.dedup import kernels, partitions, signatures
from filters.dedup.components import FlatWorker
from filters.dedup.config import DedupConfig
from filters.dedup.exact import exact_hashes
from filters.dedup.folded_words import folding_table
from filters.dedup.road import dedup_stages
from filters.dedup.tables import EDGES, ROW_BITS, by_partition, spread
from tests.road_without_ray import finish

EDGES_PER_DOCUMENT = 10
"""Of a document in a cluster: with many partitions of keys nearly each shared band is found by another one."""
EDGE_PARTITIONS = 16


class Seconds(NamedTuple):
    """Of a job: processor time and time on the clock."""

    core: float
    clock: float


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=330)
    parser.add_argument("--documents", default="", help="texts whose sentences make the corpus; else from templates")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--reference", type=float, default=20, help="megabytes for datatrove and the peers")
    parser.add_argument("--clustered", type=int, default=2_000_000, help="documents for the memory of the clustering")
    parser.add_argument("--peer-python", action="append", default=[], help="of a virtual environment with a peer")
    parser.add_argument("--out", help="where to write the figures as JSON")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    logger.remove()
    figures: dict[str, Any] = {"machine": machine(), "clustering": memory_of_clustering(options.clustered)}
    with tempfile.TemporaryDirectory() as folder:
        finish_all(f"{folder}/warm", finish(corpus_stage(f"{folder}/warm", 1, 1)))  # compiles
        corpus_clock = time.process_time()
        corpus = finish(corpus_stage(f"{folder}/corpus", options.megabytes, 1, documents=options.documents))
        size = corpus.counters["bytes"] / 1e6
        figures |= {"documents": corpus.counters["documents_kept"], "clusters": corpus.counters["clusters"], "MB": size}
        figures["corpus MB/s"] = size / (time.process_time() - corpus_clock)
        figures["ours"], figures["counters"] = stages_of(folder, corpus, options.runs)
        figures["parts"] = parts_of(corpus.uris("documents"), folder, options.runs)
        part = f"{folder}/part.parquet"
        part_size = write_part(corpus.uris("documents")[0], part, options.reference)
        figures["reference MB"] = part_size
        figures["datatrove"] = datatrove(part, folder, options.runs)
        figures["peers"] = peers(options.peer_python, part, part_size, folder)
    print(as_markdown(figures))
    if options.out:
        Path(options.out).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def timed(job: Callable[[], object]) -> Seconds:
    core, clock = time.process_time(), time.perf_counter()
    job()
    return Seconds(time.process_time() - core, time.perf_counter() - clock)


def medians(runs: Sequence[Mapping[str, Seconds]]) -> dict[str, Seconds]:
    return {name: Seconds(*(statistics.median(run[name][i] for run in runs) for i in range(2))) for name in runs[0]}


def as_input(done: Manifest) -> Input:
    return Input(name=done.stage, fingerprint=done.fingerprint, uri=done.uri)


def finish_all(root: str, corpus: Manifest) -> tuple[dict[str, Seconds], dict[str, int]]:
    """The seconds of each of our stages, and what they counted."""
    found, counters = {}, dict[str, int]()
    for stage in dedup_stages(root, DedupConfig(), as_input(corpus)):
        found[stage.name] = timed(functools.partial(finish, stage))
        done = stage.manifest()
        assert done is not None
        counters |= {f"{stage.name}.{name}": count for name, count in done.counters.items() if "of_size" not in name}
    return found, counters


def stages_of(folder: str, corpus: Manifest, runs: int) -> tuple[dict[str, Seconds], dict[str, int]]:
    """Median seconds of each stage and of all of them; the floor beside."""
    measured = []
    for run in range(runs):
        found, counters = finish_all(f"{folder}/run-{run}", corpus)
        found["all stages"] = Seconds(*map(sum, zip(*found.values(), strict=True)))
        found["floor: Parquet read and written by pyarrow"] = timed(lambda: copy(corpus.uris("documents"), folder))
        measured.append(found)
    return medians(measured), counters


def copy(uris: Sequence[str], folder: str) -> None:
    """Reads Parquet files and writes them again, row group by row group."""
    for uri in uris:
        file = pq.ParquetFile(uri)
        with pq.ParquetWriter(f"{folder}/copy.parquet", file.schema_arrow, compression="zstd") as writer:
            for group in range(file.metadata.num_row_groups):
                writer.write_table(file.read_row_group(group))


def parts_of(uris: Sequence[str], folder: str, runs: int) -> dict[str, Seconds]:
    """What the two large stages consist of, each over the whole corpus."""
    config = DedupConfig()
    names = ["id", "text", "date", "source", config.quality_column]
    count = config.bands * config.rows_per_band
    permutations, fold = kernels.permutations(count, config.seed), folding_table(config.fold_digits)
    batches: list[pa.RecordBatch] = []

    def read() -> None:
        batches[:] = [b for uri in uris for b in pq.ParquetFile(uri).iter_batches(signatures.BATCH_ROWS, columns=names)]

    def hashed() -> None:
        for i, batch in enumerate(batches):
            data, offsets = utf8_buffers(batch["text"])
            found[i], words = np.empty((len(batch), count), np.uint32), np.zeros(len(batch), np.uint32)
            kernels.signatures(data, offsets, fold, permutations, config.shingle_words, found[i], words)

    def banded() -> None:
        for each in found.values():
            out = np.empty((len(each), config.bands), np.uint64)
            kernels.band_keys(each, config.bands, config.rows_per_band, out)

    def exact() -> None:
        for batch in batches:
            exact_hashes(batch["text"])

    found: dict[int, kernels.U32] = {}
    jobs = {"read Parquet": read, "MinHash signatures": hashed, "band keys": banded, "exact hashes": exact}
    jobs["write Parquet"] = lambda: pq.write_table(
        pa.Table.from_batches(batches), f"{folder}/copy.parquet", compression="zstd"
    )
    return medians([{name: timed(job) for name, job in jobs.items()} for _ in range(runs)])


def write_part(uri: str, path: str, megabytes: float) -> float:
    """The first documents of a shard that hold so much text; its size in megabytes."""
    table = pq.read_table(uri, columns=["id", "text"])
    lengths = np.cumsum(pc.binary_length(table["text"]).to_numpy())
    count = min(int(np.searchsorted(lengths, megabytes * 1e6)) + 1, len(lengths))
    pq.write_table(table.slice(0, count), path, compression="zstd")
    return float(lengths[count - 1] / 1e6)


def datatrove(path: str, folder: str, runs: int) -> dict[str, Seconds]:
    """Seconds of each of datatrove's four stages, as one task each (its second wants one for each band)."""
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    source, name = str(Path(path).parent), Path(path).name
    measured = []
    for run in range(runs + 1):
        base = f"{folder}/datatrove-{run}"
        reader = ParquetReader(source, glob_pattern=name, limit=-1 if run else 5)
        steps: dict[str, tuple[int, list[Any]]] = {
            "1 signatures": (1, [reader, MinhashDedupSignature(f"{base}/1", config, language="por_Latn")]),
            "2 buckets": (14, [MinhashDedupBuckets(f"{base}/1", f"{base}/2", config=config)]),
            "3 cluster": (1, [MinhashDedupCluster(f"{base}/2", f"{base}/3", config=config)]),
            "4 filter": (1, [reader, MinhashDedupFilter(f"{base}/3"), ParquetWriter(f"{base}/4", compression="zstd")]),
        }
        found = {
            each: timed(LocalPipelineExecutor(blocks, tasks=tasks, workers=1, logging_dir=f"{base}/logs-{each[0]}").run)
            for each, (tasks, blocks) in steps.items()
        }
        found["all stages"] = Seconds(*map(sum, zip(*found.values(), strict=True)))
        if run:  # the first, on five documents, loads its tokenizer
            measured.append(found)
    return medians(measured)


def peers(pythons: Sequence[str], path: str, size: float, folder: str) -> dict[str, Any]:
    """MB/s per core of each peer that the virtual environments hold, or why it did not run."""
    few = f"{folder}/few.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 100), few, compression="zstd")
    few_size = float(pc.sum(pc.binary_length(table["text"].slice(0, 100))).as_py() / 1e6)
    found: dict[str, Any] = {}
    for python in pythons:
        for name, version in peers_of(python).items():
            (start, _), (whole, kept) = (run_peer(name, python, each, f"{folder}/{name}") for each in (few, path))
            if isinstance(whole, str) or isinstance(start, str):
                found[name] = {"version": version, "error": whole if isinstance(whole, str) else start}
                continue
            more = Seconds(whole[0] - start[0], whole[1] - start[1])
            found[name] = {"version": version, "core": more.core, "clock": more.clock, "starting": start[0]}
            found[name] |= {"MB/s": (size - few_size) / more.core, "kept": kept, "documents": table.num_rows}
    return found


def memory_of_clustering(documents: int) -> dict[str, float]:
    """Resident bytes that the flat clustering adds, in a process of its own."""
    cluster, _ = places(documents, seed=2)
    documents = len(cluster)
    first = np.full(int(cluster.max()) + 1, documents)
    np.minimum.at(first, cluster, np.arange(documents))
    clustered = np.flatnonzero(first[cluster] != np.arange(documents))
    chance = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        uris = []
        for part in range(EDGE_PARTITIONS):
            own = clustered[chance.random(len(clustered)) < EDGES_PER_DOCUMENT / EDGE_PARTITIONS]
            node, root = (numbers(places_) for places_ in (own, first[cluster[own]]))
            uris.append(f"{folder}/part-{part:05d}.parts")
            table = pa.table({"node": node, "neighbour": root}, schema=EDGES)
            place = spread(node) % np.uint64(EDGE_PARTITIONS)
            partitions.write(uris[-1], EDGES, by_partition(table, place, EDGE_PARTITIONS))
        rows = [ROWS_PER_SHARD] * (documents // ROWS_PER_SHARD) + [documents % ROWS_PER_SHARD]
        spec = {"edges": partitions.files(uris), "of": EDGE_PARTITIONS, "shards": len(rows), "sizes": rows}
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            taken, seconds, edges = pool.apply(_cluster, (spec, folder))
    in_clusters = len(np.unique(np.concatenate([clustered, first[cluster[clustered]]])))
    return {
        "documents": documents,
        "documents in clusters": in_clusters,
        "edges": edges,
        "bytes per document": taken / documents,
        "bytes per document in clusters": taken / in_clusters,
        "bytes per edge": taken / edges,
        "edges/s": edges / seconds,
    }


ROWS_PER_SHARD = 20_000


def numbers(places_: np.ndarray[Any, np.dtype[np.int64]]) -> kernels.U64:
    """Documents as numbers of shard and row."""
    shard, row = np.divmod(places_.astype(np.uint64), np.uint64(ROWS_PER_SHARD))
    found: kernels.U64 = row | shard << ROW_BITS
    return found


def _cluster(spec: dict[str, Any], folder: str) -> tuple[int, float, int]:
    """Bytes at the peak beyond those before, seconds of processor time, and edges."""
    pa.set_cpu_count(1)
    from caravela.progress import Poster

    def run(shard: Shard) -> Mapping[str, int]:
        return FlatWorker()(shard, ShardOutput(0, folder, tempfile.mkdtemp(dir=folder), Poster(None, "")))

    run(Shard(index=0, name="warm", spec={**spec, "edges": partitions.files([])}))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, clock = _memory("VmRSS"), time.process_time()
    counters = run(Shard(index=0, name="all edges", spec=spec))
    return _memory("VmHWM") - before, time.process_time() - clock, counters["edges"]


def _memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def as_markdown(figures: Mapping[str, Any]) -> str:
    """Everything as tables."""
    out = io.StringIO()
    where, size = figures["machine"], figures["MB"]
    print(f"{figures['documents']:,} documents of {figures['clusters']:,} clusters, {size:.1f} MB;", file=out, end=" ")
    print(f"{where['cpu']}, {where['cores']} cores; seconds of one core and MB/s; corpus made at", file=out, end=" ")
    print(f"{figures['corpus MB/s']:.1f} MB/s", file=out)
    part_size = figures["reference MB"]
    for title, megabytes in (("ours", size), ("parts", size), ("datatrove", part_size)):
        print(f"\n| {title}, {megabytes:.1f} MB | s, core | s, clock | MB/s per core |\n|---|---:|---:|---:|", file=out)
        for name, (core, clock) in figures[title].items():
            print(f"| {name} | {core:.3g} | {clock:.3g} | {megabytes / core:.3g} |", file=out)
    whole, theirs = size / figures["ours"]["all stages"][0], part_size / figures["datatrove"]["all stages"][0]
    print("\n| the whole deduplication | MB/s per core | ours is times |\n|---|---:|---:|", file=out)
    print(f"| ours | {whole:.3g} | |", file=out)
    print(f"| datatrove | {theirs:.3g} | {whole / theirs:.3g} |", file=out)
    for name, peer in figures["peers"].items():
        if "error" in peer:
            print(f"| {name} {peer['version']} | {peer['error']} | |", file=out)
            continue
        kept = f"keeps {peer['kept']:,} of {peer['documents']:,}" if peer["kept"] else ""
        print(f"| {name} {peer['version']} {kept} | {peer['MB/s']:.3g} | {whole / peer['MB/s']:.3g} |", file=out)
    print("\n| clustering, flat | |\n|---|---:|", file=out)
    for name, value in figures["clustering"].items():
        print(f"| {name} | {value:,.4g} |" if value < 1e4 else f"| {name} | {value:,.0f} |", file=out)
    return out.getvalue()


if __name__ == "__main__":
    main()
