"""Speed of packing on one core, beside raw SentencePiece and datatrove's tokenizer pipeline.

``python benchmarks/packing.py DOCS [--tokenizer MODEL] [--runs 3] [--megabytes 60] [--reference 15]``

DOCS is JSONL (plain, gz or zst) or Parquet with a field ``text``. In one run, on the same documents:

* raw: ``SentencePieceProcessor.encode`` of lists of texts in one process and thread, and nothing else;
* ours: the pack stage, from Parquet to Parquet, by both methods;
* datatrove on the first ``--reference`` megabytes: ParquetReader and DocumentTokenizer with the same tokenizer as
  ``tokenizer.json`` (converted as the export stage does it), one task, and no shuffling of documents. Its batches are
  the default ones, and it is held to one thread.

Without --tokenizer, one of 32,000 pieces is trained on 20 MB of the documents. One core is seconds of processor time.
What our stage takes for a shard, whatever its size (the tokenizer is loaded and measured), is in it. Medians over the
runs, each of which does everything in turn. Prints Markdown; --out writes JSON.
"""

import argparse
import functools
import io
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
from curation import machine
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.utils.logging import logger
from language_speed import read

from caravela import schema
from caravela.data import packing, tokenizer
from caravela.model.config import ModelConfig
from caravela.model.hugging_face import write_folder
from caravela.model.transformer import Decoder
from caravela.stages import Shard, ShardOutput, Stage
from tests.road_without_ray import finish

METHODS: tuple[Literal["concatenated", "best_fit"], ...] = ("concatenated", "best_fit")
LIST_DOCUMENTS = 256
"""Texts that raw SentencePiece gets at once."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents")
    parser.add_argument("--field", default="text")
    parser.add_argument("--tokenizer", default="", help="a SentencePiece file; one is trained if none is given")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=60, help="of the documents")
    parser.add_argument("--reference", type=float, default=15, help="megabytes for datatrove")
    parser.add_argument("--out", help="where to write the figures as JSON")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    logger.remove()
    texts = first(read(options.documents, options.field), options.megabytes)
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(folder, texts, first(texts, options.reference), options)
    print(as_markdown({"machine": machine(), **figures}))
    if options.out:
        Path(options.out).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def first(texts: Sequence[str], megabytes: float) -> list[str]:
    """The first texts that hold so much."""
    found, left = [], megabytes * 1e6
    for text in texts:
        if left <= 0:
            break
        found.append(text)
        left -= len(text.encode())
    return found


def size_of(texts: Sequence[str]) -> float:
    """Megabytes."""
    return sum(len(text.encode()) for text in texts) / 1e6


def measured(folder: str, texts: list[str], part: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """MB/s per core of each in every run, and what was packed."""
    documents = documents_stage(f"{folder}/run", texts)
    finish(documents)
    tokens = tokenizer_stage(f"{folder}/run", documents, options.tokenizer)
    finish(tokens)
    processor = tokenizer.load(tokens.uri)
    json_file = converted(f"{tokens.uri}/{tokenizer.MODEL_FILE}", processor, folder)
    pq.write_table(pa.table({"text": part}), f"{folder}/part.parquet")
    speeds: dict[str, list[float]] = {}
    packed: dict[str, Any] = {}
    for _ in range(options.runs):
        raw = functools.partial(raw_encode, processor, texts)
        speeds.setdefault("raw SentencePiece encode", []).append(size_of(texts) / core_seconds(raw))
        for method in METHODS:
            config = packing.PackConfig(context=options.context, method=method)
            stage = packing.pack_stage(documents.root, config, documents.as_input(), tokens.as_input())
            shutil.rmtree(stage.uri, ignore_errors=True)
            took = core_seconds(functools.partial(finish, stage))
            speeds.setdefault(f"ours, {method}", []).append(size_of(texts) / took)
            done = stage.manifest()
            assert done is not None
            packed[method] = {name: done.summary[f"{name}_share"] for name in ("cut", "padding", "dropped")}
        theirs = functools.partial(datatrove, folder, json_file)
        speeds.setdefault("datatrove DocumentTokenizer", []).append(size_of(part) / core_seconds(theirs))
    return {
        "documents": len(texts),
        "MB": size_of(texts),
        "reference MB": size_of(part),
        "context": options.context,
        "vocabulary": processor.get_piece_size(),
        "MB/s": speeds,
        "packed": packed,
    }


def core_seconds(job: Callable[[], object]) -> float:
    """Processor time of this process."""
    start = time.process_time()
    job()
    return time.process_time() - start


def raw_encode(processor: sentencepiece.SentencePieceProcessor, texts: Sequence[str]) -> None:
    for at in range(0, len(texts), LIST_DOCUMENTS):
        processor.encode(list(texts[at : at + LIST_DOCUMENTS]), num_threads=1)


def documents_stage(root: str, texts: Sequence[str]) -> Stage:
    """The documents as one shard of a finished stage."""

    def write(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        table = out.table("documents", schema.documents())
        for i, text in enumerate(texts):
            table.add({"id": f"#{i}", "text": text, "source": "benchmark", "date": ""})
        return {"bytes_kept": sum(len(text.encode()) for text in texts)}

    plan = [Shard(index=0, name="all", spec={})]
    return Stage(name="dedup", version=1, root=root, config={}, inputs=(), plan=lambda: plan, make_worker=lambda: write)


def tokenizer_stage(root: str, documents: Stage, path: str) -> Stage:
    """The stage of a given SentencePiece file, or of one that is trained."""
    if not path:
        return tokenizer.tokenizer_stage(root, tokenizer.TokenizerConfig(sample_mb=20), documents.as_input())

    def write(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        shutil.copyfile(path, out.local_path(tokenizer.MODEL_FILE))
        return {}

    plan = [Shard(index=0, name="tokenizer", spec={})]
    return Stage(
        name="tokenizer", version=1, root=root, config={}, inputs=(), plan=lambda: plan, make_worker=lambda: write
    )


def converted(path: str, processor: sentencepiece.SentencePieceProcessor, folder: str) -> str:
    """The tokenizer as ``tokenizer.json``, as the export stage writes it beside a model."""
    shape: dict[str, Any] = {"num_layers": 1, "hidden_size": 8, "feed_forward_size": 8, "num_heads": 1}
    vocabulary = processor.get_piece_size()
    model = Decoder(ModelConfig(**shape, num_kv_heads=1, vocabulary_size=vocabulary, max_positions=8))
    os.makedirs(f"{folder}/export")
    write_folder(model, path, "float32", f"{folder}/export")
    return f"{folder}/export/tokenizer.json"


def datatrove(folder: str, json_file: str) -> None:
    """Runs datatrove's reader and tokenizer as one task."""
    out = tempfile.mkdtemp(dir=folder)
    blocks = [
        ParquetReader(folder, glob_pattern="part.parquet"),
        DocumentTokenizer(f"{out}/tokens", json_file, f"{out}/work", eos_token="</s>", shuffle_documents=False),
    ]
    LocalPipelineExecutor(blocks, tasks=1, workers=1, logging_dir=f"{out}/logs").run()


def as_markdown(figures: Mapping[str, Any]) -> str:
    """The table, and the shares."""
    out, where = io.StringIO(), figures["machine"]
    print(f"{figures['documents']:,} documents, {figures['MB']:.1f} MB ({figures['reference MB']:.1f} MB for", file=out)
    print(f"datatrove), {figures['vocabulary']:,} pieces, context {figures['context']:,};", end=" ", file=out)
    print(f"{where['cpu']}, {where['cores']} cores", file=out)
    raw = figures["MB/s"]["raw SentencePiece encode"]
    print("\n| | MB/s per core | range | times raw encode | range |\n|---|---:|---:|---:|---:|", file=out)
    for name, speeds in figures["MB/s"].items():
        # Of each run by itself: what else runs on the machine changes from one to the next.
        ratios = [speed / base for speed, base in zip(speeds, raw, strict=True)]
        shown = (f"{statistics.median(each):.3g} | {min(each):.3g}–{max(each):.3g}" for each in (speeds, ratios))
        print(f"| {name} | {' | '.join(shown)} |", file=out)
    print("\n| | documents cut | padding | dropped |\n|---|---:|---:|---:|", file=out)
    for method, shares in figures["packed"].items():
        print(f"| {method} | {shares['cut']:.2%} | {shares['padding']:.2%} | {shares['dropped']:.2%} |", file=out)
    return out.getvalue()


if __name__ == "__main__":
    main()
