"""What training will need, of which a dry run speaks before there is any data."""

from dataclasses import replace

from caravela.train import estimate
from road import RoadConfig


def forecast(config: RoadConfig) -> str:
    """Lines for people."""
    model = replace(config.model, vocabulary_size=config.tokenizer.vocabulary_size, max_positions=config.pack.context)
    return estimate.as_text(model, config.train, config.mixture, config.estimate)
