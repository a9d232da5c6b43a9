"""Memory that curation takes on an input of gigabytes, beside one of a tenth of it.

``python benchmarks/large_input.py [warc jsonl parquet] [--gigabytes 2] [--text-share 0.1] [--seed 1]``

For each format and size a file is written to a temporary folder and curated, shard by shard, by one worker in a process
of its own, without Ray; nothing is trained. A ``.warc.gz`` and a ``.jsonl.gz`` are one shard, whatever their size. A
share of the bytes is text that is read to the end of curation; the rest is what a crawl has most of: images and error
pages, a video that is too large to hold, rows without text, lines of 100 MB. A hundredth of a WARC are HTML pages.

Prints a table: peak resident memory of the worker and of the process that it extracts pages with, and the time. The
last column is the worker's peak beside that on the small input. Exits with 1 if it is more than ``MOST``.
"""

import argparse
import contextlib
import gzip
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from caravela import stages
from caravela.data import readers
from caravela.progress import table
from filters import steps
from filters.curate import SHARD_MB, CurateConfig, CurateWorker

TEXTS = Path(__file__).parents[1] / "platform" / "caravela" / "sample" / "texts"
NAMES = {"warc": "large.warc.gz", "jsonl": "large.jsonl.gz", "parquet": "large.parquet"}
PART = 10
"""The small input is this part of the large one."""
MOST = 1.5
"""Times the small input's memory: one shard's worst moment need not lie within a tenth of it."""
ROW_GROUP_BYTES = 32 << 20


def main() -> int:
    """Writes, curates and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=[*NAMES])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--text-share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--curate", type=Path, help=argparse.SUPPRESS)  # what this program starts
    options = parser.parse_args()
    if options.curate:
        print(json.dumps(curate(options.curate)))
        return 0
    rows, grown = [], []
    for name in options.formats:
        figures = []
        for size in (options.gigabytes / PART, options.gigabytes):
            figures.append(measured(name, int(size * 1e9), options.text_share, options.seed))
            print(f"{name}: {figures[-1]}", file=sys.stderr)
        grown += [each["worker"] / figures[0]["worker"] for each in figures[1:]]
        rows += [
            (NAMES[name], f"{each['written'] / 1e9:.2f}", f"{each['on_disk'] / 1e9:.2f}", f"{each['shards']}",
             f"{each['documents_in']:,}", f"{each['documents_kept']:,}", f"{each['worker'] / 1e6:.0f}",
             f"{each['extraction'] / 1e6:.0f}", f"{each['seconds']:.0f}",
             f"{each['worker'] / figures[0]['worker']:.2f}")
            for each in figures
        ]  # fmt: skip
    headings = (
        *("file", "GB", "GB on disk", "shards", "records", "kept"),
        *("worker, peak MB", "extraction, peak MB", "seconds", "× small"),
    )
    print(table(headings, rows))
    return 1 if max(grown) > MOST else 0


def measured(name: str, size: int, text_share: float, seed: int) -> dict[str, float]:
    """One file, written and curated."""
    with tempfile.TemporaryDirectory(prefix="large-") as folder:
        path = Path(folder, NAMES[name])
        written = WRITERS[name](path, size, text_share, random.Random(seed))
        done = subprocess.run(
            [sys.executable, __file__, "--curate", str(path)], check=True, stdout=subprocess.PIPE, text=True
        )
        return {"written": written, "on_disk": path.stat().st_size, **json.loads(done.stdout.splitlines()[-1])}


def curate(path: Path) -> dict[str, float]:
    """All shards of a file through curation by one worker; peaks of resident memory in bytes."""
    clock = time.monotonic()
    config = CurateConfig(inputs=(str(path),), max_broken_share=1.0)
    worker = CurateWorker(config)
    shards = readers.plan_shards([str(path)], SHARD_MB << 20)
    found = {"documents_in": 0, "documents_kept": 0}
    for shard in shards:
        row = {"index": shard.index, "name": shard.name, "spec": json.dumps(shard.spec)}
        done = stages.run_shard(row, worker, str(path.parent / "out"))
        counters = json.loads(done["record"])["counters"]
        for name in found:
            found[name] += counters[name]
    (extract,) = (step for step in worker.steps if isinstance(step, steps.Extract))
    return {
        **found,
        "shards": len(shards),
        "worker": peak_bytes(os.getpid()),
        "extraction": peak_bytes(extract.extractor.process_id) if extract.extractor.process_id else 0,
        "seconds": time.monotonic() - clock,
    }


def peak_bytes(process_id: int) -> int:
    """The largest resident memory of a running process so far, as Linux tells it."""
    status = Path(f"/proc/{process_id}/status").read_text("utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) << 10


class Writer:
    """Sample texts in random order, as long as wanted."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.sizes = itertools.cycle([20_000, 1_000_000, 20_000, 8_000_000])
        self.texts = [path.read_text("utf-8") for path in sorted(TEXTS.glob("pt-*/**/*.txt"))]

    def text(self, size: int) -> str:
        parts: list[str] = []
        while sum(map(len, parts)) < size:
            parts += self.rng.sample(self.texts, len(self.texts))
        return "\n".join(parts)[:size]

    def long_text(self) -> str:
        return self.text(next(self.sizes))

    def page(self) -> bytes:
        menu = "".join(f"<li><a href='/{i}'>Secção {i}</a></li>" for i in range(60))
        lines = "".join(f"<p>{line}</p>" for line in self.text(self.rng.choice([3000, 30_000])).split("\n"))
        return f"<html><body><ul>{menu}</ul><article>{lines}</article></body></html>".encode()


def write_warc(path: Path, size: int, text_share: float, rng: random.Random) -> int:
    """Records of about ``size`` bytes before compression, one gzip member each."""
    write, done, text, pages = Writer(rng), 0, 0, 0
    noise = rng.randbytes(1 << 20)
    others = itertools.cycle([("png", 1 << 20), ("html", 1 << 16), ("png", 30 << 20), ("mp4", 100 << 20)])
    with path.open("wb") as out:
        while done < size:
            kind = "response"
            if text < text_share * done:
                kind, content = "conversion", write.long_text().encode()
                text += len(content)
            elif pages < 0.01 * done:
                page = write.page()
                content = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
                pages += len(page)
            else:
                what, length = next(others)
                status = "404 Not Found" if what == "html" else "200 OK"
                head = f"HTTP/1.1 {status}\r\nContent-Type: {'text/html' if what == 'html' else what}\r\n\r\n"
                content = head.encode() + (noise * (length // len(noise) + 1))[:length]
            record = (
                f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://a.example/{done}\r\n"
                f"WARC-Record-ID: <urn:x:{done}>\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            data = record.encode() + content + b"\r\n\r\n"
            out.write(gzip.compress(data, 1, mtime=0))
            done += len(data)
    return done


def rows(size: int, text_share: float, rng: random.Random, lengths: Sequence[int]) -> Iterator[dict[str, str]]:
    """Rows of about ``size`` bytes: texts, long ones too, and rows without a text, whose lengths are given."""
    write, done, text = Writer(rng), 0, 0
    others = itertools.cycle(lengths)
    while done < size:
        row = {"id": str(done), "text": "", "corpo": ""}
        if text < text_share * done:
            row["text"] = write.long_text()
            text += len(row["text"])
        else:
            row["corpo"] = write.text(20_000) * (next(others) // 20_000)
        done += len(row["text"].encode()) + len(row["corpo"].encode())
        yield row


def write_jsonl(path: Path, size: int, text_share: float, rng: random.Random) -> int:
    done = 0
    with gzip.open(path, "wb", 1) as out:
        for row in rows(size, text_share, rng, (100_000, 20_000_000, 100_000_000)):
            line = json.dumps({name: value for name, value in row.items() if value}, ensure_ascii=False).encode()
            out.write(line + b"\n")
            done += len(line) + 1
    return done


def write_parquet(path: Path, size: int, text_share: float, rng: random.Random) -> int:
    """Row groups of 32 MB; most of their bytes are of a column that is kept as metadata."""
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("corpo", pa.string())])
    done, held, of_group = 0, 0, []
    with contextlib.closing(pq.ParquetWriter(path, schema, compression="zstd")) as out:
        for row in rows(size, text_share, rng, (100_000, 20_000_000)):
            of_group.append(row)
            held += len(row["text"]) + len(row["corpo"])
            if held >= ROW_GROUP_BYTES:
                out.write_table(pa.Table.from_pylist(of_group, schema))
                done, held, of_group = done + held, 0, []
        if of_group:
            out.write_table(pa.Table.from_pylist(of_group, schema))
    return done + held


WRITERS = {"warc": write_warc, "jsonl": write_jsonl, "parquet": write_parquet}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
