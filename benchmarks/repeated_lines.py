"""What dropping a site's repeated lines before the filters brings: menus out, main text lost, documents gained.

``python benchmarks/repeated_lines.py --sample CRAWL.warc.gz=GOLD.jsonl [...]``

``--sample`` builds the sample crawl and takes its labels as gold. GOLD holds one JSON object a record: ``record_id``,
``expect`` (``extract`` or ``text``: a page that is wanted), ``lang``, and for some ``must_contain`` and
``must_not_contain``: lines of the main text and of menus. All pairs together are one crawl, as a site's pages may lie
in several files. Prints per extraction mode and ``min_pages`` (0: nothing dropped): the share of extracted lines
dropped; of the gold's main-text and menu lines (for the sample: of the extracted lines in and not in the true text) the
share in the text; wanted Portuguese documents that pass quality with its default config, and others that do; and the
seconds for the pass alone, without extraction.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from caravela import storage
from caravela.data import extract, readers
from caravela.progress import table
from caravela.sample.crawl import LABELS_FILE, WARC_FILES, SampleCrawlConfig, build_crawl
from filters import quality
from filters.repeated_lines import (
    Page,
    RepeatedLines,
    RepeatedLinesConfig,
    drop_repeated_lines,
    repeated_keys,
    rows_of,
    site_of,
)
from filters.words import WordSplitter

HEADINGS = (
    "crawl, mode, min_pages",
    "sites",
    "lines dropped",
    "main text found",
    "menu lines kept",
    "wanted pass",
    "others pass",
    "emptied",
    "pass seconds",
)


@dataclass
class Document:
    """A page and the truth about it."""

    page: Page
    wanted: bool
    main: list[str] = field(default_factory=list)
    menu: list[str] = field(default_factory=list)
    true_text: str | None = None


@dataclass
class Crawl:
    """A set of pages that is counted as one, extracted anew per mode."""

    name: str
    files: list[str]
    gold: dict[str, dict[str, Any]]


def main() -> None:
    """Prints one table for all crawls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", metavar="CRAWL=GOLD")
    parser.add_argument("--sample", action="store_true", help="the sample crawl too")
    parser.add_argument("--modes", nargs="+", default=["precision", "balanced", "recall"])
    parser.add_argument("--min-pages", nargs="+", type=int, default=[2, 3, 5, 10])
    parser.add_argument("--max-characters", type=int, default=RepeatedLinesConfig.max_characters)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        crawls = [sample_crawl(folder)] if options.sample else []
        if options.pairs:
            crawls.append(gold_crawl(options.pairs))
        rows = []
        for crawl in crawls:
            for mode in options.modes:
                documents = list(documents_of(crawl, extract.ExtractConfig(mode=mode)))
                passes = quality_of()
                rows.append(figures(f"{crawl.name} {mode} 0", documents, None, passes))
                for min_pages in options.min_pages:
                    config = RepeatedLinesConfig(min_pages=min_pages, max_characters=options.max_characters)
                    rows.append(figures(f"{crawl.name} {mode} {min_pages}", documents, config, passes))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, one run")
    print(table(HEADINGS, rows))


def sample_crawl(folder: str) -> Crawl:
    build_crawl(folder, SampleCrawlConfig().seed)
    labels = map(json.loads, storage.read_text(storage.join(folder, LABELS_FILE)).splitlines())
    return Crawl(
        "sample",
        [storage.join(folder, name) for name in WARC_FILES],
        {row["record_id"]: {"wanted": row["keep"], "text": row["text"] or ""} for row in labels},
    )


def gold_crawl(pairs: Sequence[str]) -> Crawl:
    crawl = Crawl("gold", [], {})
    for pair in pairs:
        file, gold = pair.split("=")
        crawl.files.append(file)
        for row in map(json.loads, storage.read_text(gold).splitlines()):
            wanted = row["expect"] in ("extract", "text") and str(row.get("lang", "pt")).startswith("pt")
            crawl.gold[row["record_id"]] = {**row, "wanted": wanted}
    return crawl


def documents_of(crawl: Crawl, config: extract.ExtractConfig) -> Iterator[Document]:
    """The pages that give text, with what the gold says of them; pages without gold only count."""
    for file in crawl.files:
        for raw in readers.read({"uri": file, "kind": "warc"}, readers.FieldNames()):
            if raw.html is not None:
                text = extract.extract(raw.html, raw.header_charset, config).text
            else:
                text = extract.clean(raw.text or "")
            if text:
                gold = crawl.gold.get(raw.id, {})
                main, menu = gold.get("must_contain") or [], gold.get("must_not_contain") or []
                yield Document(Page(raw.url, text), bool(gold.get("wanted")), main, menu, gold.get("text"))


def quality_of() -> Callable[[str], bool]:
    splitter, config = WordSplitter(), quality.QualityConfig()
    return lambda text: quality.decide(quality.measure(text, splitter, config), config) is None


def figures(
    name: str, documents: list[Document], config: RepeatedLinesConfig | None, passes: Callable[[str], bool]
) -> tuple[str, ...]:
    """The cells of a row."""
    clock = time.perf_counter()
    texts = [document.page.text for document in documents]
    dropped = 0
    if config is not None:
        repeated = RepeatedLines(repeated_keys(rows_of((d.page for d in documents), config), config.min_pages))
        results = [drop_repeated_lines(d.page.text, site_of(d.page.url), repeated, config) for d in documents]
        texts, dropped = [text for text, _ in results], sum(count for _, count in results)
    seconds = time.perf_counter() - clock
    main: list[bool] = []
    menu: list[bool] = []
    for document, text in zip(documents, texts, strict=True):
        if document.true_text is not None and document.wanted:
            inside, outside = of_true_text(document, text)
            main += inside
            menu += outside
        elif document.wanted:
            folded = " ".join(text.split())
            main += [" ".join(line.split()) in folded for line in document.main]
            menu += [" ".join(line.split()) in folded for line in document.menu]
    passing = [passes(text) for text in texts]
    wanted = [document.wanted for document in documents]
    all_lines = sum(bool(line.strip()) for document in documents for line in document.page.text.split("\n"))
    return (
        name,
        str(len({site_of(d.page.url) for d in documents})),
        f"{dropped / max(1, all_lines):.1%}",
        f"{sum(main) / max(1, len(main)):.2%}",
        f"{sum(menu)} of {len(menu)}",
        f"{sum(p and w for p, w in zip(passing, wanted, strict=True))} of {sum(wanted)}",
        f"{sum(p and not w for p, w in zip(passing, wanted, strict=True))} of {len(wanted) - sum(wanted)}",
        str(sum(not text.strip() for text in texts)),
        f"{seconds:.2f}",
    )


def of_true_text(document: Document, text: str) -> tuple[list[bool], list[bool]]:
    """For each line that was extracted whether it is still there: those of the true text, and the others."""
    true, left = " ".join((document.true_text or "").split()), {" ".join(line.split()) for line in text.split("\n")}
    inside: list[bool] = []
    outside: list[bool] = []
    for line in filter(None, (" ".join(line.split()) for line in document.page.text.split("\n"))):
        (inside if line in true else outside).append(line in left)
    return inside, outside


if __name__ == "__main__":
    main()
