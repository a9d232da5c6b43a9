"""Decision and reason of our quality filters beside datatrove's own, on every document and on generated hard cases.

``python benchmarks/quality_equality.py TEXTS.jsonl.gz ... [--generated 20000] [--large 1] [--state FILE] [--part 0/2]``

Each file is JSONL (.gz or .zst too) or Parquet with a column of texts. Ours are the compiled batches that curation
runs; theirs are GopherRepetitionFilter, FineWebQualityFilter and GopherQualityFilter of the installed datatrove with
FineWeb-2's limits for por_Latn, called one after the other as its pipeline does and also each on its own, so that a
document which the first drops tells of the others as well; and C4QualityFilter with C4's own limits, whose resulting
text is compared too. datatrove splits each document into words once: it remembers the last ones. Where it divides by
zero (no words), only ours decides, and that is counted.

What differs is cut down to a small text and printed. ``--state`` keeps what is done, chunk by chunk, so that a run can
go on where it was ended; ``--part 0/2`` does every second chunk. Prints a table; exits with 1 if anything differs.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datatrove.data import Document
from quality_speed import read

from caravela.progress import table
from filters import c4
from filters.c4 import C4Config
from filters.quality import QualityConfig, decide
from filters.quality_batch import measure_batch
from filters.word_table import WordTable
from filters.words import WordSplitter
from tests.filters.hard_cases import hard_cases, large_cases
from tests.filters.test_c4 import datatrove_filter as datatrove_c4
from tests.filters.test_quality import datatrove_filters

CHUNK = 100
CONFIG = QualityConfig()
FILTERS = ("gopher_repetition", "fineweb_quality", "gopher_quality")
ALONE = {
    name: dataclasses.replace(
        CONFIG, **{other: dataclasses.replace(getattr(CONFIG, other), enabled=other == name) for other in FILTERS}
    )
    for name in FILTERS
}
C4 = C4Config()
NOT_DECIDED = "divides by zero"
OTHER_TEXT = "c4.kept, with another text"


def main() -> int:
    """Compares, prints, and says by its status whether all is equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--field", default="text")
    parser.add_argument("--generated", type=int, default=20_000, help="hard cases to generate")
    parser.add_argument("--large", type=int, default=0, help="of the four texts of ten megabytes, how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, help="documents of each file")
    parser.add_argument("--state", type=Path, help="JSONL file of what is done")
    parser.add_argument("--part", default="0/1", help="which part of how many")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    done = {chunk["chunk"]: chunk for chunk in _lines(options.state)}
    compare = Comparison()
    for number, (name, texts) in enumerate(chunks(options)):
        if number % parts != part or name in done:
            continue
        clock = time.monotonic()
        done[name] = {"chunk": name, **compare(texts), "seconds": time.monotonic() - clock}
        if options.state:
            with options.state.open("a", encoding="utf-8") as state:
                state.write(json.dumps(done[name]) + "\n")
        print(f"{name}: {len(done[name]['differing'])} differ, {done[name]['seconds']:.1f} s", file=sys.stderr)
    return report(list(done.values()))


def _lines(state: Path | None) -> list[dict[str, Any]]:
    if state is None or not state.exists():
        return []
    return [json.loads(line) for line in state.read_text("utf-8").splitlines()]


def chunks(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Texts by hundreds, and a name for each hundred."""
    for path in options.texts:
        texts = read(path, options.field)[: options.limit]
        for start in range(0, len(texts), CHUNK):
            yield f"{Path(path).name}:{start}", texts[start : start + CHUNK]
    cases = hard_cases(options.seed, options.generated)
    start = 0
    while chunk := [text for _, text in itertools.islice(cases, CHUNK)]:
        yield f"generated {options.seed}:{start}", chunk
        start += len(chunk)
    for name, text in itertools.islice(large_cases(options.seed), options.large):
        yield f"{name}:0", [text]


class Comparison:
    """Holds both sides, which are dear to make."""

    def __init__(self) -> None:
        self.splitter = WordSplitter()
        self.table = WordTable(self.splitter)
        self.filters = datatrove_filters(CONFIG)
        self.c4 = datatrove_c4(C4)

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        ours, counts, differing = self.ours(texts), Counter[str](), []
        for text, our in zip(texts, ours, strict=True):
            their = self.theirs(text)
            our["c4"], their["c4"] = self.by_c4(text)
            counts["documents"] += 1
            counts["characters"] += len(text)
            counts[f"reason {their['all'] or 'kept'}"] += 1
            counts[f"reason {their['c4'] or 'c4.kept'}"] += 1
            for name, reason in their.items():
                if reason == NOT_DECIDED:
                    counts[f"{NOT_DECIDED} {name}"] += 1
                elif reason != our[name]:
                    small = smallest(text, lambda t, name=name: self.differs(t, name))
                    differing.append({"filter": name, "ours": our[name], "theirs": reason, "text": small})
        return {"counts": counts, "differing": differing}

    def by_c4(self, text: str) -> tuple[str | None, str | None]:
        """Our reason and datatrove's; None for a text to keep."""
        outcome, document = c4.apply(text, self.splitter, C4), Document(text=text, id="")
        result = self.c4.filter(document)
        ours = f"c4.{outcome.reason}" if outcome.reason else None
        theirs = None if result is True else f"c4.{result[1]}"
        return ours, OTHER_TEXT if ours is theirs is None and outcome.text != document.text else theirs

    def differs(self, text: str, name: str) -> bool:
        if name == "c4":
            ours, theirs = self.by_c4(text)
            return ours != theirs
        their = self.theirs(text)[name]
        return their not in (NOT_DECIDED, self.ours([text])[0][name])

    def ours(self, texts: list[str]) -> list[dict[str, str | None]]:
        """Our reason by filter, and of all in order; None for a text to keep."""
        batch = measure_batch(pa.array(texts, pa.large_string()), self.table, CONFIG)
        found = []
        for row in range(len(texts)):
            signals = {name: float(values[row]) for name, values in batch.items()}
            decisions = {"all": decide(signals, CONFIG)}
            decisions |= {name: decide(signals, config) for name, config in ALONE.items()}
            found.append({name: decision and decision[0] for name, decision in decisions.items()})
        return found

    def theirs(self, text: str) -> dict[str, str | None]:
        document, found = Document(text=text, id=""), dict[str, str | None]()
        for name, each in self.filters:
            try:
                result = each.filter(document)
            except ZeroDivisionError:
                found[name] = NOT_DECIDED
                continue
            found[name] = None if result is True else f"{name}.{result[1]}"
        found["all"] = next(filter(None, found.values()), None)
        return found


def smallest(text: str, differs: Callable[[str], bool], tries: int = 400) -> str:
    """A part of the text that still differs, with nothing more to leave out (or as far as the tries went)."""
    size = max(1, len(text) // 2)
    while size and tries:
        start = 0
        while start < len(text) and tries:
            tries -= 1
            shorter = text[:start] + text[start + size :]
            if len(shorter) < len(text) and differs(shorter):
                text = shorter
            else:
                start += size
        size = min(size // 2, max(1, len(text)))
    return text


def report(done: list[dict[str, Any]]) -> int:
    """Prints what was compared and what differs."""
    by_source: dict[str, Counter[str]] = {}
    for chunk in done:
        source = by_source.setdefault(chunk["chunk"].rpartition(":")[0], Counter())
        source.update(chunk["counts"])
        source["differing"] += len(chunk["differing"])
        source["seconds"] += chunk["seconds"]
    rows = [
        (name, *(f"{value:,}" for value in (c["documents"], c["characters"], c["reason kept"], c["differing"])),
         f"{c['seconds']:.0f}")
        for name, c in by_source.items()
    ]  # fmt: skip
    print(table(("texts", "documents", "characters", "kept", "differing", "seconds"), rows))
    total = sum(by_source.values(), Counter())
    reasons = [(n, f"{c:,}") for n, c in total.most_common() if n.startswith(("reason", NOT_DECIDED))]
    print(table(("reason, or where datatrove has none", "documents"), reasons))
    differing = [each for chunk in done for each in chunk["differing"]]
    for each in differing[:50]:
        print(f"{each['filter']}: ours {each['ours']}, theirs {each['theirs']}: {each['text'][:300]!r}")
    print(f"{len(differing)} of {total['documents']:,} documents times five differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
