"""Deduplication ends with the same bytes in every stage, however many workers there are and whoever is killed."""

import dataclasses
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import ray

from caravela import stages
from caravela.cluster import ClusterConfig
from caravela.manifest import Input, Manifest, ShardRecord
from caravela.progress import StageProgress
from caravela.stages import Shard, Stage
from filters.dedup.config import DedupConfig, SpansConfig
from filters.dedup.road import DEDUP_STAGES, SPAN_STAGES, dedup_stages
from tests.deadly import AT_THE_END, MOMENTS, Plan, assert_only_killed_shards_were_done_again, starts_until_done
from tests.filters.dedup.deadly import doomed, drive
from tests.filters.dedup.test_dedup_stages import Documents, corpus
from tests.road_without_ray import finish
from tests.running import HANG_S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * HANG_S)]

NUM_SHARDS = 3
CONFIG = DedupConfig(
    verify="all",
    keys_per_partition=1500,
    members_per_partition=40,
    clustering_memory_mb=0,
    priority=("length",),
    spans=SpansConfig(unit="lines", spans_per_partition=60),
)
"""All stages there are; each cut into several shards; clusters found in rounds."""
STAGES = (*DEDUP_STAGES, *SPAN_STAGES)
LINES = [" ".join(f"rodape{line}palavra{i}" for i in range(12)) for line in range(4)]
"""Lines that unlike documents share; those of one base the same, so that its copies stay copies."""
ROUNDS = {"round_01", "round_02"}
"""Those that there are at least."""
Digests = dict[str, str]


def digests(done: Sequence[Manifest]) -> Digests:
    """SHA-256 of every file of every stage, and what was counted."""
    files = {f"{m.stage}/{f.path}": f.sha256 for m in done for shard in m.shards for f in shard.files}
    return files | {f"{m.stage}: {name}": str(value) for m in done for name, value in m.counters.items()}


def only_files(found: Digests) -> Digests:
    """Without counters: one task that finds all clusters counts other edges than those of rounds do."""
    return {name: value for name, value in found.items() if ": " not in name}


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Input:
    """Documents in shards."""
    rows = [row for seed in (11, 12) for row in corpus(seed)]
    for number, row in enumerate(rows):
        row["text"] += "\n" + LINES[int(row["id"].partition("-")[0]) % len(LINES)]
        row["id"] = f"d{number}"
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(NUM_SHARDS)]
    stage = Stage(
        name="curate",
        version=1,
        root=str(tmp_path_factory.mktemp("curated")),
        config={},
        inputs=(),
        plan=lambda: plan,
        make_worker=lambda: Documents(rows, NUM_SHARDS),
    )
    finish(stage)
    return stage.as_input()


@pytest.fixture(scope="module")
def undisturbed(curated: Input, tmp_path_factory: pytest.TempPathFactory) -> Digests:
    """A run of one worker, this process, that nothing disturbs."""
    done = [finish(stage) for stage in dedup_stages(str(tmp_path_factory.mktemp("quiet")), CONFIG, curated)]
    assert {m.stage for m in done} == set(STAGES)
    assert all(len(m.shards) > 2 for m in done), "a stage of so few shards says nothing about their order"
    dedup, trim = (next(m for m in done if m.stage == name) for name in ("dedup", "trim"))
    assert dedup.counters["removed.near_duplicate"] > 20 < dedup.counters["removed.exact_duplicate"]
    assert trim.counters["documents_cut"] > 20, "no lines were cut"
    return digests(done)


@pytest.mark.ray
@pytest.mark.parametrize(("workers", "killed"), [(2, True), (4, False)])
def test_dedup_on_any_number_of_workers_killed_in_every_stage_gives_the_same_bytes(
    tmp_path: Path, curated: Input, undisturbed: Digests, workers: int, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deaths").mkdir()
    plan = Plan(str(tmp_path / "deaths"), seed=16, shards=(0,))
    config = dataclasses.replace(CONFIG, clustering_memory_mb=100)  # no rounds: a dead worker of Ray costs seconds
    done = []
    try:
        for stage in dedup_stages(str(tmp_path / "run"), config, curated):
            one = doomed(stage, plan, monkeypatch) if killed else stage
            done.append(stages.run(one, ClusterConfig(num_cpus=workers, dashboard=False)))
    finally:
        ray.shutdown()
    assert only_files(digests(done)) == only_files(undisturbed)
    if killed:
        deaths = plan.deaths()
        assert deaths.keys() == set(STAGES), "a stage lost no worker, so nothing was shown of it"
        assert set().union(*deaths.values()) == set(MOMENTS)
        assert_only_killed_shards_were_done_again(plan)


def test_dedup_of_shards_in_any_order_gives_the_same_bytes(
    tmp_path: Path, curated: Input, undisturbed: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order, chance, orders = stages.run_in_driver, random.Random(5), []

    def shuffled(stage: Stage, shards: Sequence[Shard], progress: StageProgress) -> Iterable[ShardRecord]:
        mixed = chance.sample(shards, len(shards))
        orders.append([shard.index for shard in mixed])
        return in_order(stage, mixed, progress)

    monkeypatch.setattr(stages, "run_in_driver", shuffled)
    done = [finish(stage) for stage in dedup_stages(str(tmp_path), CONFIG, curated)]
    assert sum(order != sorted(order) for order in orders) > len(STAGES) // 2
    assert digests(done) == undisturbed


@pytest.mark.parametrize("rounds", [True, False], ids=["rounds", "flat"])
def test_dedup_with_the_driver_killed_in_every_stage_and_restarted_gives_the_same_bytes(
    tmp_path: Path, curated: Input, undisturbed: Digests, rounds: bool
) -> None:
    """The driver does the shards itself here, so that it dies in the midst of them too."""
    config = CONFIG if rounds else dataclasses.replace(CONFIG, clustering_memory_mb=100)
    (tmp_path / "deaths").mkdir()
    plan = Plan(str(tmp_path / "deaths"), seed=4, shards=(1,) if rounds else (0,), finish=True)
    starts = starts_until_done(drive, str(tmp_path / "run"), config, curated, plan)
    deaths = plan.deaths()
    assert deaths.keys() >= {*STAGES, *(ROUNDS if rounds else ())}
    assert all(AT_THE_END in deaths[stage] and len(deaths[stage]) == 2 for stage in STAGES)
    assert starts == 1 + sum(len(moments) for moments in deaths.values())
    assert_only_killed_shards_were_done_again(plan)
    done = [stage.manifest() for stage in dedup_stages(str(tmp_path / "run"), config, curated)]
    found = digests([m for m in done if m is not None])
    assert found == undisturbed if rounds else only_files(found) == only_files(undisturbed)
