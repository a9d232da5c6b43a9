"""Whether activations keep their size as a decoder grows wider: muP's coordinate check, on random tokens.

``python benchmarks/mup_coordinates.py [--widths 64 128 256 512] [--steps 4] [--learning-rate 0.01]``: for each width,
with muP (base: the first width) and without, a few AdamW steps on one random batch. Prints, after each step, the mean
absolute value of every block's output, of its two parts and of the logits, and the ratio of the last width to the
first. With muP ratios stay near 1; without, they grow with the width. The output projection starts at 0: logits of
random initial weights are meant to shrink under muP, by the root of the width, and would hide what training makes of
them (Tensor Programs V, arXiv 2203.03466, appendix D).
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from caravela.model.config import ModelConfig
from caravela.model.scaling import learning_rate_factor
from caravela.model.transformer import Decoder
from caravela.progress import table

VOCABULARY, ROWS, TOKENS = 128, 4, 32
HEADS = 4
Sizes = dict[str, float]
"""Mean absolute value by place: ``layers.0``, ``layers.0.mlp``, ..., ``logits``."""


def shape(width: int, base: int, **changes: Any) -> ModelConfig:
    """A decoder of two layers whose heads grow with the width; ``base`` 0 is one without muP."""
    config = ModelConfig(
        num_layers=2,
        hidden_size=width,
        feed_forward_size=2 * width,
        num_heads=HEADS,
        num_kv_heads=HEADS // 2,
        attention_scale="full" if base else "sqrt",
        initializer_std=0.1,
        mup_base_hidden_size=base,
        vocabulary_size=VOCABULARY,
        max_positions=TOKENS,
    )
    return dataclasses.replace(config, **changes)


def coordinates(
    config: ModelConfig,
    steps: int,
    learning_rate: float,
    factor: Callable[[ModelConfig, str], float] = learning_rate_factor,
    seed: int = 0,
) -> list[Sizes]:
    """Sizes with the initial weights and after each step; ``factor`` gives what a parameter's rate is multiplied by."""
    model = Decoder(config).initialize(torch.Generator().manual_seed(seed))
    torch.nn.init.zeros_(model.lm_head.weight)
    groups: list[dict[str, Any]] = [
        {"params": [parameter], "lr": learning_rate * factor(config, name)}
        for name, parameter in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)
    row_BT = torch.randint(VOCABULARY, (ROWS, TOKENS + 1), generator=torch.Generator().manual_seed(seed + 1))
    found = [sizes(model, row_BT[:, :-1])]
    for _ in range(steps):
        total, num_targets, _ = model.loss(row_BT[:, :-1], row_BT[:, 1:])
        optimizer.zero_grad()
        (total / num_targets).backward()
        optimizer.step()
        found.append(sizes(model, row_BT[:, :-1]))
    return found


@torch.no_grad()
def sizes(model: Decoder, tokens_BT: Tensor) -> Sizes:
    """Of one pass."""
    found: Sizes = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, arguments, output: found.update({name: output.abs().mean().item()})

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.model.named_modules()
        if name.startswith("layers.") and (name.count(".") == 1 or name.endswith((".self_attn", ".mlp")))
    ]
    logits_BTV = model(tokens_BT)
    for hook in hooks:
        hook.remove()
    return found | {"logits": logits_BTV.abs().mean().item()}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    options = parser.parse_args()
    for title, base in (("with muP", options.widths[0]), ("without", 0)):
        found = {
            width: coordinates(shape(width, base), options.steps, options.learning_rate) for width in options.widths
        }
        places = list(found[options.widths[0]][0])
        for step in range(options.steps + 1):
            print(f"\n{title}, after step {step}")
            rows = [_row(place, [found[width][step][place] for width in options.widths]) for place in places]
            print(table(("mean absolute value", *map(str, options.widths), "last / first"), rows))


def _row(place: str, values: Sequence[float]) -> tuple[str, ...]:
    return (place, *(f"{value:.4f}" for value in values), f"{values[-1] / values[0]:.2f}" if values[0] else "")


if __name__ == "__main__":
    main()
