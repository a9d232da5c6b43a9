"""Training that stops and goes on, with the same and with another number of workers."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

from caravela import manifest
from caravela.config import build
from caravela.data.sources import MixtureConfig, training_order
from caravela.manifest import Input
from caravela.model import weights
from caravela.stages import finished
from caravela.train.checkpoint import FOLDER, latest
from tests.packed_rows import CONTEXT, ROW_GROUP_ROWS, VOCABULARY, write_pack
from tests.train.conftest import BATCH_ROWS, config
from tests.train.groups import metrics, run_group, train

pytestmark = pytest.mark.slow


def test_loop_learns_and_leaves_a_model(unbroken: Path) -> None:
    rows = metrics(os.fspath(unbroken))
    assert list(rows) == list(range(1, 25))
    assert rows[24]["loss"] < rows[1]["loss"] - 1
    assert rows[24]["tokens"] == 24 * BATCH_ROWS * CONTEXT
    assert rows[24]["tokens_per_second"] == pytest.approx(BATCH_ROWS * CONTEXT / rows[24]["seconds"], rel=1e-3)
    assert [step for step, row in rows.items() if "validation_loss" in row] == [8, 16, 24]
    record = manifest.read_records(os.fspath(unbroken))[0]
    assert [file.path for file in record.files] == ["metrics.jsonl", "model.json", "model.safetensors"]
    model = weights.load_model(os.fspath(unbroken))
    probe = torch.arange(CONTEXT + 1)[None]
    with torch.no_grad():
        assert float(model.token_losses(probe[:, :-1], probe[:, 1:]).mean()) < rows[1]["loss"] - 1


def test_loop_trains_on_what_the_order_says(unbroken: Path, pack: Input) -> None:
    order = training_order(MixtureConfig(), [finished(pack)], config())
    traces = sorted((unbroken / "trace").iterdir())
    for step in range(1, 25):
        parts = [json.loads(t.read_text()) for t in traces if t.name.startswith(f"{step:08d}-")]
        ids = [ids[0] for part in parts for ids in part]
        rows = [order.sample(step, slot).row for slot in range(BATCH_ROWS)]
        assert ids == [f"train-{r.group.part}-{r.group.group * ROW_GROUP_ROWS + r.row}" for r in rows]


@pytest.mark.parametrize(
    ("num_ranks", "zero_stage", "tolerance"),
    [(2, 1, 0.0), (2, 2, 2e-6), (1, 1, 2e-6), (3, 1, 2e-6), (3, 3, 2e-6)],
)
def test_loop_resumed_by_any_number_of_workers_equals_unbroken(
    unbroken: Path, pack: Input, tmp_path: Path, num_ranks: int, zero_stage: int, tolerance: float
) -> None:
    """The last checkpoint is cut to half, as if the run had died in it, and other metrics were left behind."""
    stage = tmp_path / "stage"
    shutil.copytree(unbroken, stage, ignore=shutil.ignore_patterns("_records", "model.*", "metrics.jsonl", "trace"))
    half = next((stage / FOLDER).glob("step_00000024-*"))
    (half / "checkpoint.json").unlink()
    before = latest(os.fspath(stage))
    assert before is not None
    assert before.progress.step == 16
    run_group(num_ranks, train, os.fspath(stage), config(zero_stage=zero_stage), pack)
    expected, found = metrics(os.fspath(unbroken)), metrics(os.fspath(stage))
    assert list(found) == list(expected)
    for column in ("loss", "grad_norm", "validation_loss"):
        wanted = [row[column] for row in expected.values() if column in row]
        got = [row[column] for row in found.values() if column in row]
        assert got == pytest.approx(wanted, rel=tolerance, abs=0.0), column
    done_again = {path.name[:8] for path in (stage / "trace").iterdir()}
    assert done_again == {f"{step:08d}" for step in range(17, 25)}
    if tolerance == 0.0:
        a, b = weights.load_model(os.fspath(unbroken)), weights.load_model(os.fspath(stage))
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_loop_mixes_sources_and_contexts_alike_for_any_number_of_workers(pack: Input, tmp_path: Path) -> None:
    table = {
        "sources": [{"name": "web", "weight": 60}, {"name": "books", "weight": 40, "max_epochs": 0.3}],
        "stages": [{"share": 0.5, "context": CONTEXT // 4}, {"share": 0.5, "weights": {"web": 1, "books": 3}}],
    }
    mixture = build(MixtureConfig, table, "mixture")
    settings = config(steps=12, checkpoint_every_steps=6, validate_every_steps=12)
    order = training_order(mixture, [finished(pack)] * 2, settings)
    found = {}
    for num_ranks in (1, 3):
        stage = tmp_path / f"stage-{num_ranks}"
        run_group(num_ranks, train, os.fspath(stage), settings, pack, mixture)
        found[num_ranks] = metrics(os.fspath(stage))
        for step in range(1, 13):
            traces = sorted((stage / "trace").glob(f"{step:08d}-*"))
            rows = [order.sample(step, slot).row for slot in range(BATCH_ROWS)]
            assert [ids[0] for trace in traces for ids in json.loads(trace.read_text())] == [
                f"train-{r.group.part}-{r.group.group * ROW_GROUP_ROWS + r.row}" for r in rows
            ]
    for column in ("loss", "grad_norm"):
        alone, together = ([row[column] for row in found[ranks].values()] for ranks in (1, 3))
        assert together == pytest.approx(alone, rel=2e-6, abs=0.0), column
    assert {row["tokens"] for row in found[1].values()} == {step * BATCH_ROWS * CONTEXT for step in range(1, 13)}


def test_loop_padding_has_no_loss_whatever_stands_in_it(tmp_path: Path, pack: Input) -> None:
    settings = config(steps=4, warmup_steps=1, checkpoint_every_steps=4, validate_every_steps=4)
    found = []
    for num_ranks, filler in ((1, 2), (2, 50)):
        name = f"of-{filler}"
        write_pack(os.fspath(tmp_path / f"pack-{name}"), [60], padding=5, filler=filler)
        padded = Input(name="pack", fingerprint=name, uri=os.fspath(tmp_path / f"pack-{name}"))
        run_group(num_ranks, train, os.fspath(tmp_path / name), settings, padded)
        found.append(metrics(os.fspath(tmp_path / name)))
    for column in ("loss", "grad_norm", "validation_loss"):
        one, other = ([row[column] for row in rows.values() if column in row] for rows in found)
        assert other == pytest.approx(one, rel=2e-6, abs=0.0), column
    assert found[0][1]["loss"] == pytest.approx(math.log(VOCABULARY), abs=0.5), "of a target, not of a place"


def test_loop_goes_on_with_other_rows_only_if_told_to(unbroken: Path, pack: Input, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    shutil.copytree(unbroken, stage, ignore=shutil.ignore_patterns("_records", "model.*", "metrics.jsonl", "trace"))
    write_pack(os.fspath(tmp_path / "pack"), [60, 41, 17])
    other = Input(name="pack", fingerprint="other", uri=os.fspath(tmp_path / "pack"))
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="made with other packed rows than those of"):
        run_group(1, train, os.fspath(stage), config(steps=26), other)
    kept = latest(os.fspath(stage))
    assert kept is not None
    assert kept.progress.step == 24
    run_group(1, train, os.fspath(stage), config(steps=26, allow_data_change=True), other)
    assert list(metrics(os.fspath(stage))) == list(range(1, 27))


def test_loop_bf16_resumed_by_as_many_workers_is_equal_to_the_bit(pack: Input, tmp_path: Path) -> None:
    settings = config(precision="bf16", steps=8, checkpoint_every_steps=4)
    stage, again = tmp_path / "stage", tmp_path / "again"
    run_group(1, train, os.fspath(stage), settings, pack)
    shutil.copytree(stage, again, ignore=shutil.ignore_patterns("_records", "step_00000008-*"))
    run_group(1, train, os.fspath(again), settings, pack)
    expected, found = metrics(os.fspath(stage)), metrics(os.fspath(again))
    assert [row["loss"] for row in found.values()] == [row["loss"] for row in expected.values()]
