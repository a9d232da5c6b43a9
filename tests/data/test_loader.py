"""Batches: the rows that the order names, whoever reads them, and one line for data that is not what it should be."""

import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from caravela import storage
from caravela.data.loader import Batch, Loader, Source, held_out_batches, mixture_of
from caravela.errors import UserError
from caravela.manifest import Manifest
from tests.packed_rows import CONTEXT, ROW_GROUP_ROWS, write_pack

TRAIN_ROWS = [30, 13, 9]


@pytest.fixture
def pack(root: str) -> Manifest:
    return write_pack(storage.join(root, "pack"), TRAIN_ROWS)


def first(pack: Manifest, count: int, start: int = 0, rank: int = 0, num_ranks: int = 1, rows: int = 6) -> list[Batch]:
    sources = [Source("documents", pack)]
    with Loader(sources, 3, rows, window_groups=2, rank=rank, num_ranks=num_ranks) as loader:
        return list(itertools.islice(loader.batches(start), count))


def test_loader_gives_the_rows_of_the_order(pack: Manifest) -> None:
    with Loader([Source("documents", pack)], 3, 6, window_groups=2) as loader:
        expected = [loader.order.row(position)[1] for position in range(4 * 6)]
        batches = list(itertools.islice(loader.batches(0), 4))
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
    assert batches[0].target_bytes == 6 * 3 * CONTEXT
    assert batches[0].document_starts == [[0, 5]] * 6


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_loader_ranks_together_read_what_one_reads(pack: Manifest, num_ranks: int) -> None:
    alone = first(pack, 12)
    shares = [first(pack, 12, 0, rank, num_ranks) for rank in range(num_ranks)]
    for batch, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert np.array_equal(batch.tokens, np.concatenate([part.tokens for part in parts]))
        assert batch.document_ids == [ids for part in parts for ids in part.document_ids]


def test_loader_resumed_equals_unbroken(pack: Manifest) -> None:
    unbroken = first(pack, 20)
    for start in (1, 8, 13):
        resumed = first(pack, 5, start)
        for a, b in zip(unbroken[start : start + 5], resumed, strict=True):
            assert np.array_equal(a.tokens, b.tokens)


def two_packs(folder: Path) -> tuple[Manifest, Manifest]:
    return write_pack(f"{folder}/web", [30, 13]), write_pack(f"{folder}/books", [9])


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
def test_loader_mixes_sources_by_weight_whatever_the_ranks(tmp_path: Path, num_ranks: int) -> None:
    web, books = two_packs(tmp_path)
    sources = [Source("web", web, 0.7), Source("books", books, 0.3)]
    found: list[tuple[int, str]] = []
    shares: list[list[Batch]] = []
    for rank in range(num_ranks):
        with Loader(sources, 3, 8, window_groups=2, rank=rank, num_ranks=num_ranks) as loader:
            shares.append(list(itertools.islice(loader.batches(0), 16)))
    for parts in zip(*shares, strict=True):
        found += [
            (source, ids[0]) for part in parts for source, ids in zip(part.sources, part.document_ids, strict=True)
        ]
    for prefix in range(1, len(found) + 1):
        assert abs(sum(source for source, _ in found[:prefix]) - 0.3 * prefix) < 1
    seen = [[name for source, name in found if source == number] for number in (0, 1)]
    assert len(set(seen[0][:43])) == 43, "each row of an epoch once"
    assert all(len(set(seen[1][k : k + 9])) == 9 for k in range(0, 36, 9))
    assert seen[1][:9] != seen[1][9:18], "epochs differ"


def test_loader_source_keeps_its_order_beside_others(tmp_path: Path) -> None:
    web, books = two_packs(tmp_path)
    alone = mixture_of([Source("web", web)], 3, 2)
    beside = mixture_of([Source("books", books, 3), Source("web", web, 5, 2.5)], 3, 2)
    rows = [row for source, row in map(beside.row, range(60)) if source == 1]
    assert rows == [alone.row(position)[1] for position in range(len(rows))]


def test_loader_ends_with_its_sources(tmp_path: Path) -> None:
    web, books = two_packs(tmp_path)
    sources = [Source("web", web, 0.5, 1), Source("books", books, 0.5, 2)]
    with Loader(sources, 3, 6, window_groups=2) as loader:
        batches = list(loader.batches(0))
    assert len(batches) == (43 + 18) // 6
    assert sum(batch.sources.count(1) for batch in batches) == 18


def test_loader_sources_packed_otherwise_are_refused(tmp_path: Path) -> None:
    web, books = two_packs(tmp_path)
    other = dataclasses.replace(books, summary={**books.summary, "context": 32})
    with pytest.raises(UserError, match=r"different contexts \(web: 16, books: 32\)"):
        mixture_of([Source("web", web), Source("books", other)], 3, 2)


def test_held_out_rows_are_spread_and_split_over_ranks(pack: Manifest) -> None:
    def ids(max_rows: int, rank: int = 0, num_ranks: int = 1) -> list[str]:
        batches = held_out_batches(pack, max_rows, 2, rank, num_ranks)
        return [names[0] for batch in batches for names in batch.document_ids]

    assert ids(100) == [f"validation-0-{row}" for row in range(10)]
    assert ids(5) == [f"validation-0-{row}" for row in (0, 2, 4, 6, 8)]
    assert ids(5, 0, 2) + ids(5, 1, 2) == ids(5)


def test_loader_missing_part_is_one_line(tmp_path: Path) -> None:
    pack = write_pack(os.fspath(tmp_path), [8])
    os.remove(pack.uris("train")[0])
    with pytest.raises(UserError, match=r"part-00000.parquet: named in the manifest of pack, but missing"):
        first(pack, 1)


def test_loader_part_of_another_size_is_refused(tmp_path: Path) -> None:
    pack = write_pack(os.fspath(tmp_path), [8])
    part = Path(pack.uris("train")[0])
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"part-00000.parquet: \d+ bytes, but the manifest of pack says \d+"):
        first(pack, 1)


def test_loader_corrupt_part_is_one_line(tmp_path: Path) -> None:
    pack = write_pack(os.fspath(tmp_path), [8])
    part = Path(pack.uris("train")[0])
    data = bytearray(part.read_bytes())
    data[4:200] = b"\xff" * 196
    part.write_bytes(data)
    with pytest.raises(UserError, match=r"part-00000.parquet: row group 0 cannot be read: .*; pack again"):
        first(pack, 1)
