"""One step, against a plain PyTorch loop, and however the global batch is cut."""

import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from caravela.model.config import ModelConfig
from caravela.train.config import TrainConfig
from tests.train.groups import (
    MODEL,
    MUP,
    SOURCES,
    batch,
    batch_sources,
    batch_weights,
    engine_cases,
    new_model,
    run_group,
)

pytestmark = pytest.mark.slow

STEPS, ROWS = 4, 16


def config(**changed: Any) -> TrainConfig:
    usual = {"steps": STEPS, "batch_rows": ROWS, "learning_rate": 1e-2, "precision": "fp32", "clip": 0.5}
    return TrainConfig(**{**usual, **changed})


CASES = {
    1: [
        ("1 x 16", config(micro_batch_rows=16)),
        ("16 x 1", config(micro_batch_rows=1)),
        ("4 x 4", config(micro_batch_rows=4)),
        ("padded, 5+5+5+1, zero 2", config(micro_batch_rows=5, zero_stage=2)),
    ],
    2: [
        ("mup", config()),
        ("8 | 8", config()),
        ("padded, 3+3+2 | 3+3+2, zero 2", config(micro_batch_rows=3, zero_stage=2)),
    ],
    3: [
        ("padded, 5 | 5 | 5+1", config(micro_batch_rows=5)),
        ("5 | 5 | 5+1, zero 2", config(micro_batch_rows=5, zero_stage=2)),
    ],
}
BF16 = ("bf16", config(precision="bf16", micro_batch_rows=3))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[int, int], Any]]:
    """What each rank of each group saw."""
    folder = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(folder / "extensions"))
        yield run_cases(folder)


def run_cases(folder: Path) -> dict[tuple[int, int], Any]:
    for num_ranks, cases in CASES.items():
        # the last case is also the one that is fed weights that are not numbers
        run_group(num_ranks, engine_cases, str(folder), [*cases, BF16] if num_ranks < 3 else cases)
    ranks = [(num_ranks, rank) for num_ranks in CASES for rank in range(num_ranks)]
    return {(n, rank): json.loads((folder / f"{n}-{rank}.json").read_text()) for n, rank in ranks}


def plain_loop(shape: ModelConfig = MODEL, padded: bool = False) -> list[tuple[float, float, list[float | None]]]:
    """AdamW on the mean loss of whole batches, with PyTorch alone; losses, norms of gradients, losses by source."""
    torch.manual_seed(0)
    settings, model = config(), new_model(shape)
    inner = [p for name, p in model.named_parameters() if name.endswith("_proj.weight")]
    outer = [model.model.embed_tokens.weight, model.lm_head.weight]
    rate = settings.learning_rate / (2 if shape is MUP else 1)
    groups = [
        {"params": inner, "weight_decay": settings.weight_decay, "lr": rate},
        {"params": outer, "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))
    results = []
    for step in range(1, STEPS + 1):
        tokens = batch(step, ROWS)
        targets = tokens[:, 1:].masked_fill(batch_weights(step, ROWS) == 0, -100) if padded else tokens[:, 1:]
        logits = model(tokens[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, targets.flatten())
        loss.backward()
        with torch.no_grad():
            losses = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none").view_as(targets)
        by_source: list[float | None] = []
        for source in range(SOURCES):
            counts = (batch_sources(step, ROWS) == source)[:, None] & (targets >= 0)
            by_source.append(float(losses[counts].mean()) if counts.any() else None)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        adam.step()
        adam.zero_grad()
        results.append((float(loss.detach()), float(norm), by_source))
    return results


@pytest.mark.parametrize(("num_ranks", "case"), [(n, name) for n, cases in CASES.items() for name, _ in cases])
def test_engine_any_cut_of_the_global_batch_equals_plain_pytorch(
    found: dict[tuple[int, int], Any], num_ranks: int, case: str
) -> None:
    losses, norms, source_losses = zip(*plain_loop(MUP if case == "mup" else MODEL, "padded" in case), strict=True)
    assert {tuple(loss is None for loss in step) for step in source_losses} == {
        (False, False, True, False),
        (False, False, True, True),
    }
    for rank in range(num_ranks):
        found_losses, found_norms, found_source_losses = zip(*found[num_ranks, rank][case], strict=True)
        assert found_losses == pytest.approx(losses, rel=2e-6)
        assert found_norms == pytest.approx(norms, rel=2e-5)
        for got, wanted in zip(found_source_losses, source_losses, strict=True):
            assert got == pytest.approx(wanted, rel=2e-6)


def test_engine_bf16_stays_near_fp32(found: dict[tuple[int, int], Any]) -> None:
    expected = [loss for loss, _, _ in plain_loop()]
    for num_ranks in (1, 2):
        losses = [loss for loss, _, _ in found[num_ranks, 0]["bf16"]]
        assert losses == pytest.approx(expected, rel=2e-3)


def test_engine_loss_or_gradient_that_is_not_finite_stops_all_ranks_before_the_update(
    found: dict[tuple[int, int], Any],
) -> None:
    for seen in found.values():
        assert seen["error"] == "step 77: the loss is nan; stopped before the update"
        assert seen["gradient_error"].startswith("step 76: the gradient is not finite (loss ")
        assert seen["weights_kept"]
        assert seen["adam_step"] == STEPS


def test_deepspeed_is_the_version_whose_internals_are_used() -> None:
    assert importlib.metadata.version("deepspeed") == "0.19.8"


def test_engine_on_cpu_compiles_nothing(found: dict[tuple[int, int], Any]) -> None:
    extensions = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    assert not extensions.exists() or not list(extensions.rglob("*.so"))
