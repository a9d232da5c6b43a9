"""Stages: fingerprints, resume by shard, equal bytes whatever happens, and what is refused."""

import dataclasses
import functools
import hashlib
import json
import os
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from caravela import manifest, stages, storage
from caravela.cluster import ClusterConfig
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, run_shard

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])
CLUSTER = ClusterConfig(num_cpus=2, dashboard=False)
NUM_SHARDS = 5
ROWS = 200


@dataclasses.dataclass(frozen=True)
class Split:
    """Keeps two of three made-up documents, and leaves a mark of each call; ``trouble`` strikes once, in shard 2."""

    marks: str
    trouble: str = ""

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        first_time = not self.calls(shard.index)
        Path(self.marks, f"{shard.index}-{os.getpid()}-{len(self.calls(shard.index))}").touch()
        kept, removed = out.table("documents", SCHEMA), out.table("removed", SCHEMA)
        counters = {"documents_in": 0, "documents_kept": 0, "removed.third": 0}
        words = random.Random(shard.spec["seed"])
        for row in range(ROWS):
            text = " ".join(f"{words.getrandbits(40):x}" for _ in range(20))
            counters["documents_in"] += 1
            counters["removed.third" if row % 3 == 0 else "documents_kept"] += 1
            (removed if row % 3 == 0 else kept).add({"id": f"{shard.name}#{row}", "text": text})
            if row == ROWS // 2 and shard.index == 2:
                self.strike(first_time)
        Path(out.local_path("notes/count.txt")).write_text(str(counters), "utf-8")
        return counters

    def strike(self, first_time: bool) -> None:
        if self.trouble == "killed" and first_time:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "mistake":
            raise UserError("input.jsonl: not what was\npromised")
        if self.trouble == "bug":
            raise ZeroDivisionError("a bug of ours")

    def calls(self, index: int) -> list[str]:
        return [name for name in os.listdir(self.marks) if name.startswith(f"{index}-")]


def shards() -> list[Shard]:
    return [Shard(index=i, name=f"shard {i}", spec={"seed": i}) for i in range(NUM_SHARDS)]


def stage(tmp_path: Path, root: str = "run", trouble: str = "", **changes: Any) -> Stage:
    """A stage that runs in the driver unless told otherwise."""
    marks = tmp_path / f"{root}-marks"
    marks.mkdir(exist_ok=True)
    plain = Stage(
        name="split",
        version=1,
        root=f"{tmp_path}/{root}",
        config={"a": 1},
        inputs=(Input(name="crawl", fingerprint="f00d", uri="s3://bucket/crawl"),),
        plan=shards,
        make_worker=functools.partial(Split, str(marks), trouble),
        in_driver=True,
    )
    return dataclasses.replace(plain, **changes)


def digests(directory: str) -> dict[str, str]:
    """What readers read: every file but the records and the manifest, which hold times."""
    found = {}
    for uri in storage.list_files(directory):
        relative = uri.removeprefix(f"{directory}/")
        if not relative.startswith(("_records/", "manifest.json")):
            found[relative] = hashlib.sha256(storage.read_bytes(uri)).hexdigest()
    return found


def num_calls(tmp_path: Path, root: str = "run") -> int:
    return len(os.listdir(tmp_path / f"{root}-marks"))


def row(index: int = 0, name: str = "one", **spec: Any) -> dict[str, Any]:
    return {"index": index, "name": name, "spec": json.dumps(spec)}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"version": 2},
        {"config": {"a": 2}},
        {"inputs": (Input(name="crawl", fingerprint="beef", uri="s3://bucket/crawl"),)},
        {"inputs": ()},
    ],
)
def test_fingerprint_changes_with_what_the_output_depends_on(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert stage(tmp_path, **changes).fingerprint != stage(tmp_path).fingerprint


def test_fingerprint_does_not_change_with_place_or_resources(tmp_path: Path) -> None:
    elsewhere = (Input(name="crawl", fingerprint="f00d", uri="/moved/crawl"),)
    moved = stage(tmp_path, root="moved", inputs=elsewhere, num_cpus=4, actors=True, in_driver=False)
    assert moved.fingerprint == stage(tmp_path).fingerprint


def test_run_shard_commits_files_then_the_record(root: str, tmp_path: Path) -> None:
    answer = run_shard(row(3, "three", seed=3), Split(str(tmp_path)), root)
    record = manifest.read_records(root)[3]
    assert json.loads(answer["record"])["index"] == record.index == 3
    assert record.name == "three"
    assert [(file.table, file.path, file.rows) for file in record.files] == [
        ("documents", "part-00003.parquet", ROWS - 67),
        ("removed", "removed/part-00003.parquet", 67),
        ("files", "notes/count.txt", 0),
    ]
    assert record.counters == {"documents_in": ROWS, "documents_kept": ROWS - 67, "removed.third": 67}
    for file in record.files:
        data = storage.read_bytes(storage.join(root, file.path))
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert record.peak_memory_bytes > 10 << 20
    with storage.open_read(storage.join(root, "part-00003.parquet")) as stream:
        table = pq.read_table(stream)
    assert table.schema.equals(SCHEMA)
    assert table["id"].to_pylist() == [f"three#{i}" for i in range(ROWS) if i % 3]


def test_run_shard_that_fails_leaves_neither_files_nor_record(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_shard(row(2, seed=2), Split(str(tmp_path), "bug"), f"{tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_run_shard_that_loses_a_document_is_not_committed(tmp_path: Path) -> None:
    def lossy(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        out.table("documents", SCHEMA).add({"id": "a", "text": "b"})
        return {"documents_in": 2, "documents_kept": 1}

    with pytest.raises(AssertionError, match=r"^one: 2 documents in, but 1 kept \+ 0 removed$"):
        run_shard(row(), lossy, f"{tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_run_shard_record_is_written_after_the_files(tmp_path: Path) -> None:
    """A shard whose files cannot be put in place has no record: below the second table's folder lies a file."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "removed").write_bytes(b"in the way")
    with pytest.raises(storage.StorageError, match="cannot write"):
        run_shard(row(seed=0), Split(str(tmp_path)), f"{tmp_path}/out")
    assert manifest.read_records(f"{tmp_path}/out") == {}


def test_table_row_with_a_key_that_is_no_column_is_refused(tmp_path: Path) -> None:
    def stray(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        out.table("documents", SCHEMA).add({"id": "a", "txet": "b"})
        return {}

    with pytest.raises(AssertionError, match=r"^documents: no column for \['txet'\]$"):
        run_shard(row(), stray, f"{tmp_path}/out")


def test_table_named_twice_is_refused(tmp_path: Path) -> None:
    def twice(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        out.table("documents", SCHEMA)
        out.table("documents", SCHEMA)
        return {}

    with pytest.raises(AssertionError, match=r"^part-00000\.parquet: named twice$"):
        run_shard(row(), twice, f"{tmp_path}/out")


def test_table_without_rows_is_a_part_all_the_same(tmp_path: Path) -> None:
    def empty(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        out.table("documents", SCHEMA)
        return {}

    run_shard(row(), empty, f"{tmp_path}/out")
    assert pq.read_table(tmp_path / "out" / "part-00000.parquet").schema.equals(SCHEMA)


def test_table_writes_row_groups_of_bounded_size(tmp_path: Path) -> None:
    text = "x" * (stages.ROW_GROUP_BYTES // 4)

    def long(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        table = out.table("documents", SCHEMA)
        for i in range(10):
            table.add({"id": str(i), "text": text})
        return {}

    run_shard(row(), long, f"{tmp_path}/out")
    metadata = pq.ParquetFile(tmp_path / "out" / "part-00000.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 2]


def test_run_writes_a_manifest_that_names_all_shards(tmp_path: Path) -> None:
    done = stages.run(stage(tmp_path), CLUSTER)
    assert done == stage(tmp_path).manifest()
    assert [shard.name for shard in done.shards] == [shard.name for shard in shards()]
    assert done.counters == {"documents_in": 1000, "documents_kept": 665, "removed.third": 335}
    assert done.rows("documents") == 665
    assert manifest.read_run_index(f"{tmp_path}/run") == {"split": f"split/{done.fingerprint}"}
    manifest.verify(done)


def test_run_of_a_finished_stage_only_looks(tmp_path: Path) -> None:
    first = stages.run(stage(tmp_path), CLUSTER)
    os.remove(tmp_path / "run" / "run.json")

    def no_plan() -> Sequence[Shard]:
        raise AssertionError("planned again")

    assert stages.run(stage(tmp_path, plan=no_plan), CLUSTER) == first
    assert num_calls(tmp_path) == NUM_SHARDS
    assert manifest.read_run_index(f"{tmp_path}/run") == {"split": f"split/{first.fingerprint}"}


def test_run_resumes_by_shard_with_the_same_bytes(tmp_path: Path) -> None:
    whole = stages.run(stage(tmp_path, root="undisturbed"), CLUSTER)
    with pytest.raises(ZeroDivisionError):
        stages.run(stage(tmp_path, trouble="bug"), CLUSTER)
    assert stage(tmp_path).manifest() is None
    assert sorted(manifest.read_records(stage(tmp_path).uri)) == [0, 1]
    resumed = stages.run(stage(tmp_path), CLUSTER)
    assert num_calls(tmp_path) == NUM_SHARDS + 1  # shard 2 twice
    assert digests(resumed.uri) == digests(whole.uri)
    assert resumed.counters == whole.counters


def test_run_of_a_changed_config_lands_elsewhere(tmp_path: Path) -> None:
    first = stages.run(stage(tmp_path), CLUSTER)
    second = stages.run(stage(tmp_path, config={"a": 2}), CLUSTER)
    assert first.uri != second.uri
    assert stages.run(stage(tmp_path), CLUSTER) == first
    assert manifest.read_run_index(f"{tmp_path}/run") == {"split": f"split/{first.fingerprint}"}


def test_run_that_finish_refuses_has_no_manifest_and_keeps_its_shards(tmp_path: Path) -> None:
    def refuse(records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
        raise UserError(f"{len(records)} shards are not enough")

    with pytest.raises(UserError, match="5 shards are not enough"):
        stages.run(stage(tmp_path, finish=refuse), CLUSTER)
    assert stage(tmp_path).manifest() is None
    summed = stages.run(stage(tmp_path, finish=lambda records, uri: {"shards": len(records)}), CLUSTER)
    assert summed.summary == {"shards": NUM_SHARDS}
    assert num_calls(tmp_path) == NUM_SHARDS


def test_run_without_shards_is_finished(tmp_path: Path) -> None:
    assert stages.run(stage(tmp_path, plan=list), CLUSTER).shards == ()


def test_run_on_a_root_that_cannot_be_written_says_so_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"a file where the root should be")
    with pytest.raises(UserError, match=r"/run: cannot write to this root: "):
        stages.run(stage(tmp_path), CLUSTER)
    assert num_calls(tmp_path) == 0


def test_finished_names_the_stage_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stage split is not finished; run it first"):
        stages.finished(stage(tmp_path).as_input())
    done = stages.run(stage(tmp_path), CLUSTER)
    assert stages.finished(stage(tmp_path).as_input()) == done


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    """A Ray of this module's own, which the first stage starts."""
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("actors", [False, True], ids=["tasks", "actors"])
@pytest.mark.parametrize("trouble", ["", "killed"], ids=["undisturbed", "killed"])
def test_ray_gives_the_same_bytes_as_one_process(tmp_path: Path, on_ray: None, actors: bool, trouble: str) -> None:
    alone = stages.run(stage(tmp_path, root="alone"), CLUSTER)
    spread = stages.run(stage(tmp_path, trouble=trouble, actors=actors, in_driver=False), CLUSTER)
    assert digests(spread.uri) == digests(alone.uri)
    assert spread.counters == alone.counters
    assert [shard.name for shard in spread.shards] == [shard.name for shard in alone.shards]
    assert len(Split(f"{tmp_path}/run-marks").calls(2)) == (2 if trouble else 1)


def no_worker() -> Split:
    raise UserError("model.ftz: no such model")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("actors", [False, True], ids=["tasks", "actors"])
@pytest.mark.parametrize("trouble", ["mistake", "no worker"])
def test_ray_hands_a_mistake_of_the_user_on_as_itself(tmp_path: Path, on_ray: None, actors: bool, trouble: str) -> None:
    broken = stage(tmp_path, trouble=trouble, actors=actors, in_driver=False)
    if trouble == "no worker":
        broken = dataclasses.replace(broken, make_worker=no_worker)
    with pytest.raises(UserError) as caught:
        stages.run(broken, CLUSTER)
    assert type(caught.value) is UserError
    texts = {"mistake": "input.jsonl: not what was\npromised", "no worker": "model.ftz: no such model"}
    assert str(caught.value) == texts[trouble]
    assert broken.manifest() is None


@pytest.mark.ray
@pytest.mark.slow
def test_ray_leaves_a_bug_of_ours_as_it_is_and_the_rerun_does_what_is_missing(tmp_path: Path, on_ray: None) -> None:
    with pytest.raises(Exception, match="a bug of ours") as caught:
        stages.run(stage(tmp_path, trouble="bug", in_driver=False), CLUSTER)
    assert not isinstance(caught.value, UserError)
    finished = manifest.read_records(stage(tmp_path).uri)
    assert 2 not in finished
    before = num_calls(tmp_path)
    stages.run(stage(tmp_path, in_driver=False), CLUSTER)
    assert num_calls(tmp_path) == before + NUM_SHARDS - len(finished)
    alone = stages.run(stage(tmp_path, root="alone"), CLUSTER)
    assert digests(stage(tmp_path).uri) == digests(alone.uri)


def columns_of(rows: list[dict[str, str]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


@pytest.mark.parametrize("batch_rows", [1, 3, 10, 1000])
def test_columns_give_the_same_file_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(stages, "ROW_GROUP_BYTES", 5000)
    words = random.Random(3)
    rows = [{"id": f"{i}", "text": "x" * words.choice([0, 10, 300, 7000])} for i in range(100)]

    def write(name: str, step: int) -> bytes:
        writer = stages.TableWriter("documents", SCHEMA, f"{tmp_path}/{name}")
        for start in range(0, len(rows), step):
            writer.add_columns(columns_of(rows[start : start + step]))
            writer.add_columns(columns_of([]))
        writer.close()
        assert writer.rows == len(rows)
        return (tmp_path / name).read_bytes()

    assert write("some", batch_rows) == write("all", len(rows))
    assert pq.read_table(tmp_path / "some").to_pylist() == rows
    metadata = pq.ParquetFile(tmp_path / "some").metadata
    sizes, group = [], 0
    for row in rows:  # a group is full with the row that brings it to 5,000: 8 bytes a value and those of its strings
        group += 16 + len(row["id"]) + len(row["text"])
        if group >= 5000:
            sizes.append(group)
            group = 0
    assert metadata.num_row_groups == len(sizes) + (group > 0)
