"""How width and depth enter initial weights, logits and learning rates: the arithmetic of muP. No torch.

In: a ModelConfig and a parameter's name (``model.layers.0.mlp.up_proj.weight``). Out: numbers.

With ``mup_base_hidden_size`` the settings that were tuned at that width hold at another (Tensor Programs V, arXiv
2203.03466, table 8, for Adam; Cerebras-GPT, arXiv 2304.03208, section 2.4, is the form used here). With m the width
that a matrix reads over the width at the base:

==================================  ==========================  ===============
parameter                           initial deviation           learning rate
==================================  ==========================  ===============
matrices inside the blocks          initializer_std / sqrt(m)   rate / m
embeddings, output projection       initializer_std             rate
norms, biases                       1 and 0                     rate
==================================  ==========================  ===============

and logits are divided by m. ``attention_scale = "full"`` belongs to it when heads grow wider and not more.
``initial_std`` and ``output_scale`` are used by the decoder; ``learning_rate_factor`` is for whoever builds the
optimizer. Without muP every ratio is 1.
"""

import math

from caravela.model.config import ModelConfig

HIDDEN_MATRIX = "_proj.weight"
RESIDUAL_PROJECTIONS = ("o_proj.weight", "down_proj.weight")


def width_ratio(config: ModelConfig, parameter_name: str) -> float:
    """The width that a matrix inside the blocks reads over the same at the base; 1 for any other parameter."""
    if not (config.mup_base_hidden_size and parameter_name.endswith(HIDDEN_MATRIX)):
        return 1.0
    if config.mup_base_feed_forward_size and parameter_name.endswith("down_proj.weight"):
        return config.feed_forward_size / config.mup_base_feed_forward_size
    return config.hidden_size / config.mup_base_hidden_size


def initial_std(config: ModelConfig, parameter_name: str) -> float:
    """Standard deviation of a matrix's initial weights.

    What writes to the residual stream starts smaller, by 1 / sqrt(2 layers), so that the stream's variance does not
    grow with depth (GPT-2, section 2.3).
    """
    depth = 1 / math.sqrt(2 * config.num_layers) if parameter_name.endswith(RESIDUAL_PROJECTIONS) else 1.0
    return config.initializer_std * depth / math.sqrt(width_ratio(config, parameter_name))


def learning_rate_factor(config: ModelConfig, parameter_name: str) -> float:
    """What the learning rate of a parameter is multiplied by under Adam."""
    return 1 / width_ratio(config, parameter_name)


def output_scale(config: ModelConfig) -> float:
    """What logits are multiplied by."""
    base = config.mup_base_hidden_size
    return config.output_multiplier * (base / config.hidden_size if base else 1.0)
