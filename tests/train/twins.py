"""Shrunken twins of the recipes: the same switches in a few narrow layers, trained by the real loop; no Ray."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from caravela.manifest import Input
from caravela.model.config import ModelConfig
from caravela.progress import Poster
from caravela.train.config import TrainConfig
from road import RoadConfig
from tests.packed_rows import CONTEXT, VOCABULARY

STEPS = 20


def shape(recipe: RoadConfig) -> ModelConfig:
    """Two layers of heads of 8; the ratios of heads, feed-forward and widths of muP are the recipe's."""
    full = recipe.model
    group = full.num_heads // full.num_kv_heads
    heads = max(4, group) // group * group or group
    hidden = 8 * heads
    ratio = hidden / full.hidden_size
    return dataclasses.replace(
        full,
        num_layers=2,
        hidden_size=hidden,
        feed_forward_size=round(full.feed_forward_size * ratio / 2) * 2,
        num_heads=heads,
        num_kv_heads=heads // group,
        mup_base_hidden_size=round(full.mup_base_hidden_size * ratio),
        mup_base_feed_forward_size=full.mup_base_feed_forward_size * ratio,
        vocabulary_size=VOCABULARY,
        max_positions=CONTEXT,
    )


def settings(recipe: RoadConfig, start_from: str) -> TrainConfig:
    """A short run in float32 with a rate that a small model learns at; schedule and optimizer are the recipe's."""
    train = recipe.train
    return dataclasses.replace(
        train,
        steps=STEPS,
        batch_rows=8,
        micro_batch_rows=4,
        learning_rate=max(1e-2, train.learning_rate),
        warmup_steps=max(1, round(STEPS * train.warmup_steps / train.steps)),
        precision="fp32",
        num_workers=1,
        use_gpu=False,
        checkpoint_every_steps=STEPS,
        validate_every_steps=STEPS,
        start_from=start_from if train.start_from else "",
    )


def run(folder: str, recipes: Mapping[str, RoadConfig], pack: Input, start_from: str) -> None:
    """Trains the twin of each; leaves its metrics, and the contexts that the model was given step by step."""
    from caravela.train import loop

    for name, recipe in recipes.items():
        stage = os.path.join(folder, name)
        stages = tuple(
            dataclasses.replace(each, context=each.context * CONTEXT // recipe.pack.context)
            for each in recipe.mixture.stages
        )
        task = loop.Task(
            stage_uri=stage,
            fingerprint=name,
            train=settings(recipe, start_from),
            model=shape(recipe),
            packs=(pack,) * len(recipe.mixture.sources),
            mixture=dataclasses.replace(recipe.mixture, stages=stages),
        )
        training = loop._Training(task, Poster(None, "training"))
        seen: list[int] = []

        def note(trunk: torch.nn.Module, inputs: tuple[Any, ...], seen: list[int] = seen) -> None:
            if trunk.training:
                seen.append(int(inputs[0].shape[1]))

        training.engine.decoder.model.register_forward_pre_hook(note)
        training.run()
        Path(stage, "contexts.json").write_text(json.dumps(seen))
