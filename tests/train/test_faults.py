"""What goes wrong in a step, a checkpoint or a setting is one line that says where, and costs no checkpoint."""

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from caravela.data.sources import MixtureConfig, training_order
from caravela.manifest import Input
from caravela.stages import finished
from caravela.train.checkpoint import FOLDER, latest
from caravela.train.faults import listed, out_of_memory
from tests.packed_rows import ROW_GROUP_ROWS
from tests.train.conftest import BATCH_ROWS, config
from tests.train.groups import metrics, run_group, train, train_out_of_memory, train_poisoned


@pytest.mark.slow
def test_fault_names_step_rank_and_documents_and_the_last_checkpoint_goes_on(
    unbroken: Path, pack: Input, tmp_path: Path
) -> None:
    """One row of step 12 is poisoned, the last of the global batch, so it is rank 1's."""
    settings = config()
    row = training_order(MixtureConfig(), [finished(pack)], settings).sample(12, BATCH_ROWS - 1).row
    at = row.group.group * ROW_GROUP_ROWS + row.row
    tokens = pq.read_table(f"{pack.uri}/part-{row.group.part:05d}.parquet").column("tokens")[at].as_py()
    stage = tmp_path / "stage"
    stage.mkdir()
    run_group(2, train_poisoned, os.fspath(stage), settings, pack, tokens)
    name = f"train-{row.group.part}-{at}"
    for rank in (0, 1):
        assert (stage / f"error-{rank}").read_text() == (
            f"step 12: the loss is nan on rank 1; stopped before the update; documents in those rows: {name}, {name}b"
        )
    assert [path.name.partition("-")[0] for path in (stage / FOLDER).iterdir()] == ["step_00000008"]
    run_group(2, train, os.fspath(stage), settings, pack)
    expected, found = metrics(os.fspath(unbroken)), metrics(os.fspath(stage))
    assert [row["loss"] for row in found.values()] == [row["loss"] for row in expected.values()]


@pytest.mark.slow
def test_fault_out_of_memory_is_one_line_that_says_what_to_change(pack: Input, tmp_path: Path) -> None:
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as raised:
        run_group(1, train_out_of_memory, os.fspath(tmp_path), config(), pack)
    assert str(raised.value).strip().splitlines()[-1] == (
        "caravela.errors.UserError: training does not fit into the memory of a GPU: "
        "lower train.micro_batch_rows = 2, or set train.activation_checkpointing = 1, or raise train.zero_stage = 1 "
        "(CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has none free.)"
    )


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"micro_batch_rows": 1}, "set train.activation_checkpointing = 1, or raise train.zero_stage = 1"),
        ({"activation_checkpointing": 1, "num_workers": 1}, "lower train.micro_batch_rows = 2"),
        ({"zero_stage": 3}, "lower train.micro_batch_rows = 2, or set train.activation_checkpointing = 1"),
        (
            {"micro_batch_rows": 1, "activation_checkpointing": 1, "zero_stage": 3},
            "train with more workers (train.num_workers) and train.zero_stage = 3, or a smaller model",
        ),
    ],
)
def test_fault_out_of_memory_advises_only_what_is_left_to_do(settings: dict[str, Any], advice: str) -> None:
    error = out_of_memory(torch.OutOfMemoryError("full"), config(**settings))
    assert str(error) == f"training does not fit into the memory of a GPU: {advice} (full)"


def test_fault_documents_of_a_large_batch_stay_on_a_readable_line() -> None:
    names = [f"d{i}" for i in range(23)]
    assert listed(names) == f"{', '.join(names[:20])} and 3 more"
    assert listed(names[:20]) == ", ".join(names[:20])


@pytest.mark.slow
def test_setting_that_contradicts_the_checkpoint_is_one_line(unbroken: Path, pack: Input, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    shutil.copytree(unbroken, stage, ignore=shutil.ignore_patterns("_records", "model.*", "metrics.jsonl", "trace"))
    kept = latest(os.fspath(stage))
    assert kept is not None
    assert kept.progress.model["hidden_size"] == 32
    with pytest.raises(
        torch.multiprocessing.ProcessRaisedException, match=r"UserError: train.seed = 1: expected 0, as "
    ):
        run_group(1, train, os.fspath(stage), config(seed=1, steps=26), pack)
    assert latest(os.fspath(stage)) == kept
