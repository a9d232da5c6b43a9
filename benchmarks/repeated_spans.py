"""What taking repeated sentences and lines out of documents brings: shares of text, speed, and spans to look at.

``python benchmarks/repeated_spans.py --unit sentences --min-words 10 --show 30 DOCUMENTS.jsonl.gz [...]``

The inputs are JSONL files with ``id`` and ``text``, taken as documents that deduplication has kept. Runs the stages
``spans``, ``repeated_spans`` and ``trim`` in this process; the first shard, a line, is there to load the compiled code.
Prints documents and bytes cut and removed, megabytes of text per second of processor time and per stage, and of the
cuts those with the smallest hashes of their text, with how often the same text was cut.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow.parquet as pq
import xxhash

from caravela import schema, stages, storage
from caravela.cluster import ClusterConfig
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from filters.dedup.config import DedupConfig, SpansConfig
from filters.dedup.spans import repeated_spans_stage, spans_stage
from filters.dedup.trim import trim_stage


class Documents:
    """Files to documents, a shard each."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        table = out.table("documents", schema.documents())
        if not shard.index:
            rows = [{"id": "0", "text": "Uma frase só."}]
        else:
            path = self.paths[shard.index - 1]
            with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
                rows = [{"id": row["id"], "text": row["text"]} for row in map(json.loads, file)]
        for row in rows:
            table.add(row)
        size = sum(len(row["text"].encode()) for row in rows)
        return {"documents_in": len(rows), "documents_kept": len(rows), "bytes_in": size, "bytes_kept": size}


def finish(stage: Stage) -> Manifest:
    """The manifest of the stage, run by the driver."""
    found: Manifest = stages.run(stage, ClusterConfig())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--unit", choices=("sentences", "lines"), default="sentences")
    parser.add_argument("--min-words", type=int, default=SpansConfig.min_words)
    parser.add_argument("--min-document-words", type=int, default=SpansConfig.min_document_words)
    parser.add_argument("--across-documents-only", action="store_true")
    parser.add_argument("--show", type=int, default=0)
    arguments = parser.parse_args()
    config = DedupConfig(
        spans=SpansConfig(
            unit=arguments.unit,
            min_words=arguments.min_words,
            min_document_words=arguments.min_document_words,
            within_documents=not arguments.across_documents_only,
        )
    )
    with tempfile.TemporaryDirectory() as root:
        run(root, arguments.inputs, config, arguments.show)


def run(root: str, inputs: Sequence[str], config: DedupConfig, show: int) -> None:
    """Makes the stages and prints what they did."""
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(len(inputs) + 1)]
    own = {"root": root, "version": 1, "config": {}, "inputs": (), "in_driver": True}
    dedup = Stage(name="dedup", plan=lambda: plan, make_worker=lambda: Documents(inputs), **own)  # type: ignore[arg-type]
    size = finish(dedup).counters["bytes_kept"]
    spans = spans_stage(root, config, dedup.as_input())
    repeated = repeated_spans_stage(root, config, spans.as_input())
    trim = trim_stage(root, config.spans, dedup.as_input(), spans.as_input(), repeated.as_input())
    for stage in (spans, repeated, trim):
        object.__setattr__(stage, "in_driver", True)
        clock = time.process_time()
        done = finish(stage)
        first = done.shards[0].seconds if len(done.shards) > 1 else 0.0
        seconds = time.process_time() - clock
        stored = sum(file.bytes for shard in done.shards for file in shard.files)
        print(f"{stage.name}: {seconds:.2f} s of processor time, of which at most {first:.2f} s to load the kernels;")
        print(f"  {size / 1e6 / max(0.01, seconds - first):.0f} MB/s; {stored / 1e6:.1f} MB stored; {done.counters}")
    share = {name: done.counters[name] / size for name in ("bytes_cut", "bytes_removed")}
    print(", ".join(f"{name} {value:.2%}" for name, value in share.items()))
    texts = Counter(text for uri in done.uris("cuts") for text in pq.read_table(uri)["text"].to_pylist())
    for text in sorted(texts, key=lambda text: int(xxhash.xxh3_64_intdigest(text.encode())))[:show]:
        print(f"--- {texts[text]} times, {len(text)} characters\n{text[:600]}")
    assert storage.name_of(done.uri)


if __name__ == "__main__":
    main()
