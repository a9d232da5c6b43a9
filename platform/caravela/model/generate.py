"""Text from a model, token by token.

In: prompts as token ids. Out: what the model adds to each. All prompts run in one batch, padded on the right, which a
causal model does not see; only the last position of each is projected to the vocabulary.

There is no cache of keys and values: a token costs a pass over all before it. That is fine for a few samples in a
report; for serving, export the model.

Shapes: B prompts, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caravela.model.transformer import Decoder


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """Logits are divided by it; 0 takes the most probable token."""
    top_k: int = 0
    """Only this many most probable tokens are drawn from; 0 means all."""
    seed: int = 0
    """Of the draws; the same seed gives the same text on the same machine."""


@torch.no_grad()
def generate(
    model: Decoder, prompts: Sequence[Sequence[int]], max_tokens: int, stop_id: int, sampling: Sampling
) -> list[list[int]]:
    """Continues each prompt until ``stop_id`` (left out), ``max_tokens`` or the end of the model's context.

    Args:
        model: the decoder.
        prompts: token ids, at least one each, ``<s>`` included.
        max_tokens: most tokens added to a prompt.
        stop_id: the id that ends a text.
        sampling: greedy by default.
    """
    assert all(prompts), "a prompt holds at least one token"
    device = model.lm_head.weight.device
    generator = torch.Generator().manual_seed(sampling.seed)
    texts = [list(prompt) for prompt in prompts]
    context = model.config.max_positions or max(map(len, texts)) + max_tokens
    going = [row for row, text in enumerate(texts) if len(text) < context]
    for _ in range(max_tokens):
        if not going:
            break
        last_BV = _last_logits(model, [texts[row] for row in going], device)
        chosen = _next_tokens(last_BV.float().cpu(), sampling, generator).tolist()
        for row, token in zip(going, chosen, strict=True):
            texts[row].append(token)
        going = [row for row in going if texts[row][-1] != stop_id and len(texts[row]) < context]
    added = [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
    return [tokens[:-1] if tokens and tokens[-1] == stop_id else tokens for tokens in added]


def _last_logits(model: Decoder, texts: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Logits [B, V] after each text."""
    lengths_B = torch.tensor([len(text) for text in texts], device=device)
    tokens_BT = torch.zeros(len(texts), int(lengths_B.max()), dtype=torch.int64)
    for row, text in enumerate(texts):
        tokens_BT[row, : len(text)] = torch.tensor(text)
    hidden_BTD = model.model(tokens_BT.to(device))
    last_BD = hidden_BTD[torch.arange(len(texts), device=device), lengths_B - 1]
    logits_BV: Tensor = model.lm_head(last_BD)
    return logits_BV


def _next_tokens(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    logits_BV = logits_BV / sampling.temperature
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    return torch.multinomial(logits_BV.softmax(dim=-1), num_samples=1, generator=generator)[:, 0]
