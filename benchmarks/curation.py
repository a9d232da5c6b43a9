"""Speed of curation on one core, part by part, beside datatrove and beside the floor.

``python benchmarks/curation.py DOCUMENTS [--warc CRAWL.warc.gz] [--runs 3] [--reference 300] [--copies 3] [--out F]``

DOCUMENTS is a JSONL file (.gz or .zst too) or a Parquet file with a column of texts; it is written as Parquet to a
temporary folder once. Measured in one run, all by themselves on one core:

* the floor: the same Parquet read and written again by pyarrow;
* datatrove's LocalPipelineExecutor: its language, repetition, quality and PII blocks, from Parquet to Parquet, on a
  sample, as it takes a hundred times as long;
* our quality signals beside datatrove's three filters, and our language identification beside fastText's ``predict``;
* the whole pass from Parquet to Parquet with the time of each part, cold (new tables of words) and warm;
* the stage on Ray: what more copies of the documents take with one worker, and with two. Starting takes the same
  time for any input, and so does not count; beside it the limit: the same work in one process and in two, warm, that
  share nothing but the machine;
* with --warc, the pages per second of each extractor.

One core is seconds of processor time of one process (other processes do not count), with pyarrow held to one thread;
the stage on Ray is seconds on the clock. Medians over the runs, each of which does everything in turn. Prints Markdown;
--out writes JSON.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LanguageFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from quality_speed import datatrove_filters, in_batches, read

from caravela import stages
from caravela.cluster import ClusterConfig
from caravela.data import extract, readers
from caravela.stages import Shard, Stage, TableWriter
from filters import language, steps
from filters.batch import Batch, Places
from filters.curate import CurateConfig, CurateWorker, curate_stages
from filters.language import LanguageConfig, LanguageIdentifier
from filters.quality import QualityConfig
from filters.word_table import WordTable
from filters.words import WordSplitter

BATCH = 1024
ROW_GROUP_ROWS = 2000
SHARD_MB = 8


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents")
    parser.add_argument("--field", default="text")
    parser.add_argument("--warc")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--reference", type=int, default=300, help="documents that datatrove takes through")
    parser.add_argument("--copies", type=int, default=3, help="of the documents, for the stage on Ray; 0: without it")
    parser.add_argument("--out", help="where to write the figures as JSON")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    texts = read(options.documents, options.field)
    figures: dict[str, Any] = {"machine": machine(), "documents": len(texts), "megabytes": megabytes(texts)}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/documents.parquet"
        write_parquet(texts, path)
        figures["MB/s"] = one_core(texts, path, options.runs, options.reference)
        figures["parts"] = whole_pass(path, figures["megabytes"], options.runs)
        if options.copies:
            figures["ray"] = on_ray(path, figures["megabytes"], options.copies, options.runs)
    if options.warc:
        figures["pages/s"] = extractors(options.warc, options.runs)
    print(as_markdown(figures))
    if options.out:
        Path(options.out).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What this runs on."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return {"cpu": line.partition(":")[2].strip(), "cores": os.cpu_count()}
    return {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}


def write_parquet(texts: list[str], path: str) -> None:
    """The documents as a file with an id and a text."""
    columns = {"id": [f"d{i}" for i in range(len(texts))], "text": texts}
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def one_core(texts: list[str], path: str, runs: int, reference: int) -> dict[str, float]:
    """MB/s of each thing that is measured by itself."""
    sample = random.Random(0).sample(texts, min(reference, len(texts)))
    folder = Path(path).parent / "sample"
    folder.mkdir()
    write_parquet(sample, f"{folder}/sample.parquet")
    config, splitter = QualityConfig(), WordSplitter()
    identifier, model = LanguageIdentifier.from_config(LanguageConfig()), language.model_path("lid.176")
    fast_text = fasttext.load_model(model)
    their_filters = datatrove_filters(config)
    column = pa.array(texts, pa.large_string())

    def their_quality() -> None:
        from datatrove.data import Document

        for text in sample:
            document = Document(text=text, id="")
            all(each.filter(document) is True for each in their_filters.values())

    their_quality()  # loads its tokenizer
    in_batches(texts[:100], WordTable(splitter), config)  # compiles
    our_languages(identifier, column.slice(0, 100))
    measured: dict[str, list[float]] = {}
    for _ in range(runs):
        words = WordTable(WordSplitter())
        jobs: dict[str, tuple[list[str], Callable[[], object]]] = {
            "floor: Parquet read and written by pyarrow": (texts, lambda: copy(path)),
            "datatrove, Parquet → language → quality → PII → Parquet": (sample, lambda: datatrove_pass(folder, model)),
            "quality: datatrove": (sample, their_quality),
            "quality: ours, cold": (texts, lambda words=words: in_batches(texts, words, config)),
            "quality: ours, warm": (texts, lambda words=words: in_batches(texts, words, config)),
            "language: fastText predict": (sample, lambda: their_languages(fast_text, sample)),
            "language: ours, cold": (
                texts,
                lambda: our_languages(LanguageIdentifier.from_config(LanguageConfig()), column),
            ),
            "language: ours, warm": (texts, lambda: our_languages(identifier, column)),
        }
        for name, (work, job) in jobs.items():
            measured.setdefault(name, []).append(megabytes(work) / seconds(job))
    return {name: statistics.median(speeds) for name, speeds in measured.items()}


def copy(path: str) -> None:
    """Reads a Parquet file and writes it again, as the pass does."""
    file = pq.ParquetFile(path)
    with pq.ParquetWriter(f"{path}.copy", file.schema_arrow, compression="zstd") as writer:
        for group in range(file.metadata.num_row_groups):
            writer.write_table(file.read_row_group(group))


def datatrove_pass(folder: Path, model: str) -> None:
    """Datatrove's own blocks, as FineWeb-2 sets them for Portuguese, from Parquet to Parquet."""
    keep = LanguageFilter(languages=["pt"], language_threshold=language.THRESHOLD, backend="ft176")
    keep.model.MODEL_URL = model
    with tempfile.TemporaryDirectory() as out:
        LocalPipelineExecutor(
            pipeline=[
                ParquetReader(str(folder), glob_pattern="*.parquet"),
                keep,
                *datatrove_filters(QualityConfig()).values(),
                PIIFormatter(),
                ParquetWriter(out, compression="zstd"),
            ],
            tasks=1,
            workers=1,
            logging_dir=f"{out}/logs",
        ).run()


def their_languages(model: Any, texts: list[str]) -> None:
    for text in texts:
        model.predict(text.replace("\n", " "), k=3)


def our_languages(identifier: LanguageIdentifier, column: pa.Array) -> None:
    for start in range(0, len(column), BATCH):
        identifier.identify_batch(column.slice(start, BATCH))


class TimedStep(steps.Step):
    """A step, with the processor time that it takes noted under its name."""

    def __init__(self, step: steps.Step, times: dict[str, float]) -> None:
        self.step, self.times = step, times
        self.name, self.sees_all_past = step.name, step.sees_all_past

    def begin_shard(self) -> None:
        self.step.begin_shard()

    def __call__(self, batch: Batch, places: Places) -> None:
        with timed(self.times, self.name):
            self.step(batch, places)


class TimedWorker(CurateWorker):
    """The worker of the stage, with the time of each part."""

    def __init__(self, config: CurateConfig) -> None:
        super().__init__(config)
        self.times: dict[str, float] = {}
        self.steps = [TimedStep(step, self.times) for step in self.steps]

    def batches(self, shard: Shard) -> Iterator[Batch]:
        batches = super().batches(shard)
        while True:
            with timed(self.times, "read Parquet"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def write(self, batch: Batch, kept: TableWriter, removed: TableWriter) -> None:
        with timed(self.times, "write Parquet"):
            super().write(batch, kept, removed)


@contextlib.contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
    clock = time.process_time()
    yield
    times[name] = times.get(name, 0.0) + time.process_time() - clock


def whole_pass(path: str, size: float, runs: int) -> dict[str, dict[str, float]]:
    """Seconds of each part over all documents; cold and warm, with variants and without (they are not asked for)."""
    configs = {"with variants": CurateConfig(inputs=(path,)), "without": CurateConfig(inputs=(path,))}
    configs["without"] = dataclasses.replace(
        configs["without"], variant=dataclasses.replace(configs["without"].variant, enabled=False)
    )
    measured: dict[str, list[dict[str, float]]] = {}
    for run in range(runs + 1):
        for name, config in configs.items():
            worker = TimedWorker(config)
            for state in ("cold", "warm"):
                worker.times.clear()
                total = seconds(lambda worker=worker: one_shard(worker, path))
                rest = total - sum(worker.times.values())
                if run:  # the first compiles
                    measured.setdefault(f"{name}, {state}", []).append({**worker.times, "rest": rest, "total": total})
    found = {}
    for name, several in measured.items():
        found[name] = {part: statistics.median(each[part] for each in several) for part in several[0]}
        found[name]["MB/s"] = size / found[name]["total"]
    return found


def one_shard(worker: CurateWorker, path: str) -> None:
    """The whole file as one shard, through the stage's own way of running it."""
    groups = pq.ParquetFile(path).metadata.num_row_groups
    spec = {"uri": path, "kind": "parquet", "start": 0, "end": groups}
    with tempfile.TemporaryDirectory() as folder:
        stages.run_shard({"index": 0, "name": "all", "spec": json.dumps(spec)}, worker, folder)


def on_ray(path: str, size: float, copies: int, runs: int) -> dict[str, Any]:
    """MB/s of the stage by the clock, for one worker and for two: what more copies take beyond the first."""
    folder = Path(path).parent
    few, many = [path], [f"{folder}/copy-{i}.parquet" for i in range(copies + 1)]
    table = pq.read_table(path)
    for copied in many:
        pq.write_table(table, copied, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    cluster = ClusterConfig(num_cpus=2, dashboard=False)
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for run in range(runs):
        for workers in speeds:
            times = []
            for inputs in (few, many):
                config = CurateConfig(inputs=tuple(inputs), shard_mb=SHARD_MB)
                (stage,) = curate_stages(f"{folder}/run-{run}-{workers}-{len(inputs)}", config)
                # Of two cores a worker that asks for both leaves none for a second one.
                wanted: Stage = dataclasses.replace(stage, num_cpus=2 // workers)
                clock = time.perf_counter()
                stages.run(wanted, cluster)
                times.append(time.perf_counter() - clock)
            speeds[workers].append(copies * size / (times[1] - times[0]))
    ray.shutdown()
    medians = {workers: statistics.median(each) for workers, each in speeds.items()}
    alone, beside = (statistics.median(side_by_side(path, count) for _ in range(runs)) for count in (1, 2))
    return {
        "one worker, MB/s": medians[1],
        "two workers, MB/s": medians[2],
        "ratio": medians[2] / medians[1],
        "one process without Ray, warm, MB/s": size / alone,
        "two processes without Ray, warm, MB/s": 2 * size / beside,
        "ratio of processes without Ray": 2 * alone / beside,
    }


def side_by_side(path: str, count: int) -> float:
    """Seconds on the clock of a warm pass in so many processes at a time: the median process."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=_pass_beside_others, args=(path, barrier, found)) for _ in range(count)]
    for process in processes:
        process.start()
    times = [found.get() for _ in processes]
    for process in processes:
        process.join()
    return statistics.median(times)


def _pass_beside_others(path: str, barrier: Any, found: Any) -> None:
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    worker = CurateWorker(CurateConfig(inputs=(path,)))
    one_shard(worker, path)
    barrier.wait()
    clock = time.perf_counter()
    one_shard(worker, path)
    found.put(time.perf_counter() - clock)


def extractors(warc: str, runs: int) -> dict[str, float]:
    """Pages per second of each extractor and mode."""
    pages = [raw for raw in readers.read({"uri": warc, "kind": "warc"}, readers.FieldNames()) if raw.html is not None]
    speeds: dict[str, list[float]] = {}
    for _ in range(runs):
        for name, config in extract_configs().items():
            clock = seconds(lambda config=config: [extract.extract(p.html, p.header_charset, config) for p in pages])
            speeds.setdefault(name, []).append(len(pages) / clock)
    return {name: statistics.median(each) for name, each in speeds.items()}


def extract_configs() -> dict[str, extract.ExtractConfig]:
    """By name: both extractors, each in the mode for clean text and in the one for all of it."""
    return {
        f"{extractor}, {mode}": extract.ExtractConfig(extractor=extractor, mode=mode)
        for extractor in get_args(get_type_hints(extract.ExtractConfig)["extractor"])
        for mode in ("precision", "recall")
    }


def as_markdown(figures: Mapping[str, Any]) -> str:
    """Everything as tables."""
    out = io.StringIO()
    where, speeds = figures["machine"], figures["MB/s"]
    print(f"{figures['documents']} documents, {figures['megabytes']:.1f} MB of text;", file=out, end=" ")
    print(f"{where['cpu']}, {where['cores']} cores; one core unless it says more\n", file=out)
    print("| what | MB/s |\n|---|---:|", file=out)
    for name, speed in speeds.items():
        print(f"| {name} | {speed:.3g} |", file=out)
    for name, kinds in {"quality": ("datatrove", "ours, "), "language": ("fastText predict", "ours, ")}.items():
        for state in ("cold", "warm"):
            ratio = speeds[f"{name}: {kinds[1]}{state}"] / speeds[f"{name}: {kinds[0]}"]
            print(f"| {name}, {state}: times {kinds[0]} | {ratio:.3g} |", file=out)
    names = list(figures["parts"])
    print(f"\n| part, seconds | {' | '.join(names)} |\n|---|{'---:|' * len(names)}", file=out)
    for part in figures["parts"][names[0]]:
        cells = [figures["parts"][name].get(part) for name in names]
        print(f"| {part} | {' | '.join('' if c is None else f'{c:.3g}' for c in cells)} |", file=out)
    for title in ("ray", "pages/s"):
        if title in figures:
            print(f"\n| {title} | |\n|---|---:|", file=out)
            for name, value in figures[title].items():
                print(f"| {name} | {value:.3g} |", file=out)
    return out.getvalue()


def megabytes(texts: list[str]) -> float:
    """Millions of UTF-8 bytes."""
    return sum(len(text.encode("utf-8")) for text in texts) / 1e6


def seconds(job: Callable[[], object]) -> float:
    """Processor time of a call."""
    clock = time.process_time()
    job()
    return time.process_time() - clock


if __name__ == "__main__":
    main()
