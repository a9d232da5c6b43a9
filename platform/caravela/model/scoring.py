"""How well a model predicts packed rows: loss, perplexity and bits per byte.

In: rows of token ids [B, T + 1] and the bytes they stand for. Out: ``Score``, sums that add up over batches,
sources and machines; nothing is averaged before the end.

Bits per byte = total nats / ln 2 / bytes of UTF-8 text that the targets stand for. It counts text, not tokens, so it
compares models with different tokenizers; perplexity does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from caravela.data.rows import counted_targets
from caravela.model.transformer import Decoder, document_segments


@dataclass(frozen=True, kw_only=True)
class Score:
    """Sums over targets."""

    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(nats=self.nats + other.nats, tokens=self.tokens + other.tokens, bytes=self.bytes + other.bytes)

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; infinite where that is beyond a float."""
        return math.exp(self.loss) if self.loss < math.log(torch.finfo(torch.float64).max) else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Needs targets that stand for some text, which single control tokens do not."""
        return self.nats / math.log(2) / self.bytes


@torch.no_grad()
def score(
    model: Decoder,
    tokens: npt.NDArray[np.int64],
    document_starts: Sequence[Sequence[int]],
    target_bytes: int,
    padding: npt.NDArray[np.int64] | None = None,
) -> Score:
    """Scores a batch of packed rows on the model's device; sums run in float64.

    Args:
        model: in evaluation mode; whether documents of a row see one another is its config's ``mask_documents``.
        tokens: [B, T + 1].
        document_starts: where documents begin in each row.
        target_bytes: bytes of text that the targets, all tokens but the first of each row, stand for.
        padding: tokens at the end of each row that are no targets; without it there are none.
    """
    device = model.lm_head.weight.device
    tokens_BT = torch.from_numpy(tokens).to(device)
    inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
    segments_BT = None
    if model.config.mask_documents:
        segments_BT = document_segments(document_starts, inputs_BT.shape[1]).to(device)
    losses_BT = model.token_losses(inputs_BT, targets_BT, segments_BT)
    if padding is None:
        padding = np.zeros(len(tokens), np.int64)
    counted_BT = torch.from_numpy(counted_targets(padding, inputs_BT.shape[1])).to(device)
    nats = losses_BT.masked_fill(~counted_BT, 0).sum(dtype=torch.float64).item()
    return Score(nats=nats, tokens=int(counted_BT.sum()), bytes=target_bytes)
