"""The decoder, whole: a Llama-style causal language model in one file.

In: token ids [B, T] and, where documents must not see one another, segment ids [B, T].
Out: logits [B, T, V], or the summed loss in nats and the number of its targets.
Parameters have the names of Hugging Face's LlamaForCausalLM, so that weights go in and out as they are.

Decisions: nothing is kept in buffers (a cast of the model to bfloat16 would cast rotary tables with it, which ruins
long positions), so tables are made per call, which costs T x E cosines. Attention is PyTorch's, the causal kernel
without a mask and a boolean mask with segments; positions run on through a row, as rotary attention only sees
differences. The loss never holds all logits (see cross_entropy).

Shapes: B rows, T tokens, S tokens attended to (S = T), D hidden, F feed-forward, V vocabulary, H query heads, K key and
value heads, E features of a head.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from caravela.model.config import ModelConfig
from caravela.model.cross_entropy import summed_loss, token_losses

RESIDUAL_PROJECTIONS = ("o_proj.weight", "down_proj.weight")


class SummedLoss(NamedTuple):
    """A loss that still has to be divided, by the count of the whole global batch."""

    total: Tensor
    """Sum over targets of weight times loss, in nats; float32 scalar with gradient."""
    num_targets: Tensor
    """Sum of the weights, so the number of targets where there are none; float32 scalar."""


class Rotation(NamedTuple):
    """Rotary tables in the dtype of the activations."""

    cos_TE: Tensor
    sin_TE: Tensor


def rotation(config: ModelConfig, num_tokens: int, like: Tensor) -> Rotation:
    """Angle t * theta^(-2i / E) for position t and pair i, in float32, then cast (arXiv 2104.09864, eq. 15)."""
    even_features = torch.arange(0, config.head_size, 2, device=like.device, dtype=torch.float32)
    frequencies = 1.0 / config.rope_theta ** (even_features / config.head_size)
    angles = torch.outer(torch.arange(num_tokens, device=like.device, dtype=torch.float32), frequencies)
    angles_TE = torch.cat([angles, angles], dim=-1)
    return Rotation(angles_TE.cos().to(like.dtype), angles_TE.sin().to(like.dtype))


def rotate(x_BHTE: Tensor, by: Rotation) -> Tensor:
    """Turns feature i with feature i + E/2: Llama's halves, where the paper turns neighbours."""
    first, second = x_BHTE.chunk(2, dim=-1)
    return x_BHTE * by.cos_TE + torch.cat([-second, first], dim=-1) * by.sin_TE


def document_segments(document_starts: Sequence[Sequence[int]], num_tokens: int) -> Tensor:
    """Segment ids [B, T] from where documents begin in each row: ``[[0, 3]], 5 -> [[1, 1, 1, 2, 2]]``.

    Tokens before the first start (the rest of a document that began in the row before) are a segment of their own;
    starts at or after ``num_tokens`` do not count.
    """
    begins = torch.zeros(len(document_starts), num_tokens, dtype=torch.int64)
    for row, starts in enumerate(document_starts):
        begins[row, [start for start in starts if start < num_tokens]] = 1
    return begins.cumsum(dim=1)


def document_mask(segments_BT: Tensor) -> Tensor:
    """True where a token may look: at itself and before, within its segment. [B, 1, T, S]."""
    same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
    return same_BTS.tril()[:, None]


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * weight (arXiv 1910.07467, eq. 4)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        return nn.functional.rms_norm(x_BTD, self.weight.shape, self.weight, self.epsilon)


class Attention(nn.Module):
    """Causal self-attention with grouped queries and rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.grouped = config.num_kv_heads != config.num_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.kv_size, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.kv_size, bias=config.attention_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)

    def forward(self, x_BTD: Tensor, by: Rotation, mask_B1TS: Tensor | None) -> Tensor:
        q_BHTE = rotate(self._heads(self.q_proj(x_BTD)), by)
        k_BKTE = rotate(self._heads(self.k_proj(x_BTD)), by)
        v_BKTE = self._heads(self.v_proj(x_BTD))
        mixed_BHTE = nn.functional.scaled_dot_product_attention(
            q_BHTE, k_BKTE, v_BKTE, attn_mask=mask_B1TS, is_causal=mask_B1TS is None, enable_gqa=self.grouped
        )
        projected_BTD: Tensor = self.o_proj(mixed_BHTE.transpose(1, 2).flatten(2))
        return projected_BTD

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_size).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (arXiv 2002.05202, eq. 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.feed_forward_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.feed_forward_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.feed_forward_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        inner_BTF = nn.functional.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD)
        projected_BTD: Tensor = self.down_proj(inner_BTF)
        return projected_BTD


class Block(nn.Module):
    """One layer: attention, then feed-forward, each normalised first and added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(self, x_BTD: Tensor, by: Rotation, mask_B1TS: Tensor | None) -> Tensor:
        attended_BTD: Tensor = x_BTD + self.self_attn(self.input_layernorm(x_BTD), by, mask_B1TS)
        output_BTD: Tensor = attended_BTD + self.mlp(self.post_attention_layernorm(attended_BTD))
        return output_BTD


class Trunk(nn.Module):
    """Token ids to the normalised hidden states that the output projection reads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        x_BTD = self.embed_tokens(tokens_BT)
        by = rotation(self.config, tokens_BT.shape[1], like=x_BTD)
        mask_B1TS = None if segments_BT is None else document_mask(segments_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD, by, mask_B1TS)
        hidden_BTD: Tensor = self.norm(x_BTD)
        return hidden_BTD


class OutputHead(nn.Module):
    """The projection to the vocabulary, or the summed loss without its logits.

    Both are calls of the module, and the weight is used nowhere else in training: that is when ZeRO 3 has it whole.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.vocabulary_size, config.hidden_size))

    def forward(self, hidden_BTD: Tensor, targets_BT: Tensor | None = None, weights_BT: Tensor | None = None) -> Tensor:
        if targets_BT is None:
            return nn.functional.linear(hidden_BTD, self.weight)
        weights_N = None if weights_BT is None else weights_BT.flatten()
        return summed_loss(hidden_BTD.flatten(0, 1), self.weight, targets_BT.flatten(), weights_N)


class Decoder(nn.Module):
    """A causal language model. Its weights mean nothing before ``initialize`` or ``weights.load_model``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.vocabulary_size > 0, "ModelConfig.vocabulary_size is filled in before a model is built"
        self.config = config
        self.model = Trunk(config)
        self.lm_head = OutputHead(config)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Makes the output matrix the embedding matrix where the config says so; needed again after ``to_empty``."""
        if self.config.tied_embeddings:
            self.lm_head.weight = cast(nn.Parameter, self.model.embed_tokens.weight)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> Self:
        """Draws all weights anew: normal matrices, biases 0, norms 1. The same generator state gives the same weights.

        What writes to the residual stream starts smaller, by 1 / sqrt(2 layers), so that the stream's variance does
        not grow with depth (GPT-2, section 2.3).
        """
        self.tie_weights()
        std = self.config.initializer_std
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                scale = 1 / math.sqrt(2 * self.config.num_layers) if name.endswith(RESIDUAL_PROJECTIONS) else 1.0
                parameter.normal_(0.0, std * scale, generator=generator)
        return self

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, V] of the token after each position."""
        logits_BTV: Tensor = self.lm_head(self.model(tokens_BT, segments_BT))
        return logits_BTV

    def loss(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        weights_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> SummedLoss:
        """Summed cross-entropy of ``targets_BT``; a target of weight 0 does not count, but must be a valid id."""
        total = self.lm_head(self.model(tokens_BT, segments_BT), targets_BT, weights_BT)
        if weights_BT is None:
            num_targets = torch.tensor(float(targets_BT.numel()), device=total.device)
        else:
            num_targets = weights_BT.sum(dtype=torch.float32)
        return SummedLoss(total, num_targets)

    @torch.no_grad()
    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """Loss of each target in nats, [B, T] in float32, without gradient. Needs whole weights (not ZeRO 3)."""
        hidden_BTD = self.model(tokens_BT, segments_BT)
        losses_N = token_losses(hidden_BTD.flatten(0, 1), self.lm_head.weight, targets_BT.flatten())
        return losses_N.view_as(targets_BT)
