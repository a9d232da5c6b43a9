"""Damages real files in thousands of ways and reads them.

``python benchmarks/fuzz_readers.py [FILES ...] [--count 10000] [--seed 1] [--first 0] [--replay N] [--save FILE]``

FILES are WARC, WET, JSONL or HTML files; none: those of the sample crawl, made for the occasion. Their windows, and
their rows as JSONL, CSV and Parquet (``tests/data/fuzz_sources.py``), are damaged by ``tests/data/fuzz_mutations.py``
and read as ``tests/data/fuzz_checks.py`` says: no crash, no hang, no more memory than 1.5 GB, every record kept or set
aside with its reason, and nothing lost in silence. A mutation is known by its number: ``--replay N`` does it alone, in
this process, with the traceback, and ``--save`` writes the damaged file. Exits with 1 if anything is wrong.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from caravela.progress import table
from caravela.sample.crawl import WARC_FILES, build_crawl
from tests.data.fuzz_checks import TIMEOUT_S, complaints, run
from tests.data.fuzz_mutations import mutated
from tests.data.fuzz_sources import Source, sources


def main() -> int:
    """Fuzzes, or does one mutation again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds that one mutation may take")
    parser.add_argument("--replay", type=int, help="do one mutation, in this process")
    parser.add_argument("--save", type=Path, help="where to write the file that --replay damages")
    options = parser.parse_args()
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


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
