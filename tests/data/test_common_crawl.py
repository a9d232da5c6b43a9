"""Common Crawl's columnar index: the wanted records all come, from disk, S3 and the web, and little but their bytes."""

import base64
import io
import itertools
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from caravela import storage
from caravela.config import ConfigError, build
from caravela.data import common_crawl, readers
from caravela.data.common_crawl import IndexConfig
from caravela.data.readers import FieldNames, RawDocument
from caravela.errors import UserError
from caravela.stages import Shard
from tests.conftest import Web

PAGES, WARCS = 600, 4
LANGUAGES = ("por", "eng", "spa,por", "por,eng", None, "eng,por,spa")
WEIGHTS = (2, 90, 2, 2, 2, 2)


class Crawl(NamedTuple):
    """WARC files as warcio writes them, and rows of an index that knows where its records are."""

    folder: Path
    rows: list[dict[str, Any]]

    def wanted(self, *languages: str, first: bool = True) -> list[dict[str, Any]]:
        """The rows that should be picked, by a rule written down anew; in the order of file and offset."""
        found = []
        for row in self.rows:
            codes = (row["content_languages"] or "").split(",")
            good = codes[0] in languages if first else bool(set(codes) & set(languages))
            html = row["content_mime_detected"] in ("text/html", "application/xhtml+xml")
            if good and html and row["fetch_status"] == 200:
                found.append(row)
        return sorted(found, key=lambda row: (row["warc_filename"], row["warc_record_offset"]))

    def write_index(self, name: str = "index", rows: list[dict[str, Any]] | None = None) -> str:
        """Two Parquet files of small row groups, in the order of the URL, as the real one; a glob that names both."""
        chosen = sorted(self.rows if rows is None else rows, key=lambda row: row["url"])
        (self.folder / name).mkdir()
        for part in range(2):
            table = pa.Table.from_pylist(chosen[part::2], schema=SCHEMA)
            pq.write_table(table, self.folder / name / f"part-{part}.parquet", row_group_size=50)
        return str(self.folder / name / "*.parquet")


SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("fetch_status", pa.int16()),
        ("content_mime_detected", pa.string()),
        ("content_charset", pa.string()),
        ("content_languages", pa.string()),
        ("warc_filename", pa.string()),
        ("warc_record_offset", pa.int32()),
        ("warc_record_length", pa.int32()),
    ]
)


def write_crawl(folder: Path) -> Crawl:
    chance, rows = random.Random(7), []
    for file in range(WARCS):
        name = f"crawl-data/CC-TEST/segments/{file % 2}/warc/{file:05d}.warc.gz"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        writer = WARCWriter(stream, gzip=True)
        for page in range(file, PAGES, WARCS):
            url = f"http://{chance.randrange(10**6)}.example/{page}"
            status = chance.choices((200, 404), (95, 5))[0]
            mime = chance.choices(("text/html", "application/xhtml+xml", "application/pdf"), (8, 1, 1))[0]
            noise = chance.randbytes(chance.randrange(1000, 10_000)).hex()
            body = f"<html><body><p>Página {page}: {noise}</p></body></html>".encode()
            head = StatusAndHeaders(f"{status} OK", [("Content-Type", mime)], protocol="HTTP/1.1")
            start = stream.tell()
            record = writer.create_warc_record(url, "response", payload=io.BytesIO(body), http_headers=head)
            writer.write_record(record)
            end = stream.tell()
            if page % 3 == 0:
                writer.write_record(writer.create_warc_record(url, "metadata", payload=io.BytesIO(b"x: 1" * 100)))
            languages = chance.choices(LANGUAGES, WEIGHTS)[0]
            rows.append(
                {
                    "url": url,
                    "fetch_status": status,
                    "content_mime_detected": mime,
                    "content_charset": "UTF-8",
                    "content_languages": languages,
                    "warc_filename": name,
                    "warc_record_offset": start,
                    "warc_record_length": end - start,
                }
            )
        (folder / name).write_bytes(stream.getvalue())
    return Crawl(folder, rows)


@pytest.fixture
def crawl(tmp_path: Path) -> Crawl:
    return write_crawl(tmp_path)


def read_all(shards: list[Shard]) -> list[RawDocument]:
    return [document for shard in shards for document in readers.read(shard.spec, FieldNames())]


def config_of(crawl: Crawl, **settings: Any) -> IndexConfig:
    return IndexConfig(files=(crawl.write_index(),), warc_prefix=str(crawl.folder), **settings)


@pytest.mark.parametrize("match", ["primary", "any"])
@pytest.mark.parametrize("shard_bytes", [1, 30_000, 1 << 30])
@pytest.mark.parametrize("max_gap_kb", [0, 64])
def test_picked_pages_all_come_once_in_order(crawl: Crawl, match: str, shard_bytes: int, max_gap_kb: int) -> None:
    shards = readers.plan_index(config_of(crawl, match=match, max_gap_kb=max_gap_kb), shard_bytes)
    wanted = crawl.wanted("por", first=match == "primary")
    found = read_all(shards)
    assert len(wanted) > 10
    assert [document.url for document in found] == [row["url"] for row in wanted]
    for document, row in zip(found, wanted, strict=True):
        page = row["url"].rpartition("/")[2]
        assert document.html is not None
        assert f"Página {page}: ".encode() in document.html
        assert document.source == storage.name_of(row["warc_filename"])
    assert shard_bytes > 1 or len(shards) == len(wanted)


def test_several_languages(crawl: Crawl) -> None:
    found = read_all(readers.plan_index(config_of(crawl, languages=("spa", "eng")), 1 << 20))
    assert [document.url for document in found] == [row["url"] for row in crawl.wanted("spa", "eng")]


def test_shards_are_bounded_and_the_same_on_every_call(crawl: Crawl) -> None:
    config, most = config_of(crawl, match="any"), 40_000
    shards = readers.plan_index(config, most)
    assert shards == readers.plan_index(config, most)
    lengths = {(row["warc_filename"], row["warc_record_offset"]): row["warc_record_length"] for row in crawl.rows}
    sizes = [sum(lengths[place] for place in places_of(shard)) for shard in shards]
    assert max(sizes) <= most
    assert min(left + right for left, right in itertools.pairwise(sizes)) > most  # none smaller than need be


def places_of(shard: Shard) -> list[tuple[str, int]]:
    """File and offset of each record of a shard; a place is 8 bytes of offset and 4 of length."""
    files = [(name, base64.b64decode(encoded)) for name, encoded in shard.spec["files"]]
    return [(name, *struct.unpack_from("<q", data, at)) for name, data in files for at in range(0, len(data), 12)]


@pytest.mark.parametrize("max_gap_kb", [0, 16])
def test_bytes_fetched_from_the_web_are_those_of_the_selected_records(web: Web, max_gap_kb: int) -> None:
    crawl = write_crawl(web.folder)
    crawl.write_index()
    names = [f"{web.url}/plain/index/part-{part}.parquet" for part in range(2)]
    config = IndexConfig(files=tuple(names), warc_prefix=f"{web.url}/plain", max_gap_kb=max_gap_kb)
    shards = readers.plan_index(config, 1 << 20)
    planned = web.requests()
    assert all("/index/" in request["path"] for request in planned)
    found = read_all(shards)
    fetched = web.requests()
    wanted = crawl.wanted("por")
    assert [document.url for document in found] == [row["url"] for row in wanted]
    records = sum(row["warc_record_length"] for row in wanted)
    files = sum(path.stat().st_size for path in web.folder.rglob("*.warc.gz"))
    total = sum(request["bytes"] for request in fetched)
    assert files > 15 * records
    if max_gap_kb == 0:
        assert total == records  # to the byte
    else:
        assert records <= total < records + max_gap_kb * 1024 * len(wanted)
        assert total < files / 5
        assert len(fetched) <= len(wanted)


def test_neighbours_come_in_one_request_and_the_gap_decides(web: Web) -> None:
    crawl = write_crawl(web.folder)
    one_file = [row for row in crawl.rows if row["warc_filename"].endswith("00000.warc.gz")]
    for row in one_file:
        row.update(content_languages="por", fetch_status=200, content_mime_detected="text/html")
    crawl.write_index("dense", one_file)
    # Each third of the pages has a metadata record behind it, which nobody wants.
    ends = [row["warc_record_offset"] + row["warc_record_length"] for row in one_file]
    gaps = sum(end != row["warc_record_offset"] for end, row in zip(ends, one_file[1:], strict=False))
    assert gaps > 10
    files = (f"{web.url}/plain/dense/part-0.parquet", f"{web.url}/plain/dense/part-1.parquet")
    for max_gap_kb, requests in [(0, gaps + 1), (1, 1)]:
        config = IndexConfig(files=files, warc_prefix=f"{web.url}/plain", max_gap_kb=max_gap_kb)
        shards = readers.plan_index(config, 1 << 30)
        web.requests()
        assert len(read_all(shards)) == len(one_file)
        assert len(web.requests()) == requests


def test_request_is_bounded_however_close_the_records_are(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl = write_crawl(web.folder)
    crawl.write_index()
    monkeypatch.setattr(common_crawl, "MAX_REQUEST_BYTES", 50_000)
    files = (f"{web.url}/plain/index/part-0.parquet", f"{web.url}/plain/index/part-1.parquet")
    config = IndexConfig(files=files, languages=("por", "eng", "spa"), warc_prefix=f"{web.url}/plain", max_gap_kb=1024)
    shards = readers.plan_index(config, 1 << 30)
    web.requests()
    found = read_all(shards)
    assert [document.url for document in found] == [row["url"] for row in crawl.wanted("por", "eng", "spa")]
    assert 25_000 < max(request["bytes"] for request in web.requests()) <= 50_000


@pytest.mark.slow
def test_same_documents_from_s3(s3_bucket: str, crawl: Crawl) -> None:
    local = read_all(readers.plan_index(config_of(crawl), 100_000))
    for path in crawl.folder.rglob("*"):
        if path.is_file():
            storage.publish(str(path), f"{s3_bucket}/cc/{path.relative_to(crawl.folder)}")
    config = IndexConfig(files=(f"{s3_bucket}/cc/index/*.parquet",), warc_prefix=f"{s3_bucket}/cc/")
    assert read_all(readers.plan_index(config, 100_000)) == local


def test_index_of_a_listing_leaves_out_other_subsets(web: Web) -> None:
    crawl = write_crawl(web.folder)
    table = pa.Table.from_pylist(crawl.rows, schema=SCHEMA)
    lines = []
    for subset in ("warc", "crawldiagnostics", "robotstxt"):
        name = f"cc-index/crawl=CC-TEST/subset={subset}/part-0.parquet"
        (web.folder / name).parent.mkdir(parents=True)
        pq.write_table(table, web.folder / name)
        lines.append(name)
    (web.folder / "cc-index-table.paths").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = IndexConfig(files=(f"{web.url}/plain/cc-index-table.paths",), paths_prefix=f"{web.url}/plain")
    assert common_crawl.index_files(config) == [f"{web.url}/plain/{lines[0]}"]


def cut_file(crawl: Crawl, row: dict[str, Any]) -> None:
    path = crawl.folder / row["warc_filename"]
    path.write_bytes(path.read_bytes()[: row["warc_record_offset"] + row["warc_record_length"] // 2])


def drop_file(crawl: Crawl, row: dict[str, Any]) -> None:
    (crawl.folder / row["warc_filename"]).unlink()


def damage_record(crawl: Crawl, row: dict[str, Any]) -> None:
    path = crawl.folder / row["warc_filename"]
    data = bytearray(path.read_bytes())
    middle = row["warc_record_offset"] + row["warc_record_length"] // 2
    data[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))


def shift_row(crawl: Crawl, row: dict[str, Any]) -> None:
    row["warc_record_offset"] += 1


def shorten_row(crawl: Crawl, row: dict[str, Any]) -> None:
    row["warc_record_length"] -= 300


def move_beyond_the_end(crawl: Crawl, row: dict[str, Any]) -> None:
    row["warc_record_offset"] += 1 << 30


def forget_offset(crawl: Crawl, row: dict[str, Any]) -> None:
    row["warc_record_offset"] = None


def forget_length(crawl: Crawl, row: dict[str, Any]) -> None:
    row["warc_record_length"] = None


def forget_file(crawl: Crawl, row: dict[str, Any]) -> None:
    row["warc_filename"] = None


@pytest.mark.parametrize(
    ("harm", "problems"),
    [
        (cut_file, {"truncated", "missing_record"}),
        (drop_file, {"missing_record"}),
        (damage_record, {"corrupt"}),
        (shift_row, {"bad_header"}),
        (shorten_row, {"truncated"}),
        (move_beyond_the_end, {"missing_record"}),
        (forget_offset, {"missing_record"}),
        (forget_length, {"missing_record"}),
        (forget_file, {"missing_record"}),
    ],
)
def test_record_that_cannot_be_had_is_a_named_problem_and_the_others_come(
    crawl: Crawl, harm: Callable[[Crawl, dict[str, Any]], None], problems: set[str]
) -> None:
    wanted = crawl.wanted("por")
    victim = wanted[1]
    before = {document.url: document for document in read_all(readers.plan_index(config_of(crawl), 1 << 30))}
    harm(crawl, victim)
    config = IndexConfig(files=(crawl.write_index("harmed"),), warc_prefix=str(crawl.folder))
    found = read_all(readers.plan_index(config, 1 << 30))
    assert len(found) == len(wanted)
    bad = [document for document in found if document.problem]
    assert {document.problem for document in bad} <= problems
    assert all(document.broken and (document.url or "@" in document.id) for document in bad)
    assert bad
    good = [document for document in found if not document.problem]
    assert all(document == before[document.url] for document in good)
    if harm not in (cut_file, drop_file):
        assert len(bad) == 1


def test_place_without_a_response_record_is_named(crawl: Crawl) -> None:
    row = next(row for row in crawl.wanted("por") if int(row["url"].rpartition("/")[2]) % 3 == 0)
    row["warc_record_offset"] += row["warc_record_length"]  # the metadata record behind it
    data = (crawl.folder / row["warc_filename"]).read_bytes()[row["warc_record_offset"] :]
    member = zlib.decompressobj(wbits=31)
    member.decompress(data)
    row["warc_record_length"] = len(data) - len(member.unused_data)
    index = crawl.write_index(rows=[row])
    config = IndexConfig(files=(index,), warc_prefix=str(crawl.folder))
    (document,) = read_all(readers.plan_index(config, 1 << 20))
    assert (document.problem, document.detail) == ("missing_record", "no response record at this place")


def test_place_named_twice_comes_once(crawl: Crawl) -> None:
    rows = crawl.wanted("por")[:3]
    index = crawl.write_index(rows=[row for row in rows for _ in range(2)])
    config = IndexConfig(files=(index,), warc_prefix=str(crawl.folder))
    assert [d.url for d in read_all(readers.plan_index(config, 1 << 20))] == [row["url"] for row in rows]


def test_server_that_fails_ends_the_shard_and_is_no_problem_of_the_records(web: Web, crawl: Crawl) -> None:
    config = IndexConfig(files=(crawl.write_index(),), warc_prefix=f"{web.url}/refused")
    with pytest.raises(storage.StorageError, match="cannot read: HTTP 403"):
        read_all(readers.plan_index(config, 1 << 20))


def test_index_errors_are_one_line(crawl: Crawl, tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "a.jsonl").write_bytes(b"{}")
    cases = {
        "other.parquet": r"other\.parquet: not a columnar index: no column content_languages, fetch_status",
        "broken.parquet": r"broken\.parquet: the index cannot be read: ",
        "a.jsonl": r"a\.jsonl: expected a Parquet file of the columnar index",
        "absent.parquet": r"absent\.parquet: no such input \(curate\.index\.files\)",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            readers.plan_index(IndexConfig(files=(str(tmp_path / name),)), 1 << 20)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"no page of fin \(match = primary\)"):
        readers.plan_index(config_of(crawl, languages=("fin",)), 1 << 20)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"languages": ["pt"]}, "languages = ['pt']: expected three-letter codes"),
        ({"languages": []}, "languages = []: expected three-letter codes"),
        ({"match": "second"}, "match = 'second': expected primary or any"),
        ({"max_gap_kb": -1}, "max_gap_kb = -1: expected 0 or more"),
    ],
)
def test_bad_setting_is_one_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(IndexConfig, table, "a.toml")
    assert message in str(caught.value)
