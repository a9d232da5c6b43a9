"""Scores of a classifier equal fastText's own, whatever stands beside a text; and what is said of a wrong config."""

import hashlib
import os
import re
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from caravela.config import ConfigError
from caravela.errors import UserError
from filters.text_classifier import ClassifierConfig, TextClassifier, decide
from filters.training import trainer
from filters.training.trainer import FastTextConfig
from tests.filters.training.sentences import sentences

SMALL = FastTextConfig(dim=8, epochs=20, learning_rate=1.0, buckets=2000, shortest_part=1, longest_part=3)
LEARNED, HELD_OUT = slice(0, 100), slice(100, 138)


def write_lines(path: Path) -> Path:
    """Portuguese to keep, Spanish and French to drop, in turn."""
    rows = zip(*(sentences(name)[LEARNED] for name in ("pt", "es", "fr")), strict=True)
    path.write_text("".join(f"__label__keep {a}\n__label__drop {b}\n__label__drop {c}\n" for a, b, c in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    path = os.fspath(folder / "model.bin")
    trainer.train(os.fspath(write_lines(folder / "lines")), SMALL, path)
    return path


def texts_and_truth() -> tuple[list[str], list[bool]]:
    kept, dropped = sentences("pt")[HELD_OUT], sentences("it")[:19] + sentences("fr")[HELD_OUT][:19]
    return [*kept, *dropped], [True] * len(kept) + [False] * len(dropped)


@pytest.mark.slow
def test_scores_equal_fasttexts_own_and_tell_held_out_texts_apart(model: str) -> None:
    texts, truth = texts_and_truth()
    scores = TextClassifier(ClassifierConfig(model_uri=model)).scores(pa.array(texts))
    assert scores.dtype == np.float32
    own = fasttext.load_model(model)
    for text, score in zip(texts, scores, strict=True):
        found = dict(zip(*own.predict(text, k=-1), strict=True))
        assert score == pytest.approx(min(1.0, found["__label__keep"]), abs=1e-4)
    assert np.mean((scores > 0.5) == np.array(truth)) > 0.85  # chance is 0.5; Italian was not learned
    drops = TextClassifier(ClassifierConfig(model_uri=model, label="drop")).scores(pa.array(texts))
    assert scores + drops == pytest.approx(np.ones(len(texts)), abs=1e-3)


@pytest.mark.slow
def test_score_does_not_depend_on_neighbours_or_line_breaks(model: str) -> None:
    classifier = TextClassifier.from_config(ClassifierConfig(model_uri=model))
    assert classifier is not None
    texts = [*texts_and_truth()[0]] * 3
    together = classifier.scores(pa.array(texts))
    alone = [float(classifier.scores(pa.array([text]))[0]) for text in texts[:10]]
    assert together[:10].tolist() == alone
    broken = classifier.scores(pa.array([text.replace(" ", "\n") for text in texts[:10]]))
    assert broken.tolist() == alone
    sliced = pa.chunked_array([pa.array(texts)]).combine_chunks().slice(5, 4)
    assert classifier.scores(sliced).tolist() == together[5:9].tolist()


@pytest.mark.slow
def test_text_without_words_scores_zero(model: str) -> None:
    classifier = TextClassifier(ClassifierConfig(model_uri=model))
    assert classifier.scores(pa.array(["", " ", "\n\t\u00a0", None], pa.string())).tolist() == [0, 0, 0, 0]
    assert classifier.scores(pa.array([], pa.string())).tolist() == []


def test_no_model_is_no_classifier() -> None:
    assert TextClassifier.from_config(ClassifierConfig()) is None


@pytest.mark.slow
def test_wrong_label_pin_or_file_is_one_line(model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no label 'good'; expected classifier\.label to be one of drop, keep"):
        TextClassifier(ClassifierConfig(model_uri=model, label="good"))
    with pytest.raises(UserError, match=r"SHA-256 is [0-9a-f]{64}, expected 00"):
        TextClassifier(ClassifierConfig(model_uri=model, model_sha256="00"))
    with pytest.raises(UserError, match=r"absent\.bin: no such"):
        TextClassifier(ClassifierConfig(model_uri=str(tmp_path / "absent.bin")))
    (tmp_path / "other.bin").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"other\.bin: not a fastText model"):
        TextClassifier(ClassifierConfig(model_uri=str(tmp_path / "other.bin")))


def test_decision_needs_a_score_below_the_threshold() -> None:
    config = ClassifierConfig(model_uri="x", min_score=0.5)
    assert decide(0.5, config) is None
    assert decide(0.499, config) == ("low_score", "keep 0.499 is below 0.5")
    assert decide(0.0, ClassifierConfig(model_uri="x")) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_uri": "x", "min_score": 1.5}, "min_score = 1.5: expected between 0 and 1"),
        ({"min_score": 0.5}, "min_score = 0.5: expected 0 without model_uri"),
    ],
)
def test_config_mistakes_name_the_field(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ClassifierConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [False, True])
def test_training_gives_the_same_bytes_twice_and_others_from_another_seed(tmp_path: Path, quantize: bool) -> None:
    lines = write_lines(tmp_path / "lines")
    sums = []
    for number, seed in enumerate((1, 1, 2)):
        config = FastTextConfig(dim=8, epochs=1, buckets=2000, quantize=quantize, seed=seed)
        path = tmp_path / f"{number}-{config.file_name}"
        trainer.train(str(lines), config, str(path))
        sums.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "hs", "ova"])
def test_packed_models_of_every_loss_still_know_the_labels(tmp_path: Path, loss: str) -> None:
    lines = write_lines(tmp_path / "lines")
    config = FastTextConfig(dim=8, epochs=20, learning_rate=1.0, buckets=2000, quantize=True, loss=loss)  # type: ignore[arg-type]
    path = tmp_path / config.file_name
    trainer.train(str(lines), config, str(path))
    rows = config.buckets + len(fasttext.load_model(str(path)).words)
    assert path.stat().st_size < 4 * config.dim * rows
    texts, truth = texts_and_truth()
    scores = TextClassifier(ClassifierConfig(model_uri=str(path))).scores(pa.array(texts))
    assert np.mean((scores > 0.5) == np.array(truth)) > 0.8


@pytest.mark.slow
def test_installed_build_of_fasttext_can_train() -> None:
    trainer.check_build()


def test_build_that_leaves_weights_as_they_were_is_noticed() -> None:
    """What memory held: the same for every seed, or another thing each time, or not a number."""
    generator = np.random.default_rng(0)
    first, other = (generator.uniform(-1, 1, (100, 13)).astype(np.float32) for _ in range(2))
    assert trainer.sets_first_weights(first, first, other)
    stale = other.copy()
    stale[10:] = first[10:]
    assert not trainer.sets_first_weights(first, first, stale)
    assert not trainer.sets_first_weights(first, other, other)
    zeros = first * 0
    assert not trainer.sets_first_weights(zeros, zeros, zeros)
    broken = other.copy()
    broken[3, 3] = np.nan
    assert not trainer.sets_first_weights(first, first, broken)


@pytest.mark.slow
def test_training_that_cannot_work_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "few").write_text("__label__a um\n__label__b dois\n", "utf-8")
    with pytest.raises(UserError, match="cannot train on these texts"):
        trainer.train(str(tmp_path / "few"), FastTextConfig(least_count=5), str(tmp_path / "x.bin"))
    whole_words = FastTextConfig(shortest_part=0, longest_part=0, quantize=True)
    with pytest.raises(UserError, match=r"quantize = true: the model has \d+ features, and packing needs 256"):
        trainer.train(str(tmp_path / "few"), whole_words, str(tmp_path / "x.ftz"))


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
