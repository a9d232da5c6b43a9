"""Languages of the sample texts, where the model comes from, and what is said when it is missing or wrong."""

import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import fasttext
import numpy as np
import pyarrow as pa
import pytest

import fetch_models
from caravela import config as settings
from caravela import storage
from caravela.config import ConfigError
from caravela.errors import UserError
from filters import language
from filters.language import LanguageConfig, LanguageIdentifier, ModelFile, decide, model_path
from filters.training import trainer
from filters.training.trainer import FastTextConfig
from tests.filters.fasttext_models import TinyModel
from tests.filters.hard_texts import SAMPLE_TEXTS, hard_texts, sample_texts

DEFAULT = LanguageConfig()


@pytest.fixture(scope="module")
def lid176() -> LanguageIdentifier:
    """Needs the model file; a missing one fails with the line that says how to fetch it."""
    return LanguageIdentifier.from_config(DEFAULT)


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file outside the cache, under a name of its own."""
    return Path(shutil.copy(model_path("lid.176"), tmp_path_factory.mktemp("model") / "own.bin"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("CARAVELA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("folder", ["pt-BR", "pt-PT", "gl", "es", "ca", "it", "fr", "en"])
def test_sample_documents_are_identified_and_only_portuguese_stays(lid176: LanguageIdentifier, folder: str) -> None:
    paths = sorted((SAMPLE_TEXTS / folder).rglob("*.txt"))
    rankings = [lid176.identify(path.read_text(encoding="utf-8")) for path in paths]
    expected = folder.partition("-")[0]
    assert {ranking[0][0] for ranking in rankings} == {expected}
    reasons = {decision and decision[0] for decision in (decide(ranking, DEFAULT) for ranking in rankings)}
    assert reasons == ({None} if expected == "pt" else {"other_language"})


def test_galician_sentences_are_taken_for_portuguese_and_the_threshold_halves_it(lid176: LanguageIdentifier) -> None:
    """A known weakness of lid.176, kept in sight; whole documents are told apart."""
    texts = [path.read_text(encoding="utf-8") for path in (SAMPLE_TEXTS / "gl").rglob("*.txt")]
    sentences = [s for text in texts for s in text.replace("\n", ". ").split(". ") if len(s.split()) >= 6]
    best = [lid176.identify(sentence)[0] for sentence in sentences]
    taken = sum(label == "pt" for label, _ in best) / len(best)
    kept = sum(decide([first], DEFAULT) is None for first in best) / len(best)
    assert 0.1 < taken < 0.3
    assert kept < taken / 2


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t\u00a0", "</s> fim"])
def test_text_without_words_is_undetermined_and_removed(lid176: LanguageIdentifier, text: str) -> None:
    """In fastText a line ends at its own mark, </s>."""
    if not text.strip():
        assert lid176.identify(text) == [("und", 0.0)]
    decision = decide(lid176.identify(text), DEFAULT)
    assert decision is not None
    assert decision[0] == "other_language"


def test_line_breaks_count_as_blanks(lid176: LanguageIdentifier) -> None:
    assert lid176.identify("O mar\né azul\n\nhoje") == lid176.identify("O mar é azul  hoje")


def test_ranking_of_hard_texts_is_sorted_bounded_and_as_long_as_asked() -> None:
    identifier = LanguageIdentifier.from_config(LanguageConfig(candidates=5))
    for text in hard_texts(seed=6, count=120):
        ranking = identifier.identify(text)
        scores = [score for _, score in ranking]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert len(ranking) == 5 or ranking == [("und", 0.0)]
        assert not any(label.startswith("__label__") for label, _ in ranking)


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ([("pt", 0.65), ("gl", 0.3)], None),
        ([("pt", 0.64), ("gl", 0.3)], ("unsure", "pt 0.640 is below 0.65")),
        ([("gl", 0.9), ("pt", 0.1)], ("other_language", "gl 0.900")),
    ],
)
def test_decision_names_its_reason(ranking: list[tuple[str, float]], expected: tuple[str, str] | None) -> None:
    assert decide(ranking, DEFAULT) == expected


def test_batch_says_what_one_text_at_a_time_does(lid176: LanguageIdentifier) -> None:
    texts = [*hard_texts(seed=9, count=60), "", "\u2003\u00a0\x1c\n", "\x00", "\u200b", *sample_texts()[::11]]
    rankings = lid176.identify_batch(pa.array([*texts, None], pa.large_string()))
    assert rankings[:-1] == [lid176.identify(text) for text in texts]
    assert rankings[-1] == [("und", 0.0)]
    blank = [ranking == [("und", 0.0)] for ranking in rankings[:-1]]
    assert blank == [not text or text.isspace() for text in texts]


def test_scores_are_numbers_of_single_precision(lid176: LanguageIdentifier) -> None:
    """As tables store them; to decide again on what is stored decides alike."""
    for _, score in lid176.identify("A casa é branca e o mar é azul"):
        assert float(np.float32(score)) == score


def test_text_with_half_a_surrogate_pair_is_identified(lid176: LanguageIdentifier) -> None:
    """Such a str has no UTF-8; it comes from JSON, never from a table."""
    assert lid176.identify("O mar é azul e a casa é branca\ud800")[0][0] == "pt"


GLOTLID_SPELLING = {"pt-BR": "por_Latn", "pt-PT": "por_Latn", "gl": "glg_Latn", "es": "spa_Latn", "en": "eng_Latn"}


class Trained(NamedTuple):
    """A model with labels as GlotLID spells them, and texts that it has not seen."""

    path: str
    texts: dict[str, list[str]]


@pytest.fixture(scope="module", params=["model.bin", "model.ftz"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained on every second sentence of the sample texts with GlotLID's kind of loss and parts of words."""
    folder, lines, others = tmp_path_factory.mktemp("trained"), [], {}
    for language_folder, label in GLOTLID_SPELLING.items():
        paths = sorted((SAMPLE_TEXTS / language_folder).rglob("*.txt"))
        text = " ".join(path.read_text(encoding="utf-8").replace("\n", " ") for path in paths)
        sentences = [sentence for sentence in text.split(". ") if len(sentence.split()) > 5][:160]
        lines += [f"__label__{label} {sentence}\n" for sentence in sentences[::2]]
        others.setdefault(label, []).extend(sentences[1::2][:60])
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    # Not by fastText, whose result is another model on every run.
    config = FastTextConfig(epochs=25, learning_rate=0.8, buckets=5000, quantize=request.param == "model.ftz")
    trainer.train(str(folder / "train.txt"), config, str(folder / request.param))
    return Trained(str(folder / request.param), others)


def test_model_of_glotlids_label_scheme_is_loaded_and_says_what_fasttext_says(trained: Trained) -> None:
    identifier = LanguageIdentifier.from_config(LanguageConfig(model_uri=trained.path, candidates=4))
    reference = fasttext.load_model(trained.path)
    assert set(identifier.labels) == set(GLOTLID_SPELLING.values())
    texts = [text for some in trained.texts.values() for text in some] + [*hard_texts(seed=4, count=60)]
    texts = [text for text in texts if text.strip()]
    for text, ranking in zip(texts, identifier.identify_batch(pa.array(texts)), strict=True):
        labels, scores = reference.predict(text.replace("\n", " "), k=4)
        assert [label for label, _ in ranking] == [label.removeprefix("__label__") for label in labels], text[:80]
        # FastText adds up the 40,000 parts of one such word in single precision, and is the less exact one there.
        bound = 1e-4 if max(map(len, text.split())) >= 10_000 else 1e-5
        assert [score for _, score in ranking] == pytest.approx(np.minimum(scores, 1).tolist(), rel=0, abs=bound)


def test_default_config_keeps_portuguese_of_a_model_of_glotlids_label_scheme(trained: Trained) -> None:
    config = LanguageConfig(model_uri=trained.path)
    identifier = LanguageIdentifier.from_config(config)
    kept, best = {}, {}
    for label, texts in trained.texts.items():
        rankings = identifier.identify_batch(pa.array(texts))
        assert {len(ranking) for ranking in rankings} == {3}, "runner-ups are kept"
        best[label] = sum(ranking[0][0] == label for ranking in rankings) / len(rankings)
        kept[label] = [ranking[0] for ranking in rankings if decide(ranking, config) is None]
    assert min(best.values()) > 0.6, best  # chance is 0.25
    assert len(kept["por_Latn"]) > 0.5 * len(trained.texts["por_Latn"])
    assert {label for some in kept.values() for label, _ in some} == {"por_Latn"}
    assert all(score >= 0.799 for some in kept.values() for _, score in some)


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ([("por_Latn", 0.8), ("glg_Latn", 0.1)], None),
        ([("por_Latn", 0.799)], None),
        ([("por_Latn", 0.798)], ("unsure", "por_Latn 0.798 is below 0.799")),
        ([("glg_Latn", 0.9)], ("other_language", "glg_Latn 0.900")),
    ],
)
def test_glotlid_labels_have_the_threshold_of_fineweb_2(
    ranking: list[tuple[str, float]], expected: tuple[str, str] | None
) -> None:
    assert decide(ranking, DEFAULT) == expected
    assert decide(ranking, LanguageConfig(languages=("por_Latn",))) == expected


def test_threshold_that_is_set_holds_for_every_label() -> None:
    config = LanguageConfig(threshold=0.7)
    assert decide([("por_Latn", 0.71)], config) is None
    assert decide([("pt", 0.69)], config) == ("unsure", "pt 0.690 is below 0.7")


def test_language_that_the_model_does_not_know_is_refused_with_the_nearest_names(tmp_path: Path) -> None:
    labels = tuple(f"__label__{label}" for label in ("por_Latn", "glg_Latn", "rus_Cyrl"))
    path = TinyModel(labels=labels).write(tmp_path / "model.bin")
    with pytest.raises(UserError, match=r"language\.languages = \['por'\]: none is among the 3 labels .* por_Latn"):
        LanguageIdentifier.from_config(LanguageConfig(model_uri=path, languages=("por",)))
    with pytest.raises(UserError, match=r"\['por_Latn'\]: none is among the 176 labels of .*lid\.176.*example .*pt"):
        LanguageIdentifier.from_config(LanguageConfig(languages=("por_Latn",)))
    LanguageIdentifier.from_config(LanguageConfig(languages=("por_Latn", "pt")))


def test_own_model_without_portuguese_asks_for_languages(tmp_path: Path) -> None:
    path = TinyModel(labels=("__label__good", "__label__bad")).write(tmp_path / "quality.bin")
    with pytest.raises(UserError, match=r"\['pt'\]: none is among the 2 labels .*quality\.bin; .* bad, good"):
        LanguageIdentifier.from_config(LanguageConfig(model_uri=path))


def test_missing_model_is_one_line_with_the_command_that_fetches_it(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        LanguageIdentifier.from_config(DEFAULT)
    way_out = "fetch it with: python jobs/fetch_models.py"
    assert str(caught.value) == f"{cache}/lid.176.ftz: the language model lid.176 is not there; {way_out}"


def test_model_with_another_checksum_is_refused(cache: Path) -> None:
    cache.mkdir()
    (cache / "lid.176.ftz").write_bytes(b"half a file")
    found = hashlib.sha256(b"half a file").hexdigest()
    with pytest.raises(UserError, match=f"SHA-256 is {found}, expected 8f3472.*fetch it again with: python jobs"):
        model_path("lid.176")


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.bin").write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"text\.bin: not a fastText model"):
        LanguageIdentifier.from_config(LanguageConfig(model_uri=str(tmp_path / "text.bin")))


def test_loading_a_model_prints_nothing(own_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LanguageIdentifier(str(own_model))
    assert capfd.readouterr() == ("", "")


def test_own_model_by_uri_is_checked_and_used(own_model: Path, root: str, cache: Path) -> None:
    uri = storage.join(root, "own.bin")
    storage.publish(str(own_model), uri)
    sha256 = storage.sha256_of(str(own_model))
    config = LanguageConfig(model_uri=uri, model_sha256=sha256, languages=("gl", "pt"), threshold=0.5, candidates=2)
    ranking = LanguageIdentifier.from_config(config).identify("A lección non foi doada para o corazón da xente")
    assert (ranking[0][0], len(ranking)) == ("gl", 2)
    assert decide(ranking, config) is None
    kept_in_cache = sorted(cache.glob("*")) if cache.exists() else []
    assert len(kept_in_cache) == storage.is_remote(uri)
    LanguageIdentifier.from_config(config)
    assert (sorted(cache.glob("*")) if cache.exists() else []) == kept_in_cache
    with pytest.raises(UserError, match=rf"own\.bin: SHA-256 is {sha256}, expected 0000; correct language\.model_uri"):
        LanguageIdentifier.from_config(LanguageConfig(model_uri=uri, model_sha256="0000"))
    with pytest.raises(UserError, match="no such language model"):
        LanguageIdentifier.from_config(LanguageConfig(model_uri=f"{uri}.gone"))


@pytest.mark.slow
def test_replaced_model_behind_the_same_uri_is_fetched_anew(own_model: Path, s3_bucket: str, cache: Path) -> None:
    uri = f"{s3_bucket}/own.bin"
    storage.publish(str(own_model), uri)
    first = language.fetched_model(uri, "")
    storage.write_bytes(uri, b"another")
    assert Path(language.fetched_model(uri, "")).read_bytes() == b"another"
    assert Path(first).read_bytes() == own_model.read_bytes()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model": "lid176"}, r"model = 'lid176': expected one of lid\.176; or set model_uri"),
        ({"languages": []}, r"languages = \[\]: expected at least one label"),
        ({"threshold": 1.5}, r"threshold = 1\.5: expected between 0 and 1"),
        ({"candidates": 0}, "candidates = 0: expected 1 or more"),
    ],
)
def test_config_out_of_range_names_the_value(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.build(LanguageConfig, table, "x.toml")


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a web server of our own gives it away."""
    folder = tmp_path / "published"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_fetch_gets_the_published_file_once(cache: Path, publisher: tuple[Path, str]) -> None:
    folder, address = publisher
    (folder / "tiny.ftz").write_bytes(b"weights")
    model = ModelFile("tiny.ftz", f"{address}/tiny.ftz", hashlib.sha256(b"weights").hexdigest())
    assert fetch_models.fetch(model) == f"{cache}/tiny.ftz: fetched from {address}/tiny.ftz"
    assert (cache / "tiny.ftz").read_bytes() == b"weights"
    (folder / "tiny.ftz").unlink()
    assert fetch_models.fetch(model) == f"{cache}/tiny.ftz: already there"
    assert os.listdir(cache) == ["tiny.ftz"]


def test_fetch_refuses_a_published_file_that_changed(tmp_path: Path, publisher: tuple[Path, str]) -> None:
    folder, address = publisher
    (folder / "tiny.ftz").write_bytes(b"other weights")
    model = ModelFile("tiny.ftz", f"{address}/tiny.ftz", hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(UserError, match=r"tiny\.ftz: SHA-256 is .*; the publisher's file changed"):
        fetch_models.download(model, str(tmp_path))


def test_fetch_job_does_nothing_when_the_model_is_there() -> None:
    path = model_path("lid.176")
    before = os.stat(path).st_mtime_ns
    job = Path(fetch_models.__file__)
    result = subprocess.run([sys.executable, job], capture_output=True, text=True, check=True)
    assert result.stdout == f"{path}: already there\n"
    assert os.stat(path).st_mtime_ns == before
