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
from caravela.model.config import num_parameters
from caravela.stages import finished
from caravela.train import journal
from caravela.train.checkpoint import FOLDER, latest
from tests.packed_rows import CONTEXT, ROW_GROUP_ROWS, VOCABULARY, write_pack
from tests.train.conftest import BATCH_ROWS, config
from tests.train.groups import MODEL, metrics, run_group, train, train_until_there_is

pytestmark = pytest.mark.slow


def test_loop_learns_and_leaves_a_model(unbroken: Path) -> None:
    rows = metrics(os.fspath(unbroken))
    assert list(rows) == list(range(1, 25))
    assert rows[24]["loss"] < rows[1]["loss"] - 1
    assert rows[24]["tokens"] == 24 * BATCH_ROWS * CONTEXT
    latest = [row["seconds"] for step, row in rows.items() if step > 4]
    assert rows[24]["tokens_per_second"] == pytest.approx(20 * BATCH_ROWS * CONTEXT / sum(latest), rel=1e-3)
    assert rows[24]["mfu"] == rows[24]["matmul_share"], "on a CPU, the peak is what was measured"
    flops = rows[24]["tokens_per_second"] * (6 * num_parameters(MODEL) + 12 * 2 * 32 * CONTEXT)
    rates = [row["tokens_per_second"] / row["mfu"] for row in rows.values()]
    assert rates == pytest.approx([rates[0]] * 24, rel=1e-2)
    assert 1e7 < flops / rows[24]["mfu"] < 1e14
    assert all(0 < row["goodput"] < 1 for row in rows.values())
    spent = sum(row["seconds"] for row in rows.values())
    assert spent < rows[24]["seconds_wall"]
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
    for row in found[3].values():  # 7 rows a step, so many of each source
        drawn = [order.sample(row["step"], slot).source for slot in range(BATCH_ROWS)]
        by_source = {number: row.get(f"loss/{name}", math.nan) for number, name in enumerate(("web", "books"))}
        assert {number for number, loss in by_source.items() if not math.isnan(loss)} == set(drawn)
        assert sum(by_source[number] for number in drawn) / BATCH_ROWS == pytest.approx(row["loss"], rel=1e-5)
    for column, value in found[1][12].items():
        if column.startswith("validation"):
            assert found[3][12][column] == pytest.approx(value, rel=2e-6), "as the weights are"
    assert found[1][12]["validation_loss/web"] == found[1][12]["validation_loss/books"], "the packs are the same"
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


def test_loop_validation_that_fails_costs_no_checkpoint_and_is_made_up_for(
    unbroken: Path, pack: Input, tmp_path: Path
) -> None:
    """The held-out rows are corrupt, and the first validation is at a step whose checkpoint is due."""
    shutil.copytree(pack.uri, tmp_path / "pack")
    copy = Input(name="pack", fingerprint=pack.fingerprint, uri=os.fspath(tmp_path / "pack"))
    part = tmp_path / "pack" / "validation" / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:4] + b"\xff" * 196 + whole[200:])
    stage = tmp_path / "stage"
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="row group 0 cannot be read"):
        run_group(2, train, os.fspath(stage), config(), copy)
    kept = latest(os.fspath(stage))
    assert kept is not None
    assert kept.progress.step == 8
    stored = journal.stored_rows(os.fspath(stage))
    assert list(stored) == list(range(1, 9))
    assert not any(column.startswith("validation") for row in stored.values() for column in row)
    part.write_bytes(whole)
    run_group(2, train, os.fspath(stage), config(), copy)
    expected, found = metrics(os.fspath(unbroken)), metrics(os.fspath(stage))
    for column in ("loss", "validation_loss", "validation_bits_per_byte"):
        assert {step: row.get(column) for step, row in found.items()} == {
            step: row.get(column) for step, row in expected.items()
        }
    assert found[24]["seconds_wall"] > stored[8]["seconds_wall"], "times go on where the attempt before ended"
    assert "steps_redone" not in found[24]


def test_loop_killed_as_its_checkpoint_begins_leaves_no_metrics_ahead_of_it(pack: Input, tmp_path: Path) -> None:
    """Killed when the first file of the checkpoint is there, so at about the time of the validation at that step."""
    stage = tmp_path / "stage"
    with pytest.raises(torch.multiprocessing.ProcessExitedException, match="SIGKILL"):
        run_group(1, train_until_there_is, os.fspath(stage), config(num_workers=1), pack, "step_00000008-*/rank-*")
    kept = latest(os.fspath(stage))
    step = kept.progress.step if kept else 0
    last = max([row["step"] for row in journal.stored_rows(os.fspath(stage)).values()], default=0)
    run_group(1, train, os.fspath(stage), config(num_workers=1), pack)
    found = metrics(os.fspath(stage))
    assert list(found) == list(range(1, 25))
    assert [step for step, row in found.items() if "validation_loss" in row] == [8, 16, 24]
    done_again = [step for step, row in found.items() if row.get("steps_redone", 0)]
    if step < last:  # metrics had come before their checkpoint was complete: they were made anew
        assert done_again == list(range(step + 1, 25))
