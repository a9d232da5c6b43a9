"""What is said of a step and of a document, against a walk through the whole order and the texts themselves."""

import shutil
from pathlib import Path

import pytest

from caravela import schema
from caravela.data import explain
from caravela.data.loader import Loader
from caravela.data.packing import PackConfig, pack_stage
from caravela.data.row_groups import PackedTable
from caravela.data.training_order import Source, TrainingOrder
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from tests.road_without_ray import finish
from tests.toy_run import sample_texts, sentencepiece_model, tokenizer_input

TEXTS = sample_texts("pt-BR/howto") + sample_texts("pt-PT/howto")


class Documents:
    """Texts over three shards, each with an address and an origin."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, shard: Shard, out: ShardOutput) -> dict[str, int]:
        table = out.table("documents", schema.documents())
        for number, text in list(enumerate(TEXTS))[shard.index :: 3]:
            site = f"https://{self.name}.exemplo.pt/{number}"
            table.add({"id": f"{self.name}-{number}", "text": text, "url": site, "source": f"{shard.index}.warc.gz"})
        return {}


def packed(root: str, name: str) -> Manifest:
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(3)]
    documents = Stage(
        name="dedup",
        version=1,
        root=root,
        config={},
        inputs=(),
        plan=lambda: plan,
        make_worker=lambda: Documents(name),
    )
    finish(documents)
    tokens = tokenizer_input(root, sentencepiece_model(TEXTS))
    config = PackConfig(context=64, validation_share=0.1, row_group_rows=4)
    return finish(pack_stage(root, config, documents.as_input(), tokens))


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> TrainingOrder:
    folder = tmp_path_factory.mktemp("runs")
    sources = [Source(name, packed(f"{folder}/{name}", name), weight) for name, weight in (("web", 3), ("chat", 1))]
    return TrainingOrder(sources, seed=1, batch_rows=6, steps=60, window_groups=3)


@pytest.mark.parametrize("num_ranks", [1, 4])
def test_step_names_the_documents_that_the_ranks_received(order: TrainingOrder, num_ranks: int) -> None:
    loaders = [Loader(order, rank, num_ranks) for rank in range(num_ranks)]
    streams = [loader.batches(1) for loader in loaders]
    for step in range(1, 61):
        received = [ids for stream in streams for ids in next(stream).document_ids]
        rows = explain.documents_of_step(order, step)
        assert [[document.id for document in row.documents] for row in rows] == received
        assert [row.slot for row in rows] == list(range(6))
    for loader in loaders:
        loader.__exit__()


def test_documents_come_with_their_address_origin_and_text(order: TrainingOrder) -> None:
    rows = explain.documents_of_step(order, 7, with_text=True)
    assert {row.mixture_source for row in rows} == {"web", "chat"}
    for row in rows:
        for document in row.documents:
            name, _, number = document.id.partition("-")
            assert name == row.mixture_source
            assert document.text == TEXTS[int(number)]
            assert document.url == f"https://{name}.exemplo.pt/{number}"
            assert document.source == f"{int(number) % 3}.warc.gz"
    assert explain.documents_of_step(order, 7)[0].documents[0].text == ""


def test_document_is_found_in_every_step_that_has_some_of_it(order: TrainingOrder) -> None:
    where: dict[str, set[tuple[int, int]]] = {}
    for step in range(1, 61):
        for row in explain.documents_of_step(order, step):
            for document in row.documents:
                where.setdefault(document.id, set()).add((step, row.slot))
    assert len(where) > len(TEXTS)
    for number in range(len(TEXTS)):
        for name in ("web", "chat"):
            found = list(explain.steps_of_document(order, f"{name}-{number}"))
            places = [(place.step, place.slot) for row in found for place in row.places]
            assert len(places) == len(set(places))
            assert set(places) == where.get(f"{name}-{number}", set())
            assert all(not row.places for row in found if row.held_out)
    held_out = {i for row in validation_ids(order) for i in row}
    assert held_out
    for identifier in held_out:
        assert [row.held_out for row in explain.steps_of_document(order, identifier)].count(True) >= 1


def validation_ids(order: TrainingOrder) -> list[list[str]]:
    found = []
    for source in order.sources:
        table = PackedTable(source.pack, "validation")
        for part, file in enumerate(table.files):
            for first in range(0, file.rows, 4):
                group = explain.RowGroup(part, first // 4)
                found += table.read(group, min(4, file.rows - first)).document_ids.to_pylist()
    return found


def test_texts_for_people_say_what_was_found(order: TrainingOrder) -> None:
    rows = explain.documents_of_step(order, 1, with_text=True)
    text = explain.as_text(rows)
    first = rows[0]
    assert text.startswith(
        f"slot 0: {first.mixture_source}, epoch 1, {first.part} row {first.row}\n  {first.documents[0].id}"
    )
    assert f"    | {first.documents[0].text.splitlines()[0]}" in text
    identifier = first.documents[0].id
    found = explain.appearances_as_text(identifier, list(explain.steps_of_document(order, identifier)))
    assert f"step 1, slot 0: {first.mixture_source}, {first.part} row {first.row}, epoch 1" in found.splitlines()
    assert explain.appearances_as_text("x\x1b", []) == "x\x1b: in none of the packed rows".replace("\x1b", "\\x1b")


def test_documents_whose_shards_are_gone_keep_their_ids(order: TrainingOrder, tmp_path: Path) -> None:
    root = tmp_path / "web"
    made = packed(str(root), "web")
    alone = TrainingOrder([Source("web", made)], seed=1, batch_rows=6, steps=3, window_groups=3)
    before = [[d.id for d in row.documents] for row in explain.documents_of_step(alone, 2)]
    shutil.rmtree(root / "dedup")
    rows = explain.documents_of_step(alone, 2, with_text=True)
    assert [[d.id for d in row.documents] for row in rows] == before
    assert {(d.url, d.text) for row in rows for d in row.documents} == {("", "")}


def test_steps_outside_the_run_are_one_line(order: TrainingOrder) -> None:
    with pytest.raises(UserError, match=r"--step 61: expected 1 to 60, as train.steps has it"):
        explain.documents_of_step(order, 61)
