"""Scores of a classifier equal fastText's own, whatever stands beside a text; and what is said of a wrong config."""

import os
import re
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from caravela import config as settings
from caravela import storage
from caravela.config import ConfigError
from caravela.errors import UserError
from filters.text_classifier import ClassifierConfig, TextClassifier, check_names, decide, model_inputs
from tests.filters.fasttext_models import GLOTLID_LABELS, TinyModel
from tests.filters.hard_texts import hard_texts

LABELS = ("__label__keep", "__label__drop", "__label__unsure")
TEXTS = ["O mar é azul e a casa branca.", "Compre já!!! 50% off", "a " * 400, "🙂", "não foi à feira\ncomprar pão"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return TinyModel(labels=LABELS).write(tmp_path_factory.mktemp("model") / "model.bin")


def config(uri: str, **values: object) -> ClassifierConfig:
    return ClassifierConfig(name="quality", model_uri=uri, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["keep", "drop", "unsure"])
def test_scores_are_fasttexts_own_probability_of_the_label(model: str, label: str) -> None:
    texts = [*TEXTS, *(text for text in hard_texts(seed=3, count=60) if text.strip() and "</s>" not in text)]
    scores = TextClassifier(config(model, label=label)).scores(pa.array(texts))
    assert scores.dtype == np.float32
    own = fasttext.load_model(model)
    expected = []
    for text in texts:
        names, values = own.predict(text.replace("\n", " "), k=-1)
        expected.append(min(1.0, dict(zip(names, values, strict=True))[f"__label__{label}"]))
    # fastText adds up in single precision, which shows in texts of one word a thousand times.
    assert scores.tolist() == pytest.approx(expected, abs=1e-4)
    assert scores[: len(TEXTS)].tolist() == pytest.approx(expected[: len(TEXTS)], abs=2e-6)
    assert np.ptp(scores) > 0.2, "the texts are told apart"


def test_score_does_not_depend_on_neighbours_line_breaks_or_type(model: str) -> None:
    classifier = TextClassifier(config(model))
    together = classifier.scores(pa.array(TEXTS * 40, pa.large_string())).tolist()
    alone = [float(classifier.scores(pa.array([text]))[0]) for text in TEXTS]
    assert together == alone * 40
    assert classifier.scores(pa.array([text.replace(" ", "\n") for text in TEXTS])).tolist() == alone
    assert classifier.scores(pa.array(TEXTS).slice(2, 2)).tolist() == alone[2:4]


def test_text_without_words_scores_zero(model: str) -> None:
    classifier = TextClassifier(config(model))
    assert classifier.scores(pa.array(["", " ", "\n\t\u00a0", None], pa.string())).tolist() == [0, 0, 0, 0]
    assert classifier.scores(pa.array([], pa.string())).tolist() == []


def test_wrong_label_pin_or_file_is_one_line(model: str, tmp_path: Path) -> None:
    way_out = r"correct classifiers\.model_uri or classifiers\.model_sha256"
    with pytest.raises(UserError, match=r"label = 'good': not among the 3 labels of .*one of drop, keep, unsure"):
        TextClassifier(config(model, label="good"))
    with pytest.raises(UserError, match=rf"SHA-256 is [0-9a-f]{{64}}, expected 00; {way_out}"):
        TextClassifier(config(model, model_sha256="00"))
    with pytest.raises(UserError, match=rf"absent\.bin: no such model; {way_out}"):
        TextClassifier(config(str(tmp_path / "absent.bin")))
    (tmp_path / "other.bin").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"other\.bin: not a fastText model"):
        TextClassifier(config(str(tmp_path / "other.bin")))
    many = TinyModel(labels=GLOTLID_LABELS).write(tmp_path / "many.bin")
    with pytest.raises(UserError, match=r"'keep': not among the 17 labels .* \.\.\.$"):
        TextClassifier(config(many))


@pytest.mark.parametrize(
    ("score", "thresholds", "expected"),
    [
        (0.499, {"at_least": 0.5}, ("quality_too_low", "keep 0.499 is below 0.5")),
        (0.5, {"at_least": 0.5}, None),
        (0.5, {"at_most": 0.5}, None),
        (0.501, {"at_most": 0.5}, ("quality_too_high", "keep 0.501 is above 0.5")),
        (0.95, {"at_least": 0.1, "at_most": 0.9}, ("quality_too_high", "keep 0.950 is above 0.9")),
        (0.0, {}, None),
        (1.0, {}, None),
    ],
)
def test_decision_names_the_classifier_the_score_and_the_threshold(
    score: float, thresholds: dict[str, float], expected: tuple[str, str] | None
) -> None:
    assert decide(score, config("x", **thresholds)) == expected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "x"}, "model_uri: missing, and it has no default"),
        ({"name": "Meu filtro", "model_uri": "x"}, "name = 'Meu filtro': expected small letters, digits and _"),
        ({"name": "x", "model_uri": ""}, "model_uri = '': expected a fastText model"),
        ({"name": "x", "model_uri": "x", "at_least": 1.5}, "at_least = 1.5: expected between 0 and 1"),
        ({"name": "x", "model_uri": "x", "at_most": -1}, "at_most = -1"),
        (
            {"name": "x", "model_uri": "x", "at_least": 0.6, "at_most": 0.5},
            "at_least = 0.6: expected not above at_most = 0.5",
        ),
    ],
)
def test_config_mistakes_name_the_field(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        settings.build(ClassifierConfig, table, "x.toml")


def test_two_classifiers_of_one_name_are_refused() -> None:
    check_names([ClassifierConfig(name="a", model_uri="x"), ClassifierConfig(name="b", model_uri="x")])
    with pytest.raises(ConfigError, match="name = 'a': expected another name for each classifier"):
        check_names([ClassifierConfig(name="a", model_uri="x"), ClassifierConfig(name="a", model_uri="y")])


def test_model_is_identified_by_its_content_wherever_it_lies(model: str, root: str, tmp_path: Path) -> None:
    sha256 = storage.sha256_of(model)
    uris = [model, os.fspath(tmp_path / "copy.bin")]
    (tmp_path / "copy.bin").write_bytes(Path(model).read_bytes())
    remote = storage.join(root, "model.bin")
    storage.publish(model, remote)
    assert {model_inputs([config(uri)])[0].fingerprint for uri in uris} == {sha256}
    assert model_inputs([config(remote, model_sha256=sha256)])[0].fingerprint == sha256
    before = model_inputs([config(remote)])[0].fingerprint
    storage.write_bytes(remote, b"another")
    assert model_inputs([config(remote)])[0].fingerprint != before
    with pytest.raises(UserError, match=r"gone: no such model; correct classifiers\.model_uri"):
        model_inputs([config(f"{remote}.gone")])
