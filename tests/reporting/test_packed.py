"""The report's section on packed tokens, over a pack stage whose documents are known."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from caravela import schema, storage
from caravela.data import packing, tokenizer
from caravela.data.packing import PackConfig
from caravela.data.tokenizer import TokenizerConfig
from caravela.manifest import Input, Manifest
from caravela.report import HTML_FILE, JSON_FILE, ReportConfig, report_stage
from caravela.reporting.packed import both_ends
from caravela.stages import Shard, ShardOutput, Stage
from tests.reporting.reader import Reader
from tests.road_without_ray import finish
from tests.toy_run import sample_texts

EVIL = "<script>alert(1)</script>"
TEXTS = [text[: 200 + 300 * (i % 7)] for i, text in enumerate(sample_texts() * 5)]
DOCUMENTS = [
    {"id": f"{EVIL}{i}", "text": text, "source": EVIL if i % 2 else "cozinha", "date": "2020-01-01"}
    for i, text in enumerate(TEXTS)
]


def write_documents(shard: Shard, out: ShardOutput) -> dict[str, int]:
    table = out.table("documents", schema.documents())
    for row in DOCUMENTS:
        table.add(row)
    return {"bytes_kept": sum(len(text.encode()) for text in TEXTS)}


def documents_stage(root: str) -> Stage:
    return Stage(
        name="dedup",
        version=1,
        root=root,
        config={},
        inputs=(),
        plan=lambda: [Shard(index=0, name="all", spec={})],
        make_worker=lambda: write_documents,
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Input]:
    root = str(tmp_path_factory.mktemp("run"))
    documents = documents_stage(root)
    tokens = tokenizer.tokenizer_stage(root, TokenizerConfig(vocabulary_size=640), documents.as_input())
    config = PackConfig(context=40, method="best_fit", validation_share=0.1)
    pack = packing.pack_stage(root, config, documents.as_input(), tokens.as_input())
    other = tokenizer.tokenizer_stage(root, TokenizerConfig(vocabulary_size=500), documents.as_input())
    made = {"dedup": documents, "tokenizer": tokens, "other": other, "pack": pack}
    for stage in made.values():
        finish(stage)
    return {name: stage.as_input() for name, stage in made.items()}


def report(inputs: dict[str, Input], *names: str) -> tuple[Manifest, dict[str, Any], str]:
    done = finish(
        report_stage(str(Path(inputs["pack"].uri).parents[1]), ReportConfig(), [inputs[name] for name in names])
    )
    figures = json.loads(storage.read_text(storage.join(done.uri, JSON_FILE)))
    return done, figures, storage.read_text(storage.join(done.uri, HTML_FILE))


def test_report_shows_ten_rows_of_each_source_with_their_documents(inputs: dict[str, Input]) -> None:
    _, figures, page = report(inputs, "tokenizer", "pack")
    rows = pq.read_table(storage.join(inputs["pack"].uri, "part-00000.parquet")).to_pylist()
    processor = tokenizer.load(inputs["tokenizer"].uri)
    source_of = {row["id"]: row["source"] for row in DOCUMENTS}
    assert {entry["source"] for entry in figures["packed_rows"]} == {"cozinha", EVIL}
    for entry in figures["packed_rows"]:
        assert len({shown["row"] for shown in entry["rows"]}) == 10
        for shown in entry["rows"]:
            row = rows[shown["row"]]
            assert source_of[row["document_ids"][0]] == entry["source"]
            stretches = shown["stretches"]
            names = [stretch["document"] for stretch in stretches]
            assert names == row["document_ids"][:4]
            assert shown["more_documents"] == len(row["document_ids"]) - len(names)
            assert shown["padding"] == row["padding"]
            if len(names) == 1:
                assert stretches[0]["text"] == both_ends(processor.decode(row["tokens"]), 300)
    assert EVIL not in page.replace("&lt;", "")
    assert "script" not in {tag for tag, _ in Reader(page).tags}
    shares = figures["packing"]
    assert f"{shares['train_padding'] + shares['validation_padding']:,} places that no loss counts" in page
    assert sum(bin_["documents"] for bin_ in shares["lengths"]) == len(DOCUMENTS)


def test_report_shows_no_rows_through_another_tokenizer(inputs: dict[str, Input]) -> None:
    _, figures, page = report(inputs, "other", "pack")
    assert figures["packed_rows"] == []
    assert 'id="packed"' in page


def test_report_of_the_same_pack_is_the_same(inputs: dict[str, Input]) -> None:
    done, _, page = report(inputs, "tokenizer", "pack")
    storage.delete_tree(done.uri)
    assert report(inputs, "tokenizer", "pack")[2] == page


@pytest.mark.parametrize(
    ("text", "expected"), [("abc", "abc"), ("0123456789", "0123456789"), ("0123456789x", "0123456 … 89x"), ("", "")]
)
def test_both_ends_of_a_text(text: str, expected: str) -> None:
    assert both_ends(text, 10) == expected
