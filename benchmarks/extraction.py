"""Reading and extraction against gold: which records come out, with how much of their main text and of their menus.

``python benchmarks/extraction.py CRAWL.warc.gz=GOLD.jsonl [...]``

GOLD holds one JSON object a record: ``record_id``, ``expect`` (``extract`` or ``text``: must give text; ``skip``: must
give none; anything else: must not crash), and, where there is text, ``must_contain`` and ``must_not_contain``: lines
of the main text and of menus. White space is folded before they are looked for. Prints a table per file.
"""

import argparse
import collections
import json
import time

from caravela import storage
from caravela.data import extract, readers
from caravela.progress import table


def main() -> None:
    """Prints one row a file, and below it what was expected and did not happen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="CRAWL=GOLD")
    parser.add_argument("--mode", choices=["precision", "balanced", "recall"], default="precision")
    options = parser.parse_args()
    rows, misses = [], []
    for pair in options.pairs:
        crawl, gold = pair.split("=")
        row, missed = score(crawl, gold, extract.ExtractConfig(mode=options.mode))
        rows.append((storage.name_of(crawl), *row))
        misses += [f"{storage.name_of(crawl)}: {line}" for line in missed]
    headings = ("file", "records", "as expected", "main text found", "menu lines kept", "pages/s")
    print(table(headings, rows), *misses, sep="\n")


def score(crawl: str, gold_uri: str, config: extract.ExtractConfig) -> tuple[tuple[str, ...], list[str]]:
    """The cells of a row, and a line for each record that did not do what was expected."""
    gold = {row["record_id"]: row for row in map(json.loads, storage.read_text(gold_uri).splitlines())}
    found, kept, missed = [], [], []
    outcome: collections.Counter[str] = collections.Counter()
    clock, pages = time.perf_counter(), 0
    for raw in readers.read({"uri": crawl, "kind": "warc"}, readers.FieldNames()):
        pages += raw.html is not None
        text, reason = text_of(raw, config)
        expected = gold.get(raw.id)
        if expected is None:
            continue
        wanted = {"extract": True, "text": True, "skip": False}.get(expected["expect"])
        right = wanted is None or wanted == bool(text)
        outcome["right" if right else "wrong"] += 1
        if not right:
            missed.append(f"expected {expected['expect']}, got {reason or 'text'}: {expected.get('case')} {raw.url}")
        if wanted and expected.get("must_contain"):
            found.append(share_in(expected["must_contain"], text))
        if wanted and expected.get("must_not_contain"):
            kept.append(share_in(expected["must_not_contain"], text))
    seconds = time.perf_counter() - clock
    return (
        str(sum(outcome.values())),
        f"{outcome['right'] / max(1, sum(outcome.values())):.1%}",
        f"{sum(found) / max(1, len(found)):.1%}",
        f"{sum(kept) / max(1, len(kept)):.1%}",
        f"{pages / seconds:.0f}" if pages else "",
    ), missed


def text_of(raw: readers.RawDocument, config: extract.ExtractConfig) -> tuple[str, str]:
    """Text and the reason why there is none."""
    if raw.html is not None:
        result = extract.extract(raw.html, raw.header_charset, config)
        return result.text, result.reason
    return extract.clean(raw.text or ""), raw.problem


def share_in(lines: list[str], text: str) -> float:
    """Share of the lines that stand in the text."""
    folded = " ".join(text.split())
    return sum(" ".join(line.split()) in folded for line in lines) / len(lines)


if __name__ == "__main__":
    main()
