"""Deduplication end to end, without Ray, against brute force over all pairs."""

import dataclasses
import itertools
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import pytest

from caravela import schema
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from filters.dedup.config import DedupConfig
from filters.dedup.exact import exact_hash
from filters.dedup.index import index_runs
from filters.dedup.rehydration import RehydrationConfig
from filters.dedup.road import dedup_stages
from filters.dedup.signatures import VERSION, partition_starts, signature_settings
from tests.road_without_ray import finish


class Documents:
    """Stands in for curation: writes given rows."""

    def __init__(self, rows: list[dict[str, str]], shards: int) -> None:
        self.rows, self.shards = rows, shards

    def __call__(self, shard: Shard, out: ShardOutput) -> dict[str, int]:
        own = self.rows[shard.index :: self.shards]
        table = out.table("documents", schema.documents(["line_punct_ratio"]))
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
    done = [finish(stage) for stage in dedup_stages(str(root), config, curated.as_input())][-1]
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


@pytest.mark.parametrize("verify", ["off", "sample", "all"])
def test_dedup_short_empty_and_repetitive_texts_do_not_collapse_unless_equal(
    tmp_path: Path, verify: Literal["off", "sample", "all"]
) -> None:
    repeated = [" ".join([word] * count) for word in ("sim", "não") for count in (2, 5, 6, 500)]
    lines = ["um", "dois", "um dois", "dois um", "um dois três", "um dois três quatro", "um dois três cinco"]
    signs = ["", "!!!", "???", "...", "-- --", "!!! " * 200, "😀", "😂", "😀 😂"]
    texts = [*repeated, *lines, *signs]
    rows = [{"id": str(i), "text": t, "source": "s", "date": ""} for i, t in enumerate([*texts, *texts])]
    _, kept, removed = dedup(tmp_path, rows, DedupConfig(verify=verify, verify_share=1.0))
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


def test_dedup_in_rounds_gives_the_same_files_as_flat(tmp_path: Path) -> None:
    rows = corpus(seed=5)
    few = DedupConfig(keys_per_partition=500, members_per_partition=20)
    flat, *_ = dedup(tmp_path / "flat", rows, few)
    rounds, *_ = dedup(tmp_path / "rounds", rows, dataclasses.replace(few, clustering_memory_mb=0))
    assert flat.fingerprint == rounds.fingerprint
    assert [f.sha256 for f in flat.files("documents")] == [f.sha256 for f in rounds.files("documents")]
    assert [f.sha256 for f in flat.files("removed")] == [f.sha256 for f in rounds.files("removed")]


def test_dedup_removed_names_keeper_cluster_and_similarity(tmp_path: Path) -> None:
    rows = corpus(seed=6)
    text = {row["id"]: row["text"] for row in rows}
    _, kept, removed = dedup(tmp_path, rows, DedupConfig())
    sizes = {row["id"]: row["cluster_size"] for row in kept}
    lost = Counter(row["detail"] for row in removed)
    assert all(sizes[keeper] == 1 + count for keeper, count in lost.items())
    assert all(len({row["cluster"] for row in removed if row["detail"] == keeper}) == 1 for keeper in lost)
    errors = [abs(row["similarity"] - jaccard(row["text"], text[row["detail"]])) for row in removed]
    assert max(errors) < 4 * (0.25 / 112) ** 0.5  # four standard errors of 112 samples
    assert {row["similarity"] for row in removed if row["reason"] == "exact_duplicate"} == {1.0}


def test_dedup_quality_goes_before_length(tmp_path: Path) -> None:
    base = " ".join(f"p{i}" for i in range(300))
    rows = [
        {"id": "menu", "text": base + " início fale conosco mapa", "line_punct_ratio": 0.35},
        {"id": "page", "text": base, "line_punct_ratio": 0.91},
        {"id": "short page", "text": base[:-5], "line_punct_ratio": 0.99},
    ]
    known = {"source": "s", "date": ""}
    _, kept, _ = dedup(tmp_path, [{**known, **row} for row in rows], DedupConfig())
    assert [row["id"] for row in kept] == ["page"]


def test_dedup_scope_keeps_one_of_each(tmp_path: Path) -> None:
    base = " ".join(f"p{i}" for i in range(200))
    rows = [
        {"id": f"{source}{crawl}{i}", "text": base, "source": source, "date": "", "metadata": f'{{"crawl": "{crawl}"}}'}
        for source, crawl, i in itertools.product("ab", "xy", range(2))
    ]
    for scope, expected in (((), 1), (("source",), 2), (("source", "metadata.crawl"), 4)):
        _, kept, removed = dedup(tmp_path / str(expected), rows, DedupConfig(scope=scope))
        assert len(kept) == expected
        assert all(row["detail"][: len(scope)] == row["id"][: len(scope)] for row in removed)


def test_dedup_scope_of_an_unknown_column_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'crawl' for dedup; it has id, text"):
        dedup(tmp_path, corpus(seed=1)[:3], DedupConfig(scope=("crawl",)))


def test_dedup_repeats_come_from_the_table(tmp_path: Path) -> None:
    config = DedupConfig(rehydration=RehydrationConfig(sizes=(1, 2, 3), repeats=(1, 4, 9)))
    done, kept, _ = dedup(tmp_path, corpus(seed=7), config)
    assert {(min(row["cluster_size"], 3), row["repeats"]) for row in kept} == {(1, 1), (2, 4), (3, 9)}
    assert done.counters["repeats"] == sum(row["repeats"] for row in kept)


@pytest.mark.parametrize("keys_per_partition", [(10_000, 10_000), (60, 10_000), (10_000, 60)])
def test_dedup_against_an_index_equals_both_together_with_the_older_preferred(
    tmp_path: Path, keys_per_partition: tuple[int, int]
) -> None:
    rows = corpus(seed=8)
    old, new = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    sources = ("old", "new")
    both = [{**row, "source": name} for name, part in zip(sources, (old, new), strict=True) for row in part]
    ranked = DedupConfig(priority=("source", "length"), source_rank=sources)
    _, together_kept, together_removed = dedup(tmp_path / "both", both, ranked)
    config = DedupConfig(priority=("length",), keys_per_partition=keys_per_partition[0])
    old_done, old_kept, _ = dedup(tmp_path / "old", old, config)
    before = [file.sha256 for file in old_done.files("documents")]
    config = dataclasses.replace(config, index=(str(tmp_path / "old"),), keys_per_partition=keys_per_partition[1])
    _, kept, removed = dedup(tmp_path / "new", new, config, shards=2)
    assert {r["id"] for r in kept} == {r["id"] for r in together_kept if r["source"] == "new"}
    lost = {r["id"]: r["detail"] for r in together_removed if r["source"] == "new"}
    assert {r["id"]: r["detail"] for r in removed} == lost
    assert any(detail in {r["id"] for r in old_kept} for detail in lost.values())
    assert [manifest_file.sha256 for manifest_file in old_done.files("documents")] == before


def test_dedup_index_that_cannot_serve_is_one_clear_error(tmp_path: Path) -> None:
    rows = corpus(seed=9)[:20]
    with pytest.raises(UserError, match="has no finished stage signatures"):
        dedup(tmp_path / "a", rows, DedupConfig(index=(str(tmp_path / "nowhere"),)))
    dedup(tmp_path / "first", rows, DedupConfig())
    with pytest.raises(UserError, match="was made with bands = 14, this run has 20"):
        dedup(tmp_path / "b", rows, DedupConfig(bands=20, index=(str(tmp_path / "first"),)))
    with pytest.raises(UserError, match=f"signatures of version {VERSION}, and this run's have version {VERSION + 1};"):
        index_runs([str(tmp_path / "first")], signature_settings(DedupConfig()), VERSION + 1, with_documents=False)
    dedup(tmp_path / "second", rows, DedupConfig(index=(str(tmp_path / "first"),)))
    with pytest.raises(UserError, match="was deduplicated against 1 runs, and 0 others stand before it"):
        dedup(tmp_path / "c", rows, DedupConfig(index=(str(tmp_path / "second"),)))
    both = (str(tmp_path / "first"), str(tmp_path / "second"))
    _, kept, _ = dedup(tmp_path / "third", rows, DedupConfig(index=both))
    assert kept == []
