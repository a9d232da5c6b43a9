"""The stages of deduplication, in order, each made from those before it."""

from collections.abc import Sequence

from caravela.manifest import Input
from caravela.stages import Stage
from filters.dedup.clusters import clusters_stage
from filters.dedup.components import components_stage
from filters.dedup.config import DedupConfig
from filters.dedup.decide import dedup_stage
from filters.dedup.duplicates import duplicates_stage
from filters.dedup.index import index_runs
from filters.dedup.members import members_stage
from filters.dedup.shingles import candidates_stage, shingles_stage
from filters.dedup.signatures import VERSION, signature_settings, signatures_stage
from filters.dedup.spans import repeated_spans_stage, span_index, spans_stage
from filters.dedup.trim import trim_stage

DEDUP_STAGES = ("signatures", "duplicates", "components", "members", "candidates", "shingles", "clusters", "dedup")
"""All that there may be; ``candidates`` and ``shingles`` where removals are verified."""
SPAN_STAGES = ("spans", "repeated_spans", "trim")


def dedup_stages(root: str, config: DedupConfig, curated: Input) -> Sequence[Stage]:
    """From curated documents to those without duplicates; the last stage is ``dedup``, or ``trim`` with spans on.

    Raises:
        UserError: a run of ``config.index`` cannot serve as one.
    """
    verifies = config.verify != "off"
    index = index_runs(config.index, signature_settings(config), VERSION, with_documents=verifies)
    old = tuple(run.signatures for run in index)
    signatures = signatures_stage(root, config, curated)
    keys = signatures.as_input()
    duplicates = duplicates_stage(root, keys, old)
    components = components_stage(root, duplicates.as_input(), (*old, keys), config.clustering_memory_mb << 20)
    members = members_stage(root, config, components.as_input(), keys, index)
    stages = [signatures, duplicates, components, members]
    if verifies:
        candidates = candidates_stage(root, config, members.as_input(), keys, index)
        stages += [candidates, shingles_stage(root, config, candidates.as_input(), curated, index)]
    shingles = stages[-1].as_input() if verifies else None
    clusters = clusters_stage(root, config, members.as_input(), keys, index, shingles)
    dedup = dedup_stage(root, config, curated, clusters.as_input())
    spans = () if config.spans.unit == "off" else _span_stages(root, config, dedup.as_input())
    return (*stages, clusters, dedup, *spans)


def _span_stages(root: str, config: DedupConfig, dedup: Input) -> Sequence[Stage]:
    """From documents without duplicates to documents without repeated spans."""
    spans = spans_stage(root, config, dedup)
    repeated = repeated_spans_stage(root, config, spans.as_input(), span_index(config.index, config))
    trim = trim_stage(root, config.spans, dedup, spans.as_input(), repeated.as_input())
    return (spans, repeated, trim)
