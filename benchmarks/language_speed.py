"""Speed and agreement of language identification on one core: ours in batches, and fastText's own ``predict``.

``python benchmarks/language_speed.py TEXTS.jsonl.gz [--field text] [--runs 3] [--candidates 3] [--model PATH]``

TEXTS is a JSONL file (.gz or .zst too) or a Parquet file with a column of texts. The model is lid.176, or a fastText
file of one's own. "Cold" starts with an empty table of words, "warm" knows every word. fastText gets one text a call,
as it is made to, with newlines replaced by blanks outside of the clock. Labels and scores of every text are compared.
Seconds of processor time (other processes do not count), medians over the runs, each of which does everything in turn.
Prints a table.
"""

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq

from caravela import storage
from caravela.progress import table
from filters.fasttext_model import FastTextModel, Predictions
from filters.language import model_path

BATCH = 2048
TOLERANCE = 1e-4


def main() -> None:
    """Prints the table, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("--field", default="text")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--model", default="", help="a fastText file; lid.176 if none is given")
    options = parser.parse_args()
    texts, path = read(options.texts, options.field), options.model or model_path("lid.176")
    lines, batches = [text.replace("\n", " ") for text in texts], in_batches(texts)
    reference = fasttext.load_model(path)
    one_by_one(reference, lines[:1], options.candidates)
    predict(FastTextModel(path), batches[:1], options.candidates)  # compiles
    speeds: dict[str, list[float]] = {"fastText's predict": [], "batch, cold": [], "batch, warm": []}
    size = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    theirs: list[Any] = []
    ours: list[Predictions] = []
    for _ in range(options.runs):
        model = FastTextModel(path)
        jobs: tuple[Callable[[], list[Any]], ...] = (
            lambda: one_by_one(reference, lines, options.candidates),
            lambda model=model: predict(model, batches, options.candidates),
            lambda model=model: predict(model, batches, options.candidates),
        )
        results = []
        for name, job in zip(speeds, jobs, strict=True):
            result, seconds = timed(job)
            results.append(result)
            speeds[name].append(size / seconds)
        theirs, ours = results[0], results[2]
    cores = f"one core of {platform.machine()}, Python {platform.python_version()}"
    print(
        f"{len(texts)} texts, {size:.1f} MB; {cores}; median of {options.runs} runs; memo {model.nbytes / 1e6:.1f} MB"
    )
    base = statistics.median(speeds["fastText's predict"])
    rows = [
        (
            name,
            f"{statistics.median(each):.3g}",
            f"{statistics.median(each) / base:.3g}",
            f"{statistics.median(each) / size * len(texts):,.0f}",
            f"{min(each):.3g}–{max(each):.3g}",
        )
        for name, each in speeds.items()
    ]
    print(table(("what", "MB/s", "times predict", "texts/s", "range of MB/s"), rows))
    compare(texts, theirs, rankings(model, ours))


def read(uri: str, field: str) -> list[str]:
    """The texts of a file."""
    if uri.endswith(".parquet"):
        column = pq.read_table(io.BytesIO(storage.read_bytes(uri)), columns=[field])[field]
        return [text for text in column.to_pylist() if text is not None]
    compression = {"gz": "gzip", "zst": "zstd"}.get(uri.rsplit(".", 1)[-1])
    with pa.input_stream(pa.py_buffer(storage.read_bytes(uri)), compression=compression) as lines:
        return [json.loads(line)[field] for line in lines.read().splitlines()]


def in_batches(texts: list[str]) -> list[pa.Array]:
    """Columns as the curation step gets them."""
    return [pa.array(texts[start : start + BATCH], pa.large_string()) for start in range(0, len(texts), BATCH)]


def one_by_one(reference: Any, lines: list[str], candidates: int) -> list[Any]:
    """Labels and scores of fastText."""
    return [reference.predict(line, k=candidates) for line in lines]


def predict(model: FastTextModel, batches: list[pa.Array], candidates: int) -> list[Predictions]:
    """Ours."""
    return [model.predict(batch, candidates) for batch in batches]


def rankings(model: FastTextModel, found: list[Predictions]) -> list[list[tuple[str, float]]]:
    """Labels by name with their scores, for each text."""
    return [
        [(model.labels[label], score) for label, score in zip(labels, scores, strict=True) if label >= 0]
        for batch in found
        for labels, scores in zip(batch.labels.tolist(), batch.scores.tolist(), strict=True)
    ]


def compare(texts: list[str], theirs: list[Any], ours: list[list[tuple[str, float]]]) -> None:
    """Prints on how many texts the two agree, and the texts on which they do not."""
    best, all_labels, largest, far = 0, 0, 0.0, []
    for text, (labels, scores), ranking in zip(texts, theirs, ours, strict=True):
        best += [label for label, _ in ranking[:1]] == list(labels[:1])
        all_labels += [label for label, _ in ranking] == list(labels)
        expected = dict(zip(labels, scores.tolist(), strict=True))
        difference = max((abs(expected[label] - score) for label, score in ranking if label in expected), default=0.0)
        largest = max(largest, difference)
        if difference > TOLERANCE or [label for label, _ in ranking[:1]] != list(labels[:1]):
            far.append((len(text), difference, dict(ranking), expected, text[:60]))
    print(f"best label equal on {best} of {len(texts)} texts, all labels in order on {all_labels}")
    print(f"largest difference of a score {largest:.2g}; above {TOLERANCE:g} or another label: {len(far)} texts")
    print(*(f"differs: {each}" for each in far[:20]), sep="\n")


def timed(job: Callable[[], list[Any]]) -> tuple[list[Any], float]:
    """What a call gives, and its processor time."""
    clock = time.process_time()
    result = job()
    return result, time.process_time() - clock


if __name__ == "__main__":
    main()
