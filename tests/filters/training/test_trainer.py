"""Training: each step that of fastText's algorithm in plain NumPy, the same bytes twice, files that fastText reads."""

import hashlib
import math
import os
import re
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from caravela.config import ConfigError
from caravela.errors import UserError
from filters.fasttext_model import FastTextModel
from filters.training import trainer
from filters.training.trainer import FastTextConfig
from tests.filters.training.sentences import sentences

LANGUAGES = ("pt", "es", "fr", "en")
LEARNED, HELD_OUT = slice(0, 100), slice(100, 160)
ODD = "__label__es ño 你好 🙂🙂 e\u0301 a a a " + "x" * 300 + "\n__label__pt a\n__label__fr\n"
KINDS = {
    "parts of words": FastTextConfig(dim=8, epochs=4, buckets=500, shortest_part=1, longest_part=3),
    "whole words": FastTextConfig(dim=5, epochs=4, shortest_part=0, longest_part=0),
    "runs": FastTextConfig(dim=7, epochs=4, buckets=300, word_ngrams=3, shortest_part=0, longest_part=0),
    "rare words": FastTextConfig(dim=20, epochs=6, buckets=400, word_ngrams=2, longest_part=4, least_count=2),
}


def write_lines(path: Path, most: int = 100) -> str:
    """Sentences of each language in turn."""
    rows = zip(*(sentences(name)[:most] for name in LANGUAGES), strict=True)
    lines = (f"__label__{name} {text}\n" for row in rows for name, text in zip(LANGUAGES, row, strict=True))
    path.write_text("".join(lines), "utf-8")
    return os.fspath(path)


def trained(folder: Path, lines: str, config: FastTextConfig) -> str:
    folder.mkdir(exist_ok=True)
    path = os.fspath(folder / config.file_name)
    trainer.train(lines, config, path)
    return path


def run_rows(words: list[bytes], config: FastTextConfig, first: int) -> list[int]:
    """Rows of the runs of words, by fastText's arithmetic on 32 and 64 bits."""
    hashes = []
    for word in words:
        value = 2166136261
        for byte in word:
            value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
        hashes.append(value - (1 << 32) if value >> 31 else value)
    rows = []
    for i in range(len(hashes)):
        value = hashes[i] % (1 << 64)
        for j in range(i + 1, min(len(hashes), i + config.word_ngrams)):
            value = (value * 116049371 + hashes[j]) % (1 << 64)
            rows.append(first + value % config.buckets)
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_the_algorithm_in_plain_numpy(tmp_path: Path, kind: str) -> None:
    """What words the dictionary has, in which order, fastText itself says, and which rows their parts have."""
    config = KINDS[kind]
    path = tmp_path / "lines"
    write_lines(path, most=15)
    path.write_text(path.read_text("utf-8") + ODD, "utf-8")
    losses = trainer.train(str(path), config, str(tmp_path / "model.bin"))
    theirs = fasttext.load_model(str(tmp_path / "model.bin"))
    in_dictionary, labels = theirs.get_words(), theirs.get_labels()
    inputs = trainer.first_weights(theirs.get_input_matrix().shape[0], config.dim, config.seed).astype(np.float64)
    outputs = np.zeros((len(labels), config.dim))
    examples = []
    for line in path.read_text("utf-8").splitlines():
        label, *words = line.split(" ")
        rows = [row for word in words for row in theirs.get_subwords(word)[1]]
        rows += [in_dictionary.index("</s>")] if "</s>" in in_dictionary else []
        rows += run_rows([word.encode() for word in [*words, "</s>"]], config, len(in_dictionary))
        examples.append((labels.index(label), rows, len(words) + 1))
    total, done = config.epochs * sum(count for *_, count in examples), 0
    for epoch in range(config.epochs):
        loss = []
        for target, rows, count in examples:
            rate = config.learning_rate * (1 - done / total)
            done += count
            mean = inputs[rows].mean(axis=0)
            chances = np.exp(outputs @ mean)
            chances /= chances.sum()
            loss.append(-math.log(chances[target] + 1e-5))
            errors = rate * (np.eye(len(labels))[target] - chances)
            step = errors @ outputs / len(rows)
            outputs += errors[:, None] * mean
            np.add.at(inputs, rows, step)
        assert losses[epoch] == pytest.approx(np.mean(loss), rel=1e-5)
    assert theirs.get_input_matrix() == pytest.approx(inputs, abs=2e-5)
    assert theirs.get_output_matrix() == pytest.approx(outputs, abs=2e-5)
    assert np.abs(outputs).max() > 0.05, "something was learned"


def test_dictionary_is_that_of_fasttexts_own_training(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "lines")
    model = fasttext.load_model(trained(tmp_path, lines, FastTextConfig(dim=4, epochs=1, buckets=100, least_count=2)))
    settings = {"dim": 4, "epoch": 1, "bucket": 100, "minCount": 2, "minn": 2, "maxn": 5}
    theirs = fasttext.train_supervised(lines, thread=11, verbose=0, **settings)
    ours, own = (dict(zip(*each.get_words(include_freq=True), strict=True)) for each in (model, theirs))
    assert ours == own
    assert sorted(model.get_labels(include_freq=True)[1]) == sorted(theirs.get_labels(include_freq=True)[1])
    for word in ("mar", "ção", "comprar"):
        first, second = (each.get_subwords(word)[1] - len(ours) for each in (model, theirs))
        assert first[1:].tolist() == second[1:].tolist()


def right(model: str) -> float:
    """Share of held-out sentences that a model knows."""
    texts = [(name, text) for name in LANGUAGES for text in sentences(name)[HELD_OUT]]
    said, _ = fasttext.load_model(model).predict([text for _, text in texts])
    return float(np.mean([found[0] == f"__label__{name}" for found, (name, _) in zip(said, texts, strict=True)]))


def test_model_knows_held_out_sentences_as_well_as_one_that_fasttext_trained(tmp_path: Path) -> None:
    """With 11 threads fastText sets all its first weights, and its result is another each time."""
    lines = write_lines(tmp_path / "lines")
    ours = right(trained(tmp_path, lines, FastTextConfig(epochs=20, learning_rate=0.5, buckets=20_000)))
    settings = {"dim": 16, "epoch": 20, "lr": 0.5, "bucket": 20_000, "minn": 2, "maxn": 5}
    model = fasttext.train_supervised(lines, thread=11, verbose=0, **settings)
    model.save_model(str(tmp_path / "theirs.bin"))
    assert ours > 0.9  # chance is 0.25
    assert ours > right(str(tmp_path / "theirs.bin")) - 0.03


@pytest.mark.parametrize("quantize", [False, True])
def test_training_gives_the_same_bytes_twice_and_others_from_another_seed(tmp_path: Path, quantize: bool) -> None:
    lines = write_lines(tmp_path / "lines")
    sums = []
    for number, seed in enumerate((1, 1, 2)):
        config = FastTextConfig(dim=8, epochs=1, buckets=2000, quantize=quantize, seed=seed)
        path = trained(tmp_path / str(number), lines, config)
        sums.append(hashlib.sha256(Path(path).read_bytes()).hexdigest())
        assert os.listdir(tmp_path / str(number)) == [config.file_name]
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize("keep_features", [0, 1000])
def test_packed_model_is_small_and_still_knows_the_labels(tmp_path: Path, keep_features: int) -> None:
    lines = write_lines(tmp_path / "lines")
    config = FastTextConfig(epochs=20, learning_rate=0.5, buckets=20_000, quantize=True, keep_features=keep_features)
    path = trained(tmp_path, lines, config)
    assert os.path.getsize(path) < 0.3 * 4 * config.dim * config.buckets
    assert right(path) > 0.85
    texts = [text for name in LANGUAGES for text in sentences(name)[HELD_OUT]]
    theirs, scores = fasttext.load_model(path).predict(texts, k=4)
    ours = FastTextModel(path)
    found = ours.predict(pa.array(texts, pa.large_string()), 4)
    assert [[ours.labels[label] for label in row] for row in found.labels] == [list(row) for row in theirs]
    assert found.scores == pytest.approx(np.array(scores), abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 123456789])
def test_first_weights_are_evenly_spread_and_depend_on_the_seed_alone(seed: int) -> None:
    weights = trainer.first_weights(3000, 50, seed)
    assert np.array_equal(weights, trainer.first_weights(3000, 50, seed))
    assert not np.array_equal(weights, trainer.first_weights(3000, 50, seed + 1))
    counts, _ = np.histogram(weights, 20, (-1 / 50, 1 / 50))
    assert counts.sum() == weights.size
    assert np.abs(counts / weights.size - 0.05).max() < 0.003


def test_training_that_cannot_work_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "few").write_text("__label__a um\n__label__b dois\n", "utf-8")
    with pytest.raises(UserError, match="least_count = 5: no word occurs so often in 2 texts"):
        trained(tmp_path, str(tmp_path / "few"), FastTextConfig(least_count=5))
    whole_words = FastTextConfig(shortest_part=0, longest_part=0, quantize=True)
    with pytest.raises(UserError, match="quantize = true: the model has 3 features, and packing needs 256"):
        trained(tmp_path, str(tmp_path / "few"), whole_words)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim = 0: expected 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0: expected above 0"),
        ({"shortest_part": 4, "longest_part": 3}, "shortest_part = 4: expected from 0 to longest_part"),
        ({"buckets": 0}, "buckets = 0: expected 1 or more"),
    ],
)
def test_training_settings_out_of_range_name_the_field(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        FastTextConfig(**settings)  # type: ignore[arg-type]
