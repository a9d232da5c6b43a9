"""The recipes: with a corpus, each is a run that can be planned, of the published size, tokens and mixture."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import pipeline
import pretrain
from caravela.config import load
from caravela.data.sources import training_order
from caravela.model.config import num_parameters
from road import RoadConfig, road
from tests.packed_rows import write_pack

FOLDER = Path(__file__).parents[1] / "jobs" / "configs" / "recipes"
PUBLISHED = {
    # parameters, tokens a step, billions of tokens
    "biatron-345m": (345_653_120, 524_288, 300.0),
    "btlm-3b-8k": (2_646_255_776, 3_932_160, 627.7),
    "llama-eus-8b-cpt": (8_030_261_248, 2_097_152, 1.8),
    "ttl-160m": (162_417_408, 8_192, 3.75),
    "ttl-460m": (468_239_360, 8_192, 9.83),
    "tucano-630m": (630_253_568, 524_288, 209.7),
}


def recipe(name: str) -> RoadConfig:
    return load(RoadConfig, str(FOLDER / f"{name}.toml"))


def test_every_recipe_is_here() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_has_the_published_size(name: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"text": "Um documento."}\n')
    corpus = dataclasses.replace(recipe(name).curate, inputs=(f"{tmp_path}/corpus.jsonl",))
    config = dataclasses.replace(recipe(name), root=str(tmp_path), curate=corpus)
    # Weights and tokenizer of others are not here.
    config = dataclasses.replace(
        config,
        tokenizer=dataclasses.replace(config.tokenizer, model=""),
        train=dataclasses.replace(config.train, start_from=""),
    )
    parameters, tokens_a_step, billions = PUBLISHED[name]
    shape = dataclasses.replace(config.model, vocabulary_size=config.tokenizer.vocabulary_size)
    assert num_parameters(shape) == parameters
    assert config.train.batch_rows * config.pack.context == tokens_a_step
    assert config.train.steps * tokens_a_step / 1e9 == pytest.approx(billions, rel=2e-3)
    assert road(config)["pretrain"].config["train"]["steps"] == config.train.steps


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_has_an_order_over_its_sources(name: str, tmp_path: Path) -> None:
    config = recipe(name)
    packs = [write_pack(f"{tmp_path}/{source.name}", [400]) for source in config.mixture.sources]
    packs = [dataclasses.replace(p, summary={**p.summary, "context": config.pack.context}) for p in packs]
    order = training_order(config.mixture, packs, config.train)
    total = sum(source.weight for source in config.mixture.sources)
    rows = config.train.steps * config.train.batch_rows
    for drawn, source in zip(order.drawn(), config.mixture.sources, strict=True):
        assert abs(drawn - rows * source.weight / total) <= len(order.stages)


def test_btlm_changes_its_context_after_its_step_119727(tmp_path: Path) -> None:
    config = recipe("btlm-3b-8k")
    pack = write_pack(str(tmp_path), [400])
    pack = dataclasses.replace(pack, summary={**pack.summary, "context": config.pack.context})
    order = training_order(config.mixture, [pack], config.train)
    assert [order.context(step) for step in (1, 119_727, 119_728, 159_636)] == [2048, 2048, 8192, 8192]


@pytest.mark.parametrize("job", [pretrain, pipeline])
@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_can_be_dry_run_where_nothing_is(
    name: str, job: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "run")
    assert job.main(["--config", str(FOLDER / f"{name}.toml"), "--set", f"root={root}", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    parameters, tokens_a_step, _ = PUBLISHED[name]
    assert f"{parameters:,} parameters" in printed
    assert f"steps of {tokens_a_step:,}" in printed
    assert "h200 at 40% of 989 TFLOP/s each" in printed
    assert "2, activations made again" in printed
    assert ("by Chinchilla's fit" in printed) == (name != "llama-eus-8b-cpt")
    assert "no plan yet: " in printed
    assert not list(tmp_path.iterdir())


def test_dry_run_still_refuses_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe_file = str(FOLDER / "ttl-160m.toml")
    wrong = "estimate.gpu=h300"
    assert pretrain.main(["--config", recipe_file, "--set", wrong, "--dry-run"]) == 1
    assert "gpu = 'h300': expected one of" in capsys.readouterr().err
