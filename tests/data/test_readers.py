"""Planning and reading of inputs: every row comes out once, as a document or as a named problem."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from caravela.data import readers
from caravela.data.readers import FieldNames
from caravela.errors import UserError

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
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 1000)[:40], "broken_file"),
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
