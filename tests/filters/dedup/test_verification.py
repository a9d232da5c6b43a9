"""Verified removals end to end, without Ray, against clusters split by hand with Python's sets."""

import dataclasses
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caravela import manifest, storage
from caravela.config import ConfigError
from caravela.errors import UserError
from caravela.manifest import Manifest
from filters.dedup import verification
from filters.dedup.config import DedupConfig
from filters.dedup.ranking import Partition
from filters.dedup.verification import Sets
from tests.filters.dedup.test_dedup_stages import corpus, dedup, jaccard

Row = dict[str, str]
OFF = DedupConfig(priority=("date",))
ALL = dataclasses.replace(OFF, verify="all")
WORDS = [f"termo{i}" for i in range(2000)]


def window(first: int, count: int = 300) -> str:
    """Windows of one long text: those 15 words apart are alike (0.90), those 120 apart are not (0.42)."""
    return " ".join(WORDS[first : first + count])


def dated(texts: dict[str, str]) -> list[Row]:
    """Documents, each earlier and so better than the next."""
    return [
        {"id": name, "text": text, "source": "s", "date": f"2026-{i:05d}"}
        for i, (name, text) in enumerate(texts.items())
    ]


CHAIN = {f"j{i}": window(15 * i) for i in range(14)}


def mixed(seed: int) -> list[Row]:
    """Random clusters, chains of windows, and exact copies in all of them."""
    chance = random.Random(seed)
    texts = [row["text"] for row in corpus(seed)] + [window(15 * i, 250) for i in range(30)]
    texts += [window(900 + 15 * i).replace("termo", "palavra") for i in range(20)]
    texts += [chance.choice(texts).upper() for _ in range(40)]
    chance.shuffle(texts)
    return dated({f"d{i}": text for i, text in enumerate(texts)})


def split_by_hand(rows: list[Row], clusters: dict[str, list[str]], least: float) -> dict[str, str]:
    """Each document's keeper: the best of its cluster; of what is not like it the best again."""
    text, keeper = {row["id"]: row["text"] for row in rows}, {}
    for members in clusters.values():
        left = sorted(members, key=lambda name: int(name[1:]))
        while left:
            best = left[0]
            alike = [one for one in left if jaccard(text[one], text[best]) >= least]
            keeper |= dict.fromkeys(alike, best)
            left = [one for one in left if one not in alike]
    return keeper


def clusters_of(kept: list[dict], removed: list[dict]) -> dict[str, list[str]]:
    """The documents of each cluster, by its keeper."""
    found = {row["id"]: [row["id"]] for row in kept}
    for row in removed:
        found[row["detail"]].append(row["id"])
    return found


def keepers_of(kept: list[dict], removed: list[dict]) -> dict[str, str]:
    return {name: best for best, names in clusters_of(kept, removed).items() for name in names}


@pytest.mark.parametrize("least", [0.3, 0.5, 0.8])
def test_verify_all_removes_what_a_split_by_hand_does(tmp_path: Path, least: float) -> None:
    rows = mixed(seed=3)
    text = {row["id"]: row["text"] for row in rows}
    _, kept, removed = dedup(tmp_path / "off", rows, OFF)
    expected = split_by_hand(rows, clusters_of(kept, removed), least)
    joined = keepers_of(kept, removed)
    done, kept, removed = dedup(tmp_path / "all", rows, dataclasses.replace(ALL, verify_similarity=least))
    assert keepers_of(kept, removed) == expected
    for row in removed:
        exact = jaccard(row["text"], text[row["detail"]])
        assert exact >= least
        assert row["similarity"] == np.float32(exact)
        assert row["reason"] == (
            "exact_duplicate" if row["text"].lower() == text[row["detail"]].lower() else "near_duplicate"
        )
    sizes = Counter(expected.values())
    assert {row["id"]: row["cluster_size"] for row in kept} == dict(sizes)
    assert all(len({row["cluster"] for row in removed if row["detail"] == best}) <= 1 for best in sizes)
    assert len({row["cluster"] for row in removed}) == sum(size > 1 for size in sizes.values())
    assert done.summary["cluster_sizes"] == {
        str(n): count for n, count in sorted(Counter(sizes.values()).items()) if n > 1
    }
    # What was measured is each near-duplicate and the document that it would have lost to.
    pairs = [(a, b) for a, b in joined.items() if text[a].lower() != text[b].lower()]
    similar = [jaccard(text[a], text[b]) for a, b in pairs]
    found = done.summary["verification"]
    assert found["pairs_verified"] == len(pairs)
    assert found["false_positives"] == sum(s < least for s in similar) > 0
    assert found["pairs_of_similarity"] == [sum(min(int(s * 10), 9) == tenth for s in similar) for tenth in range(10)]
    assert found["removals_not_made"] == len(sizes) - len(set(joined.values()))
    assert found["clusters_split"] == len({b for (_, b), s in zip(pairs, similar, strict=True) if s < least})


def test_verify_chain_joined_by_closure_is_reported_by_sample_and_split_by_all(tmp_path: Path) -> None:
    rows = dated(CHAIN)
    _, kept, removed = dedup(tmp_path / "off", rows, OFF)
    assert [row["id"] for row in kept] == ["j0"]
    assert jaccard(CHAIN["j0"], CHAIN["j13"]) < 0.25
    sample, kept, _ = dedup(tmp_path / "sample", rows, dataclasses.replace(OFF, verify="sample", verify_share=1.0))
    assert [row["id"] for row in kept] == ["j0"]
    wrong = sum(jaccard(CHAIN["j0"], text) < 0.5 for text in CHAIN.values())
    assert (sample.counters["documents_kept"], sample.summary["verification"]["false_positives"]) == (1, wrong)
    assert sample.summary["verification"]["false_positive_rate"] == round(wrong / 13, 6)
    _, kept, removed = dedup(tmp_path / "all", rows, ALL)
    assert [row["id"] for row in sorted(kept, key=lambda row: row["date"])] == ["j0", "j7"]
    assert {row["id"]: row["detail"] for row in removed}["j13"] == "j7"


def test_verify_all_of_pairs_that_are_alike_changes_nothing_but_the_similarity(tmp_path: Path) -> None:
    rows = corpus(seed=6)
    _, kept, removed = dedup(tmp_path / "off", rows, DedupConfig())
    done, kept_then, removed_then = dedup(tmp_path / "all", rows, DedupConfig(verify="all", verify_similarity=0.4))
    assert done.summary["verification"]["false_positives"] == 0
    assert kept_then == kept
    without = [
        [{k: v for k, v in row.items() if k != "similarity"} for row in rows] for rows in (removed, removed_then)
    ]
    assert without[0] == without[1]


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_verify_all_is_the_same_for_any_number_of_shards(tmp_path: Path, shards: int) -> None:
    rows = mixed(seed=7)
    expected = keepers_of(*dedup(tmp_path / "three", rows, ALL, shards=3)[1:])
    assert keepers_of(*dedup(tmp_path / "other", rows, ALL, shards=shards)[1:]) == expected


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_verify_in_many_partitions_gives_the_same_files_and_figures_as_in_one(tmp_path: Path, mode: str) -> None:
    rows = mixed(seed=8)
    config = dataclasses.replace(OFF, verify=mode, verify_share=0.4)
    one, *_ = dedup(tmp_path / "one", rows, config)
    many, *_ = dedup(
        tmp_path / "many", rows, dataclasses.replace(config, keys_per_partition=500, members_per_partition=5)
    )
    for table in ("documents", "removed"):
        assert [f.sha256 for f in many.files(table)] == [f.sha256 for f in one.files(table)]
    assert many.summary == one.summary
    assert len(latest(tmp_path / "many", "clusters").shards) > 8


def test_verify_sample_measures_a_share_and_changes_no_file(tmp_path: Path) -> None:
    rows = mixed(seed=9)
    off, *_ = dedup(tmp_path / "off", rows, OFF)
    everything = dataclasses.replace(OFF, verify="sample", verify_share=1.0)
    whole = dedup(tmp_path / "whole", rows, everything)[0]
    some = dedup(tmp_path / "some", rows, dataclasses.replace(everything, verify_share=0.5))[0]
    for table in ("documents", "removed"):
        assert [f.sha256 for f in off.files(table)] == [f.sha256 for f in some.files(table)]
    pairs, wrong = (whole.summary["verification"][name] for name in ("pairs_verified", "false_positives"))
    assert pairs == off.counters["removed.near_duplicate"]
    found = some.summary["verification"]
    assert abs(found["pairs_verified"] - pairs / 2) < 4 * (pairs / 4) ** 0.5  # four standard deviations of a draw
    assert found["interval"][0] < wrong / pairs < found["interval"][1]
    assert latest(tmp_path / "some", "clusters").counters["false_positives"] == found["false_positives"]
    read = latest(tmp_path / "some", "shingles").counters["candidates"]
    assert read < latest(tmp_path / "whole", "shingles").counters["candidates"]


def latest(root: Path, stage: str) -> Manifest:
    found = manifest.read(storage.join(str(root), manifest.read_run_index(str(root))[stage]))
    assert found is not None
    return found


def test_verify_exact_copies_are_one_text(tmp_path: Path) -> None:
    pages = {f"c{i}": window(0) for i in range(300)} | {f"n{i}": window(15) for i in range(200)}
    done, kept, removed = dedup(tmp_path, dated(pages), ALL)
    assert latest(tmp_path, "shingles").counters["candidates"] == 2
    assert [row["cluster_size"] for row in kept] == [500]
    assert Counter(row["reason"] for row in removed) == {"exact_duplicate": 299, "near_duplicate": 200}
    assert done.summary["verification"]["pairs_verified"] == 200
    only = dedup(tmp_path / "exact", dated({f"c{i}": window(0) for i in range(30)}), ALL)[0]
    assert latest(tmp_path / "exact", "shingles").counters == {"candidates": 0, "shingles": 0}
    assert only.summary["verification"]["false_positive_rate"] is None


def test_verify_beyond_the_most_keepers_documents_are_kept_and_counted() -> None:
    members = 10
    number = np.arange(members, dtype=np.uint64)
    table = pa.table({"exact_high": number, "exact_low": number})
    root, is_new = np.zeros(members, np.uint64), np.ones(members, np.bool_)
    partition = Partition(table, number, root, is_new, np.arange(members))
    values = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4], np.uint64)  # the last five equal the first
    sets = Sets(values, np.arange(members), np.arange(1, members + 1))
    texts = verification.texts_of(partition)
    for most, keepers, uncompared in ((256, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4], 0), (3, [0, 1, 2, 3, 4, 0, 1, 2, 8, 9], 4)):
        found = verification.verify(partition, texts, sets, ALL, most)
        assert found.best.tolist() == keepers
        assert found.counters["kept_uncompared"] == uncompared
        assert found.counters["false_positives"] == 8


def index_of(*roots: Path, **changes: object) -> DedupConfig:
    return dataclasses.replace(OFF, index=tuple(map(str, roots)), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "keepers"),
    [
        # The old run removed j13 for j0, so that it can be nobody's keeper; the new page is like it alone.
        ("off", "all", {"n1": "j0", "n2": "n2", "n3": "n2"}),
        ("off", "off", {"n1": "j0", "n2": "j0", "n3": "j0"}),
        ("off", "sample", {"n1": "j0", "n2": "j0", "n3": "j0"}),
        # Split already: j7 was kept, and stays so.
        ("all", "all", {"n1": "j0", "n2": "j7", "n3": "n3"}),
        ("all", "off", {"n1": "j0", "n2": "j0", "n3": "j0"}),
    ],
)
def test_verify_against_an_index_names_only_what_its_run_kept(
    tmp_path: Path, old: str, new: str, keepers: dict[str, str]
) -> None:
    dedup(tmp_path / "old", dated(CHAIN), dataclasses.replace(OFF, verify=old))
    pages = {"n1": window(7), "n2": window(15 * 13 - 7), "n3": window(15 * 13 + 91)}
    assert [jaccard(pages["n2"], CHAIN[name]) >= 0.5 for name in ("j0", "j7", "j13")] == [False, True, True]
    assert jaccard(pages["n3"], pages["n2"]) >= 0.5 > jaccard(pages["n3"], CHAIN["j7"])
    bridge = {f"b{i}": window(15 * 13 + 15 * i) for i in range(1, 7)}
    done, kept, removed = dedup(tmp_path / "new", dated(pages | bridge), index_of(tmp_path / "old", verify=new))
    found = {row["id"]: row["id"] for row in kept} | {row["id"]: row["detail"] for row in removed}
    assert {name: found[name] for name in pages} == keepers
    if new == "sample":
        assert done.summary["verification"]["false_positives"] <= 8


def test_index_keeper_is_one_that_its_run_kept_under_another_priority(tmp_path: Path) -> None:
    rows = dated({"early": window(0), "long": window(0, 310)})
    dedup(tmp_path / "old", rows, DedupConfig(priority=("length",)))
    _, kept, removed = dedup(tmp_path / "new", dated({"again": window(5)}), index_of(tmp_path / "old"))
    assert (kept, removed[0]["detail"]) == ([], "long")


def test_verify_against_an_index_without_its_documents_is_one_clear_error(tmp_path: Path) -> None:
    dedup(tmp_path / "old", dated(CHAIN), OFF)
    pages = dated({"n1": window(7)})
    moved = tmp_path / "moved"
    (tmp_path / "old").rename(moved)
    _, kept, _ = dedup(tmp_path / "there", pages, index_of(moved, verify="all"))
    assert kept == []
    part = storage.join(str(moved), "curate", latest(moved, "signatures").inputs[0].fingerprint, "part-00000.parquet")
    Path(part).unlink()
    with pytest.raises(UserError, match=rf"{part}: documents that dedup\.verify compares are gone"):
        dedup(tmp_path / "one gone", pages, index_of(moved, verify="all"))
    storage.delete_tree(str(moved / "curate"))
    with pytest.raises(UserError, match=r'curate/\w+ is gone.*set dedup\.verify to "off"'):
        dedup(tmp_path / "all gone", pages, index_of(moved, verify="all"))
    _, kept, _ = dedup(tmp_path / "off", pages, index_of(moved))
    assert kept == []
    Path(latest(moved, "clusters").uris("decisions")[0]).unlink()
    with pytest.raises(UserError, match=r"these decisions of a run of dedup\.index are gone"):
        dedup(tmp_path / "no decisions", pages, index_of(moved))


def test_wilson_interval_is_where_the_share_seen_is_as_far_off_as_z_allows() -> None:
    for hits, trials in ((0, 10), (1, 10), (5, 10), (9, 354), (354, 354)):
        low, high = verification.wilson(hits, trials)
        for border in {low, high} - {0.0, 1.0}:
            assert abs(hits / trials - border) == pytest.approx(1.959964 * (border * (1 - border) / trials) ** 0.5)
        assert low <= hits / trials <= high
    assert verification.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)  # Newcombe 1998, table I's method
    assert verification.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"verify_similarity": 0.0}, r"verify_similarity = 0\.0"), ({"verify_share": 1.5}, r"verify_share = 1\.5")],
)
def test_verify_settings_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DedupConfig(**wrong)  # type: ignore[arg-type]
