"""Which packed row is trained on at each slot of each step: a pure function of sources, stages, seed, step and slot.

In: sources (finished pack stages with weights and caps), stages that divide the steps, the rows of a global batch, a
seed. Out: ``sample(step, slot)``, the source and its row; and ``find``, the steps and slots in which a row comes. The
number of workers is no part of it: rank r of R takes a slice of each step's slots (``order.rank_slice``).

A source keeps an order of its own (``order.BlockShuffle``, seeded by its name), whatever the others are; a stage draws
on where the one before stopped. Which source fills which slot is ``mixture.Schedule``: within one row of the weights at
every prefix of a stage. Steps count from 1, as the metrics do. Cost of any step: that of the first.
"""

import bisect
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import xxhash

from caravela.data.mixture import Schedule
from caravela.data.order import BlockShuffle, Row, RowGroup
from caravela.errors import UserError
from caravela.manifest import Manifest


class Source(NamedTuple):
    """Rows to draw from."""

    name: str
    """Tells sources apart; the order of a source's rows depends on it."""
    pack: Manifest
    weight: float = 1.0
    """Its share of tokens, beside the others' weights."""
    max_epochs: float | None = None
    """How often its rows may come; None for as often as asked."""


class TrainingStage(NamedTuple):
    """A stretch of steps."""

    share: float
    """Of all steps, and so of all tokens."""
    weights: tuple[float, ...]
    """Of every source, 0 for one that rests."""
    context: int
    """Tokens that the model sees at once; divides the rows' own context."""


class Sample(NamedTuple):
    """What fills a slot."""

    source: int
    row: Row


class Place(NamedTuple):
    """When a row is trained on."""

    step: int
    slot: int
    epoch: int
    """Of the row's source, from 0."""


class TrainingOrder:
    """The rows of all steps."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        seed: int,
        batch_rows: int,
        steps: int,
        window_groups: int,
        stages: Sequence[TrainingStage] = (),
    ) -> None:
        """Lays out sources and stages.

        Args:
            sources: at least one, packed alike.
            seed: another seed, another order.
            batch_rows: rows of a global batch.
            steps: in all; where a stage begins depends on it.
            window_groups: row groups of a source that are shuffled together.
            stages: the last ends with the run; none is one stage with the sources' weights and the rows' context.

        Raises:
            UserError: rows of different length or tokenizer, weights that cannot be, a context that does not divide
                the rows', or sources that have too few rows under their caps.
        """
        self.sources = tuple(sources)
        self.batch_rows = batch_rows
        self.steps = steps
        self.row_context = _common(sources)
        weights = tuple(source.weight for source in sources)
        self.stages = tuple(stages) or (TrainingStage(1.0, weights, self.row_context),)
        self.shuffles = [_shuffle(source, seed, window_groups) for source in sources]
        ends = itertools.accumulate(Fraction(repr(stage.share)) for stage in self.stages[:-1])
        self._begins = [0, *(round(end * steps) for end in ends)]
        """By stage: steps before it."""
        self._schedules: list[Schedule] = []
        self._lay_out_stages()

    def _lay_out_stages(self) -> None:
        limits = [
            None if source.max_epochs is None else int(Fraction(repr(source.max_epochs)) * shuffle.rows_per_epoch)
            for source, shuffle in zip(self.sources, self.shuffles, strict=True)
        ]
        given: tuple[int, ...] = (0,) * len(self.sources)
        for number, stage in enumerate(self.stages):
            if stage.context < 1 or self.row_context % stage.context:
                raise UserError(
                    f"mixture.stages[{number}].context = {stage.context}: expected a divisor of pack.context = "
                    f"{self.row_context}"
                )
            try:
                schedule = Schedule(stage.weights, limits, given)
            except ValueError as error:
                raise UserError(f"mixture, stage {number + 1} of {len(self.stages)}: {error}") from error
            wanted = (self._end(number) - self._begins[number]) * self.batch_rows
            if schedule.slots is not None and schedule.slots < wanted:
                raise UserError(
                    f"mixture, stage {number + 1} of {len(self.stages)}: needs {wanted:,} rows, but under max_epochs "
                    f"its sources have {schedule.slots:,} left; raise max_epochs, or lower train.steps or "
                    "train.batch_rows"
                )
            self._schedules.append(schedule)
            given = schedule.rows_before(wanted)

    def _end(self, number: int) -> int:
        return self._begins[number + 1] if number + 1 < len(self._begins) else self.steps

    def sample(self, step: int, slot: int) -> Sample:
        """What fills a slot of a step: steps from 1, slots from 0."""
        number = self._stage(step)
        within = (step - 1 - self._begins[number]) * self.batch_rows + slot
        source, row = self._schedules[number].draw(within)
        return Sample(source, self.shuffles[source].row(row))

    def context(self, step: int) -> int:
        """Tokens that the model sees at once in a step."""
        return self.stages[self._stage(step)].context

    def drawn(self) -> tuple[int, ...]:
        """By source: the rows of all steps together."""
        last = len(self.stages) - 1
        return self._schedules[last].rows_before((self.steps - self._begins[last]) * self.batch_rows)

    def find(self, source: int, group: RowGroup, row: int) -> Iterator[Place]:
        """When a row is trained on, in order: at most once an epoch of its source."""
        drawn = self.drawn()[source]
        for epoch in itertools.count():
            if epoch * self.shuffles[source].rows_per_epoch >= drawn:
                return
            position = self.shuffles[source].position(epoch, group, row)
            if position < drawn:
                yield self._place(source, position, epoch)

    def _place(self, source: int, position: int, epoch: int) -> Place:
        for number in reversed(range(len(self.stages))):
            if position >= self._schedules[number].rows_before(0)[source]:
                within = self._schedules[number].slot_of(source, position)
                assert within is not None, f"row {position} of source {source} was drawn"
                step, slot = divmod(within, self.batch_rows)
                return Place(self._begins[number] + step + 1, slot, epoch)
        raise AssertionError("the first stage begins with row 0")

    def _stage(self, step: int) -> int:
        if not 1 <= step <= self.steps:
            raise IndexError(f"step {step}: expected 1 to {self.steps}")
        return bisect.bisect_right(self._begins, step - 1) - 1


def data_hash(sources: Sequence[Source]) -> str:
    """Sixteen hexadecimal digits for the rows of all sources: names, and the files with rows and checksums."""
    files = [[source.name, [[f.path, f.rows, f.sha256] for f in source.pack.files("train")]] for source in sources]
    return hashlib.sha256(json.dumps(files).encode("utf-8")).hexdigest()[:16]


def _common(sources: Sequence[Source]) -> int:
    """The context of all sources' rows."""
    for key, thing in (("context", "contexts"), ("tokenizer_sha256", "tokenizers")):
        found = {source.name: source.pack.summary.get(key) for source in sources}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{source}: {value}" for source, value in found.items())
            raise UserError(f"mixture.sources are packed with different {thing} ({said}); pack them alike")
    return int(sources[0].pack.summary["context"])


def _shuffle(source: Source, seed: int, window_groups: int) -> BlockShuffle:
    rows = [file.rows for file in source.pack.files("train")]
    if not sum(rows):
        raise UserError(f"{source.pack.uri}: holds no rows to train on")
    key = xxhash.xxh3_64_intdigest(f"{seed} {source.name}".encode())
    return BlockShuffle(rows, int(source.pack.config["row_group_rows"]), key, window_groups)
