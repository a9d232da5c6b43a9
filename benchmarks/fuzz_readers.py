"""Damages real files in thousands of ways and reads them; and curates an input of gigabytes in bounded memory.

``python benchmarks/fuzz_readers.py [FILES ...] [--count 10000] [--seed 1] [--first 0] [--replay N] [--save FILE]``
``python benchmarks/fuzz_readers.py --large warc --gigabytes 2``

FILES are WARC, WET, JSONL or HTML files; none: those of the sample crawl, made for the occasion. Their windows, and
their rows as JSONL, CSV and Parquet (``tests/data/fuzz_sources.py``), are damaged by ``tests/data/fuzz_mutations.py``
and read as ``tests/data/fuzz_checks.py`` says: no crash, no hang, no more memory than 1.5 GB, every record kept or set
aside with its reason, and nothing lost in silence. A mutation is known by its number: ``--replay N`` does it alone, in
this process, with the traceback, and ``--save`` writes the damaged file. Exits with 1 if anything is wrong.

``--large`` writes one shard of that size to a temporary folder: one byte in ``--text-share`` of it is text in large
records, kept or not by the filters, the rest is what is set aside: images of many sizes, a video that is too large to
hold, error pages. A process of its own curates it, without Ray, and prints its largest memory.
"""

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from caravela.progress import table
from caravela.sample.crawl import WARC_FILES, build_crawl
from tests.data.fuzz_checks import TIMEOUT_S, complaints, run
from tests.data.fuzz_mutations import mutated
from tests.data.fuzz_sources import Source, sources

TEXTS = Path(__file__).parents[1] / "platform" / "caravela" / "sample" / "texts"


def main() -> int:
    """Fuzzes, or curates one large shard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds that one mutation may take")
    parser.add_argument("--replay", type=int, help="do one mutation, in this process")
    parser.add_argument("--save", type=Path, help="where to write the file that --replay damages")
    parser.add_argument("--large", choices=["warc", "jsonl"])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--text-share", type=float, default=0.1)
    parser.add_argument("--curate", type=Path, help=argparse.SUPPRESS)  # what --large starts
    options = parser.parse_args()
    if options.curate:
        return curate(options.curate)
    if options.large:
        return large(options.large, int(options.gigabytes * 1e9), options.text_share, options.seed)
    found = sources(read(options.files))
    if options.replay is not None:
        return replay(found, options.seed, options.replay, options.save)
    return fuzz(found, options.seed, range(options.first, options.first + options.count), options.timeout)


def read(paths: Sequence[Path]) -> dict[str, bytes]:
    """The files, or those of the sample crawl."""
    if paths:
        return {path.name: path.read_bytes() for path in paths if path.is_file()}
    with tempfile.TemporaryDirectory() as folder:
        build_crawl(folder, 1)
        return {name: Path(folder, name).read_bytes() for name in WARC_FILES[:2]}


def fuzz(found: Sequence[Source], seed: int, numbers: range, timeout_s: float) -> int:
    """Does the mutations and prints what went wrong."""
    clock, done = time.monotonic(), Counter[str]()

    def tell(number: int) -> None:
        done["all"] += 1
        if done["all"] % 500 == 0:
            print(f"{done['all']} of {len(numbers)}, {time.monotonic() - clock:.0f} s", file=sys.stderr)

    failures = run(found, seed, numbers, timeout_s, tell)
    for number in numbers:
        parts = found[number % len(found)].name.split(".")
        done[f"files: {'.'.join(parts[-2:] if parts[-1] in ('gz', 'zst') else parts[-1:])}"] += 1
    rows = [(name, f"{count:,}") for name, count in sorted(done.items())]
    print(table(("mutations", "count"), rows))
    for failure in failures[:100]:
        print(f"{failure.number}: {failure.source}, {failure.kind}: {failure.complaint}")
    print(f"{len(found)} files, {len(numbers):,} mutations, {len(failures)} failures, {time.monotonic() - clock:.0f} s")
    return 1 if failures else 0


def replay(found: Sequence[Source], seed: int, number: int, save: Path | None) -> int:
    """One mutation, here and now."""
    mutation = mutated(found, seed, number)
    print(f"{number}: {mutation.source.name}, {mutation.kind}, changed between bytes {mutation.span()}")
    if save:
        save.write_bytes(mutation.data)
    wrong = complaints(mutation)
    print(*wrong or ["nothing is wrong"], sep="\n")
    return 1 if wrong else 0


def large(kind: str, size: int, text_share: float, seed: int) -> int:
    """Writes the shard, has it curated and prints what that took."""
    with tempfile.TemporaryDirectory(prefix="large-") as folder:
        path = Path(folder, "large.warc" if kind == "warc" else "large.jsonl.gz")
        held = Counter[str]()
        with path.open("wb") if kind == "warc" else gzip.open(path, "wb", 1) as out:
            for name, data in (warc_records if kind == "warc" else rows)(size, text_share, random.Random(seed)):
                out.write(data)
                held[name] += 1
                held["bytes"] += len(data)
        print(f"{path.name}: {path.stat().st_size / 1e9:.2f} GB on disk, {dict(held)}", flush=True)
        return subprocess.run([sys.executable, __file__, "--curate", str(path)], check=False).returncode


def long_text(rng: random.Random, size: int) -> str:
    """Sample texts, one after the other in random order."""
    if not CACHE:
        CACHE.extend(path.read_text("utf-8") for path in sorted(TEXTS.glob("pt-*/**/*.txt")))
    parts: list[str] = []
    while sum(map(len, parts)) < size:
        parts += rng.sample(CACHE, len(CACHE))
    return "\n".join(parts)[:size]


CACHE: list[str] = []


def warc_records(size: int, text_share: float, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Records of about ``size`` bytes in all, by what they are."""
    done, text = 0, 0
    while done < size:
        if text < text_share * done:
            name, kind, content = (
                "text",
                "conversion",
                long_text(rng, rng.choice([100_000, 1_000_000, 8_000_000])).encode(),
            )
            text += len(content)
        else:
            name, length = rng.choice(
                [("image", 1_000_000), ("image", 30_000_000), ("video", 100_000_000), ("error", 50_000)]
            )
            status, form = (404, "text/html") if name == "error" else (200, "image/png")
            head = f"HTTP/1.1 {status} X\r\nContent-Type: {form}\r\nContent-Length: {length}\r\n\r\n".encode()
            kind, content = "response", head + rng.randbytes(1 << 16) * (length >> 16)
        record = (
            f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://a.example/{done}\r\n"
            f"WARC-Record-ID: <urn:x:{done}>\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        data = record.encode() + content + b"\r\n\r\n"
        done += len(data)
        yield name, data


def rows(size: int, text_share: float, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """JSON rows of about ``size`` bytes in all: long texts, and rows without text, with a line too long to hold."""
    done, text = 0, 0
    while done < size:
        if text < text_share * done:
            name, row = "text", {"text": long_text(rng, rng.choice([100_000, 1_000_000, 8_000_000])), "id": str(done)}
        else:
            name, length = rng.choice([("no text", 100_000), ("no text", 20_000_000), ("too long", 100_000_000)])
            row = {"corpo": "não " * (length // 5), "id": str(done)}
        data = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        text += len(data) * (name == "text")
        done += len(data)
        yield name, data


def curate(path: Path) -> int:
    """One shard through all of curation, and the memory it took."""
    from caravela import stages
    from caravela.data import readers
    from filters.curate import CurateConfig, CurateWorker

    clock, worker = time.monotonic(), CurateWorker(CurateConfig(inputs=(str(path),)))
    warm_up = path.with_name("warm.jsonl")
    warm_up.write_text(json.dumps({"text": long_text(random.Random(0), 20_000)}) + "\n", encoding="utf-8")
    for index, name in enumerate((warm_up, path)):
        (shard,) = readers.plan_shards([str(name)], 1 << 40)
        row = {"index": index, "name": shard.name, "spec": json.dumps(shard.spec)}
        done = stages.run_shard(row, worker, str(path.parent / "out"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{shard.name}: largest memory so far {peak:.2f} GB, {time.monotonic() - clock:.0f} s", flush=True)
    counters = json.loads(done["record"])["counters"]
    print(json.dumps({name: value for name, value in counters.items() if not name.startswith("after.")}))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
