"""Training that starts from a folder of transformers', whose own loss is what the first step must show."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed
from transformers import LlamaConfig, LlamaForCausalLM

from caravela.config import build
from caravela.data.sources import MixtureConfig, training_order
from caravela.errors import MissingInputError, UserError
from caravela.manifest import Input
from caravela.stages import finished
from caravela.train.checkpoint import FOLDER
from caravela.train.config import TrainConfig
from caravela.train.launch import pretrain_stage
from tests.packed_rows import CONTEXT, ROW_GROUP_ROWS, VOCABULARY
from tests.train.conftest import BATCH_ROWS, config
from tests.train.groups import MODEL, metrics, run_group, train

LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.2,  # so that it is sure of itself, and its loss far from that of random weights here
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In several files, as large models are."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**LLAMA)).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def stage(root: Path, pack: Input, tokenizer: Input, start_from: object, **changed: Any) -> Any:
    model = dataclasses.replace(MODEL, **changed)
    return pretrain_stage(os.fspath(root), config(start_from=str(start_from)), model, [pack], tokenizer)


def test_start_is_known_by_its_content_and_not_by_its_place(
    llama: Path, pack: Input, tokenizer: Input, tmp_path: Path
) -> None:
    made = stage(tmp_path, pack, tokenizer, llama).fingerprint
    shutil.copytree(llama, tmp_path / "moved")
    assert stage(tmp_path, pack, tokenizer, tmp_path / "moved").fingerprint == made
    assert pretrain_stage(os.fspath(tmp_path), config(), MODEL, [pack], tokenizer).fingerprint != made
    last = sorted((tmp_path / "moved").glob("*.safetensors"))[-1]
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert stage(tmp_path, pack, tokenizer, tmp_path / "moved").fingerprint != made


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_layers": 3}, r"model.num_layers = 3: expected 2, as .*config.json has it \(train.start_from\)"),
        ({"vocabulary_size": 98}, r"tokenizer.vocabulary_size = 98: expected 97, as "),
        ({"rope_theta": 5e5}, r"model.rope_theta = 500000.0: expected 10000.0, as "),
        ({"tied_embeddings": True}, r"model.tied_embeddings = True: expected False, as "),
        ({"max_positions": 65}, r"pack.context = 65: expected at most 64, as "),
        ({"head_dim": 16}, r"model.head_dim = 16: expected 8, as "),
        ({"mup_base_hidden_size": 16}, r"model.mup_base_hidden_size = 16: expected 0, as "),
    ],
)
def test_start_of_another_shape_is_one_line(
    llama: Path, pack: Input, tokenizer: Input, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stage(tmp_path, pack, tokenizer, llama, **changed)


@pytest.mark.parametrize("missing", ["config.json", "model-00002-of-*.safetensors"])
def test_start_that_is_not_whole_is_one_line(
    llama: Path, pack: Input, tokenizer: Input, tmp_path: Path, missing: str
) -> None:
    shutil.copytree(llama, tmp_path / "broken")
    gone = next((tmp_path / "broken").glob(missing))
    gone.unlink()
    with pytest.raises(
        MissingInputError, match=rf"train.start_from = .*broken: {gone.name} is missing; expected a folder"
    ):
        stage(tmp_path, pack, tokenizer, tmp_path / "broken")


def train_then_lose_the_end_and_the_start(stage_uri: str, settings: TrainConfig, pack: Input) -> None:
    """Runs to the end; then without last checkpoint, model, and the folder that it started from, to the end again."""
    train(stage_uri, settings, pack)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        shutil.copyfile(Path(stage_uri, "metrics.jsonl"), Path(stage_uri, "first.jsonl"))
        shutil.rmtree(next(Path(stage_uri, FOLDER).glob("step_00000006-*")))
        shutil.rmtree(Path(stage_uri, "_records"))
        shutil.rmtree(settings.start_from)
    torch.distributed.barrier()
    train(stage_uri, settings, pack)


@pytest.mark.slow
def test_start_gives_the_first_loss_and_is_not_needed_again(llama: Path, pack: Input, tmp_path: Path) -> None:
    folder, made = tmp_path / "llama", tmp_path / "stage"
    shutil.copytree(llama, folder)
    settings = config(steps=6, checkpoint_every_steps=3, start_from=os.fspath(folder), warmup_steps=2)
    made.mkdir()
    run_group(2, train_then_lose_the_end_and_the_start, os.fspath(made), settings, pack)
    again = metrics(os.fspath(made))
    shutil.move(made / "first.jsonl", made / "metrics.jsonl")
    unbroken = metrics(os.fspath(made))
    assert [row["loss"] for row in again.values()] == [row["loss"] for row in unbroken.values()]
    rows = first_batch(pack, settings)
    theirs: Any = LlamaForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        logits = theirs(input_ids=rows[:, :-1]).logits.flatten(0, 1)
    expected = float(torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten()))
    assert unbroken[1]["loss"] == pytest.approx(expected, rel=2e-6)
    assert unbroken[6]["loss"] < expected


def first_batch(pack: Input, settings: TrainConfig) -> torch.Tensor:
    done = finished(pack)
    order = training_order(build(MixtureConfig, {}, "mixture"), [done], settings)
    places = [order.sample(1, slot).row for slot in range(BATCH_ROWS)]
    tables = [pq.read_table(uri)["tokens"].to_pylist() for uri in done.uris("train")]
    rows = [tables[row.group.part][row.group.group * ROW_GROUP_ROWS + row.row] for row in places]
    assert len(rows[0]) == CONTEXT + 1
    return torch.tensor(rows)
