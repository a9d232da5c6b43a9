"""What is read of model files, against fastText's own reader, and what is said of files that are none."""

import random
import struct
from dataclasses import replace
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from caravela.errors import UserError
from filters.fasttext_file import read_model
from filters.fasttext_model import FastTextModel
from tests.filters.fasttext_models import MODELS, TinyModel

TEXTS = pa.array(["a casa do mar", "", "não </s>", "你好 🙂 " * 20, "__label__l1 x"])


@pytest.mark.parametrize("kind", MODELS)
def test_arrays_are_those_that_fasttext_reads(kind: str, tmp_path: Path) -> None:
    path = MODELS[kind].write(tmp_path / "model.bin")
    reference, model = fasttext.load_model(path), read_model(path)
    assert set(model.dictionary.label_names()) == set(reference.get_labels())
    assert model.settings.dim == reference.get_dimension()
    rows = model.input.to_dense()
    assert model.input.rows == len(rows)
    for number in random.Random(1).sample(range(len(rows)), min(40, len(rows))):
        assert rows[number] == pytest.approx(reference.get_input_vector(number), abs=1e-6)
    if not MODELS[kind].output_part and not MODELS[kind].part:
        assert model.output.to_dense() == pytest.approx(reference.get_output_matrix())


def test_large_dense_input_is_a_view_of_the_file(tmp_path: Path) -> None:
    """A model of 1.6 GB is not read into memory."""
    path = MODELS["softmax"].write(tmp_path / "model.bin")
    large, small = read_model(path, copy_below=0), read_model(path)
    assert np.shares_memory(large.input.dense, large.dictionary.data)
    assert not np.shares_memory(small.input.dense, small.dictionary.data)
    assert (large.input.dense == small.input.dense).all()


def said_of(data: bytes, path: Path) -> str:
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_model(str(path))
    message = str(caught.value)
    start = f"{path}: not a fastText model that can be used: "
    assert message.startswith(start)
    assert "\n" not in message
    return message.removeprefix(start)


def with_setting(number: int, value: int) -> bytes:
    """A good model, with one of the twelve settings changed."""
    data = bytearray(TinyModel().to_bytes())
    struct.pack_into("<i", data, 8 + 4 * number, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has 0 bytes"),
        (b"PK\x03\x04 and so on", r"it begins with b'PK\x03\x04'"),
        (struct.pack("<ii", 793712314, 13), "version = 13: expected 11 or 12"),
        (TinyModel(kind=1).to_bytes(), "model = 1: it holds word vectors; expected one that names labels (3)"),
        (with_setting(0, 0), "dim = 0: expected 1 or more"),
        (with_setting(0, 11), "314 x 10 input matrix: expected any number x 11"),
        (with_setting(6, 5), "loss = 5: expected 1 to 4"),
        (with_setting(10, 1001), "maxn = 1001: expected at most 1000"),
        (with_setting(5, 1001), "wordNgrams = 1001: expected at most 1000"),
        (with_setting(8, 0), "bucket = 0: expected 1 or more with n-grams"),
        (with_setting(8, 301), "314 rows in the input matrix for 301 buckets"),
        (TinyModel(labels=()).to_bytes(), "14 words + 0 labels != 14"),
        (TinyModel(pruned=30).to_bytes(), "its buckets are pruned, but its input is not quantised"),
        (TinyModel().to_bytes()[:-1], "it ends after"),
    ],
)
def test_file_that_cannot_be_used_is_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    words = len(TinyModel().words)
    message = message.replace("314 rows", f"{words + 300} rows").replace("314 x", f"{words + 300} x")
    message = message.replace("14 words + 0 labels != 14", f"{words} words + 0 labels != {words}")
    assert said_of(data, tmp_path / "model.bin").startswith(message)


@pytest.mark.parametrize("kind", ["softmax", "quantised_pruned", "quantised_output"])
def test_file_that_is_cut_off_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    data = MODELS[kind].to_bytes()
    for size in [*range(0, 900, 11), *range(900, len(data), 397), len(data) - 1]:
        assert "expected" in said_of(data[:size], tmp_path / "model.bin") or size < 900


@pytest.mark.parametrize("kind", ["tree", "runs_pruned", "quantised_norms", "quantised_output_tree"])
def test_damaged_file_is_refused_or_used_without_a_crash(kind: str, tmp_path: Path) -> None:
    """Compiled code does not look at borders, so whatever is used must have been checked."""
    tiny = replace(MODELS[kind], bucket=80, pruned=MODELS[kind].pruned and 20)
    data, rng, refused = tiny.to_bytes(), random.Random(5), 0
    path = tmp_path / "model.bin"
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(damaged) if rng.random() < 0.3 else 1200)
            damaged[place] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        path.write_bytes(damaged)
        try:
            found = FastTextModel(str(path)).predict(TEXTS, 2)
        except UserError:
            refused += 1
            continue
        assert np.isfinite(found.scores).all()
        assert found.labels.max() < len(tiny.labels)
    assert 20 < refused < 150
