"""Stages ``language_id`` and ``classifier``: labelled texts to a fastText model and a report on it.

In: files of labelled texts, or the kept and removed documents of a finished run of curation. Out: ``model.bin`` (or
``.ftz``), ``report.json`` and ``report.html``. The model is judged on texts that it did not see; thresholds are chosen
on a third part, so that what the report says of them holds. Same inputs and settings, same bytes.

One task on one core: training is the same on every run with one thread alone.
"""

import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caravela import manifest, storage
from caravela.config import ConfigError, build, to_dict
from caravela.data import readers
from caravela.data.columns import strings
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.fasttext_model import FastTextModel
from filters.personal_data import PersonalDataConfig, mask
from filters.text_classifier import probabilities
from filters.training import measures, page
from filters.training.texts import (
    LABEL_PREFIX,
    Indices,
    Labelled,
    LabelledFields,
    LabelledLines,
    SplitConfig,
    collect,
    expand,
    read_labelled,
    read_texts,
)
from filters.training.trainer import FastTextConfig, train

HTML_FILE, JSON_FILE = "report.html", "report.json"
POSITIVE, NEGATIVE = "keep", "drop"
BATCH_TEXTS = 1024


@dataclass(frozen=True, kw_only=True)
class PiecesConfig(SplitConfig):
    """Learns from long texts piece by piece, so that short ones are known too."""

    piece_words: int = 30


@dataclass(frozen=True, kw_only=True)
class LanguageIdConfig:
    """A model that names the language of a text."""

    inputs: tuple[str, ...] = ()
    """Files or globs of labelled texts: .jsonl, .csv, .tsv, .parquet, or .txt with fastText's lines; .gz and .zst."""
    fields: LabelledFields = field(default_factory=LabelledFields)
    split: PiecesConfig = field(default_factory=PiecesConfig)
    model: FastTextConfig = field(default_factory=FastTextConfig)
    label: str = ""
    """Whose precision and recall by threshold are drawn; empty: the label with the most texts."""


@dataclass(frozen=True, kw_only=True)
class BalancedPiecesConfig(SplitConfig):
    """As many texts to keep as to drop to learn from, whatever the sources hold, and long ones piece by piece.

    In pieces of 100 words beside whole texts, more good texts of unseen sources stay at one share of junk dropped
    (``benchmarks/training.py classifier``).
    """

    balance: bool = True
    piece_words: int = 100


@dataclass(frozen=True, kw_only=True)
class WordsConfig(FastTextConfig):
    """Words and their parts: what a text is about, and what its characters are like."""

    epochs: int = 5
    longest_part: int = 4


@dataclass(frozen=True, kw_only=True)
class ClassifierTrainingConfig:
    """A model that tells texts to keep from others; every given source is used."""

    positive_inputs: tuple[str, ...] = ()
    """Files or globs of texts to keep."""
    negative_inputs: tuple[str, ...] = ()
    """Files or globs of texts to drop."""
    inputs: tuple[str, ...] = ()
    """Files or globs of texts with a label each."""
    positive_labels: tuple[str, ...] = ()
    """Which labels of ``inputs`` are to keep; all others are to drop."""
    from_curation: bool = False
    """Whether the documents that the run at this root kept, and those it removed, are taken too."""
    removed_by: tuple[str, ...] = ("quality",)
    """Steps of curation whose removed documents are texts to drop."""
    fields: LabelledFields = field(default_factory=LabelledFields)
    split: BalancedPiecesConfig = field(default_factory=BalancedPiecesConfig)
    model: WordsConfig = field(default_factory=WordsConfig)
    targets: tuple[float, ...] = (0.9, 0.95, 0.99)
    """Recalls, and precisions, for which a threshold is chosen."""

    def __post_init__(self) -> None:
        if bool(self.inputs) != bool(self.positive_labels):
            raise ConfigError(
                f"positive_labels = {list(self.positive_labels)}: expected some with inputs, and none without"
            )
        if not self.targets or not all(0 < target <= 1 for target in self.targets):
            raise ConfigError(f"targets = {list(self.targets)}: expected some, above 0 and 1 at most")


def language_id_stage(root: str, config: LanguageIdConfig) -> Stage:
    """The stage that trains a language identifier.

    Raises:
        UserError: no input, or one that is not there.
    """
    uris = expand(config.inputs, "language_id.inputs")
    if not uris:
        raise UserError("language_id.inputs = []: expected at least one file or glob of labelled texts")
    settings = to_dict(config)
    del settings["inputs"]
    return Stage(
        name="language_id",
        version=1,
        root=root,
        config=settings,
        inputs=tuple(readers.fingerprint_inputs(uris)),
        plan=lambda: [Shard(index=0, name="language_id", spec={})],
        make_worker=functools.partial(LanguageIdWorker, config, tuple(uris)),
        finish=functools.partial(_summary, ("accuracy", "train_texts", "test_texts")),
    )


def classifier_stage(root: str, config: ClassifierTrainingConfig) -> Stage:
    """The stage that trains a classifier.

    Raises:
        UserError: an input that is not there, one side without any, or no finished curation.
    """
    sources = Sources(
        positive=tuple(expand(config.positive_inputs, "classifier.positive_inputs")),
        negative=tuple(expand(config.negative_inputs, "classifier.negative_inputs")),
        labelled=tuple(expand(config.inputs, "classifier.inputs")),
        curation=_curation(root) if config.from_curation else None,
    )
    both = sources.labelled or sources.curation
    if not both and not (sources.positive and sources.negative):
        raise UserError(
            "classifier: expected positive_inputs and negative_inputs, inputs with positive_labels, or "
            "from_curation = true"
        )
    settings = to_dict(config)
    for place in ("positive_inputs", "negative_inputs", "inputs"):
        del settings[place]
    settings["sources"] = [len(sources.positive), len(sources.negative), len(sources.labelled)]
    files = readers.fingerprint_inputs([*sources.positive, *sources.negative, *sources.labelled])
    return Stage(
        name="classifier",
        version=1,
        root=root,
        config=settings,
        inputs=(*files, *([sources.curation] if sources.curation else [])),
        plan=lambda: [Shard(index=0, name="classifier", spec={})],
        make_worker=functools.partial(ClassifierWorker, config, sources),
        finish=functools.partial(_summary, ("average_precision", "roc_auc", "thresholds", "train_texts", "test_texts")),
    )


def _curation(root: str) -> Input:
    """The finished stage ``curate`` that the run's index names."""
    directory = manifest.read_run_index(root).get("curate")
    found = manifest.read(storage.join(root, directory)) if directory else None
    if found is None:
        raise UserError(f"{root}: no finished curation here (classifier.from_curation); run jobs/curate.py first")
    return Input(name="curate", fingerprint=found.fingerprint, uri=found.uri)


def _summary(keys: Sequence[str], records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    """The headline figures, and what a config needs to name the model."""
    figures = json.loads(storage.read_text(storage.join(uri, JSON_FILE)))
    model = next(file for file in records[0].files if file.path.startswith("model."))
    named = {"model_uri": storage.join(uri, model.path), "model_sha256": model.sha256}
    return {**named, **{key: figures[key] for key in keys}}


class LanguageIdWorker:
    """Reads, trains, judges."""

    def __init__(self, config: LanguageIdConfig, uris: Sequence[str]) -> None:
        self.config = config
        self.uris = uris

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        return _train_and_judge(read_labelled(self.uris, self.config.fields), self.config, out, self._judge)

    def _judge(self, model: FastTextModel, lines: LabelledLines) -> tuple[dict[str, Any], str]:
        said, _, words = _best(model, lines, lines.test)
        true = lines.label_ids[lines.test]
        table = measures.confusion(true, said, len(lines.labels))
        label = self.config.label or max(lines.labels, key=lambda name: lines.counts(lines.train)[name])
        if label not in lines.labels:
            raise UserError(f"language_id.label = {label!r}: expected one of {', '.join(lines.labels)[:200]}")
        number = lines.labels.index(label)
        said_before, scores, _ = _best(model, lines, lines.validation)
        asked = np.where(said_before == number, scores, -1.0)
        figures = {
            "label": label,
            "accuracy": measures.ratio((said == true).sum(), len(true)),
            "per_label": measures.per_label(table, lines.labels),
            "confusion": table.tolist(),
            "by_length": measures.by_length(words, said == true),
            "by_threshold": measures.by_threshold(asked, lines.label_ids[lines.validation] == number),
        }
        figures = {**_counts(lines), **figures}
        return figures, page.language_id_page(figures)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where a classifier's texts come from."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    labelled: tuple[str, ...]
    curation: Input | None


class ClassifierWorker:
    """Reads, trains, judges."""

    def __init__(self, config: ClassifierTrainingConfig, sources: Sources) -> None:
        self.config = config
        self.sources = sources

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        return _train_and_judge(self._rows(), self.config, out, self._judge)

    def _rows(self) -> Iterator[Labelled]:
        fields, sources = self.config.fields, self.sources
        return chain(
            read_texts(sources.positive, fields, POSITIVE),
            read_texts(sources.negative, fields, NEGATIVE),
            self._labelled(),
            _curated(sources.curation, self.config.removed_by) if sources.curation else (),
        )

    def _labelled(self) -> Iterator[Labelled]:
        seen: set[str] = set()
        for row in read_labelled(self.sources.labelled, self.config.fields):
            seen.add(row.label)
            is_positive = row.label.removeprefix("__label__") in self.config.positive_labels
            yield row if row.problem else row._replace(label=POSITIVE if is_positive else NEGATIVE)
        unknown = set(self.config.positive_labels) - {label.removeprefix("__label__") for label in seen}
        if self.sources.labelled and unknown:
            found = ", ".join(sorted(filter(None, seen)))[:200] or "none"
            raise UserError(f"classifier.positive_labels: no text has {sorted(unknown)}; labels in the inputs: {found}")

    def _judge(self, model: FastTextModel, lines: LabelledLines) -> tuple[dict[str, Any], str]:
        _, scores, words = _positive(model, lines, lines.test)
        positive = lines.label_ids[lines.test] == lines.labels.index(POSITIVE)
        _, chosen_on, _ = _positive(model, lines, lines.validation)
        curve = measures.precision_recall(scores, positive)
        chosen = measures.chosen_thresholds(
            measures.precision_recall(chosen_on, lines.label_ids[lines.validation] == lines.labels.index(POSITIVE)),
            self.config.targets,
        )
        figures = {
            **_counts(lines),
            "label": POSITIVE,
            "test_positive": int(positive.sum()),
            "average_precision": round(measures.average_precision(curve), 6),
            "roc_auc": round(measures.roc_auc(scores, positive), 6),
            "thresholds": {
                name: measures.at_threshold(scores, positive, threshold) for name, threshold in chosen.items()
            },
            "by_length": measures.by_length(words, (scores >= 0.5) == positive),
            "precision_recall": measures.thinned(curve),
            "by_threshold": measures.by_threshold(scores, positive),
        }
        return figures, page.classifier_page(figures)


def _curated(curation: Input, removed_by: Sequence[str]) -> Iterator[Labelled]:
    """Kept documents as positive, those that the named steps removed as negative."""
    done = finished(curation)
    # Kept texts have placeholders where personal data stood; without them in the others, they would be what is learned.
    masking = build(PersonalDataConfig, done.config.get("personal_data", {}), curation.uri)
    for table in ("documents", "removed"):
        for uri in done.uris(table):
            with storage.open_read(uri) as stream:
                columns = ["text"] if table == "documents" else ["text", "stage"]
                for batch in pq.ParquetFile(stream).iter_batches(BATCH_TEXTS, columns=columns):
                    for row in batch.to_pylist():
                        if table == "documents":
                            yield Labelled(row["text"] or "", POSITIVE)
                        elif row["stage"] in removed_by:
                            text = row["text"] or ""
                            yield Labelled(mask(text, masking).text if masking.enabled else text, NEGATIVE)


def _train_and_judge(
    rows: Iterator[Labelled],
    config: LanguageIdConfig | ClassifierTrainingConfig,
    out: ShardOutput,
    judge: Callable[[FastTextModel, LabelledLines], tuple[dict[str, Any], str]],
) -> Mapping[str, int]:
    with tempfile.TemporaryDirectory(prefix="caravela-training-") as folder:
        lines = collect(rows, folder, config.split, config.fields)
        lines.write_training_file(f"{folder}/train", config.split.piece_words, config.split.seed)
        model_path = out.local_path(config.model.file_name)
        train(f"{folder}/train", config.model, model_path)
        figures, html = judge(FastTextModel(model_path), lines)
    with open(out.local_path(JSON_FILE), "w", encoding="utf-8") as file:
        json.dump(figures, file, ensure_ascii=False, indent=1)
    with open(out.local_path(HTML_FILE), "w", encoding="utf-8") as file:
        file.write(html)
    used = len(lines.train) + len(lines.validation) + len(lines.test)
    removed = {f"removed.{reason}": number for reason, number in lines.removed.items()}
    return {"documents_in": lines.documents_in, "documents_kept": used, **removed}


def _counts(lines: LabelledLines) -> dict[str, Any]:
    parts = {"train": lines.train, "validation": lines.validation, "test": lines.test}
    return {
        **{f"{name}_texts": len(part) for name, part in parts.items()},
        "texts_per_label": {name: lines.counts(part) for name, part in parts.items()},
        "removed": dict(lines.removed),
    }


def _batches(lines: LabelledLines, part: Indices) -> Iterator[pa.Array]:
    for start in range(0, len(part), BATCH_TEXTS):
        yield strings(list(lines.lines(part[start : start + BATCH_TEXTS])), pa.large_string())


class Judged(NamedTuple):
    """What a model says of each text of a part."""

    labels: npt.NDArray[np.int64]
    """Places in ``LabelledLines.labels``."""
    scores: npt.NDArray[np.float32]
    words: npt.NDArray[np.int64]
    """How many the text has."""


def _best(model: FastTextModel, lines: LabelledLines, part: Indices) -> Judged:
    """The likeliest label of each text and its score."""
    number_of = np.array([lines.labels.index(label.removeprefix(LABEL_PREFIX)) for label in model.labels])
    labels, scores, words = [], [], []
    for batch in _batches(lines, part):
        found = model.predict(batch, 1)
        labels.append(number_of[found.labels[:, 0]])
        scores.append(np.minimum(found.scores[:, 0], np.float32(1)))
        words.append(_words(batch))
    return Judged(np.concatenate(labels), np.concatenate(scores), np.concatenate(words))


def _positive(model: FastTextModel, lines: LabelledLines, part: Indices) -> Judged:
    """The probability of the positive label, whatever is likeliest."""
    label = model.labels.index(LABEL_PREFIX + POSITIVE)
    scores, words = [], []
    for batch in _batches(lines, part):
        scores.append(probabilities(model, batch, label))
        words.append(_words(batch))
    found = np.concatenate(scores)
    return Judged(np.full(len(found), lines.labels.index(POSITIVE)), found, np.concatenate(words))


def _words(texts: pa.Array) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = pc.count_substring(texts, " ").to_numpy().astype(np.int64)
    return counts + 1
