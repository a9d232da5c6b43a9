"""Lines that come again on many pages of a site (menus, notices, "read also") are dropped before the filters.

In: pages as (url, text). Out: ``drop_repeated_lines`` gives a text without the lines that its site repeats.
Two stages find these lines first:

* ``site_lines``: table ``lines`` (key u64, url u32, content u32), one part a shard, one row group a partition of the
  keys, sorted. A key is 32 bits of the site's hash above 32 bits of the line's.
* ``repeated_lines``: table ``repeated`` (key u64), one part a partition, sorted: the lines seen on ``min_pages``
  distinct pages of their site.

Decisions, with their price:

* Two fetches of one URL are one page, and so are two URLs with the same text (session ids, print views): both the
  distinct URLs and the distinct texts of a line must reach ``min_pages``. Otherwise an article that was crawled five
  times would lose every line.
* A line is compared in lower case, white space folded, digits as one digit: "12 comentários" repeats "7 comentários".
* Every occurrence goes, the first too: nothing in a menu is worth keeping once.
* Of a line that one shard sees on many pages at most 2 × ``min_pages`` rows are kept, which cannot change the result
  and keeps the pages of a huge site from filling a partition. State: 16 bytes per distinct line and page before
  compression, 4 % of the text on long documents and more on short pages.
* A hash collision joins two lines of a site with a chance of 1 in 4 · 10⁹ a pair.

The same pages give the same result for any sharding and number of partitions. Cost on one core: 90 MB/s of text to
count, as much to drop; extracting the pages for this alone doubles the dearest part of curation.

What it brings depends on what is left of the menus (``benchmarks/repeated_lines.py``): of WET files, which keep them,
8 % more Portuguese pages passed quality and 0.2 % of main-text lines were lost; after trafilatura hardly any more.
"""

import functools
import re
from array import array
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from caravela import storage
from caravela.config import ConfigError
from caravela.data import extract, readers
from caravela.data.extract import ExtractConfig
from caravela.data.extract_process import PageExtractor
from caravela.manifest import Input
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.urls import parts_of

U64 = npt.NDArray[np.uint64]

LINES = pa.schema([("key", pa.uint64()), ("url", pa.uint32()), ("content", pa.uint32())])
REPEATED = pa.schema([("key", pa.uint64())])
SITE_BITS = 32
TABLE_BATCH_ROWS = 256
DIGITS = re.compile(r"\d+")
GAPS = re.compile(r"\n{3,}")


@dataclass(frozen=True, kw_only=True)
class RepeatedLinesConfig:
    """Which lines a site repeats; off by default."""

    enabled: bool = False
    """Whether they are counted, in a pass of their own over the pages, and dropped."""
    min_pages: int = 5
    """On how many distinct pages of a site a line must stand to be dropped."""
    max_characters: int = 200
    """Longer lines stay: they are paragraphs that near-duplicate pages share, which deduplication judges better."""
    partitions: int = 16
    """Into how many parts the merge is cut. It changes how work is cut, not what is dropped."""

    def __post_init__(self) -> None:
        if self.min_pages < 2:
            raise ConfigError(f"min_pages = {self.min_pages}: expected 2 or more")
        for name in ("max_characters", "partitions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 1 or more")


class Page(NamedTuple):
    """What the count needs of a page."""

    url: str
    text: str


PageReader = Callable[[Mapping[str, Any]], Iterable[Page]]
"""Gives the pages of a shard's ``spec``; picklable."""


def pages_by_extraction(spec: Mapping[str, Any], *, names: readers.FieldNames, config: ExtractConfig) -> Iterator[Page]:
    """The pages of a shard planned by ``readers.plan_shards``, read and extracted as curation does."""
    with PageExtractor(config) as extractor:
        for raw in readers.read_columns(spec, names):
            documents = [document for document in raw.documents() if not document.problem]
            texts = extracted(documents, extractor)
            yield from (Page(document.url, text) for document, text in zip(documents, texts, strict=True) if text)


def extracted(documents: Sequence[readers.RawDocument], extractor: PageExtractor) -> list[str]:
    """The text of each; empty for a page that has none."""
    pages = [
        extract.Page(each.html, each.header_charset, each.url, each.date) for each in documents if each.html is not None
    ]
    texts = iter(page.text for page in extractor.extract_many(pages))
    return [extract.clean(each.text or "") if each.html is None else next(texts) for each in documents]


def pages_of_table(spec: Mapping[str, Any]) -> Iterator[Page]:
    """The pages of a Parquet part (``spec["uri"]``) with columns ``url`` and ``text``, extracted before."""
    with storage.open_read(spec["uri"]) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(TABLE_BATCH_ROWS, columns=["url", "text"]):
            for row in batch.to_pylist():
                yield Page(row["url"] or "", row["text"] or "")


def site_lines_stage(
    root: str,
    config: RepeatedLinesConfig,
    inputs: tuple[Input, ...],
    plan: Callable[[], Sequence[Shard]],
    pages: PageReader,
    settings: Mapping[str, Any],
) -> Stage:
    """The lines of every page, shard by shard. ``settings``: what else the text that ``pages`` gives depends on."""
    own = {"min_pages": config.min_pages, "max_characters": config.max_characters, "partitions": config.partitions}
    return Stage(
        name="site_lines",
        version=2,
        root=root,
        config={**own, "pages": dict(settings)},
        inputs=inputs,
        plan=plan,
        make_worker=functools.partial(SiteLinesWorker, config, pages),
    )


class SiteLinesWorker:
    """One shard of pages to its sorted rows."""

    def __init__(self, config: RepeatedLinesConfig, pages: PageReader) -> None:
        self.config = config
        self.pages = pages

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        table = out.table("lines", LINES)
        pages = 0

        def counted() -> Iterator[Page]:
            nonlocal pages
            for page in self.pages(shard.spec):
                pages += 1
                out.progress.add(documents=1, bytes=len(page.text))
                yield page

        rows = rows_of(counted(), self.config)
        starts = np.array([i * ((1 << 64) // self.config.partitions) for i in range(self.config.partitions)], np.uint64)
        borders = np.searchsorted(rows[:, 0], starts)
        for start, end in zip(borders, [*borders[1:], len(rows)], strict=True):
            part = rows[start:end]
            columns = {"key": part[:, 0], "url": part[:, 1].astype(np.uint32), "content": part[:, 2].astype(np.uint32)}
            table.add_batch(pa.table(columns, schema=LINES))
        return {"pages": pages, "rows": len(rows)}


def repeated_lines_stage(root: str, config: RepeatedLinesConfig, site_lines: Input) -> Stage:
    """The repeated lines, partition by partition."""

    def plan() -> list[Shard]:
        uris = finished(site_lines).uris("lines")
        return [
            Shard(index=i, name=f"partition {i}", spec={"uris": uris, "partition": i}) for i in range(config.partitions)
        ]

    return Stage(
        name="repeated_lines",
        version=1,
        root=root,
        config={"min_pages": config.min_pages},
        inputs=(site_lines,),
        plan=plan,
        make_worker=functools.partial(RepeatedLinesWorker, config),
    )


class RepeatedLinesWorker:
    """One partition of the rows, from all shards, to the keys that stand on enough pages."""

    def __init__(self, config: RepeatedLinesConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        parts = [np.empty((0, 3), np.uint64)]
        for uri in shard.spec["uris"]:
            with storage.open_read(uri) as stream:
                group = pq.ParquetFile(stream).read_row_group(int(shard.spec["partition"]))
            parts.append(np.stack([group[name].to_numpy().astype(np.uint64) for name in LINES.names], axis=1))
        rows = np.concatenate(parts)
        repeated = repeated_keys(rows, self.config.min_pages)
        out.table("repeated", REPEATED).add_batch(pa.table({"key": repeated}, schema=REPEATED))
        sites = len(np.unique(repeated >> np.uint64(SITE_BITS)))
        return {"rows": len(rows), "repeated": len(repeated), "sites": sites}


def rows_of(pages: Iterable[Page], config: RepeatedLinesConfig) -> U64:
    """(key, url, content) of the lines of these pages, sorted, and no more of them than ``few_rows`` needs."""
    keys, urls, contents = array("Q"), array("Q"), array("Q")
    for page in pages:
        site = site_of(page.url)
        found = line_keys(page.text, site, config.max_characters) if site else []
        distinct = {key for key in found if key}
        keys.extend(distinct)
        urls.extend([_hash32(page.url)] * len(distinct))
        contents.extend([_hash32(",".join(map(str, found)))] * len(distinct))
    rows = np.stack([np.frombuffer(column, np.uint64) for column in (keys, urls, contents)], axis=1)
    return few_rows(rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))], config)


def repeated_keys(rows: U64, min_pages: int) -> U64:
    """The keys, sorted, whose distinct URLs and whose distinct contents are at least ``min_pages``."""
    on_urls, on_contents = (_keys_with(rows[:, [0, column]], min_pages) for column in (1, 2))
    return np.intersect1d(on_urls, on_contents, assume_unique=True)


def few_rows(rows: U64, config: RepeatedLinesConfig) -> U64:
    """Of sorted rows those that prove the first ``min_pages`` URLs and the first ``min_pages`` contents of each key."""
    needed = np.zeros(len(rows), np.bool_)
    for column in (1, 2):
        order = np.lexsort((rows[:, 3 - column], rows[:, column], rows[:, 0]))
        keys, values = rows[order, 0], rows[order, column]
        new_key = np.r_[True, keys[1:] != keys[:-1]][: len(rows)]
        new_value = new_key | np.r_[True, values[1:] != values[:-1]][: len(rows)]
        seen = np.cumsum(new_value)
        before = np.maximum.accumulate(np.where(new_key, seen - 1, 0))
        needed[order[new_value & (seen - before <= config.min_pages)]] = True
    return rows[needed]


def _keys_with(pairs: U64, count: int) -> U64:
    """The keys, sorted, that stand with at least ``count`` distinct values."""
    ordered = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    distinct = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)][: len(ordered)]
    keys, counts = np.unique(ordered[distinct, 0], return_counts=True)
    return keys[counts >= count]


class RepeatedLines(Container[int]):
    """The keys of all repeated lines, or of those of some sites."""

    def __init__(self, keys: U64) -> None:
        self.keys = np.sort(keys)
        self._set = frozenset(self.keys.tolist()) if len(keys) < 1 << 20 else None

    @classmethod
    def load(cls, repeated: Input, sites: Collection[str] | None = None) -> "RepeatedLines":
        """From a finished ``repeated_lines`` stage; with ``sites`` known, memory grows with these alone."""
        parts = [np.empty(0, np.uint64)]
        prefixes = None if sites is None else np.array(sorted({_hash32(site) for site in sites}), np.uint64)
        for uri in finished(repeated).uris("repeated"):
            with storage.open_read(uri) as stream:
                keys = pq.ParquetFile(stream).read()["key"].to_numpy()
            parts.append(keys if prefixes is None else keys[np.isin(keys >> np.uint64(SITE_BITS), prefixes)])
        return cls(np.concatenate(parts))

    def __contains__(self, key: object) -> bool:
        if self._set is not None:
            return key in self._set
        place = int(np.searchsorted(self.keys, np.uint64(key)))  # type: ignore[arg-type]
        return place < len(self.keys) and int(self.keys[place]) == key

    def __len__(self) -> int:
        return len(self.keys)


def drop_repeated_lines(text: str, site: str, repeated: Container[int], config: RepeatedLinesConfig) -> tuple[str, int]:
    """The text without the lines that ``repeated`` holds for this site, and how many went.

    A text of which nothing goes comes back as it is; else gaps of more than one empty line are closed.
    """
    if not site:
        return text, 0
    lines = text.split("\n")
    kept = [
        line
        for line, key in zip(lines, line_keys(text, site, config.max_characters), strict=True)
        if not (key and key in repeated)
    ]
    if len(kept) == len(lines):
        return text, 0
    return GAPS.sub("\n\n", "\n".join(kept)).strip("\n"), len(lines) - len(kept)


def line_keys(text: str, site: str, max_characters: int) -> list[int]:
    """A key for each line of the text; 0 for one that is empty or too long to count."""
    above = _hash32(site) << SITE_BITS
    keys = []
    for line in text.split("\n"):
        plain = normalised_line(line) if len(line) <= max_characters else ""
        keys.append(above | _hash32(plain) if plain else 0)
    return keys


def normalised_line(line: str) -> str:
    """``normalised_line("  12  Comentários ") == "0 comentários"``."""
    return DIGITS.sub("0", " ".join(line.lower().split()))


def site_of(url: str) -> str:
    """The host whose pages share their menus, without "www."; empty where the URL has none."""
    return parts_of(url).host.removeprefix("www.")


def _hash32(text: str) -> int:
    """Never 0, so that 0 can stand for "no line"."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace")) >> 32 or 1
