"""Lines that a site repeats: brute force as the oracle, any sharding, and what is dropped from a text."""

import functools
import gzip
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caravela.config import ConfigError
from caravela.data import extract, readers
from caravela.manifest import Input
from caravela.stages import Shard
from filters.repeated_lines import (
    Page,
    RepeatedLines,
    RepeatedLinesConfig,
    drop_repeated_lines,
    few_rows,
    line_keys,
    normalised_line,
    pages_by_extraction,
    pages_of_table,
    repeated_lines_stage,
    site_lines_stage,
    site_of,
)
from tests.road_without_ray import finish

CONFIG = RepeatedLinesConfig(min_pages=3)


def listed_pages(spec: Mapping[str, Any]) -> Iterator[Page]:
    return (Page(*page) for page in spec["pages"])


def repeated_in(
    tmp_path: Path, shards: Sequence[Sequence[Page]], config: RepeatedLinesConfig = CONFIG
) -> tuple[RepeatedLines, Input]:
    plan = [Shard(index=i, name=str(i), spec={"pages": [list(p) for p in pages]}) for i, pages in enumerate(shards)]
    lines = site_lines_stage(str(tmp_path), config, (), lambda: plan, listed_pages, {"shards": str(shards)})
    finish(lines)
    merged = repeated_lines_stage(str(tmp_path), config, lines.as_input())
    finish(merged)
    return RepeatedLines.load(merged.as_input()), merged.as_input()


def random_pages(seed: int, count: int) -> list[Page]:
    """Pages of a few sites with menus, shared articles, the same page under two URLs, and fetches of one URL."""
    rng = random.Random(seed)
    pages = []
    for _ in range(count):
        site = rng.choice(["a.pt", "www.a.pt", "b.com.br", "c.pt:8080"])
        lines = rng.choices([f"Menu {'abcdefgh'[i]}" for i in range(8)], k=rng.randrange(5))
        lines += [f"texto {rng.choice('abcdefghijklmnopqrstuvwxyz')}{rng.choice('abcdefghijkl')}" for _ in range(3)]
        lines += ["", "   ", "x" * 300][: rng.randrange(4)]
        url = f"http://{site}/{rng.randrange(count)}"
        pages.append(Page(url, "\n".join(lines)))
        if rng.random() < 0.2:
            pages.append(Page(f"{url}?sessao={rng.randrange(9)}", "\n".join(lines)))
    return pages


def by_brute_force(pages: Sequence[Page], config: RepeatedLinesConfig) -> set[tuple[str, str]]:
    """(site, line) pairs with enough distinct URLs and enough distinct texts."""
    urls, texts = defaultdict(set), defaultdict(set)
    for page in pages:
        site = page.url.split("/")[2].split(":")[0].removeprefix("www.")
        plain = [normalised_line(line) if len(line) <= config.max_characters else "" for line in page.text.split("\n")]
        for line in filter(None, plain):
            urls[site, line].add(page.url)
            texts[site, line].add(tuple(plain))
    return {key for key in urls if min(len(urls[key]), len(texts[key])) >= config.min_pages}


def keys_of(pairs: set[tuple[str, str]], config: RepeatedLinesConfig = CONFIG) -> list[int]:
    return sorted(line_keys(line, site, config.max_characters)[0] for site, line in pairs)


@pytest.mark.parametrize("min_pages", [2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_repeated_lines_equal_brute_force(tmp_path: Path, seed: int, min_pages: int) -> None:
    config = RepeatedLinesConfig(min_pages=min_pages, partitions=5)
    pages = random_pages(seed, 120)
    expected = by_brute_force(pages, config)
    assert 0 < len(expected) < len({line for page in pages for line in page.text.split("\n")})
    found, _ = repeated_in(tmp_path, [pages[::2], pages[1::2]], config)
    assert found.keys.tolist() == keys_of(expected, config)


@pytest.mark.parametrize("partitions", [1, 3, 16])
def test_any_sharding_and_partition_count_gives_the_same_lines(tmp_path: Path, partitions: int) -> None:
    pages = random_pages(9, 150)
    config = RepeatedLinesConfig(min_pages=3, partitions=partitions)
    expected = keys_of(by_brute_force(pages, config))
    for shards in (1, 2, 7, 40):
        shuffled = random.Random(shards).sample(pages, len(pages))
        split = [shuffled[i::shards] for i in range(shards)] + [[]]
        assert repeated_in(tmp_path / str(shards), split, config)[0].keys.tolist() == expected


def test_count_is_the_same_bytes_whatever_the_order_of_pages(tmp_path: Path) -> None:
    sums = []
    for run, pages in (("a", random_pages(4, 60)), ("b", random_pages(4, 60)[::-1])):
        plan = [Shard(index=0, name="all", spec={"pages": [list(p) for p in pages]})]
        stage = site_lines_stage(str(tmp_path / run), CONFIG, (), functools.partial(list, plan), listed_pages, {})
        sums.append([file.sha256 for shard in finish(stage).shards for file in shard.files])
    assert sums[0] == sums[1]


def test_few_rows_bounds_a_line_on_every_page_and_keeps_the_decision() -> None:
    rows = np.array([(5, url, url % 90) for url in range(1000)] + [(6, 1, 1), (6, 2, 1)], np.uint64)
    few = few_rows(rows, CONFIG)
    assert len(few) <= 2 * 2 * CONFIG.min_pages
    of_five = few[few[:, 0] == 5]
    assert len(np.unique(of_five[:, 1])) >= 3
    assert len(np.unique(of_five[:, 2])) >= 3
    assert few[few[:, 0] == 6].tolist() == [[6, 1, 1], [6, 2, 1]]
    assert len(few_rows(np.empty((0, 3), np.uint64), CONFIG)) == 0


def test_drop_takes_menus_out_and_leaves_the_rest(tmp_path: Path) -> None:
    menu = "Início | Contactos\n12 comentários"
    pages = [Page(f"http://www.a.pt/{i}", f"{menu}\n\nNotícia {'abcde'[i]}.\n\n\nPartilhar") for i in range(5)]
    pages += [Page("http://b.pt/1", pages[0].text)]
    repeated, _ = repeated_in(tmp_path, [pages[:3], pages[3:]])
    text = "Início |  CONTACTOS\n7 comentários\n\nA notícia.\n\n\nPartilhar\n\nFim."
    assert drop_repeated_lines(text, "a.pt", repeated, CONFIG) == ("A notícia.\n\nFim.", 3)
    assert drop_repeated_lines(text, "b.pt", repeated, CONFIG) == (text, 0)
    assert drop_repeated_lines(text, "", repeated, CONFIG) == (text, 0)
    assert drop_repeated_lines("", "a.pt", repeated, CONFIG) == ("", 0)
    assert drop_repeated_lines("Partilhar", "a.pt", repeated, CONFIG) == ("", 1)


def test_article_under_many_urls_or_fetched_often_keeps_its_lines(tmp_path: Path) -> None:
    views = [Page(f"http://a.pt/artigo?sessao={i}", "Um artigo.\nCom duas linhas.") for i in range(9)]
    fetches = [Page("http://b.pt/artigo", f"Um artigo.\nCom duas linhas.\nData {chr(97 + i)}") for i in range(9)]
    repeated, _ = repeated_in(tmp_path, [views + fetches])
    assert len(repeated) == 0


def test_long_lines_stay(tmp_path: Path) -> None:
    paragraph = "Parágrafo que muitas páginas partilham. " * 10
    pages = [Page(f"http://a.pt/{i}", f"{paragraph}\nLinha {'abcde'[i]}") for i in range(5)]
    assert len(repeated_in(tmp_path, [pages])[0]) == 0
    wide = RepeatedLinesConfig(min_pages=3, max_characters=1000)
    assert len(repeated_in(tmp_path / "wide", [pages], wide)[0]) == 1


def test_load_of_some_sites_holds_only_their_lines(tmp_path: Path) -> None:
    pages = random_pages(2, 150)
    repeated, source = repeated_in(tmp_path, [pages])
    only = RepeatedLines.load(source, sites=["a.pt"])
    expected = {pair for pair in by_brute_force(pages, CONFIG) if pair[0] == "a.pt"}
    assert only.keys.tolist() == keys_of(expected)
    assert 0 < len(only) < len(repeated)


def test_large_sets_are_looked_up_like_small_ones() -> None:
    keys = np.unique(np.random.default_rng(1).integers(1, 1 << 63, 1_100_000, np.uint64))
    large = RepeatedLines(keys)
    assert large._set is None
    for key in itertools.chain(keys[:100].tolist(), keys[-100:].tolist()):
        assert key in large
    assert 0 not in large
    assert (1 << 64) - 1 not in large


def test_pages_from_raw_input_and_from_a_table_are_the_same(tmp_path: Path) -> None:
    body = "<html><body><p>" + "Uma frase com bastantes palavras para ser texto principal. " * 5 + "</p></body></html>"
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{body}".encode()
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.pt/1\r\nWARC-Record-ID: <urn:uuid:1>\r\n"
    head += f"Content-Type: application/http\r\nContent-Length: {len(http)}\r\n\r\n"
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(head.encode() + http + b"\r\n\r\n"))
    uri = str(tmp_path / "a.warc.gz")
    spec = readers.plan_shards([uri], 1 << 20)[0].spec
    pages = list(pages_by_extraction(spec, names=readers.FieldNames(), config=extract.ExtractConfig()))
    assert [page.url for page in pages] == ["http://a.pt/1"]
    assert pages[0].text.startswith("Uma frase")
    table = {"url": ["http://a.pt/1", None], "text": [pages[0].text, None]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert list(pages_of_table({"uri": str(tmp_path / "a.parquet")})) == [*pages, Page("", "")]


@pytest.mark.parametrize(
    ("url", "site"),
    [("http://www.A.pt:80/x", "a.pt"), ("https://blog.a.pt", "blog.a.pt"), ("", ""), ("mailto:a@b.pt", "")],
)
def test_site_of_url(url: str, site: str) -> None:
    assert site_of(url) == site


@pytest.mark.parametrize(("field", "value"), [("min_pages", 1), ("max_characters", 0), ("partitions", 0)])
def test_bad_setting_names_field_and_value(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{field} = {value}: expected"):
        RepeatedLinesConfig(**{field: value})
