"""Manifests and shard records: they come back as they were written, and are refused when they are not trustworthy."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caravela import manifest, storage
from caravela.config import ConfigError
from caravela.errors import UserError
from caravela.manifest import FileRecord, Input, Manifest, ShardRecord
from caravela.storage import join


def shard(index: int, *files: FileRecord, **counters: int) -> ShardRecord:
    return ShardRecord(
        index=index, name=f"shard {index}", files=files, counters=counters, seconds=1.5, peak_memory_bytes=1 << 30
    )


def table_file(table: str, path: str, rows: int = 3) -> FileRecord:
    return FileRecord(table=table, path=path, rows=rows, bytes=100, sha256="ab")


def stage_manifest(uri: str, *shards: ShardRecord, **changes: Any) -> Manifest:
    return dataclasses.replace(
        Manifest(
            stage="curate",
            version=3,
            fingerprint="0123456789abcdef",
            config={"a": [1, {"b": None}], "ç": "\u2028"},
            inputs=(Input(name="crawl", fingerprint="fedc", uri="s3://bucket/crawl"),),
            shards=shards,
            counters=manifest.sum_counters(shards),
            summary={"scores": {"f1": 0.5, "none": None}},
            versions={"python": "3.11.7"},
            started="2026-11-20T10:00:00+00:00",
            seconds=2.25,
            uri=uri,
        ),
        **changes,
    )


def test_manifest_reads_back_as_written_wherever_it_lies(root: str) -> None:
    files = (table_file("documents", "part-00000.parquet"), table_file("removed", "removed/part-00000.parquet"))
    written = stage_manifest(join(root, "curate", "x"), shard(0, *files, documents_in=6), shard(1))
    manifest.write(written)
    assert manifest.read(written.uri) == written


def test_manifest_does_not_hold_its_own_place_so_that_a_run_can_be_moved(tmp_path: Path) -> None:
    manifest.write(stage_manifest(f"{tmp_path}/a"))
    assert str(tmp_path) not in (tmp_path / "a" / "manifest.json").read_text("utf-8")
    os.rename(tmp_path / "a", tmp_path / "b")
    moved = manifest.read(f"{tmp_path}/b")
    assert moved is not None
    assert moved.uri == f"{tmp_path}/b"


def test_directory_without_manifest_does_not_exist_for_readers(root: str) -> None:
    directory = join(root, "curate", "x")
    storage.write_bytes(join(directory, "part-00000.parquet"), b"rows")
    manifest.write_record(directory, shard(0))
    assert manifest.read(directory) is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('{"stage": "cur', UserError, "manifest.json: not valid JSON: "),
        ("[]", UserError, "manifest.json: holds a list, not an object"),
        ("{}", ConfigError, "manifest.json: stage: missing, and it has no default"),
        ('{"stage": "a", "colour": 1}', ConfigError, "manifest.json: colour: unknown key"),
    ],
)
def test_manifest_that_is_broken_is_one_line_that_names_it(
    tmp_path: Path, text: str, error: type[UserError], message: str
) -> None:
    (tmp_path / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(error) as caught:
        manifest.read(str(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_a_table_come_in_shard_order() -> None:
    shards = [
        shard(0, table_file("documents", "part-00000.parquet", 2), table_file("removed", "removed/part-00000.parquet")),
        shard(1, table_file("documents", "part-00001.parquet", 5)),
    ]
    whole = stage_manifest("s3://bucket/curate/x", *shards)
    assert whole.uris("documents") == [f"s3://bucket/curate/x/part-0000{i}.parquet" for i in (0, 1)]
    assert whole.rows("documents") == 7
    assert whole.rows("removed") == 3
    assert whole.uris("absent") == []


def test_records_read_back_by_index(root: str) -> None:
    records = [shard(i, table_file("documents", f"part-{i:05d}.parquet"), kept=i) for i in (0, 1, 12)]
    for record in reversed(records):
        manifest.write_record(root, record)
    assert manifest.read_records(root) == {0: records[0], 1: records[1], 12: records[2]}
    assert manifest.read_records(join(root, "elsewhere")) == {}


def test_sum_counters_adds_per_key_and_sorts() -> None:
    records = [shard(1, z=1, a=2), shard(0, a=40)]
    assert list(manifest.sum_counters(records).items()) == [("a", 42), ("z", 1)]
    assert manifest.sum_counters([]) == {}


@pytest.mark.parametrize(
    "counters",
    [
        {},
        {"tokens": 5},
        {"documents_in": 0, "documents_kept": 0},
        {"documents_in": 5, "documents_kept": 2, "removed.language": 1, "removed.quality.short": 2, "bytes_in": 9},
    ],
)
def test_conservation_holds(counters: dict[str, int]) -> None:
    manifest.check_conservation(counters, "here")


@pytest.mark.parametrize("kept", [1, 3])
def test_conservation_is_broken_by_a_lost_or_doubled_document(kept: int) -> None:
    counters = {"documents_in": 5, "documents_kept": kept, "removed.language": 3}
    with pytest.raises(AssertionError, match=rf"^here: 5 documents in, but {kept} kept \+ 3 removed$"):
        manifest.check_conservation(counters, "here")


def finished_table(uri: str) -> Manifest:
    """A stage of one Parquet part and one other file, as they really are."""
    directory = Path(uri)
    directory.mkdir()
    pq.write_table(pa.table({"a": [1, 2, 3]}), directory / "part.parquet")
    (directory / "notes.txt").write_bytes(b"words")
    files = [
        FileRecord(
            table="documents" if name.endswith("parquet") else "files",
            path=name,
            rows=3 if name.endswith("parquet") else 0,
            bytes=(directory / name).stat().st_size,
            sha256=storage.sha256_of(f"{directory}/{name}"),
        )
        for name in ("part.parquet", "notes.txt")
    ]
    return stage_manifest(uri, shard(0, *files))


def test_verify_accepts_what_is_as_recorded(tmp_path: Path) -> None:
    manifest.verify(finished_table(f"{tmp_path}/x"))


@pytest.mark.parametrize("name", ["part.parquet", "notes.txt"])
def test_verify_names_a_missing_file(tmp_path: Path, name: str) -> None:
    whole = finished_table(f"{tmp_path}/x")
    (tmp_path / "x" / name).unlink()
    with pytest.raises(UserError, match=rf"/x/{name}: named in the manifest of curate, but missing$"):
        manifest.verify(whole)


def test_verify_names_a_file_of_another_size(tmp_path: Path) -> None:
    whole = finished_table(f"{tmp_path}/x")
    (tmp_path / "x" / "notes.txt").write_bytes(b"word")
    with pytest.raises(UserError, match=r"notes\.txt: 4 bytes, but the manifest of curate says 5$"):
        manifest.verify(whole)


def test_verify_names_a_table_with_other_rows(tmp_path: Path) -> None:
    whole = finished_table(f"{tmp_path}/x")
    part, notes = whole.shards[0].files
    wrong = dataclasses.replace(whole.shards[0], files=(dataclasses.replace(part, rows=4), notes))
    with pytest.raises(UserError, match=r"part\.parquet: 3 rows, but the manifest of curate says 4$"):
        manifest.verify(dataclasses.replace(whole, shards=(wrong,)))


def test_run_index_keeps_the_latest_directory_of_each_stage_relative_to_the_root(root: str) -> None:
    assert manifest.read_run_index(root) == {}
    manifest.update_run_index(root, "curate", join(root, "curate", "old"))
    manifest.update_run_index(root, "pack", join(root, "pack", "x"))
    manifest.update_run_index(root + "/", "curate", join(root, "curate", "new"))
    assert manifest.read_run_index(root) == {"curate": "curate/new", "pack": "pack/x"}
    assert json.loads(storage.read_text(join(root, "run.json"))) == manifest.read_run_index(root)


def test_run_index_is_not_written_again_when_nothing_changed(tmp_path: Path) -> None:
    manifest.update_run_index(str(tmp_path), "curate", f"{tmp_path}/curate/x")
    before = (tmp_path / "run.json").stat()
    manifest.update_run_index(str(tmp_path), "curate", f"{tmp_path}/curate/x")
    after = (tmp_path / "run.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
