"""What the training jobs' models are worth, on labelled texts that they have not seen, and what they cost.

``python benchmarks/training.py languages GOLD.jsonl.gz [--by text]``: a language identifier trained on one half of GOLD
(fields text, lang, group), beside lid.176 on the other half, per language: the share of its texts that are known as it.
The halves are cut by a hash of the text, or of another field (--by group: texts of one source document stay together).

``python benchmarks/training.py classifier DOCUMENTS.jsonl.gz JUNK.jsonl.gz [--hard GOOD.jsonl.gz]``: a classifier
of documents (fields text, source, register) against junk (text, source, reason), in five parts; no part
holds a source that another holds, and each is judged by a model trained on the other four. Prints precision and recall
by threshold over all parts, what is kept of each register and of each kind of junk, and the speeds.

Times are of the processor, on one core. Prints tables.
"""

import argparse
import collections
import dataclasses
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from caravela import stages
from caravela.cluster import ClusterConfig
from caravela.data import readers
from caravela.data.columns import strings
from caravela.manifest import Manifest
from caravela.progress import table
from caravela.stages import Stage
from filters.language import LanguageIdentifier, model_path
from filters.text_classifier import ClassifierConfig, TextClassifier
from filters.training import measures
from filters.training.stages import (
    ClassifierTrainingConfig,
    LanguageIdConfig,
    PiecesConfig,
    classifier_stage,
    language_id_stage,
)
from filters.training.texts import LabelledFields

FOLDS = 5
FEWEST = 100
"""Texts in the judged half, below which a language is no row of its own."""
KEPT = "literary,news,political_speech,parliament,legal,technical,broadcast_asr"
Row = Mapping[str, Any]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("languages")
    one.add_argument("gold")
    one.add_argument("--by", default="text")
    one.set_defaults(run=languages)
    two = commands.add_parser("classifier")
    two.add_argument("documents")
    two.add_argument("junk")
    two.add_argument("--hard", default="", help="good texts that crude rules drop; judged by all five models")
    two.add_argument("--registers", default=KEPT)
    two.set_defaults(run=classifier)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    options.run(options)


def read(uri: str) -> list[dict[str, Any]]:
    """Rows of a JSONL file; those of mixed language left out."""
    shards = readers.plan_shards([uri], 1 << 40)
    rows = (row for shard in shards for row in readers.read(shard.spec, readers.FieldNames(source="")))
    return [{**row.metadata, "text": row.text, "group": row.metadata.get("group")} for row in rows if row.text]


def write(folder: str, name: str, rows: Iterable[Row]) -> str:
    """A JSONL file of these rows."""
    path = os.path.join(folder, f"{name}.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def trained(stage: Stage) -> tuple[Manifest, float]:
    """The finished stage and its seconds of processor time."""
    clock = time.process_time()
    done = stages.run(dataclasses.replace(stage, in_driver=True), ClusterConfig())
    return done, time.process_time() - clock


def languages(options: argparse.Namespace) -> None:
    """A language identifier beside lid.176."""
    rows = [row for row in read(options.gold) if row["lang"] != "mul"]
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for row in rows:
        halves[xxhash.xxh3_64_intdigest(str(row[options.by])) & 1].append(row)
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, "half", ({"text": row["text"], "lang": row["lang"]} for row in halves[0]))
        fewest = PiecesConfig(least_per_label=3, test_share=0.05, validation_share=0.05)
        config = LanguageIdConfig(inputs=(path,), fields=LabelledFields(label="lang"), split=fewest, label="pt")
        done, seconds = trained(language_id_stage(folder, config))
        ours = LanguageIdentifier(done.summary["model_uri"])
        judge(halves[1], ours, LanguageIdentifier(model_path("lid.176")), options.by)
        size = os.path.getsize(done.summary["model_uri"]) / 1e6
    print(f"\ntrained on {done.summary['train_texts']:,} texts in {seconds:.1f} s; the model has {size:.1f} MB")


def judge(rows: Sequence[Row], ours: LanguageIdentifier, theirs: LanguageIdentifier, by: str) -> None:
    """Prints what both models know, per language and, for Portuguese, per length."""
    text = strings([row["text"] for row in rows], pa.large_string())
    said = [np.array([each[0][0] for each in model.identify_batch(text)]) for model in (theirs, ours)]
    true = np.array([row["lang"] for row in rows])
    known = [label for label, count in collections.Counter(true.tolist()).most_common() if count >= FEWEST // 2]
    groups = [(label, true == label) for label in known]
    groups += [(f"pt, {length}", (true == "pt") & np.array([row["length"] == length for row in rows]))
               for length in ("short", "sentence", "paragraph", "document")]  # fmt: skip
    lines = [
        (name, f"{own.sum():,}", *(f"{(found[own] == true[own]).mean():.1%}" for found in said)) for name, own in groups
    ]
    taken = [f"{((found == 'pt') & (true == 'gl')).sum() / (true == 'gl').sum():.1%}" for found in said]
    lines.append(("gl taken for pt", "", *taken))
    print(f"halves by hash of {by}; {len(rows):,} texts judged\n")
    print(table(("language", "texts", "lid.176.ftz", "trained"), lines))


def folds_by_source(rows: Sequence[Row]) -> dict[str, int]:
    """The part of each source; parts of about the same size, whole sources only."""
    sizes, totals, part = collections.Counter(str(row["source"]) for row in rows), [0] * FOLDS, {}
    for source, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        part[source] = totals.index(min(totals))
        totals[part[source]] += size
    return part


def classifier(options: argparse.Namespace) -> None:
    """A classifier in five parts."""
    good = [row for row in read(options.documents) if row["register"] in options.registers.split(",")]
    bad = read(options.junk)
    part = {**folds_by_source(good), **folds_by_source(bad)}
    hard = read(options.hard) if options.hard else []
    scores = {"good": np.zeros(len(good)), "bad": np.zeros(len(bad)), "hard": np.zeros(len(hard))}
    seconds = judged_bytes = 0.0
    trainings = []
    for fold in range(FOLDS):
        with tempfile.TemporaryDirectory() as folder:
            inputs = [
                write(folder, name, ({"text": row["text"]} for row in rows if part[str(row["source"])] != fold))
                for name, rows in (("good", good), ("bad", bad))
            ]
            config = ClassifierTrainingConfig(positive_inputs=(inputs[0],), negative_inputs=(inputs[1],))
            done, clock = trained(classifier_stage(folder, config))
            trainings.append(clock)
            model = TextClassifier(ClassifierConfig(name="quality", model_uri=done.summary["model_uri"]))
            model.scores(pa.array(["um texto"]))  # compiles
            for name, rows in (("good", good), ("bad", bad), ("hard", hard)):
                own = [i for i, row in enumerate(rows) if name == "hard" or part[str(row["source"])] == fold]
                text = strings([rows[i]["text"] for i in own], pa.large_string())
                clock = time.process_time()
                found = model.scores(text)
                seconds += time.process_time() - clock
                judged_bytes += sum(len(rows[i]["text"].encode()) for i in own)
                scores[name][own] += found / FOLDS if name == "hard" else found
    report(good, bad, hard, scores)
    print(f"\ntraining {np.mean(trainings):.1f} s each; scoring {judged_bytes / seconds / 1e6:.0f} MB/s")


def report(good: Sequence[Row], bad: Sequence[Row], hard: Sequence[Row], scores: Mapping[str, Any]) -> None:
    """Prints what thresholds do."""
    every = np.concatenate([scores["good"], scores["bad"]])
    positive = np.arange(len(every)) < len(good)
    curve = measures.precision_recall(every, positive)
    print(f"{len(good):,} documents, {len(bad):,} of junk, {FOLDS} parts by source")
    print(
        f"average precision {measures.average_precision(curve):.4f}, ROC AUC {measures.roc_auc(every, positive):.4f}\n"
    )
    thresholds = (0.1, 0.3, 0.5, 0.7, 0.9)
    lines = []
    for threshold in thresholds:
        found = measures.at_threshold(every, positive, threshold)
        dropped = (scores["bad"] < threshold).mean()
        kept = (scores["hard"] >= threshold).mean() if len(hard) else np.nan
        shares = (found["precision"], found["recall"], dropped, kept)
        lines.append((f"{threshold:g}", *(f"{share:.1%}" for share in shares)))
    print(table(("at least", "precision", "recall", "junk dropped", "hard kept"), lines) + "\n")
    for rows, name, field in ((good, "good", "register"), (bad, "bad", "reason")):
        kinds = np.array([str(row[field]) for row in rows])
        lines = []
        for kind, count in collections.Counter(kinds.tolist()).most_common():
            own = scores[name][kinds == kind]
            lines.append((kind, f"{count:,}", *(f"{(own >= threshold).mean():.1%}" for threshold in thresholds)))
        print(table((field, "texts", *(f"kept at {t:g}" for t in thresholds)), lines) + "\n")


if __name__ == "__main__":
    main()
