"""A small run, trained once by two workers without a fault; what others are compared with."""

import os
from pathlib import Path
from typing import Any

import pytest

from caravela.manifest import Input
from caravela.train.config import TrainConfig
from tests.packed_rows import FINGERPRINT, write_pack, write_tokenizer
from tests.train.groups import run_group, train

TRAIN_ROWS = [60, 41, 9]
BATCH_ROWS = 7


def config(**changed: Any) -> TrainConfig:
    usual = {
        "steps": 24,
        "batch_rows": BATCH_ROWS,
        "micro_batch_rows": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 4,
        "precision": "fp32",
        "checkpoint_every_steps": 8,
        "validate_every_steps": 8,
        "num_workers": 2,
        "trace": True,
    }
    return TrainConfig(**{**usual, **changed})


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Input:
    uri = os.fspath(tmp_path_factory.mktemp("pack"))
    write_pack(uri, TRAIN_ROWS)
    return Input(name="pack", fingerprint=FINGERPRINT, uri=uri)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Input:
    uri = os.fspath(tmp_path_factory.mktemp("tokenizer"))
    write_tokenizer(uri)
    return Input(name="tokenizer", fingerprint="t", uri=uri)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory, pack: Input) -> Path:
    """Directory of the stage."""
    stage = tmp_path_factory.mktemp("unbroken")
    run_group(2, train, os.fspath(stage), config(), pack)
    return stage
