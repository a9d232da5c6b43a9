"""The stages of deduplication, in order, each made from those before it."""

from collections.abc import Sequence

from caravela.manifest import Input
from caravela.stages import Stage
from filters.dedup.clusters import clusters_stage, members_stage
from filters.dedup.components import components_stage
from filters.dedup.config import DedupConfig
from filters.dedup.decide import dedup_stage
from filters.dedup.duplicates import duplicates_stage, index_inputs
from filters.dedup.signatures import signature_settings, signatures_stage

DEDUP_STAGES = ("signatures", "duplicates", "components", "members", "clusters", "dedup")


def dedup_stages(root: str, config: DedupConfig, curated: Input) -> Sequence[Stage]:
    """From curated documents to those without duplicates; the last stage is ``dedup``.

    Raises:
        UserError: a run of ``config.index`` cannot serve as one.
    """
    index = index_inputs(config.index, signature_settings(config))
    signatures = signatures_stage(root, config, curated)
    every = (*index, signatures.as_input())
    duplicates = duplicates_stage(root, signatures.as_input(), index)
    components = components_stage(root, duplicates.as_input(), every, config.clustering_memory_mb << 20)
    members = members_stage(root, config, components.as_input(), every)
    clusters = clusters_stage(root, config, members.as_input(), signatures.as_input(), index)
    dedup = dedup_stage(root, config, curated, clusters.as_input())
    return (signatures, duplicates, components, members, clusters, dedup)
