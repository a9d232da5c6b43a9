"""Checkpoints as a person looks at them, by the job itself, on disk and on S3, with damage done by hand."""

from pathlib import Path

import numpy as np
import pytest

import checkpoints as job
from caravela import storage
from caravela.errors import UserError
from caravela.train import checkpoint, inspection
from tests.train.test_checkpoint import SIZES, values, write


def stage_in(root: str) -> str:
    return storage.join(root, "pretrain", "abcd")


def test_list_names_every_checkpoint_with_state_step_tokens_and_loss(
    root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = stage_in(root)
    write(stage, [5, 10], keep=9)
    storage.delete_tree(storage.join(checkpoint.directory(stage, 10, "aaaa"), checkpoint.METADATA))
    assert job.main(["list", root]) == 0
    first, headings, five, ten = capsys.readouterr().out.splitlines()
    assert first == stage
    assert headings.split() == ["checkpoint", "state", "step", "tokens", "loss", "size", "ranks", "made"]
    assert five.split()[:5] == ["step_00000005-aaaa", "complete", "5", "50", "5.2500"]
    assert ten.split()[:3] == ["step_00000010-aaaa", "incomplete", "10"]


def test_verify_finds_every_kind_of_damage_and_says_so_by_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = stage_in(str(tmp_path))
    write(stage, [5, 10, 15, 20], keep=9)
    assert job.main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("every file is as it was written") == 4
    part = {step: Path(checkpoint.directory(stage, step, "aaaa"), "rank-00001.safetensors") for step in (5, 10, 15)}
    part[5].unlink()
    part[10].write_bytes(part[10].read_bytes()[:-1])
    flipped = bytearray(part[15].read_bytes())
    flipped[-1] ^= 1
    part[15].write_bytes(flipped)
    assert [one.state for one in inspection.listed(stage)] == ["damaged", "damaged", "complete", "complete"]
    assert job.main(["verify", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"{part[5]}: missing" in said
    assert f"{part[10]}: {part[10].stat().st_size:,} bytes, expected {part[10].stat().st_size + 1:,}" in said
    assert f"{part[15]}: SHA-256 is" in said
    assert job.main(["verify", str(tmp_path), "--step", "20"]) == 0


def test_compare_is_by_parameter_whatever_the_number_of_ranks(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = stage_in(root), storage.join(root, "pretrain", "efgh")
    write(one, [5], num_ranks=2)
    write(other, [5, 7], num_ranks=3, keep=9)
    same = [checkpoint.directory(one, 5, "aaaa"), checkpoint.directory(other, 5, "aaaa")]
    assert job.main(["compare", *same]) == 0
    assert capsys.readouterr().out == f"{len(SIZES)} of {len(SIZES)} parameters are equal, with their moments\n"
    found = inspection.differences(same[0], checkpoint.directory(other, 7, "aaaa"))
    assert {each.name: each.largest for each in found} == {
        name: {kind: float(np.abs(values(name, kind, 7) - values(name, kind, 5)).max()) for kind in checkpoint.KINDS}
        for name in SIZES
    }


def test_prune_keeps_what_the_rules_keep_and_what_is_being_written(
    root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = stage_in(root)
    write(stage, [5, 10, 15, 20, 25], keep=9)
    storage.delete_tree(storage.join(checkpoint.directory(stage, 25, "aaaa"), checkpoint.METADATA))
    assert job.main(["prune", root, "--keep", "1", "--keep-every-steps", "10"]) == 0
    assert [line.rpartition("_")[2] for line in capsys.readouterr().out.splitlines()] == [
        "00000005-aaaa",
        "00000015-aaaa",
    ]
    assert [one.step for one in inspection.listed(stage)] == [10, 20, 25]
    assert job.main(["prune", root, "--keep", "0"]) == 1
    assert "newest = 0: expected 1 or more" in capsys.readouterr().err


def test_a_root_without_checkpoints_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main(["list", str(tmp_path)]) == 1
    assert "no checkpoints below" in capsys.readouterr().err
    with pytest.raises(UserError, match="no checkpoints below"):
        inspection.stages_of(str(tmp_path))
