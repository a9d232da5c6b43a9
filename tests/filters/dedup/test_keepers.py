"""The check at the end of dedup sees decisions that were damaged, and documents that were replaced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.stages import Shard, Stage
from filters.dedup import partitions
from filters.dedup.config import DedupConfig
from filters.dedup.road import dedup_stages
from filters.dedup.tables import DECISIONS
from tests.filters.dedup.test_dedup_stages import Documents, corpus, dedup
from tests.road_without_ray import finish

SHARDS = 3
Rows = list[dict[str, Any]]


def until_clusters(root: Path, rows: list[dict[str, str]], config: DedupConfig) -> tuple[Manifest, Stage]:
    """The finished clusters, and the last stage, still to be run."""
    curated = Stage(
        name="curate",
        version=1,
        root=str(root),
        config={},
        inputs=(),
        plan=lambda: [Shard(index=i, name=str(i), spec={}) for i in range(SHARDS)],
        make_worker=lambda: Documents(rows, SHARDS),
    )
    finish(curated)
    *others, last = dedup_stages(str(root), config, curated.as_input())
    return [finish(stage) for stage in others][-1], last


def damage(clusters: Manifest, change: Callable[[list[Rows]], None]) -> None:
    """Writes the decisions again, as whole files with right checksums, after a change of their rows by shard."""
    (uri,) = clusters.uris("decisions")
    tables = [partitions.read(uri, i, SHARDS, DECISIONS).to_pylist() for i in range(SHARDS)]
    change(tables)
    partitions.write(uri, DECISIONS, [pa.Table.from_pylist(rows, schema=DECISIONS) for rows in tables])


def lost(tables: list[Rows]) -> Rows:
    return [row for rows in tables for row in rows if not row["keep"]]


def kept(tables: list[Rows]) -> Rows:
    return [row for rows in tables for row in rows if row["keep"]]


def name_a_stranger(tables: list[Rows]) -> None:
    lost(tables)[0]["kept_id"] = "nobody"


def name_a_removed_one(tables: list[Rows]) -> None:
    """A document that exists, of the same cluster, and was removed."""
    large = next(row for row in kept(tables) if row["cluster_size"] > 2)
    one, other = [row for row in lost(tables) if row["cluster"] == large["cluster"]][:2]
    rows = corpus(seed=1)
    shard = next(i for i, own in enumerate(tables) if other in own)
    one["kept_id"] = rows[shard::SHARDS][other["row"]]["id"]


def name_the_keeper_of_another(tables: list[Rows]) -> None:
    one = lost(tables)[0]
    other = next(row for row in lost(tables) if row["cluster"] != one["cluster"])
    one["kept_id"], other["kept_id"] = other["kept_id"], one["kept_id"]


def move_to_another_cluster(tables: list[Rows]) -> None:
    one = lost(tables)[0]
    one["cluster"] = next(row["cluster"] for row in lost(tables) if row["cluster"] != one["cluster"])


def keep_another(tables: list[Rows]) -> None:
    """One is kept for the other, so that all numbers are as before."""
    one = next(rows for rows in tables if {row["keep"] for row in rows} == {True, False})
    stays, goes = (next(row for row in one if row["keep"] is keep) for keep in (True, False))
    stays["keep"], goes["keep"] = False, True


def lose_a_decision(tables: list[Rows]) -> None:
    for rows in tables:
        rows[:] = rows[1:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (name_a_stranger, "removed documents name as kept what is not kept, or not in their cluster; delete"),
        (name_a_removed_one, "removed documents name as kept what is not kept"),
        (name_the_keeper_of_another, "removed documents name as kept what is not kept"),
        (move_to_another_cluster, "removed documents name as kept what is not kept"),
        (keep_another, "removed documents name as kept what is not kept"),
        (lose_a_decision, r"\d+ documents in clusters, but the clusters say \d+; delete"),
    ],
)
def test_dedup_refuses_damaged_decisions(tmp_path: Path, change: Callable[[list[Rows]], None], message: str) -> None:
    clusters, last = until_clusters(tmp_path, corpus(seed=1), DedupConfig())
    damage(clusters, change)
    with pytest.raises(UserError, match=message) as refusal:
        finish(last)
    assert "\n" not in str(refusal.value)
    assert last.manifest() is None


def test_dedup_takes_decisions_that_were_written_again_unchanged(tmp_path: Path) -> None:
    clusters, last = until_clusters(tmp_path, corpus(seed=1), DedupConfig())
    damage(clusters, lambda tables: None)
    finish(last)


def test_dedup_refuses_documents_that_were_replaced_since_their_signatures(tmp_path: Path) -> None:
    rows = corpus(seed=1)
    _, last = until_clusters(tmp_path, rows, DedupConfig())
    replaced = [{**row, "id": f"other {row['id']}"} for row in rows]
    (folder,) = (tmp_path / "curate").iterdir()
    until_clusters(tmp_path / "again", replaced, DedupConfig())
    (again,) = (tmp_path / "again" / "curate").iterdir()
    for part in again.glob("part-*.parquet"):
        (folder / part.name).write_bytes(part.read_bytes())
    with pytest.raises(UserError, match="Were the documents replaced since, delete the signatures too"):
        finish(last)


def test_dedup_against_an_index_checks_keepers_of_the_index_too(tmp_path: Path) -> None:
    rows = corpus(seed=1)
    dedup(tmp_path / "old", rows[::2], DedupConfig())
    config = DedupConfig(index=(str(tmp_path / "old"),))
    clusters, last = until_clusters(tmp_path / "new", rows, config)
    finish(last)
    assert clusters.counters["index_keepers"] > 0
    clusters, last = until_clusters(tmp_path / "damaged", rows, config)
    damage(clusters, lambda tables: lost(tables)[0].update(kept_id="nobody"))
    with pytest.raises(UserError, match="removed documents name as kept what is not kept"):
        finish(last)
