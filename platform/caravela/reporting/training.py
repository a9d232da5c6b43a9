"""The metrics of training to curves and a few figures of the whole run.

In: the finished ``pretrain`` stage. Out: a plain dict; ``curves`` holds points (step, value) by column, those by source
under ``<column>/<source>``.
"""

import itertools
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caravela import storage
from caravela.manifest import Manifest

METRICS_FILE = "metrics.jsonl"
CURVES = (
    "loss",
    "validation_loss",
    "validation_perplexity",
    "validation_bits_per_byte",
    "learning_rate",
    "tokens_per_second",
    "mfu",
    "grad_norm",
)
TOTALS = ("goodput", "steps_redone", "energy_kwh", "co2_kg", "cost")
"""Columns that say, in each row, how the run stands so far."""
CURVE_POINTS = 300


def training_figures(pretrain: Manifest | None) -> dict[str, Any] | None:
    """None where nothing was trained."""
    uri = next((u for u in pretrain.uris("files") if storage.name_of(u) == METRICS_FILE), None) if pretrain else None
    if pretrain is None or uri is None:
        return None
    rows = sorted(_json_lines(uri), key=lambda row: int(row["step"]))
    columns = dict.fromkeys(name for row in rows for name in row if name.partition("/")[0] in CURVES)
    curves = {
        name: [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        for name in dict.fromkeys((*CURVES, *columns))
    }
    return {
        **pretrain.summary,
        "steps": len(rows),
        "last_step": rows[-1]["step"] if rows else 0,
        "first_loss": curves["loss"][0][1] if curves["loss"] else None,
        "final_loss": _last(curves["loss"]),
        "final_validation_loss": _last(curves["validation_loss"]),
        "final_validation_perplexity": _last(curves["validation_perplexity"]),
        "median_tokens_per_second": _median(curves["tokens_per_second"], 1),
        "median_mfu": _median(curves["mfu"], 6),
        "data_wait_share": _share_of_time(rows, "seconds_data"),
        "checkpoint_share": _share_of_time(rows, "seconds_checkpoint"),
        **{name: next((row[name] for row in reversed(rows) if name in row), None) for name in TOTALS},
        "curves": {name: thinned(points, CURVE_POINTS) for name, points in curves.items()},
    }


def _last(points: Sequence[tuple[float, float]]) -> float | None:
    return points[-1][1] if points else None


def _median(points: Sequence[tuple[float, float]], digits: int) -> float | None:
    return round(statistics.median(value for _, value in points), digits) if points else None


def _share_of_time(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    timed = [row for row in rows if name in row and "seconds" in row]
    total = sum(row["seconds"] for row in timed)
    return round(sum(row[name] for row in timed) / total, 6) if total else None


def _json_lines(uri: str) -> Iterator[dict[str, Any]]:
    with storage.open_read(uri) as stream:
        for line in stream:
            if line.strip():
                yield json.loads(line)


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most ``most`` points: means over runs of neighbours, the last point as it is."""
    if len(points) <= most:
        return list(points)
    borders = [i * len(points) // (most - 1) for i in range(most)]
    runs = [points[start:end] for start, end in itertools.pairwise(borders)]
    means = [(statistics.fmean(x for x, _ in run), statistics.fmean(y for _, y in run)) for run in runs]
    return [*means, points[-1]]
