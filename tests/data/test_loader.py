"""Batches: the rows that the order names, whoever reads them, and one line for data that is not what it should be."""

import itertools
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from caravela import storage
from caravela.data.loader import Batch, Loader, held_out_batches, num_held_out_batches
from caravela.data.rows import counted_targets
from caravela.data.training_order import Source, TrainingOrder
from caravela.errors import UserError
from caravela.manifest import Manifest
from tests.faulty_s3 import FaultyS3
from tests.packed_rows import CONTEXT, ROW_GROUP_ROWS, write_pack

TRAIN_ROWS = [30, 13, 9]


@pytest.fixture
def pack(root: str) -> Manifest:
    return write_pack(storage.join(root, "pack"), TRAIN_ROWS)


def order_of(*sources: Source, batch_rows: int = 6, steps: int = 40, window_groups: int = 2) -> TrainingOrder:
    return TrainingOrder(sources, seed=3, batch_rows=batch_rows, steps=steps, window_groups=window_groups)


def read(order: TrainingOrder, count: int, start: int = 1, rank: int = 0, num_ranks: int = 1) -> list[Batch]:
    with Loader(order, rank, num_ranks) as loader:
        return list(itertools.islice(loader.batches(start), count))


@pytest.mark.parametrize("window_groups", [1, 2, 50])
@pytest.mark.parametrize("batch_rows", [6, 45])
def test_loader_gives_the_rows_of_the_order(pack: Manifest, window_groups: int, batch_rows: int) -> None:
    order = order_of(Source("documents", pack), batch_rows=batch_rows, steps=13, window_groups=window_groups)
    batches = read(order, 99)
    assert len(batches) == 13
    expected = [order.sample(step, slot).row for step in range(1, 14) for slot in range(batch_rows)]
    ids = [ids for batch in batches for ids in batch.document_ids]
    names = [f"train-{r.group.part}-{r.group.group * ROW_GROUP_ROWS + r.row}" for r in expected]
    assert ids == [[name, f"{name}b"] for name in names]
    tables = []
    for uri in pack.uris("train"):
        with storage.open_read(uri) as file:
            tables.append(pq.read_table(file)["tokens"].to_pylist())
    tokens = [tables[r.group.part][r.group.group * ROW_GROUP_ROWS + r.row] for r in expected]
    assert np.concatenate([batch.tokens for batch in batches]).tolist() == tokens
    assert batches[0].tokens.dtype == np.int64
    assert batches[0].target_bytes == batch_rows * 3 * CONTEXT
    assert batches[0].document_starts == [[0, 5]] * batch_rows


@pytest.mark.parametrize("num_ranks", [2, 3, 4, 8])
def test_loader_ranks_together_read_what_one_reads(pack: Manifest, num_ranks: int) -> None:
    order = order_of(Source("documents", pack))
    alone = read(order, 12)
    shares = [read(order, 12, 1, rank, num_ranks) for rank in range(num_ranks)]
    for batch, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert np.array_equal(batch.tokens, np.concatenate([part.tokens for part in parts if len(part.tokens)]))
        assert batch.document_ids == [ids for part in parts for ids in part.document_ids]


def test_loader_resumed_equals_unbroken(pack: Manifest) -> None:
    order = order_of(Source("documents", pack))
    unbroken = read(order, 40)
    for start in (1, 8, 13, 36):
        for a, b in zip(unbroken[start : start + 4], read(order, 4, start + 1), strict=True):
            assert np.array_equal(a.tokens, b.tokens)


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_loader_mixes_sources_as_the_order_says(tmp_path: Path, num_ranks: int) -> None:
    web, books = write_pack(f"{tmp_path}/web", [30, 13]), write_pack(f"{tmp_path}/books", [9])
    order = order_of(Source("web", web, 0.7), Source("books", books, 0.3), batch_rows=8, steps=16)
    shares = [read(order, 16, 1, rank, num_ranks) for rank in range(num_ranks)]
    for step, parts in enumerate(zip(*shares, strict=True), 1):
        expected = [order.sample(step, slot) for slot in range(8)]
        assert [source for part in parts for source in part.sources] == [sample.source for sample in expected]
        divided = [source for part in parts for source in part.rows(0, 8, CONTEXT // 2).sources]
        assert divided == [sample.source for sample in expected for _ in range(2)]
        names = [f"train-{r.group.part}-{r.group.group * ROW_GROUP_ROWS + r.row}" for _, r in expected]
        assert [ids[0] for part in parts for ids in part.document_ids] == names


def test_batch_of_a_shorter_context_has_every_target_once(pack: Manifest) -> None:
    batch = read(order_of(Source("documents", pack)), 1)[0]
    tokens, starts, padding, sources = batch.rows(1, 4, CONTEXT // 4)
    assert tokens.shape == (3 * 4, CONTEXT // 4 + 1)
    assert np.array_equal(tokens[:, 1:].reshape(3, -1), batch.tokens[1:4, 1:])
    assert np.array_equal(tokens[:, :-1].reshape(3, -1), batch.tokens[1:4, :-1])
    assert starts == [[0], [1], [], []] * 3, "documents begin at 0 and 5 of 16"
    assert not padding.any()
    assert sources == [0] * 12
    whole, whole_starts, *_ = batch.rows(0, 6, CONTEXT)
    assert np.array_equal(whole, batch.tokens)
    assert whole_starts == batch.document_starts


@pytest.mark.parametrize(
    ("padding", "divided"), [(0, [0, 0, 0, 0]), (3, [0, 0, 0, 3]), (4, [0, 0, 0, 4]), (11, [0, 3, 4, 4])]
)
def test_batch_of_a_shorter_context_keeps_its_padding(tmp_path: Path, padding: int, divided: list[int]) -> None:
    pack = write_pack(os.fspath(tmp_path), [12], padding=padding)
    batch = read(order_of(Source("documents", pack)), 1)[0]
    assert batch.padding.tolist() == [padding] * 6
    assert batch.num_targets == 6 * (CONTEXT - padding)
    tokens, _, found, _ = batch.rows(0, 2, CONTEXT // 4)
    assert found.tolist() == divided * 2, "of 16 targets the last are padding, cut into fours"
    counted = counted_targets(found, CONTEXT // 4)
    kept = np.concatenate([row[1:][mask] for row, mask in zip(tokens, counted, strict=True)])
    assert kept.tolist() == [token for row in batch.tokens[:2] for token in row[1 : CONTEXT + 1 - padding]]


def test_loader_of_too_little_memory_is_refused(pack: Manifest) -> None:
    with pytest.raises(UserError, match=r"train.loader_memory_mb = 0.01: 4 row groups of each source take up to 0 MB"):
        Loader(order_of(Source("documents", pack)), memory_mb=0.01)


def test_loader_asks_for_no_more_row_groups_than_it_may_hold(pack: Manifest) -> None:
    order = order_of(Source("documents", pack), batch_rows=2, steps=300)
    with Loader(order) as loader:
        for _ in itertools.islice(loader.batches(1), 300):
            assert len(loader._caches[0]._groups) <= 4


@pytest.mark.slow
def test_loader_gives_the_same_from_a_server_that_fails_and_stalls(
    s3_server: str, s3_bucket: str, tmp_path: Path
) -> None:
    local = write_pack(os.fspath(tmp_path / "pack"), TRAIN_ROWS)
    remote = write_pack(f"{s3_bucket}/pack", TRAIN_ROWS)
    expected = read(order_of(Source("documents", local)), 40)
    begun = time.monotonic()
    with FaultyS3(s3_server, tmp_path / "requests", fail=0.1, stall=0.06, stall_s=300) as server:
        found = read(order_of(Source("documents", remote)), 40)
        fates = server.fates()
    assert time.monotonic() - begun < 200, "a stalled request takes 300 s; none was waited for"
    for a, b in zip(expected, found, strict=True):
        assert np.array_equal(a.tokens, b.tokens)
        assert a.document_ids == b.document_ids
    assert fates.keys() == {"passed", "failed", "stalled"}


def test_held_out_rows_are_spread_and_split_over_ranks(pack: Manifest) -> None:
    def ids(max_rows: int, rank: int = 0, num_ranks: int = 1) -> list[str]:
        batches = held_out_batches(pack, max_rows, 2, rank, num_ranks)
        return [names[0] for batch in batches for names in batch.document_ids]

    assert ids(100) == [f"validation-0-{row}" for row in range(10)]
    assert ids(5) == [f"validation-0-{row}" for row in (0, 2, 4, 6, 8)]
    assert ids(5, 0, 2) + ids(5, 1, 2) == ids(5)
    assert [len(ids(5, rank, 2)) for rank in range(2)] == [2, 3], "two rows a batch, and batches stay whole"
    assert num_held_out_batches(pack, 5, 2) == 3
    assert num_held_out_batches(pack, 100, 4) == 3


def test_loader_missing_part_is_one_line(tmp_path: Path) -> None:
    pack = write_pack(os.fspath(tmp_path), [8])
    os.remove(pack.uris("train")[0])
    with pytest.raises(UserError, match=r"part-00000.parquet: named in the manifest of pack, but missing"):
        read(order_of(Source("documents", pack)), 1)


def test_loader_part_of_another_size_is_refused(tmp_path: Path) -> None:
    pack = write_pack(os.fspath(tmp_path), [8])
    part = Path(pack.uris("train")[0])
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"part-00000.parquet: \d+ bytes, but the manifest of pack says \d+"):
        read(order_of(Source("documents", pack)), 1)


def test_loader_corrupt_part_is_one_line(tmp_path: Path) -> None:
    pack = write_pack(os.fspath(tmp_path), [8])
    part = Path(pack.uris("train")[0])
    data = bytearray(part.read_bytes())
    data[4:200] = b"\xff" * 196
    part.write_bytes(data)
    with pytest.raises(UserError, match=r"part-00000.parquet: row group 0 cannot be read: .*; pack again"):
        read(order_of(Source("documents", pack)), 1)
