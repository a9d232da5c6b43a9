"""Groups of real training processes joined by gloo, without Ray; what runs in them is here too, as they import it."""

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from caravela.data.sources import MixtureConfig
from caravela.manifest import Input
from caravela.model.config import ModelConfig
from caravela.model.transformer import Decoder
from caravela.progress import Poster
from caravela.train.config import TrainConfig
from tests.conftest import free_port
from tests.packed_rows import CONTEXT, VOCABULARY

MODEL = ModelConfig(
    num_layers=2,
    hidden_size=32,
    feed_forward_size=48,
    num_heads=4,
    num_kv_heads=2,
    vocabulary_size=VOCABULARY,
    max_positions=CONTEXT,
)


def run_group(num_ranks: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Calls a function of a module in ``num_ranks`` fresh processes; an error in one of them is raised here."""
    torch.multiprocessing.spawn(_enter, (num_ranks, free_port(), function, arguments), nprocs=num_ranks)


def _enter(rank: int, num_ranks: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks}
    os.environ.update({name: str(value) for name, value in ranks.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), DS_ACCELERATOR="cpu")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    function(*arguments)
    torch.distributed.destroy_process_group()


def train(stage_uri: str, config: TrainConfig, pack: Input, mixture: MixtureConfig | None = None) -> None:
    """The whole loop, as Ray's workers run it; every source of the mixture has the same pack."""
    from caravela.train import loop

    mixture = mixture or MixtureConfig()
    packs = (pack,) * len(mixture.sources)
    task = loop.Task(stage_uri=stage_uri, fingerprint="f", train=config, model=MODEL, packs=packs, mixture=mixture)
    loop.train(task, Poster(None, "training"))


def train_until_there_is(stage_uri: str, config: TrainConfig, pack: Input, pattern: str) -> None:
    """Trains, and is killed as soon as there is a file of such a name below the checkpoints."""

    def watch() -> None:
        while not list(Path(stage_uri, "checkpoints").glob(pattern)):
            time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    train(stage_uri, config, pack)


def metrics(stage_uri: str) -> dict[int, dict[str, Any]]:
    rows = map(json.loads, (Path(stage_uri) / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row for row in rows}


MUP = dataclasses.replace(MODEL, mup_base_hidden_size=16)
"""Twice as wide as the model that its settings were tuned on."""


def new_model(config: ModelConfig = MODEL) -> Decoder:
    return Decoder(config).initialize(torch.Generator().manual_seed(0))


def batch(step: int, rows: int) -> torch.Tensor:
    """Rows of random tokens, the same in every process."""
    return torch.randint(0, VOCABULARY, (rows, CONTEXT + 1), generator=torch.Generator().manual_seed(step))


SOURCES = 4


def batch_sources(step: int, rows: int) -> torch.Tensor:
    """Of each row of ``batch``; source 2 has none, and source 3 none in every other step."""
    return torch.tensor([(0, 1, 0, 3)[(row + step) % (4 - step % 2)] for row in range(rows)])


def batch_weights(step: int, rows: int) -> torch.Tensor:
    """Targets of ``batch`` that count: of some rows all, of some a few, of row 0 none."""
    counted = torch.tensor([(row * (3 + step)) % (CONTEXT + 3) for row in range(rows)])
    return (torch.arange(CONTEXT) < counted[:, None]).float()


def engine_cases(folder: str, cases: Sequence[tuple[str, TrainConfig]]) -> None:
    """Results of each case; then what a gradient and a loss that are not finite on one rank do.

    A case whose name begins with "mup" has the model of that kind; one that begins with "padded" has weights.
    """
    from caravela.data.order import rank_slice
    from caravela.train.engine import Engine, NonFiniteError, Rows

    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found: dict[str, Any] = {}
    for name, config in cases:
        engine = Engine(new_model(MUP if name.startswith("mup") else MODEL), config, torch.device("cpu"), SOURCES)
        results = []
        whole = config.batch_rows
        for step in range(1, config.steps + 1):
            tokens, sources, weights = batch(step, whole), batch_sources(step, whole), batch_weights(step, whole)
            padded = name.startswith("padded")
            slots = rank_slice(whole, rank, num_ranks)
            micro_batches = []
            for start in range(slots.start, slots.stop, config.micro_batch_rows):
                part = slice(start, min(start + config.micro_batch_rows, slots.stop))
                micro_batches.append(
                    Rows(tokens[part], weights=weights[part] if padded else None, sources=sources[part])
                )
            targets = int(weights.sum()) if padded else whole * CONTEXT
            results.append(engine.step(micro_batches, targets, config.learning_rate, step))
        found[name] = results

    before = engine.full_weights()
    rows = [Rows(batch(1, 1))]
    if rank == 0:
        spoil = engine.decoder.model.norm.weight.register_hook(lambda gradient: gradient * torch.inf)
    try:
        engine.step(rows, config.batch_rows * CONTEXT, config.learning_rate, 76)
        found["gradient_error"] = ""
    except NonFiniteError as error:
        found["gradient_error"] = str(error)
    if rank == 0:
        spoil.remove()
    with torch.no_grad():
        if rank == num_ranks - 1:  # one rank's share of one loss is enough to stop all
            engine.decoder.model.norm.weight[0] = torch.nan
    try:
        engine.step(rows, config.batch_rows * CONTEXT, config.learning_rate, 77)
        found["error"] = ""
    except NonFiniteError as error:
        found["error"] = str(error)
    after = engine.full_weights()
    found["weights_kept"] = all(torch.equal(before[name], after[name]) for name in before)
    found["adam_step"] = engine.adam_step()
    Path(folder, f"{num_ranks}-{rank}.json").write_text(json.dumps(found))


def score_held_out(folder: str, packs: Sequence[tuple[str, Input]], max_rows: int, batch_rows: int) -> None:
    """Held-out figures of an untrained model, twice: the second time the rows are at hand."""
    from caravela.stages import finished
    from caravela.train.engine import Engine
    from caravela.train.validation import HeldOut

    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    settings = TrainConfig(steps=1, batch_rows=6, learning_rate=0.1, precision="fp32")
    engine = Engine(new_model(), settings, torch.device("cpu"))
    held_out = HeldOut(
        [(name, finished(pack)) for name, pack in packs],
        max_rows=max_rows,
        batch_rows=batch_rows,
        mask_documents=False,
        rank=rank,
        num_ranks=num_ranks,
    )
    found = held_out.columns(engine)
    assert held_out.columns(engine) == found
    Path(folder, f"{num_ranks}-{rank}.json").write_text(json.dumps(found))
