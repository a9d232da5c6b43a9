"""Manifests and tables of a run to one plain dict, which is report.json: every figure that the page shows.

In: the finished stages by name. Any of them may be absent: its part of the dict is then None. Nothing depends on the
clock or the machine, so that the same stages give the same report.
"""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caravela import config as settings
from caravela.manifest import Manifest
from caravela.model.config import ModelConfig, num_parameters
from caravela.reporting import examples, scores
from caravela.reporting.packed import rows_by_source
from caravela.reporting.spans import repeated_spans
from caravela.reporting.training import training_figures

CLUSTER_BINS = (2, 3, 4, 5, 6, 11, 21, 51, 101, 1001)
"""Where the bins of the cluster-size chart begin."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds the report's size and the time it takes."""

    examples: int
    excerpt_characters: int
    parts: int


def collect(root: str, stages: Mapping[str, Manifest], missing: Sequence[str], limits: Limits) -> dict[str, Any]:
    """All that the report says. ``missing`` names stages that belong to the run and are not finished."""
    crawl, curate, dedup, trim = (stages.get(name) for name in ("crawl", "curate", "dedup", "trim"))
    shown = (limits.examples, limits.excerpt_characters, limits.parts)
    figures: dict[str, Any] = {
        "root": root,
        "finished": max(map(_end, stages.values()), default=""),
        "versions": {name: version for stage in stages.values() for name, version in stage.versions.items()},
        "missing": list(missing),
        "road": [_stage(stage) for stage in stages.values()],
        "funnel": funnel(curate, dedup, trim),
        "removed": examples.removed_by_reason((curate, dedup, trim), *shown),
        "duplicates": _duplicates(stages.get("signatures"), dedup, limits),
        "spans": repeated_spans(trim, *shown),
        "scores": scores.score(crawl, curate, stages.get("signatures"), dedup),
        "tokenizer": _tokenizer(stages.get("tokenizer")),
        "tokenizer_fit": _summary(stages.get("tokenizer_report")),
        "packing": _summary(stages.get("pack")),
        "packed_rows": rows_by_source(
            stages.get("pack"), stages.get("tokenizer"), limits.excerpt_characters, limits.parts
        ),
        "model": _model(stages.get("pretrain")),
        "training": training_figures(stages.get("pretrain")),
        "evaluation": _summary(stages.get("evaluate")),
        "config": {name: settings.to_toml(stage.config) for name, stage in stages.items()},
    }
    return {**figures, "headline": _headline(figures, curate, dedup, trim)}


def _end(stage: Manifest) -> str:
    """When a stage was finished, in UTC."""
    if not stage.started:
        return ""
    end = datetime.datetime.fromisoformat(stage.started) + datetime.timedelta(seconds=stage.seconds)
    return end.isoformat(timespec="minutes")


def _stage(stage: Manifest) -> dict[str, Any]:
    files = [file for shard in stage.shards for file in shard.files]
    tables: dict[str, int] = {}
    for file in files:
        if file.path.endswith(".parquet"):
            tables[file.table] = tables.get(file.table, 0) + file.rows
    return {
        "stage": stage.stage,
        "fingerprint": stage.fingerprint,
        "uri": stage.uri,
        "shards": len(stage.shards),
        "rows": tables,
        "files": len(files),
        "bytes": sum(file.bytes for file in files),
        "seconds": stage.seconds,
        "worker_seconds": round(sum(shard.seconds for shard in stage.shards), 3),
        "peak_memory_bytes": max((shard.peak_memory_bytes for shard in stage.shards), default=0),
    }


def funnel(curate: Manifest | None, dedup: Manifest | None, trim: Manifest | None = None) -> list[dict[str, Any]]:
    """Documents and bytes after every step. Text is counted from extraction on; before it there are only raw bytes."""
    steps: list[dict[str, Any]] = []
    if curate is not None:
        for step in curate.summary["funnel"]:
            size = None if step["step"] == "read" else step["bytes"]
            steps.append({"step": step["step"], "documents": step["documents"], "bytes": size})
    for name, stage in (("deduplicate", dedup), ("repeated text", trim)):
        if stage is not None:
            kept = stage.counters
            steps.append({"step": name, "documents": kept["documents_kept"], "bytes": kept["bytes_kept"]})
    return steps


def _duplicates(signatures: Manifest | None, dedup: Manifest | None, limits: Limits) -> dict[str, Any] | None:
    if dedup is None:
        return None
    sizes = {int(size): clusters for size, clusters in dedup.summary["cluster_sizes"].items()}
    reasons = {reason: documents for _, reason, documents in examples.removal_counts(dedup)}
    shape = signatures.config if signatures and signatures.config.get("minhash") else {}
    return {
        "documents_in": dedup.counters["documents_in"],
        "exact": reasons.get("exact_duplicate", 0),
        "near": reasons.get("near_duplicate", 0),
        "clusters": sum(sizes.values()),
        "largest": max(sizes, default=0),
        "cluster_sizes": list(_binned(sizes)),
        "bands": shape.get("bands"),
        "rows_per_band": shape.get("rows_per_band"),
        "join_probability": dedup.summary.get("join_probability", {}),
        "verification": dedup.summary.get("verification"),
        "example": examples.example_of_near_duplicates(dedup, limits.parts),
    }


def _binned(sizes: Mapping[int, int]) -> Iterator[dict[str, int]]:
    """Clusters and documents per range of sizes, up to the last range that has any."""
    largest = max(sizes, default=0)
    for low, after in zip(CLUSTER_BINS, [*CLUSTER_BINS[1:], largest + 1], strict=True):
        if low > largest:
            return
        inside = {size: clusters for size, clusters in sizes.items() if low <= size < max(after, low + 1)}
        documents = sum(size * clusters for size, clusters in inside.items())
        yield {"from": low, "to": after - 1, "clusters": sum(inside.values()), "documents": documents}


def _summary(stage: Manifest | None) -> dict[str, Any] | None:
    return dict(stage.summary) if stage else None


def _tokenizer(stage: Manifest | None) -> dict[str, Any] | None:
    if stage is None:
        return None
    return {"algorithm": stage.config.get("algorithm"), **stage.summary}


def _model(pretrain: Manifest | None) -> dict[str, Any] | None:
    """The shape, and the number of parameters that follows from it."""
    shape = pretrain.config.get("model") if pretrain else None
    if not shape:
        return None
    model = settings.build(ModelConfig, shape, "the model of the pretrain stage")
    return {"parameters": num_parameters(model), **settings.to_dict(model)}


def _headline(
    figures: Mapping[str, Any], curate: Manifest | None, dedup: Manifest | None, trim: Manifest | None
) -> dict[str, Any]:
    """The few figures that come first."""
    packing, training, evaluation = figures["packing"] or {}, figures["training"] or {}, figures["evaluation"] or {}
    last = trim or dedup or curate
    tokens = [packing[name] for name in ("train_tokens", "validation_tokens") if name in packing]
    return {
        "documents_in": curate.counters["documents_in"] if curate else None,
        "documents_kept": curate.counters["documents_kept"] if curate else None,
        "documents_deduplicated": dedup.counters["documents_kept"] if dedup else None,
        "bytes_of_text": last.counters["bytes_kept"] if last else None,
        "tokens": sum(tokens) if tokens else None,
        "parameters": figures["model"]["parameters"] if figures["model"] else None,
        "final_loss": training.get("final_loss"),
        "final_validation_loss": training.get("final_validation_loss"),
        "bits_per_byte": evaluation.get("bits_per_byte"),
        "perplexity": evaluation.get("perplexity"),
        "seconds": round(sum(stage["seconds"] for stage in figures["road"]), 3),
    }
