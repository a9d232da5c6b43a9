"""Settings of the mixture: which runs' packed rows are trained on, in which shares, and in which stages.

In: the section ``mixture`` of a config. Out: the pack stages that it names, and the training order over them. A source
is this run's own rows, or those of another run, found by its root; all must be packed with one context and tokenizer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from caravela import manifest, storage
from caravela.config import ConfigError
from caravela.data.training_order import Source, TrainingOrder, TrainingStage
from caravela.errors import MissingInputError
from caravela.manifest import Input, Manifest


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Packed rows to train on."""

    name: str
    """Tells sources apart in stages, metrics and the order; another name is another order of its rows."""
    root: str = ""
    """Root of the run that packed them; empty for this run."""
    weight: float = 1.0
    """Share of the tokens, beside the other sources' weights; what they add up to does not matter."""
    max_epochs: float = 0.0
    """How often its rows may come, on average, in the whole run; then the others take its slots. 0 is no limit."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError('name = "": expected a name for the source')
        for name in ("weight", "max_epochs"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainingStageConfig:
    """A stretch of the run with a mixture and a context of its own."""

    share: float
    """Of the run's tokens; those of all stages add up to 1."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """By source, in place of the sources' own; a source that is not named rests. Empty: the sources' own."""
    context: int = 0
    """Tokens that the model sees at once; divides pack.context, so that a step has as many tokens. 0: pack.context."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share = {self.share}: expected above 0 and at most 1")
        if self.context < 0:
            raise ConfigError(f"context = {self.context}: expected 0 or more")
        for name, weight in self.weights.items():
            if weight < 0:
                raise ConfigError(f"weights = {{{name} = {weight}}}: expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """What training draws from."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(name="documents"),)
    """At least one; without this section, the run's own rows."""
    stages: tuple[TrainingStageConfig, ...] = ()
    """In order; none is one stage over the whole run."""

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"sources = {names}: expected at least one, and every name once")
        if self.stages and not math.isclose(sum(stage.share for stage in self.stages), 1, abs_tol=1e-9):
            shares = [stage.share for stage in self.stages]
            raise ConfigError(f"stages = {shares}: expected shares that add up to 1, these to {sum(shares):g}")
        for number, stage in enumerate(self.stages):
            if unknown := sorted(set(stage.weights) - set(names)):
                raise ConfigError(
                    f"stages = [{number}].weights names {', '.join(unknown)}: expected names of sources: "
                    f"{', '.join(names)}"
                )


def pack_inputs(config: MixtureConfig, own: Input) -> tuple[Input, ...]:
    """The pack stage of each source; of a run that has none yet, one that is not finished."""
    return tuple(_pack_of(source) if source.root else own for source in config.sources)


def _pack_of(source: SourceConfig) -> Input:
    name = f"pack of {source.name}"
    found = manifest.latest(source.root, "pack")
    if found is None:
        return Input(name=name, fingerprint="", uri=storage.join(storage.absolute(source.root), "pack"))
    return Input(name=name, fingerprint=found.fingerprint, uri=found.uri)


def require_sources(config: MixtureConfig) -> None:
    """Looks for the rows of other runs, so that a wrong root is known before the work of hours.

    Raises:
        UserError: the root of another run holds no finished pack stage.
    """
    for source in config.sources:
        if source.root and manifest.latest(source.root, "pack") is None:
            raise MissingInputError(
                f"mixture.sources: {source.name}: {source.root} holds no finished stage pack; expected the root of a "
                "run whose rows are packed"
            )


class OfTheOrder(Protocol):
    """Those settings of training that the order depends on."""

    @property
    def seed(self) -> int: ...
    @property
    def batch_rows(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def shuffle_row_groups(self) -> int: ...


def training_order(config: MixtureConfig, packs: Sequence[Manifest], training: OfTheOrder) -> TrainingOrder:
    """The order over the packs of all sources, which stand in the order of the config.

    Raises:
        UserError: see ``TrainingOrder``.
    """
    sources = [
        Source(source.name, pack, source.weight, source.max_epochs or None)
        for source, pack in zip(config.sources, packs, strict=True)
    ]
    stages = [
        TrainingStage(
            stage.share,
            tuple(stage.weights.get(source.name, 0.0) if stage.weights else source.weight for source in config.sources),
            stage.context or int(packs[0].summary["context"]),
        )
        for stage in config.stages
    ]
    return TrainingOrder(
        sources,
        seed=training.seed,
        batch_rows=training.batch_rows,
        steps=training.steps,
        window_groups=training.shuffle_row_groups,
        stages=stages,
    )
