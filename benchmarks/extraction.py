"""Both extractors in all modes, side by side: what of the main text and of the menus comes out, and how fast.

``python benchmarks/extraction.py CRAWL.warc.gz=GOLD.jsonl [CRAWL.warc.gz ...]``

GOLD holds one JSON object a record: ``record_id``, ``expect`` (``extract`` or ``text``: must give text; ``skip``: must
give none; anything else: must not crash), and, where there is text, ``must_contain`` and ``must_not_contain``: lines
of the main text and of menus. White space is folded before they are looked for. A crawl without gold is timed only.

Prints three tables: quality per file and way; what is known beside the text (title, date, site, declared language) of
the pages with text; and speed over all pages of all files: pages and megabytes per CPU second with limits (a process
of its own) and without, each run in turn, and the median of their ratios, which is what the limits cost.
"""

import argparse
import collections
import itertools
import json
import resource
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import get_args, get_type_hints

from caravela import storage
from caravela.data import extract, readers
from caravela.data.extract import ExtractConfig, Extraction, Page
from caravela.data.extract_process import PageExtractor
from caravela.progress import table

EXTRACTORS, MODES = (get_args(get_type_hints(ExtractConfig)[name]) for name in ("extractor", "mode"))


def main() -> None:
    """Prints the tables, and below the first what was expected and did not happen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crawls", nargs="+", metavar="CRAWL[=GOLD]")
    parser.add_argument("--extractor", nargs="+", choices=EXTRACTORS, default=EXTRACTORS)
    parser.add_argument("--mode", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--rounds", type=int, default=3, help="of the timing (default: 3); 0: none")
    parser.add_argument("--misses", action="store_true", help="name the records that did not do what was expected")
    options = parser.parse_args()
    ways = [
        ExtractConfig(extractor=extractor, mode=mode)
        for extractor, mode in itertools.product(options.extractor, options.mode)
    ]
    crawls = [crawl.partition("=")[::2] for crawl in options.crawls]
    raws = {crawl: list(readers.read({"uri": crawl, "kind": "warc"}, readers.FieldNames())) for crawl, _ in crawls}
    print(quality(crawls, raws, ways, options.misses))
    if options.rounds:
        print(speed([raw for crawl in raws.values() for raw in crawl], ways, options.rounds))


def quality(
    crawls: Sequence[tuple[str, str]],
    raws: dict[str, list[readers.RawDocument]],
    ways: Sequence[ExtractConfig],
    name_misses: bool,
) -> str:
    """Two tables, and a line for each miss."""
    rows, known, misses = [], [], []
    for crawl, gold in crawls:
        for config in ways if gold else ():
            extractions = of_all(raws[crawl], config)
            name = storage.name_of(crawl)
            row, missed = score(raws[crawl], extractions, gold)
            rows.append((name, config.extractor, config.mode, *row))
            misses += [f"{name}, {config.extractor}, {config.mode}: {line}" for line in missed]
            if config is ways[0]:
                known.append((name, *shares_known(extractions)))
    headings = ("file", "extractor", "mode", "records", "as expected", "main text found", "menu lines kept", "reasons")
    parts = [table(headings, rows), *(misses if name_misses else ())]
    return "\n".join([*parts, "", table(("file", "pages", "title", "date", "site name", "language"), known), ""])


def of_all(raws: Iterable[readers.RawDocument], config: ExtractConfig) -> list[Extraction]:
    """What curation would make of each, in the process with limits."""
    raws = list(raws)
    with PageExtractor(config) as extractor:
        pages = iter(extractor.extract_many([page_of(raw) for raw in raws if raw.html is not None]))
    return [
        next(pages)
        if raw.html is not None
        else Extraction(text=extract.clean(raw.text or ""), reason="" if raw.text else raw.problem)
        for raw in raws
    ]


def page_of(raw: readers.RawDocument) -> Page:
    return Page(raw.html or b"", raw.header_charset, raw.url, raw.date)


def score(
    raws: Sequence[readers.RawDocument], extractions: Sequence[Extraction], gold_uri: str
) -> tuple[tuple[str, ...], list[str]]:
    """The cells of a row, and a line for each record that did not do what was expected."""
    gold = {row["record_id"]: row for row in map(json.loads, storage.read_text(gold_uri).splitlines())}
    found, kept, missed = [], [], []
    right, reasons = 0, collections.Counter[str]()
    both = [(raw, one, gold[raw.id]) for raw, one in zip(raws, extractions, strict=True) if raw.id in gold]
    for raw, one, expected in both:
        reasons[one.reason] += raw.html is not None and bool(one.reason)
        wanted = {"extract": True, "text": True, "skip": False}.get(expected["expect"])
        if wanted is None or wanted == bool(one.text):
            right += 1
        else:
            missed.append(
                f"expected {expected['expect']}, got {one.reason or 'text'}: {expected.get('case')} {raw.url}"
            )
        if wanted and expected.get("must_contain"):
            found.append(share_in(expected["must_contain"], one.text))
        if wanted and expected.get("must_not_contain"):
            kept.append(share_in(expected["must_not_contain"], one.text))
    return (
        str(len(both)),
        f"{right / max(1, len(both)):.1%}",
        f"{sum(found) / max(1, len(found)):.1%}",
        f"{sum(kept) / max(1, len(kept)):.1%}",
        ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()) if count),
    ), missed


def share_in(lines: list[str], text: str) -> float:
    """Share of the lines that stand in the text."""
    folded = " ".join(text.split())
    return sum(" ".join(line.split()) in folded for line in lines) / len(lines)


def shares_known(extractions: Iterable[Extraction]) -> tuple[str, ...]:
    """Of the pages with text, how many say what; a site that is but a host has a dot in its name."""
    pages = [one for one in extractions if one.text and one.encoding]
    counts = (
        sum(bool(one.title) for one in pages),
        sum(bool(one.date) for one in pages),
        sum("." not in one.site for one in pages),
        sum(bool(one.declared_language) for one in pages),
    )
    return (str(len(pages)), *(f"{count / max(1, len(pages)):.0%}" for count in counts))


def speed(raws: Iterable[readers.RawDocument], ways: Sequence[ExtractConfig], rounds: int) -> str:
    """A table: pages per CPU second without and with limits, in turns, so that both meet the same machine."""
    pages = [page_of(raw) for raw in raws if raw.html is not None]
    megabytes = sum(len(page.html) for page in pages) / 1e6
    rows = []
    for config in ways:
        without, within = [], []
        with PageExtractor(config) as extractor:
            extractor.extract_many(pages[:3])
            for _ in range(rounds):
                clock = time.process_time()
                for page in pages:
                    extract.extract(page.html, page.header_charset, config, url=page.url, fetched=page.fetched)
                without.append(time.process_time() - clock)
                clock = cpu_seconds(extractor)
                extractor.extract_many(pages)
                within.append(cpu_seconds(extractor) - clock)
        cost = statistics.median(b / a - 1 for a, b in zip(without, within, strict=True))
        rows.append(
            (
                config.extractor,
                config.mode,
                f"{len(pages)}",
                f"{len(pages) / statistics.median(without):.0f}",
                f"{len(pages) / statistics.median(within):.0f}",
                f"{megabytes / statistics.median(within):.1f}",
                f"{cost:+.1%}",
            )
        )
    return table(("extractor", "mode", "pages", "pages/s without", "pages/s", "MB/s of HTML", "cost of limits"), rows)


def cpu_seconds(extractor: PageExtractor) -> float:
    """Of this process and, by Linux's clock of another process, of all those that the extractor has started."""
    buried = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = time.clock_gettime((~extractor.process_id << 3) | 2) if extractor.process_id else 0.0
    return time.process_time() + buried.ru_utime + buried.ru_stime + running


if __name__ == "__main__":
    main()
