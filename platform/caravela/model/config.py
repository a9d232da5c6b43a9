"""The shape of a decoder, and the arithmetic that needs nothing but the shape. No torch: the driver reads this.

In: the ``[model]`` section of a config. Two fields are not the user's to set and are filled by whoever has the facts,
with ``dataclasses.replace``: ``vocabulary_size`` comes from the tokenizer, ``max_positions`` from the packed rows.
Out: ``ModelConfig``; written beside every set of weights as ``model.json``. The defaults are a Llama; a ``model.json``
from before a field existed reads as one.
"""

from dataclasses import dataclass
from typing import Literal

# What the memory of a step depends on beside the shape; here, as a dry run needs no torch.
BIAS_FEATURES = 8
"""ALiBi's, of each head. Two would do; kernels want heads whose widths are multiples of eight."""
LOGIT_BYTES = 256 << 20
"""Of a chunk of logits in float32 (model.cross_entropy)."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A causal decoder that normalises before each part; by default a Llama, with switches for its relatives."""

    num_layers: int
    """Blocks of attention and feed-forward."""
    hidden_size: int
    """Width of the residual stream."""
    feed_forward_size: int
    """Inner width of the feed-forward."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key and value heads, each shared by ``num_heads / num_kv_heads`` query heads."""
    head_dim: int = 0
    """Width of a head; 0 is ``hidden_size / num_heads``. ``head_size`` is what follows from it."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm, or LayerNorm, which takes the mean away first."""
    norm_bias: bool = False
    """Whether LayerNorm has a bias; RMSNorm has none."""
    norm_epsilon: float = 1e-5
    """Added to the mean square or variance in the norm."""
    qk_norm: bool = False
    """Whether an RMSNorm over each head's features is laid on queries and keys, before positions (Qwen 3)."""
    feed_forward: Literal["swiglu", "gelu", "gelu_tanh"] = "swiglu"
    """Gated with SiLU (three matrices), or GELU (two matrices), exact or in its tanh approximation."""
    parallel_residual: bool = False
    """Whether attention and feed-forward both read the block's input (GPT-NeoX), not one after the other."""
    positions: Literal["rotary", "alibi"] = "rotary"
    """Rotation of queries and keys (RoFormer), or a penalty on distance (ALiBi)."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies (RoFormer, arXiv 2104.09864, section 3.2.2)."""
    rotary_share: float = 1.0
    """Share of a head's features that are turned, the first ones; the others have no position (GPT-NeoX)."""
    rope_scaling: Literal["none", "linear", "llama3"] = "none"
    """Stretching of the rotary wavelengths to a longer context: all alike, or the long ones only (Llama 3.1)."""
    rope_scaling_factor: float = 1.0
    """How far wavelengths are stretched."""
    rope_original_positions: int = 8192
    """For llama3: the context before stretching."""
    rope_low_frequency_factor: float = 1.0
    """For llama3: wavelengths above ``rope_original_positions`` over this are stretched in full."""
    rope_high_frequency_factor: float = 4.0
    """For llama3: wavelengths below ``rope_original_positions`` over this are left alone; between, it blends."""
    attention_scale: Literal["sqrt", "full"] = "sqrt"
    """Whether scores are divided by the square root of the head's width, or by the width itself (for muP)."""
    attention_bias: bool = False
    """Whether the four attention projections have biases."""
    qkv_bias: bool = False
    """Whether queries, keys and values have biases and the output projection has none (Qwen 2)."""
    mlp_bias: bool = False
    """Whether the feed-forward projections have biases."""
    tied_embeddings: bool = False
    """Whether the output projection is the embedding matrix itself."""
    initializer_std: float = 0.02
    """Standard deviation of the initial weights; projections into the residual stream get it over sqrt(2 layers)."""
    initializer_truncation: float = 0.0
    """Where the initial normal distribution is cut, in its standard deviations; 0 does not cut."""
    embedding_multiplier: float = 1.0
    """Embeddings are multiplied by it."""
    output_multiplier: float = 1.0
    """Logits are multiplied by it, and under muP divided by the ratio of widths as well."""
    mup_base_hidden_size: int = 0
    """muP: the ``hidden_size`` at which settings were tuned; 0 is no muP. See scaling.py for what follows from it."""
    mup_base_feed_forward_size: float = 0.0
    """muP: the ``feed_forward_size`` there; 0 takes the ratio of the hidden sizes."""
    mask_documents: bool = False
    """Whether attention stops at the document boundaries of a packed row."""
    vocabulary_size: int = 0
    """Filled from the tokenizer."""
    max_positions: int = 0
    """Longest context the model is trained on; filled from the packed rows."""

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_heads()
        self._check_combinations()

    def _check_ranges(self) -> None:
        for name in ("num_layers", "hidden_size", "feed_forward_size", "num_heads", "num_kv_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        positive = ("rope_theta", "norm_epsilon", "initializer_std", "embedding_multiplier", "output_multiplier")
        for name in (*positive, "rope_low_frequency_factor", "rope_original_positions"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected a number above 0")
        for name in ("vocabulary_size", "max_positions"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 (filled in later) or more")
        for name, off in {
            "head_dim": "hidden_size / num_heads",
            "initializer_truncation": "not cut",
            "mup_base_hidden_size": "no muP",
            "mup_base_feed_forward_size": "as the hidden size",
        }.items():
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 ({off}) or more")
        if not 0 < self.rotary_share <= 1:
            raise ValueError(f"rotary_share = {self.rotary_share}: expected more than 0 and at most 1")
        if not self.rope_scaling_factor >= 1:
            raise ValueError(f"rope_scaling_factor = {self.rope_scaling_factor}: expected at least 1")
        if not self.rope_high_frequency_factor > self.rope_low_frequency_factor:
            raise ValueError(
                f"rope_high_frequency_factor = {self.rope_high_frequency_factor}: expected more than "
                f"rope_low_frequency_factor = {self.rope_low_frequency_factor}"
            )

    def _check_heads(self) -> None:
        if not self.head_dim and self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size = {self.hidden_size}: expected a multiple of num_heads = {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads = {self.num_kv_heads}: expected a divisor of num_heads = {self.num_heads}")
        if self.positions != "rotary" or self.rotary_size % 2 == 0 < self.rotary_size:
            return
        if self.rotary_share < 1:
            raise ValueError(
                f"rotary_share = {self.rotary_share}: expected an even number of features, two at least, of a head of "
                f"{self.head_size} (rotary positions turn pairs), found {self.rotary_size}"
            )
        if self.head_dim:
            raise ValueError(f"head_dim = {self.head_dim}: expected an even number (rotary positions turn pairs)")
        raise ValueError(
            f"hidden_size = {self.hidden_size}: expected an even number of features for each of "
            f"num_heads = {self.num_heads} (rotary positions turn pairs), found {self.head_size}"
        )

    def _check_combinations(self) -> None:
        if self.norm_bias and self.norm == "rms":
            raise ValueError('norm_bias = True: expected norm = "layer" beside it; RMSNorm has no bias')
        if self.qkv_bias and self.attention_bias:
            raise ValueError("qkv_bias = True: expected no attention_bias beside it, which means all four projections")
        if self.positions == "alibi" and (self.rope_scaling != "none" or self.rotary_share != 1):
            name = "rope_scaling" if self.rope_scaling != "none" else "rotary_share"
            raise ValueError(f'{name} = {getattr(self, name)}: expected positions = "rotary" beside it')
        if self.rope_scaling == "none" and self.rope_scaling_factor != 1:
            raise ValueError(
                f"rope_scaling_factor = {self.rope_scaling_factor}: expected a kind of rope_scaling for it"
            )
        if self.mup_base_feed_forward_size and not self.mup_base_hidden_size:
            raise ValueError(
                f"mup_base_feed_forward_size = {self.mup_base_feed_forward_size}: expected mup_base_hidden_size too"
            )

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def rotary_size(self) -> int:
        """Features of a head that rotary positions turn."""
        return int(self.head_size * self.rotary_share)

    @property
    def query_size(self) -> int:
        """Width of all queries of one token."""
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        """Width of all keys (or all values) of one token."""
        return self.num_kv_heads * self.head_size


def num_parameters(config: ModelConfig) -> int:
    """Numbers of the decoder, embeddings and output projection included; a tied matrix counts once.

    All are trained but one: the slope of each ALiBi head. It is fixed and follows from the config, and is counted
    because those who publish such models count it (BTLM-3B-8K: 32 of 2,646,255,776).
    """
    hidden, inner, query, kv = config.hidden_size, config.feed_forward_size, config.query_size, config.kv_size
    attention = 2 * hidden * (query + kv)
    attention += (config.attention_bias or config.qkv_bias) * (query + 2 * kv) + config.attention_bias * hidden
    attention += config.qk_norm * 2 * config.head_size
    wide = 2 if config.feed_forward == "swiglu" else 1
    feed_forward = (wide + 1) * hidden * inner + config.mlp_bias * (wide * inner + hidden)
    norm = hidden * (2 if config.norm_bias else 1)
    embeddings = config.vocabulary_size * hidden * (1 if config.tied_embeddings else 2)
    slopes = config.num_heads if config.positions == "alibi" else 0
    return config.num_layers * (attention + feed_forward + 2 * norm) + norm + embeddings + slopes
