"""Deduplication end to end, without Ray, against brute force over all pairs."""

import random
import re
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from caravela import schema
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from filters.dedup.config import DedupConfig
from filters.dedup.stages import (
    clusters_stage,
    dedup_stage,
    duplicates_stage,
    exact_hash,
    partition_starts,
    signatures_stage,
)
from tests.road_without_ray import finish


class Documents:
    """Stands in for curation: writes given rows."""

    def __init__(self, rows: list[dict[str, str]], shards: int) -> None:
        self.rows, self.shards = rows, shards

    def __call__(self, shard: Shard, out: ShardOutput) -> dict[str, int]:
        own = self.rows[shard.index :: self.shards]
        table = out.table("documents", schema.documents())
        for row in own:
            table.add(row)
        return {"documents_in": len(own), "documents_kept": len(own)}


def dedup(root: Path, rows: list[dict[str, str]], config: DedupConfig, shards: int = 3) -> tuple[Manifest, list, list]:
    """The manifest of the last stage, the kept and the removed rows."""
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(shards)]
    curated = Stage(
        name="curate",
        version=1,
        root=str(root),
        config={"shards": shards},
        inputs=(),
        plan=lambda: plan,
        make_worker=lambda: Documents(rows, shards),
    )
    finish(curated)
    signatures = signatures_stage(str(root), config, curated.as_input())
    finish(signatures)
    duplicates = duplicates_stage(str(root), config, signatures.as_input())
    finish(duplicates)
    clusters = clusters_stage(str(root), config, signatures.as_input(), duplicates.as_input())
    finish(clusters)
    done = finish(dedup_stage(str(root), config, curated.as_input(), clusters.as_input()))
    tables = [[row for uri in done.uris(t) for row in pq.read_table(uri).to_pylist()] for t in ("documents", "removed")]
    return done, tables[0], tables[1]


def jaccard(a: str, b: str) -> float:
    one, other = (
        {tuple(w[i : i + 5]) for i in range(max(1, len(w) - 4))}
        for w in (re.findall(r"\w+", t.lower()) for t in (a, b))
    )
    return len(one & other) / len(one | other)


def corpus(seed: int) -> list[dict[str, str]]:
    """Forty random bases; some with exact copies, near copies (2 % of words changed) and half copies."""
    chance = random.Random(seed)
    rows = []
    for base in range(40):
        words = [f"termo{chance.randrange(3000)}" for _ in range(chance.randrange(150, 300))]
        variants = [words]
        for _ in range(chance.choice([0, 0, 1, 3])):
            variants.append([f"outro{chance.randrange(99)}" if chance.random() < 0.01 else w for w in words])
        if base % 5 == 0:
            variants += [list(words), [w.upper() for w in words]]
        if base % 4 == 0:
            variants.append(words[: len(words) // 2] + [f"novo{chance.randrange(3000)}" for _ in range(150)])
        rows += [{"id": f"{base}-{i}", "text": " ".join(v), "source": "s", "date": ""} for i, v in enumerate(variants)]
    chance.shuffle(rows)
    return rows


def test_dedup_finds_the_clusters_of_brute_force(tmp_path: Path) -> None:
    rows = corpus(seed=1)
    _, kept, removed = dedup(tmp_path, rows, DedupConfig())
    assert sorted(r["id"] for r in kept + removed) == sorted(r["id"] for r in rows)
    text = {r["id"]: r["text"] for r in rows}
    kept_ids = {r["id"] for r in kept}
    for row in removed:
        assert row["detail"] in kept_ids
        assert jaccard(row["text"], text[row["detail"]]) > 0.5, f"{row['id']} lost to {row['detail']}"
    for a in kept:
        for b in kept:
            if a["id"] < b["id"]:
                assert jaccard(a["text"], b["text"]) < 0.9, f"{a['id']} and {b['id']} are both kept"


def test_dedup_reason_tells_exact_from_near(tmp_path: Path) -> None:
    base = " ".join(f"p{i}" for i in range(200))
    texts = {"a": base, "b": base.upper() + "  ", "c": base.replace("p100 ", "outra ")}
    rows = [{"id": k, "text": v, "source": "s", "date": ""} for k, v in texts.items()]
    _, kept, removed = dedup(tmp_path, rows, DedupConfig())
    assert len(kept) == 1
    assert kept[0]["cluster_size"] == 3
    reasons = {r["id"]: r["reason"] for r in removed}
    same = {i for i in texts if exact_hash(texts[i]) == exact_hash(kept[0]["text"])}
    assert reasons == {i: "exact_duplicate" if i in same else "near_duplicate" for i in texts if i != kept[0]["id"]}


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_dedup_keeps_the_same_documents_for_any_number_of_shards(tmp_path: Path, shards: int) -> None:
    rows = [{**row, "date": f"2026-01-{i % 28 + 1:02d}T{i:05d}"} for i, row in enumerate(corpus(seed=2))]
    config = DedupConfig(priority=("length", "date"))
    _, expected, _ = dedup(tmp_path / "one", rows, config, shards=3)
    _, found, _ = dedup(tmp_path / "other", rows, config, shards=shards)
    assert sorted(r["id"] for r in found) == sorted(r["id"] for r in expected)


@pytest.mark.parametrize(
    ("config", "winner"),
    [
        (DedupConfig(priority=("length",)), "long"),
        (DedupConfig(priority=("date",)), "early"),
        (DedupConfig(priority=("source", "length"), source_rank=("best", "good")), "ranked"),
        (DedupConfig(priority=()), "early"),
    ],
)
def test_dedup_keeps_the_best_by_priority(tmp_path: Path, config: DedupConfig, winner: str) -> None:
    base = " ".join(f"p{i}" for i in range(300))
    rows = [
        {"id": "early", "text": base, "source": "good", "date": "2020"},
        {"id": "long", "text": base + " fim da história", "source": "unknown", "date": ""},
        {"id": "ranked", "text": base + " fim", "source": "best", "date": "2021"},
    ]
    _, kept, removed = dedup(tmp_path, rows, config, shards=1)
    assert [r["id"] for r in kept] == [winner]
    assert {r["detail"] for r in removed} == {winner}


def test_dedup_short_empty_and_repetitive_texts_do_not_collapse_unless_equal(tmp_path: Path) -> None:
    texts = ["", "!!!", "???", "um", "dois", "um dois", "um dois três", "a a a a a a a", "a a a a a", "😀", "😂"]
    rows = [{"id": str(i), "text": t, "source": "s", "date": ""} for i, t in enumerate([*texts, *texts])]
    _, kept, removed = dedup(tmp_path, rows, DedupConfig())
    assert sorted(r["text"] for r in kept) == sorted(texts)
    assert sorted(r["text"] for r in removed) == sorted(texts)
    assert {r["reason"] for r in removed} == {"exact_duplicate"}


def test_dedup_many_partitions_give_the_same_result_as_one(tmp_path: Path) -> None:
    rows = corpus(seed=4)
    _, expected, _ = dedup(tmp_path / "one", rows, DedupConfig())
    _, found, _ = dedup(tmp_path / "many", rows, DedupConfig(keys_per_partition=50))
    assert [r["id"] for r in found] == [r["id"] for r in expected]


def test_dedup_switches_leave_out_exact_or_near(tmp_path: Path) -> None:
    base = " ".join(f"p{i}" for i in range(200))
    texts = {"a": base, "b": base.upper(), "c": base.replace("p100 ", "outra ")}
    rows = [{"id": k, "text": v, "source": "s", "date": ""} for k, v in texts.items()]
    _, kept, _ = dedup(tmp_path / "exact", rows, DedupConfig(minhash=False))
    assert len(kept) == 2
    _, kept, _ = dedup(tmp_path / "none", rows, DedupConfig(minhash=False, exact=False))
    assert len(kept) == 3


def test_partition_starts_cover_all_keys() -> None:
    for partitions in (1, 2, 8, 64):
        starts = partition_starts(partitions)
        assert starts[0] == 0
        assert len(set(starts.tolist())) == partitions
        assert all(int(b) - int(a) == (1 << 64) // partitions for a, b in pairwise(starts))
