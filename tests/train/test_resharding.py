"""A checkpoint of any number of ranks and any kind of ZeRO, resumed by any other: training goes on as if unbroken."""

import json
import math
from typing import Any

import pytest
import torch

from caravela.train.config import TrainConfig
from tests.packed_rows import CONTEXT
from tests.train.groups import batch, keep_and_resume, new_model, run_group

pytestmark = pytest.mark.slow

RESIZED = [(2, 1), (1, 2), (2, 3), (3, 2)]
"""Numbers of ranks: of those that write and those that read."""
STAGES = (1, 2, 3)
OTHER_STAGE = [(1, 2), (1, 3), (3, 1)]
"""ZeRO of the run that writes, and of the one that reads, both on two ranks."""


def config(zero_stage: int, precision: str = "fp32") -> TrainConfig:
    return TrainConfig(
        steps=4,
        batch_rows=8,
        micro_batch_rows=2,
        learning_rate=1e-2,
        clip=0.5,
        zero_stage=zero_stage,
        precision=precision,
    )


def kept(num_ranks: int) -> list[tuple[str, TrainConfig]]:
    cases = [(f"{num_ranks} ranks, zero {stage}", config(stage)) for stage in STAGES]
    if num_ranks == 2:
        cases += [(f"2 ranks, zero {stage}, bf16", config(stage, "bf16")) for stage in (1, 3)]
    return cases


def resumed(num_ranks: int) -> list[tuple[str, str, TrainConfig]]:
    cases = [
        (f"{writers} to {num_ranks}, zero {stage}", f"{writers} ranks, zero {stage}", config(stage))
        for writers, readers in RESIZED
        if readers == num_ranks
        for stage in STAGES
    ]
    if num_ranks == 2:
        cases += [(f"again: {name}", name, settings) for name, settings in kept(2)]
        cases += [
            (f"zero {before} to {after}", f"2 ranks, zero {before}", config(after)) for before, after in OTHER_STAGE
        ]
    return cases


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each run the losses, norms and losses by source of steps 3 and 4, and the held-out loss; of each rank."""
    folder = tmp_path_factory.mktemp("resharding")
    groups = [(2, kept(2), []), (1, kept(1), resumed(1)), (3, kept(3), resumed(3)), (2, [], resumed(2))]
    seen: dict[str, Any] = {}
    for num_ranks, first, then in groups:
        run_group(num_ranks, keep_and_resume, str(folder), first, then)
        ranks = [json.loads((folder / f"{num_ranks}-{rank}-{len(then)}.json").read_text()) for rank in range(num_ranks)]
        assert all(rank == ranks[0] for rank in ranks)
        seen |= ranks[0]
    return seen


def assert_goes_on(after: Any, unbroken: Any) -> None:
    (steps, held_out), (expected_steps, expected_held_out) = after, unbroken
    assert [step[0] for step in steps] == pytest.approx([step[0] for step in expected_steps], rel=2e-6)
    assert [step[1] for step in steps] == pytest.approx([step[1] for step in expected_steps], rel=2e-5)
    assert held_out == pytest.approx(expected_held_out, rel=2e-6)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("writers", "readers"), RESIZED)
def test_resharding_another_number_of_ranks_goes_on_to_rounding(
    found: dict[str, Any], writers: int, readers: int, stage: int
) -> None:
    assert_goes_on(found[f"{writers} to {readers}, zero {stage}"], found[f"{writers} ranks, zero {stage}"])


@pytest.mark.parametrize(("before", "after"), OTHER_STAGE)
def test_resharding_another_zero_stage_goes_on_to_rounding(found: dict[str, Any], before: int, after: int) -> None:
    assert_goes_on(found[f"zero {before} to {after}"], found[f"2 ranks, zero {before}"])


@pytest.mark.parametrize("name", [name for name, _ in kept(2)])
def test_resharding_at_the_same_size_is_equal_to_the_bit(found: dict[str, Any], name: str) -> None:
    assert found[f"again: {name}"] == found[name]


def test_held_out_loss_equals_plain_pytorch_however_rows_are_cut(found: dict[str, Any]) -> None:
    """And all runs of the same steps have the same."""
    model, settings = new_model(), config(1)
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))
    for step in range(1, 5):
        tokens = batch(step, settings.batch_rows)
        logits = model(tokens[:, :-1]).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        adam.step()
        adam.zero_grad()
    tokens = batch(99, 5)
    losses = model.token_losses(tokens[:, :-1], tokens[:, 1:])
    counted = torch.cat([losses[:4].flatten(), losses[4, : CONTEXT // 2]])
    expected = (float(counted.mean()), float(counted.sum()) / math.log(2) / 50)
    for name, (_, held_out) in found.items():
        assert held_out == pytest.approx(expected, rel=2e-3 if "bf16" in name else 5e-6), name
