"""Checkpoints as files: any cut can be read, a half one does not exist, and what fails is told and survived."""

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caravela import storage
from caravela.errors import UserError
from caravela.train import checkpoint
from caravela.train.checkpoint import Fragment, Progress, Reader
from caravela.train.checkpoint_writer import Writer
from caravela.train.retention import Rules

SIZES = {"model.embed_tokens.weight": 100, "model.norm.weight": 7}
SHAPES: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (20, 5), "model.norm.weight": (7,)}
MODEL = {"hidden_size": 5, "tied_embeddings": True}


def values(name: str, kind: str, step: int) -> np.ndarray:
    start = 1000 * checkpoint.KINDS.index(kind) + step
    return np.arange(start, start + SIZES[name], dtype=np.float32)


def fragments(name: str, start: int, stop: int, step: int) -> Fragment:
    arrays = {kind: values(name, kind, step)[start:stop] for kind in checkpoint.KINDS}
    return Fragment(name, start, arrays, SHAPES[name])


def cut(rank: int, num_ranks: int, step: int) -> list[Fragment]:
    """The parameters as one line, divided evenly over ranks."""
    total = sum(SIZES.values())
    low, high = rank * total // num_ranks, (rank + 1) * total // num_ranks
    pieces, offset = [], 0
    for name, size in SIZES.items():
        start, stop = max(0, low - offset), min(size, high - offset)
        if start < stop:
            pieces.append(fragments(name, start, stop, step))
        offset += size
    return pieces


def progress(step: int) -> Progress:
    loader = {"next_batch": step, "seed": 3}
    return Progress(step=step, tokens=10 * step, adam_step=step, loader=loader, fingerprint="f", model=MODEL)


def metrics_row(step: int) -> str:
    return json.dumps({"step": step, "loss": step + 0.25}) + "\n"


def write(stage: str, steps: Sequence[int], num_ranks: int = 2, attempt: str = "aaaa", keep: int = 2) -> list[str]:
    """Saves by all ranks, each in a thread of its own; returns the warnings."""
    warnings: list[str] = []

    def rank_writes(rank: int) -> None:
        writer = Writer(stage, attempt, rank, num_ranks, Rules(newest=keep), warnings.append)
        for step in steps:
            writer.start(
                progress(step), cut(rank, num_ranks, step), {f"{stage}/metrics/{step}.jsonl": metrics_row(step)}
            )
        writer.wait()
        writer.close()

    threads = [threading.Thread(target=rank_writes, args=(rank,)) for rank in range(num_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return warnings


@pytest.mark.parametrize(("writers", "readers"), [(1, 2), (2, 1), (2, 3), (3, 2), (4, 4)])
def test_checkpoint_any_number_of_ranks_reads_what_any_number_wrote(
    root: str, tmp_path: Path, writers: int, readers: int
) -> None:
    assert write(root, [5], writers) == []
    found = checkpoint.latest(root)
    assert found is not None
    assert found.progress == progress(5)
    assert found.num_ranks == writers
    reader = Reader(found, os.fspath(tmp_path))
    for rank in range(readers):
        for wanted in cut(rank, readers, 5):
            got = reader.read(wanted.name, wanted.start, wanted.arrays["weight"].size)
            assert {kind: array.tolist() for kind, array in got.items()} == {
                kind: array.tolist() for kind, array in wanted.arrays.items()
            }


def test_checkpoint_companions_are_there_before_the_metadata(root: str) -> None:
    write(root, [5])
    assert storage.read_text(f"{root}/metrics/5.jsonl") == metrics_row(5)


def test_checkpoint_without_metadata_does_not_exist(root: str) -> None:
    assert checkpoint.latest(root) is None
    write(root, [5, 10])
    newest = checkpoint.directory(root, 10, "aaaa")
    storage.delete_tree(storage.join(newest, checkpoint.METADATA))
    found = checkpoint.latest(root)
    assert found is not None
    assert found.progress.step == 5


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_checkpoint_whose_file_is_missing_or_short_is_passed_over(tmp_path: Path, damage: str) -> None:
    stage = os.fspath(tmp_path)
    write(stage, [5, 10])
    part = Path(checkpoint.directory(stage, 10, "aaaa")) / "rank-00001.safetensors"
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1])
    found = checkpoint.latest(stage)
    assert found is not None
    assert found.progress.step == 5


def test_checkpoint_corrupt_file_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    stage, folder = os.fspath(tmp_path / "stage"), tmp_path / "fetched"
    folder.mkdir()
    write(stage, [5])
    part = Path(checkpoint.directory(stage, 5, "aaaa")) / "rank-00000.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    found = checkpoint.latest(stage)
    assert found is not None
    with pytest.raises(UserError, match=r"rank-00000.safetensors: SHA-256 is \w+, .* remove .*step_00000005-aaaa to"):
        Reader(found, os.fspath(folder)).read("model.embed_tokens.weight", 0, 10)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    write(os.fspath(tmp_path), [5])
    found = checkpoint.latest(os.fspath(tmp_path))
    assert found is not None
    with pytest.raises(UserError, match=r"holds 7 of elements 0 to 9 of model.norm.weight"):
        Reader(found, os.fspath(tmp_path)).read("model.norm.weight", 0, 9)


def test_checkpoint_that_fits_passes_the_check_whatever_ranks_wrote_it(tmp_path: Path) -> None:
    write(os.fspath(tmp_path), [5], num_ranks=3)
    found = checkpoint.latest(os.fspath(tmp_path))
    assert found is not None
    checkpoint.check(found, SHAPES, MODEL, 3)
    checkpoint.check(found, SHAPES, {**MODEL, "a_switch_that_came_later": 1}, 3)
    older = dataclasses.replace(found, progress=dataclasses.replace(found.progress, model={}, loader={}))
    checkpoint.check(older, SHAPES, MODEL, 4)


@pytest.mark.parametrize(
    ("shapes", "model", "seed", "message"),
    [
        (
            SHAPES,
            {**MODEL, "hidden_size": 6},
            3,
            "model.hidden_size = 6: expected 5, as .*step_00000005-aaaa was trained with",
        ),
        (SHAPES, MODEL, 4, "train.seed = 4: expected 3, as .*step_00000005-aaaa was trained with"),
        ({**SHAPES, "lm_head.weight": (20, 5)}, MODEL, 3, r"aaaa: weight lm_head.weight \[20, 5\] is missing"),
        (
            {**SHAPES, "model.embed_tokens.weight": (5, 20)},
            MODEL,
            3,
            r"aaaa: weight model.embed_tokens.weight is \[20, 5\], but the model's is \[5, 20\]",
        ),
        (
            {"model.norm.weight": (7,)},
            MODEL,
            3,
            r"aaaa: weight model.embed_tokens.weight is unknown to the model \(and 0 more\)",
        ),
    ],
)
def test_checkpoint_that_contradicts_the_model_or_the_settings_is_one_line(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], model: dict[str, Any], seed: int, message: str
) -> None:
    write(os.fspath(tmp_path), [5])
    found = checkpoint.latest(os.fspath(tmp_path))
    assert found is not None
    with pytest.raises(UserError, match=message) as raised:
        checkpoint.check(found, shapes, model, seed)
    assert "\n" not in str(raised.value)


def test_checkpoint_that_lacks_a_part_of_a_weight_is_one_line(tmp_path: Path) -> None:
    write(os.fspath(tmp_path), [5])
    found = checkpoint.latest(os.fspath(tmp_path))
    assert found is not None
    half = dataclasses.replace(found, files=found.files[:1])
    with pytest.raises(
        UserError, match=r"aaaa: holds 53 elements of weight model.embed_tokens.weight \[20, 5\]: expected"
    ):
        checkpoint.check(half, {"model.embed_tokens.weight": (20, 5)}, MODEL, 3)


def test_checkpoint_retention_keeps_the_newest_and_clears_what_was_left(root: str) -> None:
    write(root, [5, 10], attempt="dead")
    storage.delete_tree(storage.join(checkpoint.directory(root, 10, "dead"), checkpoint.METADATA))
    write(root, [10, 15, 20], attempt="live", keep=2)
    names = {uri.split("/")[-2] for uri in storage.list_files(storage.join(root, checkpoint.FOLDER))}
    assert names == {"step_00000015-live", "step_00000020-live"}


def test_checkpoint_cleaning_leaves_the_next_one_of_a_faster_rank(tmp_path: Path) -> None:
    stage = os.fspath(tmp_path)
    early = storage.join(checkpoint.directory(stage, 10, "aaaa"), "rank-00001.json")
    storage.write_text(early, "{}")
    write(stage, [5], num_ranks=1)
    assert storage.exists(early)


def test_checkpoint_that_cannot_be_written_is_told_and_the_next_one_is_tried(tmp_path: Path) -> None:
    stage = os.fspath(tmp_path / "stage")
    blocked = Path(checkpoint.directory(stage, 5, "aaaa"))
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    warnings: list[str] = []
    writer = Writer(stage, "aaaa", 0, 1, Rules(newest=2), warnings.append)
    writer.start(progress(5), cut(0, 1, 5), {})
    writer.wait()
    assert (writer.failures, writer.committed_step) == (1, -1)
    assert len(warnings) == 1
    assert warnings[0].startswith("checkpoint of step 5 not written by rank 0: ")
    blocked.unlink()
    writer.start(progress(10), cut(0, 1, 10), {})
    writer.wait()
    writer.close()
    assert (writer.failures, writer.committed_step) == (1, 10)


def test_checkpoint_a_rank_that_fails_spares_rank_0_the_waiting(tmp_path: Path) -> None:
    stage = os.fspath(tmp_path)
    blocked = Path(checkpoint.directory(stage, 5, "aaaa")) / "rank-00001.safetensors"
    blocked.mkdir(parents=True)
    warnings = write(stage, [5])
    assert len(warnings) == 2
    assert any("rank 1: " in warning and "by rank 0" in warning for warning in warnings)
    assert checkpoint.latest(stage) is None


def test_checkpoint_loads_after_the_run_was_moved(tmp_path: Path) -> None:
    write(os.fspath(tmp_path / "old"), [5])
    shutil.move(tmp_path / "old", tmp_path / "new")
    found = checkpoint.latest(os.fspath(tmp_path / "new"))
    assert found is not None
    assert Reader(found, os.fspath(tmp_path)).read("model.norm.weight", 0, 7)["weight"].tolist() == list(range(5, 12))
