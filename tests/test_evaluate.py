"""Stage evaluate against arithmetic by hand over Hugging Face's implementation."""

import dataclasses
import itertools
import json
import math
import pathlib
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
import torch
from transformers import AutoModelForCausalLM

from caravela import manifest, schema, storage
from caravela.config import ConfigError, build
from caravela.errors import UserError
from caravela.evaluate import EvaluateConfig, continuation, evaluate_stage, validation_rows
from caravela.export import ExportConfig, export_stage
from caravela.manifest import Input
from caravela.model import scoring
from caravela.model.scoring import Score
from caravela.model.transformer import Decoder
from caravela.stages import ShardOutput
from tests.road_without_ray import finish
from tests.toy_run import (
    CONTEXT,
    TOY,
    by_hand_nats,
    finished_stage,
    pack_input,
    pretrain_input,
    sample_texts,
    sentencepiece_model,
    tokenizer_input,
)

TEXTS = [*sample_texts()[:3], "Olá \U0001f600!\n\n  fim"]
CONFIG = EvaluateConfig(prompts=("Era uma vez", "O coração"), max_new_tokens=6, batch_rows=5)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A root with a model, packed rows and a tokenizer."""
    root = str(tmp_path_factory.mktemp("run"))
    model = sentencepiece_model(TEXTS)
    return {
        "root": root,
        "pretrain": pretrain_input(root, TOY),
        "pack": pack_input(root, model, TEXTS),
        "tokenizer": tokenizer_input(root, model),
    }


def packed_rows(pack: Input) -> list[dict[str, Any]]:
    found = manifest.read(pack.uri)
    assert found is not None
    return [row for uri in found.uris("validation") for row in pq.read_table(uri).to_pylist()]


def expected_score(inputs: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[float, int]:
    """Nats and bytes: row by row, document by document where they are masked, over transformers' model."""
    hugging_face = finish(
        export_stage(inputs["root"], ExportConfig(dtype="float32"), inputs["pretrain"], inputs["tokenizer"])
    )
    model = AutoModelForCausalLM.from_pretrained(hugging_face.uri)
    nats = 0.0
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row["tokens"][:-1]])).logits[0].double().numpy()
        nats += by_hand_nats(logits, row["tokens"][1:])
    return nats, sum(row["target_bytes"] for row in rows)


def test_figures_equal_arithmetic_by_hand(inputs: dict[str, Any]) -> None:
    done = finish(evaluate_stage(config=CONFIG, **inputs))
    rows = packed_rows(inputs["pack"])
    nats, size = expected_score(inputs, rows)
    count = len(rows) * CONTEXT
    assert done.summary["rows"] == len(rows) > 10
    assert done.summary["tokens"] == count
    assert done.summary["bytes"] == size
    assert done.summary["loss"] == pytest.approx(nats / count, rel=1e-6)
    assert done.summary["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert done.summary["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert done.counters == {"rows": len(rows), "tokens": count, "bytes": size}


def tokenizer_file(inputs: dict[str, Any]) -> str:
    return storage.join(inputs["tokenizer"].uri, "tokenizer.model")


def test_the_file_and_the_summary_are_the_same_and_come_again_with_any_batch(
    inputs: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    stage = evaluate_stage(config=CONFIG, **inputs)
    done = finish(stage)
    assert json.loads(storage.read_text(storage.join(stage.uri, "evaluation.json"))) == done.summary
    again = finish(evaluate_stage(config=dataclasses.replace(CONFIG, num_cpus=2), **inputs))
    assert again.uri == done.uri
    assert [file.sha256 for file in again.files("files")] == [file.sha256 for file in done.files("files")]
    other = finish(evaluate_stage(config=dataclasses.replace(CONFIG, batch_rows=1), **inputs))
    assert other.uri != done.uri
    assert other.summary["loss"] == pytest.approx(done.summary["loss"], rel=1e-6)


def test_max_rows_takes_rows_spread_over_the_table(inputs: dict[str, Any]) -> None:
    rows = packed_rows(inputs["pack"])
    pack = manifest.read(inputs["pack"].uri)
    assert pack is not None
    for wanted in (1, 3, 7, len(rows) - 1, len(rows), len(rows) + 5):
        batches = list(validation_rows(pack, wanted, batch_rows=4))
        found = np.concatenate([batch.tokens for batch in batches]).tolist()
        expected = [rows[i * len(rows) // min(wanted, len(rows))] for i in range(min(wanted, len(rows)))]
        assert found == [row["tokens"] for row in expected]
        assert [starts for batch in batches for starts in batch.document_starts] == [
            row["document_starts"] for row in expected
        ]
        assert sum(batch.target_bytes for batch in batches) == sum(row["target_bytes"] for row in expected)


def test_a_model_with_masked_documents_is_scored_with_the_mask(inputs: dict[str, Any], tmp_path: pathlib.Path) -> None:
    root = str(tmp_path)
    masked = pretrain_input(root, dataclasses.replace(TOY, mask_documents=True))
    done = finish(evaluate_stage(config=CONFIG, **{**inputs, "root": root, "pretrain": masked}))
    model = AutoModelForCausalLM.from_pretrained(
        finish(export_stage(root, ExportConfig(dtype="float32"), masked, inputs["tokenizer"])).uri
    )
    nats = 0.0
    for row in packed_rows(inputs["pack"]):
        edges = sorted({0, *row["document_starts"], CONTEXT})
        for start, end in itertools.pairwise(edges):
            if start < CONTEXT:
                with torch.no_grad():
                    logits = model(torch.tensor([row["tokens"][start:end]])).logits[0].double().numpy()
                nats += by_hand_nats(logits, row["tokens"][start + 1 : end + 1])
    assert done.summary["loss"] == pytest.approx(nats / done.summary["tokens"], rel=1e-6)
    plain = finish(evaluate_stage(config=CONFIG, **inputs))
    assert abs(done.summary["loss"] - plain.summary["loss"]) > 1e-3


def test_samples_continue_each_prompt_both_ways(inputs: dict[str, Any]) -> None:
    done = finish(evaluate_stage(config=CONFIG, **inputs))
    samples = done.summary["samples"]
    assert [(sample["prompt"], sample["decoding"]) for sample in samples] == [
        ("Era uma vez", "greedy"),
        ("O coração", "greedy"),
        ("Era uma vez", "temperature 0.8, top 50"),
        ("O coração", "temperature 0.8, top 50"),
    ]
    model = AutoModelForCausalLM.from_pretrained(
        finish(export_stage(inputs["root"], ExportConfig(dtype="float32"), inputs["pretrain"], inputs["tokenizer"])).uri
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=tokenizer_file(inputs))
    for sample in samples[:2]:
        ids = [1, *processor.encode(sample["prompt"])]
        added = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :].tolist()
        added = added[: added.index(2)] if 2 in added else added
        assert sample["text"] == processor.decode(ids + added)[len(sample["prompt"]) :]


def test_continuation_joins_a_letter_whose_bytes_the_prompt_began(inputs: dict[str, Any]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=tokenizer_file(inputs))
    ids = processor.encode("a \U0001f680 b")
    first_byte = next(i for i, token in enumerate(ids) if processor.is_byte(token))
    assert continuation(processor, ids[:first_byte], ids[first_byte:]) == "\U0001f680 b"
    assert continuation(processor, [1, *ids], [2]) == ""
    assert continuation(processor, [1, *processor.encode("fim")], processor.encode("  de linha ")) == "  de linha "


def test_scores_add_up() -> None:
    one, other = Score(nats=3.0, tokens=2, bytes=5), Score(nats=1.0, tokens=6, bytes=3)
    assert one + other == Score(nats=4.0, tokens=8, bytes=8)
    assert (one + other).loss == 0.5
    assert (one + other).bits_per_byte == pytest.approx(0.5 / math.log(2))
    assert Score(nats=1e6, tokens=1, bytes=1).perplexity == math.inf


def test_a_pack_without_validation_rows_is_refused(inputs: dict[str, Any], tmp_path: pathlib.Path) -> None:
    empty = finished_stage(str(tmp_path), "pack", lambda out: None)
    with pytest.raises(UserError, match="hold none for validation"):
        finish(evaluate_stage(config=CONFIG, **{**inputs, "root": str(tmp_path), "pack": empty}))


def test_a_diverged_model_is_refused(inputs: dict[str, Any], tmp_path: pathlib.Path) -> None:
    def diverge(model: Decoder) -> None:
        model.model.norm.weight[3] = math.nan

    root = str(tmp_path)
    diverged = pretrain_input(root, TOY, change=diverge)
    with pytest.raises(UserError, match="the loss of this model is nan; its training diverged"):
        finish(evaluate_stage(config=CONFIG, **{**inputs, "root": root, "pretrain": diverged}))


def test_a_tokenizer_of_another_run_is_refused(inputs: dict[str, Any], tmp_path: pathlib.Path) -> None:
    root = str(tmp_path)
    small = pretrain_input(root, dataclasses.replace(TOY, vocabulary_size=600))
    with pytest.raises(UserError, match=r"640 tokens, but the model .* knows 600; they are not of the same run"):
        finish(evaluate_stage(config=CONFIG, **{**inputs, "root": root, "pretrain": small}))


def test_inputs_that_are_not_finished_are_named(inputs: dict[str, Any], tmp_path: pathlib.Path) -> None:
    missing = Input(name="pretrain", fingerprint="0" * 16, uri=str(tmp_path / "pretrain"))
    with pytest.raises(UserError, match="stage pretrain is not finished"):
        finish(evaluate_stage(config=CONFIG, **{**inputs, "root": str(tmp_path), "pretrain": missing}))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"max_rows": 0}, "max_rows = 0: expected at least 1"),
        ({"top_k": -1}, "top_k = -1: expected 0 or more"),
        ({"temperature": 0.0}, "temperature = 0.0: expected a number above 0"),
    ],
)
def test_config_names_the_value_that_is_wrong(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(EvaluateConfig, table, "run.toml")


def test_the_driver_imports_the_stages_without_torch() -> None:
    script = (
        "import sys, caravela.evaluate, caravela.export, caravela.model.config; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'safetensors', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_workers_travel_to_where_the_work_is_done(inputs: dict[str, Any]) -> None:
    tokenizer, pretrain = inputs["tokenizer"], inputs["pretrain"]
    for stage in (
        evaluate_stage(config=CONFIG, **inputs),
        export_stage(inputs["root"], ExportConfig(), pretrain, tokenizer, evaluate=inputs["pack"]),
    ):
        assert pickle.loads(pickle.dumps(stage.make_worker))() == stage.make_worker()


def test_max_rows_and_prompts_change_the_fingerprint_but_not_the_cores(inputs: dict[str, Any]) -> None:
    def fingerprint(**changes: Any) -> str:
        return evaluate_stage(config=dataclasses.replace(CONFIG, **changes), **inputs).fingerprint

    assert fingerprint(num_cpus=4) == fingerprint()
    assert len({fingerprint(), fingerprint(max_rows=3), fingerprint(prompts=("x",)), fingerprint(seed=1)}) == 4


def test_padding_is_no_target(inputs: dict[str, Any], tmp_path: pathlib.Path) -> None:
    rows = packed_rows(inputs["pack"])[:3]
    paddings = (0, 7, CONTEXT)
    model = Decoder(TOY).initialize(torch.Generator().manual_seed(0)).eval()
    expected = Score()
    for row, padding in zip(rows, paddings, strict=True):
        row["tokens"][CONTEXT + 1 - padding :] = [2] * padding
        row |= {"padding": padding, "target_bytes": 50, "document_starts": row["document_starts"]}
        used = np.array([row["tokens"][: CONTEXT + 1 - padding]])
        if padding < CONTEXT:  # a sequence that ends where the padding would begin
            expected += scoring.score(model, used, [row["document_starts"]], 50)
        else:
            expected += Score(bytes=50)

    def write(out: ShardOutput) -> None:
        form = schema.packed(CONTEXT + 1, TOY.vocabulary_size)
        out.table("validation", form).add_batch(pa.Table.from_pylist(rows, schema=form))

    pack = finished_stage(str(tmp_path), "pack", write)
    done = finish(evaluate_stage(config=CONFIG, **{**inputs, "root": str(tmp_path), "pack": pack}))
    assert done.summary["tokens"] == expected.tokens == 2 * CONTEXT - 7
    found = manifest.read(pack.uri)
    assert found is not None
    (batch,) = validation_rows(found, 3, batch_rows=5)
    score = scoring.score(model, *batch)
    assert score.tokens == expected.tokens
    assert score.nats == pytest.approx(expected.nats, rel=1e-5)
