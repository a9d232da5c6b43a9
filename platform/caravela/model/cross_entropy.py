"""Cross-entropy of an output projection, without ever holding the logits of all tokens.

In: the last hidden states, the output matrix, target ids. Out: losses in nats, always float32.

Logits of 16,384 tokens over 32,000 ids are 2 GB in float32, and a plain loss holds them about three times. Here tokens
go through in chunks of ``LOGIT_BYTES``. The gradient of each chunk, softmax minus one-hot, is made in the forward pass
while its logits are at hand, so nothing is computed twice (the idea of Liger's fused linear cross-entropy, arXiv
2410.10989, section 3.2). Price: the gradient of the output matrix lives, in float32, from the forward pass on, and the
gradients are those of a sum, which the caller divides.

Shapes: N tokens (of all rows), C tokens of a chunk, D hidden, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from caravela.model.config import LOGIT_BYTES


def chunk_length(vocabulary_size: int) -> int:
    """Tokens whose float32 logits fill ``LOGIT_BYTES``."""
    return max(1, LOGIT_BYTES // (4 * vocabulary_size))


@torch.no_grad()
def token_losses(hidden_ND: Tensor, matrix_VD: Tensor, targets_N: Tensor, chunk_tokens: int | None = None) -> Tensor:
    """Loss of each token in nats, [N] in float32, without gradient."""
    chunk_tokens = chunk_tokens or chunk_length(len(matrix_VD))
    losses = [
        -_log_probabilities(hidden_CD, matrix_VD).gather(1, targets_C[:, None])[:, 0]
        for hidden_CD, targets_C in zip(
            torch.split(hidden_ND, chunk_tokens), torch.split(targets_N, chunk_tokens), strict=True
        )
    ]
    return torch.cat(losses)


def summed_loss(
    hidden_ND: Tensor,
    matrix_VD: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None = None,
    chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Weight times loss in nats, in float32: summed over tokens, and of each token [N].

    The sum, a scalar, has gradients for the first two arguments; the losses of tokens have none.
    """
    chunk_tokens = chunk_tokens or chunk_length(len(matrix_VD))
    if torch.is_grad_enabled():
        both: tuple[Tensor, Tensor] = _SummedLoss.apply(  # type: ignore[no-untyped-call]
            hidden_ND, matrix_VD, targets_N, weights_N, chunk_tokens
        )
        return both
    losses_N = token_losses(hidden_ND, matrix_VD, targets_N, chunk_tokens)
    losses_N = losses_N if weights_N is None else losses_N * weights_N
    return losses_N.sum(), losses_N


def _log_probabilities(hidden_CD: Tensor, matrix_VD: Tensor) -> Tensor:
    return torch.log_softmax(hidden_CD @ matrix_VD.T, dim=-1, dtype=torch.float32)


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, matrix_VD: Tensor, targets_N: Tensor, weights_N: Tensor | None, chunk_tokens: int
    ) -> tuple[Tensor, Tensor]:
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        losses_N = hidden_ND.new_empty(len(targets_N), dtype=torch.float32)
        hidden_grad_ND = torch.empty_like(hidden_ND)
        # float32, because a sum over many chunks in bfloat16 would lose the small ones
        matrix_grad_VD = torch.zeros_like(matrix_VD, dtype=torch.float32)
        for start in range(0, len(targets_N), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            hidden_CD, targets_C1 = hidden_ND[rows], targets_N[rows, None]
            log_p_CV = _log_probabilities(hidden_CD, matrix_VD)
            losses_C1 = -log_p_CV.gather(1, targets_C1)
            slope_CV = log_p_CV.exp_()
            slope_CV.scatter_add_(1, targets_C1, torch.full_like(losses_C1, -1.0))
            if weights_N is not None:
                weights_C1 = weights_N[rows, None].float()
                losses_C1, slope_CV = losses_C1 * weights_C1, slope_CV.mul_(weights_C1)
            total += losses_C1.sum()
            losses_N[rows] = losses_C1[:, 0]
            slope_CV = slope_CV.to(hidden_ND.dtype)
            hidden_grad_ND[rows] = slope_CV @ matrix_VD
            if slope_CV.dtype == matrix_grad_VD.dtype:
                matrix_grad_VD.addmm_(slope_CV.T, hidden_CD)
            else:
                matrix_grad_VD += slope_CV.T @ hidden_CD
        ctx.save_for_backward(hidden_grad_ND, matrix_grad_VD.to(matrix_VD.dtype))
        ctx.mark_non_differentiable(losses_N)
        return total, losses_N

    @staticmethod
    def backward(ctx: Any, total_grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_grad_ND, matrix_grad_VD = ctx.saved_tensors
        return (
            hidden_grad_ND * total_grad.to(hidden_grad_ND.dtype),
            matrix_grad_VD * total_grad.to(matrix_grad_VD.dtype),
            None,
            None,
            None,
        )
