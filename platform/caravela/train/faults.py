"""What can go wrong in a step, told in one line that names what to look at or what to change."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed

from caravela.errors import UserError
from caravela.train.config import TrainConfig

DOCUMENTS_NAMED = 20


class NonFiniteError(UserError):
    """The loss or the gradient of a step is infinite or not a number; the weights are those of the step before.

    Raised on all ranks together, with the same text.
    """

    def __init__(self, text: str, step: int, ranks: tuple[int, ...], rows: tuple[int, ...]) -> None:
        """Keeps what was found.

        Args:
            text: the whole message.
            step: that was stopped.
            ranks: whose rows gave such a loss or gradient; none where only the sum over ranks is not finite.
            rows: of this rank, counted through its micro-batches.
        """
        super().__init__(text)
        self.step = step
        self.ranks = ranks
        self.rows = rows


def with_documents(error: NonFiniteError, document_ids: Sequence[Sequence[str]], cuts: int) -> NonFiniteError:
    """The same error, which also names the documents in the rows of all ranks; called by all ranks.

    Args:
        error: as the engine raised it.
        document_ids: of each packed row of this rank.
        cuts: rows of a micro-batch that were made of each packed row.
    """
    mine = [name for row in sorted({row // cuts for row in error.rows}) for name in document_ids[row]]
    of_ranks: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(of_ranks, mine)
    found = list(dict.fromkeys(name for of_rank in of_ranks for name in of_rank))
    if not found:
        return error
    return NonFiniteError(f"{error}; documents in those rows: {listed(found)}", error.step, error.ranks, error.rows)


def listed(documents: Sequence[str]) -> str:
    """The ids on one line, no more than a person reads."""
    more = f" and {len(documents) - DOCUMENTS_NAMED} more" if len(documents) > DOCUMENTS_NAMED else ""
    return ", ".join(documents[:DOCUMENTS_NAMED]) + more


def out_of_memory(error: torch.OutOfMemoryError, config: TrainConfig) -> UserError:
    """What to change where the memory of a GPU is too small, of that which is not at its end already."""
    ways = []
    if config.micro_batch_rows > 1:
        ways.append(f"lower train.micro_batch_rows = {config.micro_batch_rows}")
    if config.activation_checkpointing != 1:
        ways.append("set train.activation_checkpointing = 1")
    if config.zero_stage < 3 and config.num_workers > 1:
        ways.append(f"raise train.zero_stage = {config.zero_stage}")
    if not ways:
        ways.append("train with more workers (train.num_workers) and train.zero_stage = 3, or a smaller model")
    reason = " ".join(str(error).split())
    return UserError(f"training does not fit into the memory of a GPU: {', or '.join(ways)} ({reason})")
