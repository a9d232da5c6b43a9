"""A batch of the loader as the micro-batches that the engine takes."""

from collections.abc import Iterator

import numpy as np
import torch

from caravela.data.loader import Batch, BatchRows
from caravela.data.rows import counted_targets
from caravela.model.transformer import document_segments
from caravela.train.engine import Rows


def micro_batches(batch: Batch, size: int, context: int, mask_documents: bool) -> Iterator[Rows]:
    """At most ``size`` packed rows at a time, each divided into rows of ``context`` tokens.

    Args:
        batch: this rank's rows of a step.
        size: packed rows that go through the model together.
        context: divides the rows' own.
        mask_documents: whether documents must not see one another.
    """
    for start in range(0, len(batch.tokens), size):
        yield tensors(batch.rows(start, start + size, context), mask_documents)


def tensors(rows: BatchRows, mask_documents: bool) -> Rows:
    """The same as tensors; weights only where something is padded."""
    context = rows.tokens.shape[1] - 1
    segments = document_segments(rows.document_starts, context) if mask_documents else None
    weights = None
    if rows.padding.any():
        weights = torch.from_numpy(counted_targets(rows.padding, context).astype(np.float32))
    return Rows(torch.from_numpy(rows.tokens), segments, weights, torch.tensor(rows.sources))
