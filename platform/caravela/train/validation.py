"""How well held-out rows are predicted, as a whole and by source.

In: the validation rows of the mixture's sources, the engine. Out: columns of metrics: ``validation_loss`` (nats per
target), ``validation_perplexity`` (its exponential), ``validation_bits_per_byte`` (comparable across tokenizers), and
the same with ``/<source>`` where there are several. The whole is over all rows, whatever the mixture's weights.

The figures are the same to the bit for any number of ranks: which rows go through the model together depends on the
settings alone, ranks take whole batches, and sums are made in the batches' order. Rows are read once and then held: a
source's ``max_rows`` at 8 bytes a token, less what other ranks hold. Cost of a validation: their forward pass.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed

from caravela.data.loader import held_out_batches, num_held_out_batches
from caravela.data.order import rank_slice
from caravela.manifest import Manifest
from caravela.train.batches import tensors
from caravela.train.engine import Engine, Rows


class Share(NamedTuple):
    """Of one source, what one rank scores."""

    numbers: range
    """Of the rank's batches, among the source's."""
    rows: list[Rows]
    """As many on every rank: one that has fewer batches fills up with a row of weight 0."""
    target_bytes: list[int]


class HeldOut:
    """The rows; all ranks make one together and ask it together."""

    def __init__(
        self,
        sources: Sequence[tuple[str, Manifest]],
        *,
        max_rows: int,
        batch_rows: int,
        mask_documents: bool,
        rank: int,
        num_ranks: int,
    ) -> None:
        """Counts them; nothing is read yet.

        Args:
            sources: name and pack stage of each.
            max_rows: that are scored of each source, spread evenly over its table.
            batch_rows: that go through the model together.
            mask_documents: whether documents must not see one another.
            rank: of this process.
            num_ranks: in all.
        """
        counted = [(name, pack, num_held_out_batches(pack, max_rows, batch_rows)) for name, pack in sources]
        self.sources = [(name, pack, count) for name, pack, count in counted if count]
        self.max_rows = max_rows
        self.batch_rows = batch_rows
        self.mask_documents = mask_documents
        self.rank = rank
        self.num_ranks = num_ranks
        self._shares: list[Share] = []

    def __bool__(self) -> bool:
        return bool(self.sources)

    def columns(self, engine: Engine) -> dict[str, float]:
        """Scores the rows; all ranks get the same.

        Raises:
            UserError: rows that are missing or corrupt.
        """
        if not self._shares:
            self._shares = [self._read(pack, count) for _, pack, count in self.sources]
        scored = iter(engine.held_out_sums(rows for share in self._shares for rows in share.rows))
        table = torch.zeros(sum(count for *_, count in self.sources), 3, dtype=torch.float64)
        first = 0
        for share, (*_, count) in zip(self._shares, self.sources, strict=True):
            mine = [next(scored) for _ in share.rows][: len(share.numbers)]
            for number, sums, size in zip(share.numbers, mine, share.target_bytes, strict=True):
                table[first + number] = torch.tensor([*sums, size], dtype=torch.float64)
            first += count
        table = table.to(engine.device)
        torch.distributed.all_reduce(table)  # each row is another rank's, beside zeros: nothing is rounded
        lines: list[list[float]] = table.tolist()
        columns = figures(lines)
        if len(self.sources) > 1:
            first = 0
            for name, _, count in self.sources:
                own = figures(lines[first : first + count])
                columns |= {f"{column}/{name}": value for column, value in own.items()}
                first += count
        return columns

    def _read(self, pack: Manifest, count: int) -> Share:
        batches = list(held_out_batches(pack, self.max_rows, self.batch_rows, self.rank, self.num_ranks))
        rows = [
            tensors(batch.rows(0, len(batch.tokens), batch.tokens.shape[1] - 1), self.mask_documents)
            for batch in batches
        ]
        context = int(pack.summary["context"])
        filler = Rows(torch.zeros(1, context + 1, dtype=torch.int64), weights=torch.zeros(1, context))
        rows += [filler] * (-(-count // self.num_ranks) - len(rows))
        return Share(rank_slice(count, self.rank, self.num_ranks), rows, [batch.target_bytes for batch in batches])


def figures(sums: Sequence[Sequence[float]]) -> dict[str, float]:
    """Loss, perplexity and bits per byte from nats, targets and bytes of batches."""
    nats, targets, size = (math.fsum(column) for column in zip(*sums, strict=True))
    loss = nats / max(1.0, targets)
    return {
        "validation_loss": loss,
        "validation_perplexity": math.exp(min(loss, 700.0)),  # beyond that a float ends
        "validation_bits_per_byte": nats / math.log(2) / max(1.0, size),
    }
