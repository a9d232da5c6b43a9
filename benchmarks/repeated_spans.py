"""What taking repeated sentences and lines out of documents brings: shares of text, speed, and spans to look at.

``python benchmarks/repeated_spans.py --unit sentences --min-words 10 --show 30 DOCUMENTS.jsonl.gz [...]``

The inputs are JSONL files with ``id`` and ``text``. They go through deduplication, ``spans``, ``repeated_spans`` and
``trim`` with its defaults and the settings given, in this process. Prints, per stage, megabytes of text per second of
processor time, and bytes stored; shares of the text that were cut, and removed with documents too short; and of the
cuts those with the smallest hashes of their text, with how often the same text was cut.
"""

import argparse
import dataclasses
import gzip
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq
import xxhash

from caravela import schema, stages, storage
from caravela.cluster import ClusterConfig
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from filters.dedup.config import DedupConfig, SpansConfig
from filters.dedup.road import SPAN_STAGES, dedup_stages


class Documents:
    """Documents as curation would leave them, a shard for each file."""

    def __init__(self, files: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        self.files = files

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        table, rows = out.table("documents", schema.documents()), self.files[shard.index]
        for row in rows:
            table.add({"id": row["id"], "text": row["text"], "source": "", "date": ""})
        return {"documents_in": len(rows), "documents_kept": len(rows)}


def read(path: str) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def run(
    root: str, files: Sequence[Sequence[Mapping[str, Any]]], config: DedupConfig
) -> dict[str, tuple[Manifest, float]]:
    """Manifest and processor time of every stage."""
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(len(files))]
    curated = Stage(
        name="curate",
        version=1,
        root=root,
        config={},
        inputs=(),
        plan=lambda: plan,
        make_worker=lambda: Documents(files),
    )
    done = {}
    for stage in (curated, *dedup_stages(root, config, curated.as_input())):
        clock = time.process_time()
        found = stages.run(dataclasses.replace(stage, in_driver=True), ClusterConfig())
        done[stage.name] = found, time.process_time() - clock
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--unit", choices=("sentences", "lines"), default="sentences")
    parser.add_argument("--min-words", type=int, default=SpansConfig.min_words)
    parser.add_argument("--min-document-words", type=int, default=SpansConfig.min_document_words)
    parser.add_argument("--across-documents-only", action="store_true")
    parser.add_argument("--show", type=int, default=0)
    arguments = parser.parse_args()
    spans = SpansConfig(
        unit=arguments.unit,
        min_words=arguments.min_words,
        min_document_words=arguments.min_document_words,
        within_documents=not arguments.across_documents_only,
    )
    config = DedupConfig(spans=spans, quality_column="")
    with tempfile.TemporaryDirectory() as folder:
        run(storage.join(folder, "compiled"), [[{"id": "0", "text": "Uma frase."}]], config)
        done = run(storage.join(folder, "run"), [read(path) for path in arguments.inputs], config)
        size = done["dedup"][0].counters["bytes_kept"]
        print(f"{size / 1e6:.1f} MB in {done['dedup'][0].counters['documents_kept']} documents behind deduplication")
        for name in SPAN_STAGES:
            stage, seconds = done[name]
            stored = sum(file.bytes for shard in stage.shards for file in shard.files)
            print(f"{name}: {size / 1e6 / seconds:.0f} MB/s, {stored / 1e6:.1f} MB stored, {stage.counters}")
        trim = done["trim"][0]
        print(*(f"{name} {trim.counters[name] / size:.2%}" for name in ("bytes_cut", "bytes_removed")), sep=", ")
        texts = Counter(text for uri in trim.uris("cuts") for text in pq.read_table(uri)["text"].to_pylist())
        for text in sorted(texts, key=lambda text: xxhash.xxh3_64_intdigest(text.encode()))[: arguments.show]:
            print(f"--- {texts[text]} times, {len(text)} characters\n{text[:400]}")


if __name__ == "__main__":
    main()
