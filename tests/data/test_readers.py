"""Planning and reading of inputs: every row comes out once, as a document or as a named problem."""

import csv
import gzip
import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from caravela import storage
from caravela.data import readers, tables
from caravela.data.readers import FieldNames
from caravela.errors import UserError
from caravela.storage import StorageError
from tests.conftest import Web

ROWS = [
    {"id": f"d{i}", "text": f"Texto número {i}. " + "palavra " * (i % 7), "url": f"http://a.example/{i}", "nota": i}
    for i in range(101)
]


def read_all(path: Path, shard_bytes: int, names: FieldNames | None = None) -> list[readers.RawDocument]:
    shards = readers.plan_shards(readers.expand([str(path)]), shard_bytes)
    return [document for shard in shards for document in readers.read(shard.spec, names or FieldNames())]


@pytest.mark.parametrize("shard_bytes", [1, 57, 1000, 1 << 20])
@pytest.mark.parametrize("last_newline", [True, False])
def test_jsonl_any_byte_ranges_give_every_line_once(tmp_path: Path, shard_bytes: int, last_newline: bool) -> None:
    path = tmp_path / "a.jsonl"
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    path.write_text(lines + "\n" * last_newline, encoding="utf-8")
    found = read_all(path, shard_bytes)
    assert [d.id for d in found if not d.problem] == [row["id"] for row in ROWS]
    assert [d.text for d in found if not d.problem] == [row["text"] for row in ROWS]
    assert found[3].metadata == {"nota": 3}


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_jsonl_compressed_equals_plain(tmp_path: Path, ending: str) -> None:
    data = "\n".join(json.dumps(row) for row in ROWS).encode()
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(gzip.compress(data) if ending == "gz" else zstandard.compress(data))
    assert [d.text for d in read_all(path, 100)] == [row["text"] for row in ROWS]


@pytest.mark.parametrize("shard_bytes", [1, 2000, 1 << 20])
def test_parquet_row_groups_give_every_row_once(tmp_path: Path, shard_bytes: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=10)
    found = read_all(path, shard_bytes)
    assert [(d.id, d.text, d.url) for d in found] == [(r["id"], r["text"], r["url"]) for r in ROWS]


def test_rows_without_an_id_get_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"conteudo": ["um", "dois", "três"]}), path, row_group_size=1)
    found = read_all(path, 1, FieldNames(text="conteudo"))
    assert [(d.id, d.text) for d in found] == [("a.parquet#0", "um"), ("a.parquet#1", "dois"), ("a.parquet#2", "três")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{not json", "bad_json"),
        (b"[1, 2]", "bad_json"),
        (b'{"id": "x"}', "no_text_field"),
        (b'{"text": 7}', "no_text_field"),
        (b"\xff\xfe\x00", "bad_json"),
        (b"[" * 100_000, "bad_json"),
    ],
)
def test_jsonl_bad_line_is_named_and_the_next_is_read(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line + b'\n{"text": "bom"}\n')
    bad, good = read_all(path, 1 << 20)
    assert (bad.problem, bad.broken) == (problem, True)
    assert good.text == "bom"


def test_jsonl_lone_surrogate_can_be_stored(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a\\ud800b"}\n')
    (document,) = read_all(path, 1 << 20)
    assert document.text is not None
    document.text.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.parquet", b"PAR1 but not really", "broken_file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 1000, mtime=0)[:40], "broken_file"),
        ("a.jsonl.gz", b"plain", "broken_file"),
        ("a.warc.gz", b"", "empty_file"),
        ("a.warc.gz", b"no warc", "bad_header"),
        ("a.jsonl", b"", "empty_file"),
    ],
)
def test_broken_file_is_one_named_problem(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = read_all(tmp_path / name, 1 << 20)
    assert found[-1].problem == problem
    assert found[-1].broken


def test_missing_text_column_names_the_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"corpo": ["x"]}), tmp_path / "a.parquet")
    (document,) = read_all(tmp_path / "a.parquet", 1 << 20)
    assert "corpo" in document.detail


@pytest.mark.parametrize("pattern", ["missing.jsonl", "*.warc.gz"])
def test_expand_without_match_is_one_line(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match="no such input"):
        readers.expand([str(tmp_path / pattern)])


def test_expand_unknown_format_names_those_it_knows(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.docx: format not known.*\.warc"):
        readers.expand([str(tmp_path / "*")])


def csv_of(rows: list[list[str]], delimiter: str = ",", newline: str = "\r\n") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=newline).writerows(rows)
    return text.getvalue().encode()


CSV_ROWS = [
    ["c0", "Uma frase, com vírgula; e ponto e vírgula", "http://a.example/0", "x"],
    ["c1", 'Disse "olá"\ne foi-se.\r\nFim.', "http://a.example/1", ""],
    ["c2", "com\ttabulação", "", "y"],
    ["", "sem id", "", ""],
    ["c4", "grande " * 40_000, "", ""],
]
CSV_HEADER = ["id", "text", "url", "nota"]


def packed(name: str, data: bytes) -> bytes:
    return {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rpartition(".")[2], bytes)(data)


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv.gz", ","), ("a.tsv.zst", "\t"), ("A.CSV", ",")],
)
def test_csv_quotes_line_breaks_and_big_fields(tmp_path: Path, name: str, delimiter: str, newline: str) -> None:
    (tmp_path / name).write_bytes(packed(name, csv_of([CSV_HEADER, *CSV_ROWS], delimiter, newline)))
    found = read_all(tmp_path / name, 100)
    assert [d.text for d in found] == [row[1] for row in CSV_ROWS]
    assert [d.id for d in found] == ["c0", "c1", "c2", f"{name}#3", "c4"]
    assert [d.metadata for d in found] == [{"nota": "x"}, {}, {"nota": "y"}, {}, {}]


def test_csv_random_fields_come_back(tmp_path: Path) -> None:
    chance = random.Random(3)
    rows = [["".join(chance.choices('ab",;\n\r\t ç', k=chance.randrange(12))) + "." for _ in "12"] for _ in range(500)]
    (tmp_path / "a.csv").write_bytes(csv_of([["text", "outro"], *rows]))
    found = read_all(tmp_path / "a.csv", 100)
    assert [(d.text, d.metadata["outro"]) for d in found] == [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("middle", "bad"),
    [
        (b'"aspas que n\xc3\xa3o fecham,x\n', 1),
        (b"um\n", 1),
        (b"um,dois,tr\xc3\xaas\n", 1),
        (b'"fim" depois,x\n', 1),
        (b'"abre\n"e fecha,x\n', 2),
        (b"\n\n", 0),
    ],
)
def test_csv_bad_row_is_set_aside_and_the_next_are_read(tmp_path: Path, middle: bytes, bad: int) -> None:
    after = b"".join(b"bom %d,x\n" % i for i in range(50)) + b'"com ""aspas""",x\n'
    (tmp_path / "a.csv").write_bytes(b"text,nota\nantes,x\n" + middle + after)
    found = read_all(tmp_path / "a.csv", 1 << 20)
    wrong = [d for d in found if d.problem]
    assert [d.problem for d in wrong] == ["bad_row"] * bad
    assert all(d.broken and d.detail for d in wrong)
    assert [d.text for d in found if not d.problem] == ["antes", *(f"bom {i}" for i in range(50)), 'com "aspas"']
    assert [d.id for d in found] == [f"a.csv#{i}" for i in range(len(found))]


def test_csv_row_without_end_costs_its_first_line_and_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_CSV_ROW", 10_000)
    rows = b"".join(b"bom %d,x\n" % i for i in range(3000))
    (tmp_path / "a.csv").write_bytes(b'text,nota\n"nunca fecha,x\n' + rows + b"y" * 50_000 + b",x\nfim,x\n")
    found = read_all(tmp_path / "a.csv", 1 << 20)
    assert [(d.id, d.problem) for d in found if d.problem] == [("a.csv#0", "bad_row"), ("a.csv#3001", "bad_row")]
    assert [d.text for d in found if not d.problem] == [*(f"bom {i}" for i in range(3000)), "fim"]


def test_csv_windows_1252_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufefftext;n\ncoração;1\n".encode() + "ação;2\n".encode("cp1252"))
    assert [d.text for d in read_all(tmp_path / "a.csv", 100)] == ["coração", "ação"]


def test_csv_names_of_fields(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(csv_of([["titulo", "corpo"], ["T", "Texto."]], "\t"))
    (document,) = read_all(tmp_path / "a.tsv", 100, FieldNames(text="corpo", id="titulo"))
    assert (document.id, document.text) == ("T", "Texto.")
    (document,) = read_all(tmp_path / "a.tsv", 100)
    assert (document.problem, document.detail) == (
        "broken_file",
        "a.tsv: no column 'text'; the header is titulo, corpo",
    )


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"", "empty_file"), (b"text\n", "empty_file"), (b'"te\n', "broken_file"), (b"\x00\xff\n", "broken_file")],
)
def test_csv_without_rows_or_header(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    (document,) = read_all(tmp_path / "a.csv", 100)
    assert document.problem == problem


def write_inputs(folder: Path) -> list[str]:
    """The same rows in every format; the names."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(json.dumps(row) for row in ROWS).encode()
    rows = csv_of([["id", "text", "url", "nota"], *([str(value) for value in row.values()] for row in ROWS)])
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress(lines))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "c.parquet", row_group_size=10)
    (folder / "d.csv.gz").write_bytes(gzip.compress(rows))
    return ["a.jsonl", "b.jsonl.zst", "c.parquet", "d.csv.gz"]


def read_uris(uris: list[str]) -> list[str | None]:
    shards = readers.plan_shards(uris, 2000)
    return [document.text for shard in shards for document in readers.read(shard.spec, FieldNames())]


def test_files_on_the_web_read_as_on_disk(web: Web) -> None:
    names = write_inputs(web.folder)
    uris = readers.expand([f"{web.url}/plain/{name}?token=secret" for name in names])
    assert read_uris(uris) == [row["text"] for row in ROWS] * 4
    inputs = readers.fingerprint_inputs(uris)
    assert [i.name for i in inputs] == names
    assert "secret" not in str(inputs)


def test_data_set_on_the_hub_reads_by_glob(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setenv("HF_TOKEN", "secret")
    write_inputs(web.folder / "datasets" / "owner" / "rows" / "data")
    uris = readers.expand(["hf://datasets/owner/rows/data/*.jsonl*", "hf://datasets/owner/rows/**/*.parquet"])
    assert [uri.rpartition("/")[2] for uri in uris] == ["a.jsonl", "b.jsonl.zst", "c.parquet"]
    assert read_uris(uris) == [row["text"] for row in ROWS] * 3


@pytest.mark.slow
def test_files_in_s3_read_as_on_disk(s3_bucket: str, tmp_path: Path) -> None:
    for name in write_inputs(tmp_path):
        storage.publish(str(tmp_path / name), f"{s3_bucket}/in/{name}")
    assert read_uris(readers.expand([f"{s3_bucket}/in/*"])) == [row["text"] for row in ROWS] * 4


@pytest.mark.parametrize("name", ["a.paths", "warc.paths.gz"])
def test_listing_stands_for_its_files(tmp_path: Path, web: Web, name: str) -> None:
    names = write_inputs(web.folder / "crawl-data")
    lines = [*(f"crawl-data/{name}" for name in names), "", "s3://bucket/e.warc.gz", ""]
    data = "\r\n".join(lines).encode()
    (tmp_path / name).write_bytes(packed(name, data))
    found = readers.expand([str(tmp_path / name)], f"{web.url}/plain/")
    assert found == [*(f"{web.url}/plain/crawl-data/{name}" for name in names), "s3://bucket/e.warc.gz"]
    assert read_uris(found[:-1]) == [row["text"] for row in ROWS] * 4
    (tmp_path / "b.paths").write_text("CC/x.warc.gz\n")
    assert readers.expand([str(tmp_path / "b.paths")]) == ["https://data.commoncrawl.org/CC/x.warc.gz"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1f\x8b\x08 no", "not a listing"),
        (gzip.compress(b"a.warc.gz\n", mtime=0)[:-9], "cut short"),
        (gzip.compress(b"\xff\xfe\n", mtime=0), "not a listing"),
        (gzip.compress(b"<html>\n", mtime=0), "format not known"),
    ],
)
def test_bad_listing_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.paths.gz").write_bytes(data)
    with pytest.raises(UserError, match=message):
        readers.expand([str(tmp_path / "a.paths.gz")])


def test_listed_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.paths").write_text("absent.jsonl\n")
    with pytest.raises(UserError, match=r"absent\.jsonl: no such input"):
        readers.fingerprint_inputs(readers.expand([str(tmp_path / "a.paths")], str(tmp_path)))


def test_archives_of_common_crawl_are_known_by_their_names_on_both_of_its_addresses() -> None:
    name = "crawl-data/CC-MAIN-2026-43/segments/1/warc/CC-MAIN-0.warc.gz"
    uris = [f"https://data.commoncrawl.org/{name}", f"s3://commoncrawl/{name}"]
    first, second = readers.fingerprint_inputs(uris)
    assert first.fingerprint == second.fingerprint
    assert len(readers.plan_shards(uris, 1 << 20)) == 2


def test_storage_that_fails_is_no_broken_file(web: Web) -> None:
    write_inputs(web.folder)
    (spec,) = (shard.spec for shard in readers.plan_shards([f"{web.url}/refused/b.jsonl.zst"], 1 << 20))
    with pytest.raises(StorageError, match="HTTP 403 Forbidden"):
        list(readers.read(spec, FieldNames()))
