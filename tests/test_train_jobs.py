"""The jobs that train: models that know held-out texts, the same bytes from the same texts, reports that add up."""

import collections
import hashlib
import itertools
import json
import random
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import train_classifier
import train_language_id
from caravela import config, schema, storage
from caravela.config import ConfigError
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from filters.curate import CurateConfig, curate_stages
from filters.language import LanguageConfig, LanguageIdentifier
from filters.text_classifier import ClassifierConfig, TextClassifier
from filters.training.stages import (
    BalancedPiecesConfig,
    ClassifierTrainingConfig,
    LanguageIdConfig,
    classifier_stage,
    language_id_stage,
)
from filters.training.texts import LabelledFields
from filters.training.trainer import FastTextConfig
from tests.filters.training.sentences import sentences
from tests.road_without_ray import finish
from tests.running import REPOSITORY, run

SMALL = FastTextConfig(dim=8, epochs=20, learning_rate=1.0, buckets=2000, shortest_part=1, longest_part=3)
FIELDS = LabelledFields(label="language")
LANGUAGES = ("en", "es", "fr", "pt")
TRAINING = REPOSITORY / "jobs" / "configs" / "training"


def write(path: Path, rows: Iterable[Mapping[str, str]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def labelled(languages: Sequence[str] = LANGUAGES, most: int = 150) -> list[dict[str, str]]:
    return [{"text": text, "language": name} for name in languages for text in sentences(name)[:most]]


def report(done: Manifest) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(storage.read_text(storage.join(done.uri, "report.json")))
    return figures


def language_id(root: Path, *inputs: str) -> Manifest:
    return finish(language_id_stage(str(root), LanguageIdConfig(inputs=inputs, fields=FIELDS, model=SMALL)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("language_id")
    return language_id(folder / "root", write(folder / "texts.jsonl", labelled()))


def test_language_model_knows_held_out_sentences_and_its_report_adds_up(trained: Manifest) -> None:
    figures = report(trained)
    table = figures["confusion"]
    right = sum(table[i][i] for i in range(len(LANGUAGES)))
    assert figures["accuracy"] == pytest.approx(right / figures["test_texts"], abs=1e-6)
    assert figures["accuracy"] > 0.8  # chance is 0.25
    assert [row["label"] for row in figures["per_label"]] == list(LANGUAGES)
    assert [row["texts"] for row in figures["per_label"]] == [sum(row) for row in table] == [15] * 4
    assert sum(row["texts"] for row in figures["by_length"]) == figures["test_texts"] == 60
    parts = [figures[f"{name}_texts"] for name in ("train", "validation", "test")]
    assert sum(parts) == trained.counters["documents_kept"] == trained.counters["documents_in"] == 600
    assert trained.summary["accuracy"] == figures["accuracy"]


def test_language_model_is_used_by_curation_as_it_is(trained: Manifest) -> None:
    named = {key: trained.summary[key] for key in ("model_uri", "model_sha256")}
    identifier = LanguageIdentifier.from_config(LanguageConfig(**named, languages=("pt",), threshold=0.5))
    texts = {name: "\n".join(sentences(name)[150:155]) for name in LANGUAGES}
    assert {name: identifier.identify(text)[0][0] for name, text in texts.items()} == {name: name for name in LANGUAGES}
    data = storage.read_bytes(named["model_uri"])
    assert hashlib.sha256(data).hexdigest() == named["model_sha256"]
    own = fasttext.load_model(named["model_uri"])
    assert sorted(own.get_labels()) == [f"__label__{name}" for name in LANGUAGES]


def test_same_texts_in_other_files_and_order_give_the_same_bytes(trained: Manifest, tmp_path: Path) -> None:
    rows = labelled()[::-1]
    one, two = write(tmp_path / "a.jsonl", rows[:100]), write(tmp_path / "b.jsonl", rows[100:])
    again = language_id(tmp_path / "root", one, two)
    assert {file.path: file.sha256 for file in again.files("files")} == {
        file.path: file.sha256 for file in trained.files("files")
    }
    assert sorted(file.path for file in again.files("files")) == ["model.bin", "report.html", "report.json"]


def test_pages_need_nothing_but_themselves_and_show_every_label(trained: Manifest) -> None:
    html = storage.read_text(storage.join(trained.uri, "report.html"))
    assert not re.search(r"<script|(?:src|href)=\"(?!#)|https?://", html)
    assert "default-src &#x27;none&#x27;" in html
    for name in LANGUAGES:
        assert f'<th scope="row">{name}</th>' in html


GLOTLID = {"pt": "por_Latn", "gl": "glg_Latn", "es": "spa_Latn", "ca": "cat_Latn", "it": "ita_Latn", "fr": "fra_Latn"}


def made_up_language(number: int) -> list[dict[str, str]]:
    """Sentences of a language that is not, under a label of three letters and a script."""
    chance = random.Random(number)
    letters = [chr(0x430 + place) for place in chance.sample(range(32), 8)]
    words = ["".join(chance.choices(letters, k=chance.randrange(2, 8))) for _ in range(30)]
    label = f"q{chr(97 + number // 26)}{chr(97 + number % 26)}_Cyrl"
    return [{"text": " ".join(chance.choices(words, k=9)), "language": label} for _ in range(30)]


@pytest.fixture(scope="module")
def glotlid(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A model with GlotLID's kind of labels, and many of them."""
    folder = tmp_path_factory.mktemp("glotlid")
    rows = [{**row, "language": GLOTLID[row["language"]]} for row in labelled(tuple(GLOTLID), 120)]
    rows += [row for number in range(60) for row in made_up_language(number)]
    model = FastTextConfig(epochs=15, buckets=20_000, longest_part=4)
    inputs = (write(folder / "texts.jsonl", rows),)
    config = LanguageIdConfig(inputs=inputs, fields=FIELDS, model=model, label="por_Latn")
    return finish(language_id_stage(str(folder / "root"), config))


def test_curation_with_a_model_of_glotlids_labels_keeps_portuguese_and_the_runners_up(
    glotlid: Manifest, tmp_path: Path
) -> None:
    """Nothing but the model is set: pt stands for por_Latn, and 0.799 is its threshold."""
    assert len(report(glotlid)["per_label"]) == 66
    texts = {name: [" ".join(sentences(name)[i : i + 4]) for i in range(120, 144, 4)] for name in ("pt", "gl", "es")}
    texts["short"] = [" ".join(text.split()[:2]) for text in sentences("pt")[120:160]]
    rows = [{"id": f"{name}{i}", "text": text} for name, some in texts.items() for i, text in enumerate(some)]
    table: dict[str, Any] = {key: glotlid.summary[key] for key in ("model_uri", "model_sha256")}
    settings = {"inputs": [write(tmp_path / "in.jsonl", rows)], "language": table}
    (stage,) = curate_stages(str(tmp_path / "root"), config.build(CurateConfig, settings, "run.toml"))
    done = finish(stage)
    uris = [*done.uris("documents"), *done.uris("removed")]
    found = [row for uri in uris for row in pq.read_table(uri).to_pylist()]
    assert len(found) == len(rows)
    own = fasttext.load_model(table["model_uri"])
    reasons: dict[str, list[str | None]] = collections.defaultdict(list)
    for row in found:
        names, scores = own.predict(row["text"], k=3)
        runners_up = {name.removeprefix("__label__"): score for name, score in zip(names, scores, strict=True)}
        assert json.loads(row["metadata"])["languages"] == pytest.approx(runners_up, abs=1e-4)
        assert row["language"] in (*GLOTLID.values(), *(label for label in runners_up))
        is_kept = row["language"] == "por_Latn" and row["language_score"] >= 0.799
        assert (row.get("stage") != "language") == is_kept
        reasons[row["id"].rstrip("0123456789")].append(row["reason"] if row.get("stage") == "language" else None)
    assert reasons["pt"].count(None) >= 5
    assert set(reasons["gl"]) == set(reasons["es"]) == {"other_language"}
    assert {None, "unsure"} <= set(reasons["short"])


def classifier(root: Path, **settings: Any) -> Manifest:
    settings = {"fields": FIELDS, "model": SMALL, **settings}
    return finish(classifier_stage(str(root), ClassifierTrainingConfig(**settings)))


def test_classifier_tells_held_out_texts_apart_and_its_curve_is_one(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", labelled(["pt"], 300))
    bad = write(tmp_path / "bad.jsonl", labelled(["es", "fr"], 75))
    done = classifier(tmp_path / "root", positive_inputs=(good,), negative_inputs=(bad,))
    figures = report(done)
    assert figures["texts_per_label"]["train"] == {"drop": 120, "keep": 120}  # balanced
    assert figures["texts_per_label"]["test"] == {"drop": 15, "keep": 30}
    assert done.counters["removed.over_limit"] == 120
    assert figures["average_precision"] > 0.9  # chance is 2/3
    assert figures["roc_auc"] > 0.9
    points = figures["precision_recall"]
    assert all(a["recall"] <= b["recall"] and a["threshold"] > b["threshold"] for a, b in itertools.pairwise(points))
    assert points[-1]["recall"] == 1
    by_threshold = figures["by_threshold"]
    assert by_threshold[0]["kept"] == by_threshold[0]["recall"] == 1
    assert all(a["recall"] >= b["recall"] for a, b in itertools.pairwise(by_threshold))
    chosen = figures["thresholds"]
    assert chosen["recall 0.99"]["threshold"] <= chosen["recall 0.9"]["threshold"]
    assert chosen["recall 0.99"]["recall"] >= chosen["recall 0.9"]["recall"]
    named = {key: done.summary[key] for key in ("model_uri", "model_sha256")}
    scores = TextClassifier(ClassifierConfig(name="quality", **named)).scores(
        pa.array([sentences("pt")[310], sentences("fr")[80]])
    )
    assert scores[0] > scores[1]


def test_labels_that_are_positive_give_the_model_of_two_files(tmp_path: Path) -> None:
    good, bad = labelled(["pt"], 60), labelled(["es", "fr"], 30)
    both = write(tmp_path / "both.jsonl", [*bad, *good])
    files = {
        "positive_inputs": (write(tmp_path / "g.jsonl", good),),
        "negative_inputs": (write(tmp_path / "b.jsonl", bad),),
    }
    apart = classifier(tmp_path / "a", **files)
    together = classifier(tmp_path / "b", inputs=(both,), positive_labels=("pt",))
    assert together.summary["model_sha256"] == apart.summary["model_sha256"]
    with pytest.raises(UserError, match=r"positive_labels: no text has \['gl'\]; labels in the inputs: es, fr, pt"):
        classifier(tmp_path / "c", inputs=(both,), positive_labels=("pt", "gl"))


def curated(root: Path) -> Manifest:
    """A finished curation: what quality removed still has its e-mail addresses, as it has in a real run."""

    def work(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        kept, removed = out.table("documents", schema.documents()), out.table("removed", schema.removed())
        for i, text in enumerate(sentences("pt")[:40]):
            kept.add({"id": f"k{i}", "text": f"{text} <EMAIL>"})
        for i, text in enumerate(sentences("es")[:40]):
            removed.add({"id": f"q{i}", "text": f"{text} ana{i}@exemplo.com.br", "stage": "quality", "reason": "x"})
        for i, text in enumerate(sentences("fr")[:40]):
            removed.add({"id": f"l{i}", "text": text, "stage": "language", "reason": "other_language"})
        return {"documents_in": 120, "documents_kept": 40, "removed.quality.x": 40, "removed.language.y": 40}

    settings: dict[str, Any] = {"personal_data": {}}
    shards = [Shard(index=0, name="all", spec={})]
    return finish(
        Stage(
            name="curate",
            version=1,
            root=str(root),
            config=settings,
            inputs=(),
            plan=lambda: shards,
            make_worker=lambda: work,
        )
    )


def test_kept_is_learned_against_what_a_step_removed_without_a_mark_of_the_masking(tmp_path: Path) -> None:
    curated(tmp_path)
    words = FastTextConfig(dim=8, epochs=5, buckets=2000, shortest_part=0, longest_part=0)
    done = classifier(tmp_path, from_curation=True, model=words)
    assert done.counters["documents_in"] == 80  # nothing that the language step removed
    assert [source.name for source in done.inputs] == ["curate"]
    known = fasttext.load_model(done.summary["model_uri"]).words
    assert "<EMAIL>" in known
    assert not [word for word in known if "@" in word]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected positive_inputs and negative_inputs, inputs with positive_labels, or from_curation = true"),
        ({"from_curation": True}, "no finished curation here (classifier.from_curation)"),
        ({"positive_inputs": ("absent.jsonl",)}, "absent.jsonl: no such input (classifier.positive_inputs)"),
    ],
)
def test_classifier_without_texts_says_what_is_missing(tmp_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        classifier_stage(str(tmp_path), ClassifierTrainingConfig(**settings))


def test_language_id_without_inputs_or_with_an_unknown_label_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"language_id\.inputs = \[\]: expected at least one"):
        language_id_stage(str(tmp_path), LanguageIdConfig())
    path = write(tmp_path / "x.jsonl", labelled())
    wrong = LanguageIdConfig(inputs=(path,), fields=FIELDS, model=SMALL, label="por")
    with pytest.raises(UserError, match=r"language_id\.label = 'por': expected one of en, es, fr, pt"):
        finish(language_id_stage(str(tmp_path), wrong))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positive_labels": ("a",)}, "positive_labels = ['a']: expected some with inputs, and none without"),
        ({"inputs": ("a",)}, "positive_labels = []: expected some with inputs"),
        ({"targets": ()}, "targets = []: expected some"),
        ({"targets": (1.5,)}, "targets = [1.5]: expected some, above 0 and 1 at most"),
    ],
)
def test_classifier_config_mistakes_name_the_field(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ClassifierTrainingConfig(**settings)


def test_section_that_sets_one_thing_keeps_the_other_defaults_of_a_classifier() -> None:
    table = {"root": "x", "classifier": {"split": {"seed": 2}, "model": {"dim": 4}}}
    found = config.build(train_classifier.ClassifierJob, table, "test").classifier
    assert found.split == BalancedPiecesConfig(seed=2)
    assert found.split.balance
    assert (found.model.dim, found.model.epochs, found.model.longest_part, found.split.piece_words) == (4, 5, 4, 100)


def test_shipped_configs_of_training_load() -> None:
    job = config.load(train_language_id.LanguageIdJob, str(TRAINING / "language_id.toml"))
    assert job.language_id.fields.label == "language"
    assert config.load(train_classifier.ClassifierJob, str(TRAINING / "classifier.toml")).classifier.split.balance


@pytest.mark.slow
@pytest.mark.ray
def test_job_runs_on_ray_and_prints_what_makes_curation_use_the_model(tmp_path: Path) -> None:
    inputs = write(tmp_path / "texts.jsonl", labelled(most=60))
    settings = write_config(tmp_path, f'inputs = ["{inputs}"]')
    done = run([sys.executable, "jobs/train_language_id.py", "--config", settings])
    assert done.returncode == 0, done.stderr
    found = re.search(r'\[curate\.language\]\nmodel_uri = "(.+)"\nmodel_sha256 = "([0-9a-f]{64})"', done.stdout)
    assert found, done.stdout
    assert hashlib.sha256(Path(found[1]).read_bytes()).hexdigest() == found[2]


def test_job_shows_its_plan_and_a_mistake_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write_config(tmp_path, f'inputs = ["{write(tmp_path / "texts.jsonl", labelled(most=2))}"]')
    assert train_language_id.main(["--config", settings, "--dry-run"]) == 0
    assert "1 to do" in capsys.readouterr().out
    assert train_language_id.main(["--config", settings, "--set", "language_id.model.epoch=3"]) == 1
    assert re.fullmatch(
        r"error: .*language_id\.model\.epoch: unknown key; did you mean .*epochs\?\n", capsys.readouterr().err
    )


def write_config(folder: Path, section: str) -> str:
    path = folder / "job.toml"
    small = "[language_id.model]\ndim = 8\nbuckets = 2000\nepochs = 3\n"
    path.write_text(
        f'root = "{folder}/root"\n[cluster]\ndashboard = false\n[language_id]\n{section}\n'
        f'[language_id.fields]\nlabel = "language"\n{small}',
        "utf-8",
    )
    return str(path)
