"""The order over sources and stages: shares, caps, resuming, and the way back from a row to its steps."""

import dataclasses
import tomllib
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from caravela.config import ConfigError, build
from caravela.data.sources import MixtureConfig, pack_inputs, require_sources, training_order
from caravela.data.training_order import Sample, Source, TrainingOrder, TrainingStage, data_hash
from caravela.errors import UserError
from caravela.manifest import Input, Manifest, update_run_index
from caravela.stages import finished
from tests.packed_rows import CONTEXT, write_pack

STEPS, BATCH_ROWS = 40, 6


class Training(NamedTuple):
    seed: int = 3
    batch_rows: int = BATCH_ROWS
    steps: int = STEPS
    shuffle_row_groups: int = 2


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    folder = tmp_path_factory.mktemp("packs")
    rows = {"web": [30, 13], "books": [9], "replay": [21]}
    return [write_pack(f"{folder}/{name}", parts) for name, parts in rows.items()]


def order(packs: list[Manifest], table: dict[str, Any], **changed: int) -> TrainingOrder:
    return training_order(build(MixtureConfig, table, "mixture"), packs, Training()._replace(**changed))


def samples(found: TrainingOrder) -> list[Sample]:
    return [found.sample(step, slot) for step in range(1, found.steps + 1) for slot in range(found.batch_rows)]


SOURCES = [{"name": "web", "weight": 60}, {"name": "books", "weight": 30}, {"name": "replay", "weight": 10}]
STAGES = [
    {"share": 0.75, "context": CONTEXT // 4},
    {"share": 0.15, "weights": {"web": 1, "replay": 1}},
    {"share": 0.1, "weights": {"books": 9, "web": 1}},
]


def test_shares_are_within_one_row_at_every_prefix_of_a_stage(packs: list[Manifest]) -> None:
    found = samples(order(packs, {"sources": SOURCES, "stages": STAGES}))
    weights = [(60, 30, 10), (1, 0, 1), (1, 9, 0)]
    for (first, last), wanted in zip([(0, 180), (180, 216), (216, 240)], weights, strict=True):
        counts = [0, 0, 0]
        for number, sample in enumerate(found[first:last], 1):
            counts[sample.source] += 1
            for count, weight in zip(counts, wanted, strict=True):
                assert abs(count - Fraction(weight * number, sum(wanted))) < 1


def test_source_goes_through_its_epochs_across_stages_whatever_the_others_are(packs: list[Manifest]) -> None:
    found = samples(order(packs, {"sources": SOURCES, "stages": STAGES}))
    for source, rows in enumerate((43, 9, 21)):
        mine = [sample.row for sample in found if sample.source == source]
        alone = order([packs[source]], {"sources": [{"name": SOURCES[source]["name"]}]}, steps=60)
        assert mine == [sample.row for sample in samples(alone)][: len(mine)]
        times = Counter((row.group, row.row) for row in mine)
        assert set(times.values()) <= {len(mine) // rows, -(-len(mine) // rows)}
        epochs = [tuple(mine[start : start + rows]) for start in range(0, len(mine), rows)]
        assert len(set(epochs)) == len(epochs)


def test_context_of_a_stage(packs: list[Manifest]) -> None:
    found = order(packs, {"sources": SOURCES, "stages": STAGES})
    assert [found.context(step) for step in (1, 30, 31, 36, 37, 40)] == [4, 4, 16, 16, 16, 16]


def test_find_gives_the_steps_in_which_a_row_was_sampled(packs: list[Manifest]) -> None:
    table = {"sources": [{**each, "max_epochs": 5} for each in SOURCES], "stages": STAGES}
    found = order(packs, table)
    where: dict[Any, list[tuple[int, int, int]]] = {}
    for step in range(1, STEPS + 1):
        for slot in range(BATCH_ROWS):
            source, row = found.sample(step, slot)
            where.setdefault((source, row.group, row.row), []).append((step, slot, row.epoch))
    assert len(where) == 43 + 9 + 21
    for (source, group, row), places in where.items():
        assert [tuple(place) for place in found.find(source, group, row)] == places


def test_cap_by_epochs_gives_the_slots_to_the_others(packs: list[Manifest]) -> None:
    found = order(packs[:2], {"sources": [SOURCES[0], {**SOURCES[1], "max_epochs": 1.5}]})
    counts = Counter(sample.source for sample in samples(found))
    assert counts == {0: STEPS * BATCH_ROWS - 13, 1: 13}
    assert found.drawn() == (227, 13)


def test_too_few_rows_under_the_caps_are_refused(packs: list[Manifest]) -> None:
    capped = [{**each, "max_epochs": 2} for each in SOURCES]
    with pytest.raises(UserError, match=r"stage 1 of 1: needs 240 rows, .* its sources have 146 left"):
        order(packs, {"sources": capped})


def test_rows_packed_otherwise_are_refused(packs: list[Manifest]) -> None:
    other = dataclasses.replace(packs[1], summary={**packs[1].summary, "context": 32})
    with pytest.raises(UserError, match=r"different contexts \(web: 16, books: 32, replay: 16\)"):
        order([packs[0], other, packs[2]], {"sources": SOURCES})
    other = dataclasses.replace(packs[1], summary={**packs[1].summary, "tokenizer_sha256": "0"})
    with pytest.raises(UserError, match=r"different tokenizers \(web: \w+, books: 0, replay: \w+\)"):
        order([packs[0], other, packs[2]], {"sources": SOURCES})


def test_context_that_does_not_divide_the_rows_is_refused(packs: list[Manifest]) -> None:
    with pytest.raises(UserError, match=r"stages\[0\].context = 5: expected a divisor of pack.context = 16"):
        order(packs, {"sources": SOURCES, "stages": [{"share": 1, "context": 5}]})


def test_steps_outside_the_run_are_no_steps(packs: list[Manifest]) -> None:
    found = TrainingOrder([Source("web", packs[0])], seed=0, batch_rows=2, steps=3, window_groups=1)
    for step in (0, 4):
        with pytest.raises(IndexError, match=f"step {step}: expected 1 to 3"):
            found.sample(step, 0)


def test_source_that_only_rests_draws_nothing(packs: list[Manifest]) -> None:
    sources = [Source("web", packs[0], 1), Source("books", packs[1], 0)]
    found = TrainingOrder(
        sources, seed=0, batch_rows=3, steps=9, window_groups=1, stages=[TrainingStage(1.0, (1, 0), CONTEXT)]
    )
    assert found.drawn() == (27, 0)
    assert list(found.find(1, found.shuffles[1].row(0).group, 0)) == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sources": []}, r"sources = \[\]: expected at least one"),
        ({"sources": [{"name": "a"}, {"name": "a"}]}, r"sources = .*every name once"),
        ({"sources": [{"name": ""}]}, r'sources\[0\].name = "": expected a name'),
        ({"sources": [{"name": "a", "weight": -1}]}, r"sources\[0\].weight = -1.0: expected 0 or more"),
        ({"stages": [{"share": 0.5}, {"share": 0.4}]}, r"stages = \[0.5, 0.4\]: .* these to 0.9"),
        ({"stages": [{"share": 1, "weights": {"webb": 1}}]}, r"stages = \[0\].weights names webb: .*: documents"),
    ],
)
def test_settings_that_cannot_be_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(MixtureConfig, table, "mixture")


def test_all_weights_of_a_stage_0_is_refused(packs: list[Manifest]) -> None:
    with pytest.raises(UserError, match=r"mixture, stage 2 of 2: weights = .* one of them above it"):
        order(packs, {"sources": SOURCES, "stages": [{"share": 0.5}, {"share": 0.5, "weights": {"web": 0}}]})


def test_sources_of_other_runs_are_found_by_their_root(tmp_path: Path) -> None:
    made = write_pack(f"{tmp_path}/instructions/pack/0123", [9])
    update_run_index(f"{tmp_path}/instructions", "pack", made.uri)
    own = Input(name="pack", fingerprint="own", uri="own")
    table = {"sources": [{"name": "web"}, {"name": "chat", "root": f"{tmp_path}/instructions"}]}
    first, second = pack_inputs(build(MixtureConfig, table, "mixture"), own)
    assert first == own
    assert (second.fingerprint, second.uri) == (made.fingerprint, made.uri)
    table["sources"][1]["root"] = f"{tmp_path}/nothing"
    missing = build(MixtureConfig, table, "mixture")
    with pytest.raises(UserError, match=r"nothing/pack: stage pack of chat is not finished; run it first"):
        finished(pack_inputs(missing, own)[1])
    with pytest.raises(UserError, match=r"mixture.sources: chat: .*nothing holds no finished stage pack"):
        require_sources(missing)


def test_data_hash_tells_rows_apart(packs: list[Manifest]) -> None:
    usual = data_hash([Source("web", packs[0])])
    assert usual == data_hash([Source("web", packs[0], 5.0, 1.0)])
    shard = packs[0].shards[0]
    files = (dataclasses.replace(shard.files[0], sha256="0" * 64), *shard.files[1:])
    changed = dataclasses.replace(packs[0], shards=(dataclasses.replace(shard, files=files),))
    assert len({usual, data_hash([Source("books", packs[0])]), data_hash([Source("web", changed)])}) == 3


EXAMPLES = sorted((Path(__file__).parents[2] / "jobs" / "configs" / "mixtures").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_give_the_shares_that_they_name(path: Path, tmp_path: Path) -> None:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    config = build(MixtureConfig, table["mixture"], str(path))
    small = [write_pack(f"{tmp_path}/{source.name}", [400]) for source in config.sources]
    packs = [dataclasses.replace(pack, summary={**pack.summary, "context": table["pack"]["context"]}) for pack in small]
    found = training_order(config, packs, Training(steps=100, batch_rows=10))
    counts = Counter(found.sources[sample.source].name for sample in samples(found))
    wanted = {
        "biatron": {"text": 600, "reasoning": 300, "mathematics": 100},
        "teenytinyllama": {"web": 600, "instructions": 400},
        "english_replay": {"portuguese": 850, "english": 150},
    }
    assert counts.keys() == wanted[path.stem].keys()
    for name, rows_of_it in wanted[path.stem].items():
        assert abs(counts[name] - rows_of_it) < len(found.stages)


def test_there_is_an_example_of_each_seed_mixture() -> None:
    assert [path.stem for path in EXAMPLES] == ["biatron", "english_replay", "teenytinyllama"]
