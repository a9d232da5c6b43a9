"""Speed of the quality signals on one core: in batches, one text at a time, and datatrove's three filters.

``python benchmarks/quality_speed.py TEXTS.jsonl.gz [--field text] [--runs 3] [--reference 300]``

TEXTS is a JSONL file (.gz or .zst too) or a Parquet file with a column of texts. "Cold" starts with an empty table,
"warm" knows every chunk, and is measured with the default preset and with the signals of our own that the preset
``portuguese`` needs. datatrove runs on a sample, drawn with a fixed seed; its decision and reason on every sampled text
are compared with ours. Seconds of processor time (other processes do not count), medians over the runs, each of which
does everything in turn. Prints a table.
"""

import argparse
import io
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

from caravela import storage
from caravela.progress import table
from filters.quality import DUPLICATED_N_GRAMS, REASONS, TOP_N_GRAMS, QualityConfig, measure
from filters.quality_batch import first_broken_rules, measure_batch
from filters.word_table import WordTable
from filters.words import WordSplitter

BATCH = 2048


def main() -> None:
    """Prints the table, and the texts on which a decision differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("--field", default="text")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--reference", type=int, default=300, help="texts that datatrove filters")
    options = parser.parse_args()
    texts = read(options.texts, options.field)
    sample = random.Random(0).sample(texts, min(options.reference, len(texts)))
    config, ours, splitter = QualityConfig(), QualityConfig(preset="portuguese"), WordSplitter()
    in_batches(["Uma casa."], WordTable(splitter), config)  # compiles
    names = ("datatrove", "one text at a time, warm", "batch, cold", "batch, warm", "batch, warm, portuguese")
    speeds: dict[str, list[float]] = {name: [] for name in names}
    reference = datatrove_reasons(sample)  # loads its tokenizer, outside the clock
    for _ in range(options.runs):
        words = WordTable(splitter)
        jobs: tuple[tuple[list[str], Callable[[], object]], ...] = (
            (sample, lambda: datatrove_reasons(sample)),
            (sample, lambda: [measure(text, splitter, config) for text in sample]),
            (texts, lambda words=words: in_batches(texts, words, config)),
            (texts, lambda words=words: in_batches(texts, words, config)),
            (texts, lambda words=words: in_batches(texts, words, ours)),
        )
        for name, (work, job) in zip(names, jobs, strict=True):
            speeds[name].append(megabytes(work) / seconds(job))
    reasons = in_batches(sample, WordTable(splitter), config)
    differing = [text for text, ours, theirs in zip(sample, reasons, reference, strict=True) if ours != theirs]
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    cores = f"one core of {platform.machine()}, Python {platform.python_version()}"
    print(f"{len(texts)} texts, {megabytes(texts):.1f} MB; {cores}; median of {options.runs} runs")
    rows = [
        (
            name,
            f"{medians[name]:.3g}",
            f"{medians[name] / medians['datatrove']:.3g}",
            f"{min(each):.3g}–{max(each):.3g}",
        )
        for name, each in speeds.items()
    ]
    print(table(("what", "MB/s", "times datatrove", "range"), rows))
    print(f"decision and reason equal datatrove's on {len(sample) - len(differing)} of {len(sample)} texts")
    print(*(f"differs: {text[:80]!r}" for text in differing), sep="\n")


def read(uri: str, field: str) -> list[str]:
    """The texts of a file."""
    if uri.endswith(".parquet"):
        column = pq.read_table(io.BytesIO(storage.read_bytes(uri)), columns=[field])[field]
        return [text for text in column.to_pylist() if text is not None]
    compression = {"gz": "gzip", "zst": "zstd"}.get(uri.rsplit(".", 1)[-1])
    with pa.input_stream(pa.py_buffer(storage.read_bytes(uri)), compression=compression) as lines:
        return [json.loads(line)[field] for line in lines.read().splitlines()]


def in_batches(texts: list[str], words: WordTable, config: QualityConfig) -> list[str | None]:
    """Our reason for each text, None for one to keep."""
    reasons: list[str | None] = []
    for start in range(0, len(texts), BATCH):
        signals = measure_batch(pa.array(texts[start : start + BATCH], pa.large_string()), words, config)
        reasons += [None if rule < 0 else REASONS[rule] for rule in first_broken_rules(signals, config).tolist()]
    return reasons


def datatrove_filters(config: QualityConfig) -> dict[str, Any]:
    """Datatrove's three filters with our settings, by our names, in our order."""
    repetition, fineweb, quality = config.gopher_repetition, config.fineweb_quality, config.gopher_quality
    return {
        "gopher_repetition": GopherRepetitionFilter(
            dup_line_frac=repetition.dup_line_frac,
            dup_para_frac=repetition.dup_para_frac,
            dup_line_char_frac=repetition.dup_line_char_frac,
            dup_para_char_frac=repetition.dup_para_char_frac,
            top_n_grams=tuple((n, getattr(repetition, f"top_{n}_gram")) for n in TOP_N_GRAMS),
            dup_n_grams=tuple((n, getattr(repetition, f"duplicated_{n}_n_grams")) for n in DUPLICATED_N_GRAMS),
            language="por_Latn",
        ),
        "fineweb_quality": FineWebQualityFilter(
            line_punct_thr=fineweb.line_punct_thr,
            line_punct_exclude_zero=fineweb.line_punct_exclude_zero,
            short_line_thr=fineweb.short_line_thr,
            short_line_length=config.signals.short_line_length,
            char_duplicates_ratio=fineweb.char_duplicates_ratio,
            new_line_ratio=fineweb.new_line_ratio,
            language="por_Latn",
        ),
        "gopher_quality": GopherQualityFilter(
            min_doc_words=quality.min_doc_words,
            max_doc_words=quality.max_doc_words,
            min_avg_word_length=quality.min_avg_word_length,
            max_avg_word_length=quality.max_avg_word_length,
            max_symbol_word_ratio=quality.max_hash_ratio,
            max_bullet_lines_ratio=quality.max_bullet_lines_ratio,
            max_ellipsis_lines_ratio=quality.max_ellipsis_lines_ratio,
            max_non_alpha_words_ratio=quality.min_alpha_words_ratio,
            min_stop_words=quality.min_stop_words,
            stop_words=list(config.signals.stop_words),
            language="por_Latn",
        ),
    }


def datatrove_reasons(texts: list[str]) -> list[str | None]:
    """The reason of datatrove's three filters for each text."""
    filters = datatrove_filters(QualityConfig())
    reasons = []
    for text in texts:
        document, reason = Document(text=text, id=""), None
        for name, each in filters.items():
            result = each.filter(document)
            if result is not True:
                reason = f"{name}.{result[1]}"
                break
        reasons.append(reason)
    return reasons


def megabytes(texts: list[str]) -> float:
    """Millions of UTF-8 bytes."""
    return sum(len(text.encode("utf-8")) for text in texts) / 1e6


def seconds(job: Callable[[], object]) -> float:
    """Processor time of a call."""
    clock = time.process_time()
    job()
    return time.process_time() - clock


if __name__ == "__main__":
    main()
