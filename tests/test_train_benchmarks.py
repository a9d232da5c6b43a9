"""The benchmarks of training: their arithmetic by hand, and every path of them at toy size."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import train_shapes
from benchmarks.train_shapes import Settings, Shape, loop_of, random_rows, shapes
from caravela.model.config import ModelConfig, num_parameters
from caravela.model.transformer import Decoder
from tests.running import REPOSITORY
from tests.toy_run import sample_texts

PARAMETERS = {"160m": 162_417_408, "345m": 345_653_120, "460m": 468_239_360, "1.1b": 1_100_048_384}
"""As their makers publish them."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_are_those_of_the_recipes(name: str) -> None:
    shape = shapes()[name]
    assert num_parameters(shape.model) == PARAMETERS[name]
    assert shape.tokens_per_step == 131_072
    assert shape.batch_rows % shape.micro_batch_rows == 0


LAYER = ModelConfig(
    num_layers=2,
    hidden_size=32,
    feed_forward_size=64,
    num_heads=4,
    num_kv_heads=2,
    norm="layer",
    norm_bias=True,
    feed_forward="gelu",
    attention_bias=True,
    mlp_bias=True,
    tied_embeddings=True,
    vocabulary_size=100,
    max_positions=16,
)


@pytest.mark.parametrize("model", [shapes()["toy"].model, LAYER], ids=["llama", "starcoder2"])
def test_hugging_face_loop_has_the_losses_of_ours(model: ModelConfig) -> None:
    shape = Shape(model, batch_rows=4, micro_batch_rows=2)
    loops = [loop_of(kind, shape, Settings(micro_batch_rows=2)) for kind in ("plain", "hugging_face")]
    for seed in range(5):
        ours, theirs = (loop.step(random_rows(model, 4, seed), learning_rate=1e-2) for loop in loops)
        assert ours == pytest.approx(theirs, abs=2e-5)
    held_out = random_rows(model, 5, 99)
    assert loops[0].held_out_loss(held_out) == pytest.approx(loops[1].held_out_loss(held_out), abs=2e-5)


def test_plain_loop_in_bfloat16_keeps_float32_masters() -> None:
    """Updates far smaller than bfloat16's steps must add up."""
    shape = shapes()["toy"]
    decoder = Decoder(shape.model).initialize(torch.Generator().manual_seed(0))
    loop = train_shapes.PlainLoop(decoder, train_shapes.our_loss, Settings(precision="bf16", micro_batch_rows=2))
    before = [master.detach().clone() for master in loop.masters]
    for seed in range(3):
        loop.step(random_rows(shape.model, 4, seed), learning_rate=1e-6)
    assert {parameter.dtype for parameter in loop.parameters} == {torch.bfloat16}
    moved = torch.cat([(master - old).abs().flatten() for master, old in zip(loop.masters, before, strict=True)])
    # AdamW moves what has a gradient by about the rate, and decay takes a tenth of the rate of the weight more
    assert 1e-6 < moved.max() < 5e-6
    for parameter, master in zip(loop.parameters, loop.masters, strict=True):
        assert torch.equal(parameter, master.to(torch.bfloat16))


def run(script: str, *words: str | Path, **environment: str) -> str:
    """What a benchmark prints."""
    command = [sys.executable, f"{REPOSITORY}/benchmarks/{script}", *map(os.fspath, words)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": search_path(), **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def search_path(*first: Path) -> str:
    return os.pathsep.join([*map(str, first), f"{REPOSITORY}/platform", str(REPOSITORY), f"{REPOSITORY}/jobs"])


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / "train_gpu.json").read_text())["rows"]
    return rows


@pytest.mark.slow
def test_train_gpu_takes_every_path_at_toy_size(tmp_path: Path) -> None:
    words = ("--device", "cpu", "--toy", "--seconds", "0.1", "--peak-tflops", "1")
    printed = run("train_gpu.py", "--out", tmp_path, *words)
    rows = rows_of(tmp_path)
    assert [(row["kind"], row["compile_cache"]) for row in rows] == [
        ("engine", "cold"),
        ("engine", "warm"),
        ("hugging_face", "cold"),
        ("plain", "cold"),
    ]
    for row in rows:
        assert "error" not in row, row
        assert row["tokens_per_second"] == pytest.approx(4 * 32 / row["step_s"])
        assert row["losses"][0] == pytest.approx(rows[0]["losses"][0], abs=0.02)  # bfloat16
        assert row["losses"][0] == pytest.approx(6.46, abs=0.1)  # ln 640: nothing is learnt yet
    # weights and both moments in float32
    assert {row.get("checkpoint_bytes") for row in rows[:2]} == {12 * num_parameters(shapes()["toy"].model)}
    mfu = rows[3]["tokens_per_second"] * rows[3]["flops_per_token"] / 1e12
    assert f"| {mfu:.1%} |" in printed
    assert (tmp_path / "train_gpu.md").read_text() == printed


@pytest.mark.slow
def test_train_gpu_without_deepspeed_says_so_and_measures_the_rest(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "deepspeed.py").write_text("raise ModuleNotFoundError(\"No module named 'deepspeed'\")\n")
    words = ("--device", "cpu", "--toy", "--seconds", "0.1", "--kinds", "engine", "plain")
    printed = run("train_gpu.py", "--out", tmp_path, *words, PYTHONPATH=search_path(absent))
    assert [row["kind"] for row in rows_of(tmp_path) if "error" not in row] == ["plain"]
    assert "| toy | engine | ModuleNotFoundError: No module named 'deepspeed' |" in printed


@pytest.mark.slow
def test_learning_gives_the_curve_of_both(tmp_path: Path) -> None:
    documents = tmp_path / "documents.jsonl"
    texts = [text for kind in ("howto", "literary", "news", "technical") for text in sample_texts(f"pt-BR/{kind}")]
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = ("--out", tmp_path / "out", "--shape", "toy", "--steps", "30", "--learning-rate", "1e-2")
    printed = run("learning.py", documents, *words)
    with open(tmp_path / "out" / "learning.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 31))
    for row in rows:
        assert float(row["engine"]) == pytest.approx(float(row["hugging_face"]), rel=1e-3)
    assert float(rows[-1]["engine"]) < float(rows[0]["engine"]) - 0.5
    assert "30 steps of 128 tokens" in printed
    assert (tmp_path / "out" / "learning.svg").read_text().count("<polyline") == 4


@pytest.mark.slow
@pytest.mark.ray
def test_train_cpu_takes_turns_and_all_have_the_same_losses(tmp_path: Path) -> None:
    kinds = ["plain", "engine", "stage", "hugging_face"]
    kinds += ["trainer"] if importlib.util.find_spec("accelerate") else []
    words = ("--shape", "toy", "--rounds", "2", "--block", "3", "--threads", "1")
    printed = run("train_cpu.py", "--out", tmp_path, *words)
    found = json.loads((tmp_path / "train_cpu.json").read_text())["found"]
    assert sorted(found) == sorted(kinds)
    for kind in kinds:
        assert found[kind]["losses"] == pytest.approx(found["plain"]["losses"], abs=1e-5), kind
        assert len(found[kind]["seconds"]) == 2 + 2 * 3
        assert f"| {kind} |" in printed
    marks = [found["stage"]["marks"][name] for name in ("process", "imports", "ray", "worker", "torch", "first_step")]
    assert marks == sorted(marks)
    if "trainer" not in kinds:
        assert f"The Trainer was not measured: {sys.executable} lacks accelerate" in printed
