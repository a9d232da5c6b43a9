"""The decoder, whole: a causal language model with the switches of ModelConfig, in one file.

In: token ids [B, T] and, where documents must not see one another, segment ids [B, T].
Out: logits [B, T, V], or the summed loss in nats and the number of its targets.
Parameters have the names of Hugging Face's LlamaForCausalLM, so that a Llama's weights go in and out as they are; a
part that a switch leaves out leaves its parameters out (GELU has no ``gate_proj``).

Decisions: nothing is kept in buffers (a cast of the model to bfloat16 would cast rotary tables with it, which ruins
long positions), so tables are made per call, which costs T x E cosines. Attention is PyTorch's, the causal kernel
without a mask and a boolean mask with segments; positions run on through a row, as rotary attention and ALiBi only see
differences. ALiBi is no mask of H x T x S, which would be 4.3 GB for 32 heads over 8,192 tokens: it is eight more
features of queries and keys (see linear_bias), so that its kernel is the causal one too, a little wider. The loss never
holds all logits (see cross_entropy). Multipliers of 1 cost nothing.

Shapes: B rows, T tokens, S tokens attended to (S = T), D hidden, F feed-forward, V vocabulary, H query heads, K key and
value heads, E features of a head.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from caravela.model.config import BIAS_FEATURES, ModelConfig
from caravela.model.cross_entropy import summed_loss, token_losses
from caravela.model.scaling import initial_std, output_scale


class SummedLoss(NamedTuple):
    """A loss that still has to be divided, by the count of the whole global batch."""

    total: Tensor
    """Sum over targets of weight times loss, in nats; float32 scalar with gradient."""
    num_targets: Tensor
    """Sum of the weights, so the number of targets where there are none; float32 scalar."""
    rows_B: Tensor
    """``total`` by row, without gradient; float32."""


class Rotation(NamedTuple):
    """Rotary tables in the dtype of the activations."""

    cos_TE: Tensor
    sin_TE: Tensor


class LinearBias(NamedTuple):
    """Features that ALiBi adds to those of each head, in the dtype of the activations."""

    query_HF: Tensor
    key_TF: Tensor


def rotation(config: ModelConfig, num_tokens: int, like: Tensor) -> Rotation:
    """Angle t * theta^(-2i / E) for position t and pair i, in float32, then cast (arXiv 2104.09864, eq. 15)."""
    even_features = torch.arange(0, config.rotary_size, 2, device=like.device, dtype=torch.float32)
    frequencies = _stretched(1.0 / config.rope_theta ** (even_features / config.rotary_size), config)
    angles = torch.outer(torch.arange(num_tokens, device=like.device, dtype=torch.float32), frequencies)
    angles_TE = torch.cat([angles, angles], dim=-1)
    return Rotation(angles_TE.cos().to(like.dtype), angles_TE.sin().to(like.dtype))


def _stretched(frequencies: Tensor, config: ModelConfig) -> Tensor:
    """Frequencies for a longer context.

    Linear divides all of them (arXiv 2306.15595, eq. 4). Llama 3.1 does so with those that turn fewer than
    ``rope_low_frequency_factor`` times in the original context, leaves alone those that turn more than
    ``rope_high_frequency_factor`` times, and blends between by the number of turns.
    """
    if config.rope_scaling == "none":
        return frequencies
    slowed = frequencies / config.rope_scaling_factor
    if config.rope_scaling == "linear":
        return slowed
    low, high = config.rope_low_frequency_factor, config.rope_high_frequency_factor
    turns = config.rope_original_positions * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return kept * frequencies + (1 - kept) * slowed


def rotate(x_BHTE: Tensor, by: Rotation) -> Tensor:
    """Turns feature i with feature i + R/2 of the first R: Llama's halves, where the paper turns neighbours."""
    size = by.cos_TE.shape[-1]
    if size < x_BHTE.shape[-1]:
        return torch.cat([rotate(x_BHTE[..., :size], by), x_BHTE[..., size:]], dim=-1)
    first, second = x_BHTE.chunk(2, dim=-1)
    return x_BHTE * by.cos_TE + torch.cat([-second, first], dim=-1) * by.sin_TE


def alibi_slopes(num_heads: int) -> list[float]:
    """Slope of each head: 2^(-8/H), 2^(-16/H), ... for H a power of two (arXiv 2108.12409, section 3).

    For other H, as in the paper's code: those of the power of two below, then every second one of the power above.
    """
    below = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * (head + 1) / below) for head in range(below)]
    between = [2.0 ** (-8 * (head + 1) / (2 * below)) for head in range(0, 2 * below, 2)]
    return slopes + between[: num_heads - below]


def linear_bias(config: ModelConfig, num_tokens: int, like: Tensor) -> LinearBias:
    """ALiBi as a product of features: scores get slope * key, where the paper has slope * (key - query).

    The two differ by a number per query, which changes nothing in a softmax. A key's position is two features, of 256
    and of 1, each a whole number that bfloat16 holds up to a context of 65,536; a query's are the slope times either.
    Kernels multiply what they are given by the scale of scores, which is taken out of the slopes beforehand; they sum
    in float32.
    """
    at = torch.arange(num_tokens, device=like.device)
    zeros = torch.zeros(num_tokens, BIAS_FEATURES - 2, device=like.device)
    key_TF = torch.cat([(at // 256)[:, None], (at % 256)[:, None], zeros], dim=1)
    slopes_H = torch.tensor(alibi_slopes(config.num_heads), device=like.device) / attention_scale(config)
    query_HF = torch.zeros(config.num_heads, BIAS_FEATURES, device=like.device)
    query_HF[:, 0], query_HF[:, 1] = 256 * slopes_H, slopes_H
    return LinearBias(query_HF.to(like.dtype), key_TF.to(like.dtype))


def attention_scale(config: ModelConfig) -> float:
    """What scores are multiplied by."""
    return 1 / config.head_size if config.attention_scale == "full" else 1 / math.sqrt(config.head_size)


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


def norm(config: ModelConfig) -> nn.Module:
    """A norm over the residual stream."""
    if config.norm == "layer":
        return nn.LayerNorm(config.hidden_size, config.norm_epsilon, bias=config.norm_bias)
    return RMSNorm(config.hidden_size, config.norm_epsilon)


class Attention(nn.Module):
    """Causal self-attention with grouped queries, and positions by rotation or by features of their own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.grouped = config.num_kv_heads != config.num_heads
        self.scale = attention_scale(config)
        bias = config.attention_bias or config.qkv_bias
        self.q_proj = nn.Linear(config.hidden_size, config.query_size, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, config.kv_size, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, config.kv_size, bias=bias)
        self.o_proj = nn.Linear(config.query_size, config.hidden_size, bias=config.attention_bias)
        self.q_norm = RMSNorm(config.head_size, config.norm_epsilon) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_size, config.norm_epsilon) if config.qk_norm else None

    def forward(self, x_BTD: Tensor, by: Rotation | LinearBias, mask_B1TS: Tensor | None) -> Tensor:
        q_BHTE, k_BKTE = self._heads(self.q_proj(x_BTD)), self._heads(self.k_proj(x_BTD))
        v_BKTE = self._heads(self.v_proj(x_BTD))
        if self.q_norm is not None and self.k_norm is not None:
            q_BHTE, k_BKTE = self.q_norm(q_BHTE), self.k_norm(k_BKTE)
        if isinstance(by, Rotation):
            q_BHTE, k_BKTE = rotate(q_BHTE, by), rotate(k_BKTE, by)
        else:
            q_BHTE, k_BKTE = _joined(q_BHTE, by.query_HF[:, None]), _joined(k_BKTE, by.key_TF)
            v_BKTE = nn.functional.pad(v_BKTE, (0, BIAS_FEATURES))
        mixed_BHTE = nn.functional.scaled_dot_product_attention(
            q_BHTE,
            k_BKTE,
            v_BKTE,
            attn_mask=mask_B1TS,
            is_causal=mask_B1TS is None,
            scale=self.scale,
            enable_gqa=self.grouped,
        )
        mixed_BHTE = mixed_BHTE[..., : self.head_size]
        projected_BTD: Tensor = self.o_proj(mixed_BHTE.transpose(1, 2).flatten(2))
        return projected_BTD

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_size).transpose(1, 2)


def _joined(x_BHTE: Tensor, features: Tensor) -> Tensor:
    """The same features for all rows behind those of each head."""
    return torch.cat([x_BHTE, features.expand(*x_BHTE.shape[:3], -1)], dim=-1)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (arXiv 2002.05202, eq. 6), or down(gelu(up(x))) (arXiv 1606.08415)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner, bias = config.hidden_size, config.feed_forward_size, config.mlp_bias
        self.gate_proj = nn.Linear(hidden, inner, bias=bias) if config.feed_forward == "swiglu" else None
        self.up_proj = nn.Linear(hidden, inner, bias=bias)
        self.down_proj = nn.Linear(inner, hidden, bias=bias)
        self.approximate = "tanh" if config.feed_forward == "gelu_tanh" else "none"

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.gate_proj is not None:
            inner_BTF = nn.functional.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD)
        else:
            inner_BTF = nn.functional.gelu(self.up_proj(x_BTD), approximate=self.approximate)
        projected_BTD: Tensor = self.down_proj(inner_BTF)
        return projected_BTD


class Block(nn.Module):
    """One layer: attention and feed-forward, each normalised first and added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.parallel = config.parallel_residual
        self.input_layernorm = norm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = norm(config)
        self.mlp = FeedForward(config)

    def forward(self, x_BTD: Tensor, by: Rotation | LinearBias, mask_B1TS: Tensor | None) -> Tensor:
        attended_BTD: Tensor = x_BTD + self.self_attn(self.input_layernorm(x_BTD), by, mask_B1TS)
        read_BTD = x_BTD if self.parallel else attended_BTD
        output_BTD: Tensor = attended_BTD + self.mlp(self.post_attention_layernorm(read_BTD))
        return output_BTD


class Trunk(nn.Module):
    """Token ids to the normalised hidden states that the output projection reads, scaled as logits are to be."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.output_scale = output_scale(config)
        self.embed_tokens = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = norm(config)

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        x_BTD = self.embed_tokens(tokens_BT)
        if self.config.embedding_multiplier != 1:
            x_BTD = x_BTD * self.config.embedding_multiplier
        mask_B1TS = None if segments_BT is None else document_mask(segments_BT)
        positions = linear_bias if self.config.positions == "alibi" else rotation
        by = positions(self.config, tokens_BT.shape[1], like=x_BTD)
        for layer in self.layers:
            x_BTD = layer(x_BTD, by, mask_B1TS)
        hidden_BTD: Tensor = self.norm(x_BTD)
        return hidden_BTD if self.output_scale == 1 else hidden_BTD * self.output_scale


class OutputHead(nn.Module):
    """The projection to the vocabulary, or the summed loss, and that of each target, without its logits.

    Both are calls of the module, and the weight is used nowhere else in training: that is when ZeRO 3 has it whole.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.vocabulary_size, config.hidden_size))

    def forward(
        self, hidden_BTD: Tensor, targets_BT: Tensor | None = None, weights_BT: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
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

        A cut distribution is not stretched back: cut at two deviations, what is drawn deviates by 0.88 of
        ``initial_std``.
        """
        self.tie_weights()
        cut = self.config.initializer_truncation
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                std = initial_std(self.config, name)
                if cut:
                    nn.init.trunc_normal_(parameter, 0.0, std, -cut * std, cut * std, generator=generator)
                else:
                    parameter.normal_(0.0, std, generator=generator)
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
        total, losses_N = self.lm_head(self.model(tokens_BT, segments_BT), targets_BT, weights_BT)
        if weights_BT is None:
            num_targets = torch.tensor(float(targets_BT.numel()), device=total.device)
        else:
            num_targets = weights_BT.sum(dtype=torch.float32)
        return SummedLoss(total, num_targets, losses_N.view_as(targets_BT).sum(dim=1))

    @torch.no_grad()
    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """Loss of each target in nats, [B, T] in float32, without gradient. Needs whole weights (not ZeRO 3)."""
        hidden_BTD = self.model(tokens_BT, segments_BT)
        losses_N = token_losses(hidden_BTD.flatten(0, 1), self.lm_head.weight, targets_BT.flatten())
        return losses_N.view_as(targets_BT)
