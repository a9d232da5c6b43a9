"""The shape of a decoder, and the arithmetic that needs nothing but the shape. No torch: the driver reads this.

In: the ``[model]`` section of a config. Two fields are not the user's to set and are filled by whoever has the facts,
with ``dataclasses.replace``: ``vocabulary_size`` comes from the tokenizer, ``max_positions`` from the packed rows.
Out: ``ModelConfig``; written beside every set of weights as ``model.json``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Llama-style decoder: RMSNorm before each part, rotary positions, SwiGLU, grouped-query attention."""

    num_layers: int
    """Blocks of attention and feed-forward."""
    hidden_size: int
    """Width of the residual stream."""
    feed_forward_size: int
    """Inner width of the SwiGLU."""
    num_heads: int
    """Query heads; the width of a head is ``hidden_size / num_heads``."""
    num_kv_heads: int
    """Key and value heads, each shared by ``num_heads / num_kv_heads`` query heads."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies (RoFormer, arXiv 2104.09864, section 3.2.2)."""
    norm_epsilon: float = 1e-5
    """Added to the mean square in RMSNorm."""
    tied_embeddings: bool = False
    """Whether the output projection is the embedding matrix itself."""
    attention_bias: bool = False
    """Whether the four attention projections have biases."""
    mlp_bias: bool = False
    """Whether the three feed-forward projections have biases."""
    initializer_std: float = 0.02
    """Standard deviation of the initial weights; projections into the residual stream get it over sqrt(2 layers)."""
    mask_documents: bool = False
    """Whether attention stops at the document boundaries of a packed row."""
    vocabulary_size: int = 0
    """Filled from the tokenizer."""
    max_positions: int = 0
    """Longest context the model is trained on; filled from the packed rows."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "hidden_size", "feed_forward_size", "num_heads", "num_kv_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        for name in ("rope_theta", "norm_epsilon", "initializer_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected a number above 0")
        for name in ("vocabulary_size", "max_positions"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 (filled in later) or more")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size = {self.hidden_size}: expected a multiple of num_heads = {self.num_heads}")
        if self.head_size % 2:
            raise ValueError(
                f"hidden_size = {self.hidden_size}: expected an even number of features for each of "
                f"num_heads = {self.num_heads} (rotary positions turn pairs), found {self.head_size}"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads = {self.num_kv_heads}: expected a divisor of num_heads = {self.num_heads}")

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def kv_size(self) -> int:
        """Width of all keys (or all values) of one token."""
        return self.num_kv_heads * self.head_size


def num_parameters(config: ModelConfig) -> int:
    """Trainable numbers of the decoder, embeddings and output projection included; a tied matrix counts once."""
    hidden, inner, kv = config.hidden_size, config.feed_forward_size, config.kv_size
    attention = 2 * hidden * hidden + 2 * hidden * kv + config.attention_bias * (2 * hidden + 2 * kv)
    feed_forward = 3 * hidden * inner + config.mlp_bias * (2 * inner + hidden)
    norms = 2 * hidden
    embeddings = config.vocabulary_size * hidden * (1 if config.tied_embeddings else 2)
    return config.num_layers * (attention + feed_forward + norms) + hidden + embeddings
