"""What is done to a model's blocks before it trains: activations made again, and compilation. Results are the same.

Each block's own ``forward`` is replaced, so names of weights stay as they are. A block that is compiled is compiled
inside of what makes its activations again.
"""

import functools

import torch
from torch.utils.checkpoint import checkpoint

from caravela.model.transformer import Decoder
from caravela.train.config import TrainConfig


def prepare_blocks(decoder: Decoder, config: TrainConfig, device: torch.device) -> None:
    """Does what the settings say.

    Recomputation, by PyTorch's ``checkpoint`` (arXiv 1604.06174), holds the input of a block alone and costs its
    forward pass once more. Nothing in a block is random, so no state of a generator is kept. Under ZeRO 3 compilation
    gives the same results, but DeepSpeed's hooks cut each block's graph to pieces, so it is off there unless asked for.
    """
    compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda" and config.zero_stage < 3)
    every = config.activation_checkpointing
    for i, block in enumerate(decoder.model.layers):
        if compiled:
            block.forward = torch.compile(block.forward)
        if every and i % every == 0:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
