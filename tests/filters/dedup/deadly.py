"""Drivers of deduplication whose workers, and they themselves, are killed: see ``tests.deadly``."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from caravela.manifest import Input
from caravela.stages import Stage, Worker
from filters.dedup import components
from filters.dedup.config import DedupConfig
from filters.dedup.road import dedup_stages
from tests import deadly
from tests.deadly import Doomed, Plan
from tests.road_without_ray import finish


def doomed(stage: Stage, plan: Plan, patch: pytest.MonkeyPatch) -> Stage:
    """The stage with workers that die; ``patch`` reaches those that ``components`` runs in rounds."""
    if stage.name == "components":
        for worker in (components.RoundWorker, components.LabelWorker):
            patch.setattr(components, worker.__name__, functools.partial(_doomed_below, worker, plan))
    return deadly.doomed(stage, plan)


def _doomed_below(worker: Callable[..., Worker], plan: Plan, *arguments: Any) -> Doomed:
    return Doomed(functools.partial(worker, *arguments), plan)


def drive(root: str, config: DedupConfig, curated: Input, plan: Plan) -> None:
    """A driver without Ray: all stages of deduplication, until the first that kills it."""
    with pytest.MonkeyPatch.context() as patch:
        for stage in dedup_stages(root, config, curated):
            finish(doomed(stage, plan, patch))
