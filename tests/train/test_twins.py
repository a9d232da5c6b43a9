"""A shrunken twin of every recipe learns, with the recipe's switches, schedule, mixture and stages."""

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from caravela.config import load
from caravela.manifest import Input
from caravela.model.config import ModelConfig
from caravela.model.scaling import learning_rate_factor
from road import RoadConfig
from tests.packed_rows import CONTEXT, VOCABULARY
from tests.train import twins
from tests.train.groups import metrics, run_group

pytestmark = pytest.mark.slow

RECIPES = {
    path.stem: load(RoadConfig, str(path))
    for path in sorted((Path(__file__).parents[2] / "jobs" / "configs" / "recipes").glob("*.toml"))
}
SIZES = {"num_layers", "hidden_size", "feed_forward_size", "num_heads", "num_kv_heads", "vocabulary_size"}
SIZES |= {"max_positions", "mup_base_hidden_size", "mup_base_feed_forward_size"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pack: Input) -> Path:
    folder, llama = tmp_path_factory.mktemp("twins"), tmp_path_factory.mktemp("llama")
    shape = twins.shape(RECIPES["llama-eus-8b-cpt"])
    rope = {"rope_type": "llama3", "rope_theta": shape.rope_theta, "factor": 8.0, "low_freq_factor": 1.0}
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=64,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.feed_forward_size,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.num_kv_heads,
            rms_norm_eps=1e-5,
            initializer_range=0.3,
            rope_parameters={**rope, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        )
    ).save_pretrained(llama)
    run_group(1, twins.run, os.fspath(folder), RECIPES, pack, os.fspath(llama))
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_twin_learns(trained: Path, name: str) -> None:
    rows = metrics(os.fspath(trained / name))
    assert list(rows) == list(range(1, twins.STEPS + 1))
    assert rows[twins.STEPS]["loss"] < rows[1]["loss"] - 0.3
    assert math.isfinite(rows[twins.STEPS]["validation_loss"])


@pytest.mark.parametrize("name", RECIPES)
def test_twin_has_the_switches_of_its_recipe(name: str) -> None:
    full, twin = RECIPES[name].model, twins.shape(RECIPES[name])
    for field in dataclasses.fields(ModelConfig):
        if field.name not in SIZES:
            assert getattr(twin, field.name) == getattr(full, field.name), field.name
    assert twin.num_heads / twin.num_kv_heads == full.num_heads / full.num_kv_heads
    for parameter in ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"):
        assert learning_rate_factor(twin, parameter) == pytest.approx(learning_rate_factor(full, parameter), rel=0.2)


@pytest.mark.parametrize("name", RECIPES)
def test_twin_sees_the_contexts_of_its_stages(trained: Path, name: str) -> None:
    seen = json.loads((trained / name / "contexts.json").read_text())
    micro_batches = len(seen) // twins.STEPS
    by_step = seen[::micro_batches]
    if name == "btlm-3b-8k":  # 2K for 75 % of the tokens, then 8K
        assert by_step == [CONTEXT // 4] * 15 + [CONTEXT] * 5
    else:
        assert by_step == [CONTEXT] * twins.STEPS
    tokens = [row["tokens"] for row in metrics(os.fspath(trained / name)).values()]
    assert tokens == [8 * CONTEXT * step for step in range(1, twins.STEPS + 1)]


def test_twin_of_llama_starts_from_the_given_weights(trained: Path) -> None:
    """Random weights of the recipe's own deviation (0.02) begin at the logarithm of the vocabulary; these do not."""
    first = {name: metrics(os.fspath(trained / name))[1]["loss"] for name in RECIPES}
    uniform = math.log(VOCABULARY)
    assert first["llama-eus-8b-cpt"] > uniform + 0.3
    assert first["tucano-630m"] == pytest.approx(uniform, abs=0.1)


def test_twin_of_tucano_is_at_its_floor_before_the_end(trained: Path) -> None:
    rates = [row["learning_rate"] for row in metrics(os.fspath(trained / "tucano-630m")).values()]
    assert rates[17:] == pytest.approx([0.1 * max(rates)] * 3)
    assert rates[16] > rates[17]
