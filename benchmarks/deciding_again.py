"""What other quality limits cost on a finished curation: deciding again on its signals, beside a full pass.

``python benchmarks/deciding_again.py DOCUMENTS.parquet [--runs 3] [--set quality.gopher_quality.min_doc_words=80]``

DOCUMENTS is whatever ``curate`` reads. In this process, without Ray, on one core: the curation under the default
limits; then in turn, ``--runs`` times, a full pass under the others, and deciding again. Both must give the same files.
Prints Markdown; seconds are those of the processor, medians over the runs. Beside them the floor: both tables read and
written again by pyarrow, one after the other. Every pass begins as a new worker does, without words learned. A document
that is kept now and was not before costs its variant; limits that keep fewer cost nothing but the tables.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from caravela import config as settings
from caravela import stages, storage
from caravela.cluster import ClusterConfig
from caravela.manifest import Manifest
from filters.curate import CurateConfig, curate_stages

Result = TypeVar("Result")

LOOSER = "quality.gopher_quality.min_alpha_words_ratio=0.7"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", action="append", metavar="quality.a.b=value", help=f"default: {LOOSER}")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    base = CurateConfig(inputs=tuple(options.documents))
    table = settings.to_dict(base)
    for assignment in options.set or [LOOSER]:
        name, _, value = assignment.removeprefix("curate.").partition("=")
        *sections, key = name.split(".")
        inner = table
        for section in sections:
            inner = inner[section]
        inner[key] = type(inner[key])(value)
    changed = settings.build(CurateConfig, table, "--set")
    seconds: dict[str, list[float]] = {"a full pass": [], "deciding again": [], "the floor": []}
    with tempfile.TemporaryDirectory() as folder:
        first, _ = timed(lambda: curated(f"{folder}/base", base))
        for run in range(options.runs):
            fresh, spent = timed(lambda run=run: curated(f"{folder}/fresh-{run}", changed))  # type: ignore[misc]
            seconds["a full pass"].append(spent)
            again, spent = timed(lambda: curated(f"{folder}/base", changed))
            seconds["deciding again"].append(spent)
            assert files(again) == files(fresh), "the files differ"
            assert again.counters == fresh.counters, "the counters differ"
            seconds["the floor"].append(timed(lambda: copied(first, folder))[1])
            storage.delete_tree(again.uri)
    size = first.counters["bytes_in"] / 1e6
    kept = [done.counters["documents_kept"] for done in (first, again)]
    print(f"{first.counters['documents_in']:,} documents, {size:.1f} MB of text; kept {kept[0]:,}, then {kept[1]:,}\n")
    print("| | s | MB/s | times faster than a full pass |\n|---|---|---|---|")
    full = statistics.median(seconds["a full pass"])
    for name, spent_each in seconds.items():
        spent = statistics.median(spent_each)
        print(f"| {name} | {spent:.2f} | {size / spent:.0f} | {full / spent:.1f} |")


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """What a call gives, and the seconds of the processor that it took."""
    clock = time.process_time()
    return call(), time.process_time() - clock


def curated(root: str, config: CurateConfig) -> Manifest:
    """The finished curation, made in this process."""
    (stage,) = curate_stages(root, config)
    return stages.run(dataclasses.replace(stage, in_driver=True), ClusterConfig())


def copied(done: Manifest, folder: str) -> None:
    """Both tables, read and written again."""
    for uri in (*done.uris("documents"), *done.uris("removed")):
        table = pq.read_table(uri)
        pq.write_table(table, f"{folder}/copy.parquet", compression="zstd", write_page_checksum=True)


def files(done: Manifest) -> list[tuple[str, str]]:
    """Names and checksums."""
    return [(file.path, file.sha256) for shard in done.shards for file in shard.files]


if __name__ == "__main__":
    main()
