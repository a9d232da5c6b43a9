"""Groups of real training processes joined by gloo, without Ray; what runs in them is here too, as they import it.

The processes are forks of one that has imported torch and deepspeed, which takes much longer than what they do.
"""

import dataclasses
import json
import math
import multiprocessing
import os
import signal
import tempfile
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
from caravela.model.transformer import Decoder, Trunk
from caravela.progress import Poster
from caravela.train.config import TrainConfig
from caravela.train.retention import Rules
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
    multiprocessing.set_forkserver_preload(["tests.train.imported"])
    ranks = {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks), "MASTER_PORT": str(free_port())}
    environment = {**os.environ, **ranks, "MASTER_ADDR": "127.0.0.1"}  # the process that is forked has an older one
    torch.multiprocessing.start_processes(
        _enter, (environment, function, arguments), nprocs=num_ranks, start_method="forkserver"
    )


def _enter(rank: int, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
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


def train_poisoned(stage_uri: str, config: TrainConfig, pack: Input, row: list[int]) -> None:
    """The same, but wherever a packed row of these tokens comes by, the model's hidden states are not numbers.

    Leaves the error of each rank in a file.
    """
    from caravela.train.faults import NonFiniteError

    poisoned = torch.tensor(row[:-1])

    def poison(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        if not isinstance(module, Trunk):
            return None
        found = (inputs[0] == poisoned).all(dim=1)
        return output.masked_fill(found[:, None, None], torch.nan)

    torch.nn.modules.module.register_module_forward_hook(poison)
    try:
        train(stage_uri, config, pack)
    except NonFiniteError as error:
        Path(stage_uri, f"error-{torch.distributed.get_rank()}").write_text(str(error))


def train_out_of_memory(stage_uri: str, config: TrainConfig, pack: Input) -> None:
    """The same on a device whose memory is full."""

    def fail(module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, Trunk):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has none free.")

    torch.nn.modules.module.register_module_forward_pre_hook(fail)
    train(stage_uri, config, pack)


def train_until_there_is(stage_uri: str, config: TrainConfig, pack: Input, pattern: str) -> None:
    """Trains, and is killed as soon as there is a file of such a name below the checkpoints."""

    def watch() -> None:
        while not list(Path(stage_uri, "checkpoints").glob(pattern)):
            time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    train(stage_uri, config, pack)


def train_with(environment: dict[str, str], stage_uri: str, config: TrainConfig, pack: Input) -> None:
    """The same with variables of the test that the process, a fork of an older one, does not have."""
    os.environ.update(environment)
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


def engine_cases(folder: str, cases: Sequence[tuple[str, TrainConfig]], faulty: Sequence[TrainConfig] = ()) -> None:
    """Results of each case, and what faults do under each of the other settings.

    A case whose name begins with "mup" has the model of that kind; one that begins with "padded" has weights.
    """
    from caravela.train.engine import Engine

    found: dict[str, Any] = {}
    nothing_random = True
    for name, config in cases:
        engine = Engine(new_model(MUP if name.startswith("mup") else MODEL), config, torch.device("cpu"), SOURCES)
        padded, random = name.startswith("padded"), torch.get_rng_state()
        found[name] = [train_step(engine, step, padded) for step in range(1, config.steps + 1)]
        nothing_random &= torch.equal(random, torch.get_rng_state())
    found["nothing_random"] = nothing_random
    found["faults"] = [faults(config) for config in faulty]
    path = Path(folder, f"{torch.distributed.get_world_size()}-{torch.distributed.get_rank()}.json")
    path.write_text(json.dumps(found))


def train_step(engine: Any, step: int, padded: bool = False) -> Any:
    """One step of this rank's share of ``batch``."""
    config = engine.config
    targets = int(batch_weights(step, config.batch_rows).sum()) if padded else config.batch_rows * CONTEXT
    return engine.step(micro_batches(config, step, padded), targets, config.learning_rate, step)


def micro_batches(config: TrainConfig, step: int, padded: bool = False) -> list[Any]:
    """This rank's rows of ``batch``."""
    from caravela.data.order import rank_slice
    from caravela.train.engine import Rows

    whole = config.batch_rows
    tokens, sources, weights = batch(step, whole), batch_sources(step, whole), batch_weights(step, whole)
    slots = rank_slice(whole, torch.distributed.get_rank(), torch.distributed.get_world_size())
    cuts = range(slots.start, slots.stop, config.micro_batch_rows)
    parts = [slice(start, min(start + config.micro_batch_rows, slots.stop)) for start in cuts]
    return [Rows(tokens[p], weights=weights[p] if padded else None, sources=sources[p]) for p in parts]


def faults(config: TrainConfig) -> dict[str, Any]:
    """After a good step, a gradient and then a loss that are not finite on one rank; then a good step again."""
    from caravela.train.engine import Engine
    from caravela.train.faults import NonFiniteError

    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    engine = Engine(new_model(), config, torch.device("cpu"))
    train_step(engine, 1)
    before, held = engine.full_weights(), engine.fragments()
    rows = micro_batches(config, 2)
    passes = -(-config.batch_rows // num_ranks // config.micro_batch_rows)
    calls = 0

    def spoil_the_second(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return gradient * torch.inf if calls % passes == 2 % passes else gradient

    hook = engine.decoder.model.norm.weight.register_hook(spoil_the_second) if rank == 0 else None
    found: dict[str, Any] = {}
    try:
        engine.step(rows, config.batch_rows * CONTEXT, config.learning_rate, 76)
    except NonFiniteError as error:
        found["gradient"] = [str(error), error.ranks, error.rows]
    if hook is not None:
        hook.remove()
    weights = torch.ones(len(rows[0].tokens), CONTEXT)
    weights[2, 5] = torch.nan
    spoilt = [rows[0]._replace(weights=weights), *rows[1:]] if rank == num_ranks - 1 else rows
    try:
        engine.step(spoilt, config.batch_rows * CONTEXT, config.learning_rate, 77)
    except NonFiniteError as error:
        found["loss"] = [str(error), error.ranks, error.rows]
    after, holds = engine.full_weights(), engine.fragments()
    found["weights_kept"] = all(torch.equal(before[name], after[name]) for name in before)
    found["moments_kept"] = all(
        (one.arrays[kind] == other.arrays[kind]).all()
        for one, other in zip(held, holds, strict=True)
        for kind in one.arrays
    )
    found["adam_step"] = engine.adam_step()
    found["next_loss"] = train_step(engine, 2).loss
    return found


def keep_and_resume(
    folder: str, kept: Sequence[tuple[str, TrainConfig]], resumed: Sequence[tuple[str, str, TrainConfig]]
) -> None:
    """Four steps, with a checkpoint of the second; then steps three and four from checkpoints of other groups.

    Args:
        folder: of checkpoints and results.
        kept: name and settings of each run that is made from the start.
        resumed: name of the run, name of the one whose checkpoint it takes, settings.
    """
    from caravela.train import checkpoint
    from caravela.train.checkpoint_writer import Writer
    from caravela.train.engine import Engine

    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found: dict[str, Any] = {}
    for name, config in kept:
        engine = Engine(new_model(), config, torch.device("cpu"), SOURCES)
        for step in (1, 2):
            train_step(engine, step)
        writer = Writer(os.path.join(folder, name), "aaaa", rank, num_ranks, Rules(newest=1), print)
        progress = checkpoint.Progress(step=2, tokens=0, adam_step=engine.adam_step(), loader={}, fingerprint="f")
        writer.start(progress, engine.fragments(), {})
        writer.wait()
        writer.close()
        found[name] = [[train_step(engine, step) for step in (3, 4)], held_out(engine)]
    for name, source, config in resumed:
        saved = checkpoint.latest(os.path.join(folder, source))
        assert saved is not None
        other = Decoder(MODEL).initialize(torch.Generator().manual_seed(1))
        engine = Engine(other, config, torch.device("cpu"), SOURCES)
        train_step(engine, 9)  # whatever a process has computed before
        checkpoint.check(saved, engine.shapes(), {}, 0)
        reader = checkpoint.Reader(saved, tempfile.mkdtemp(dir=folder))
        engine.restore(reader.read, saved.progress.adam_step)
        for parameter, weight in engine.full_weights().items():
            assert (reader.read(parameter, 0, weight.numel())["weight"] == weight.flatten().numpy()).all(), parameter
        found[name] = [[train_step(engine, step) for step in (3, 4)], held_out(engine)]
    Path(folder, f"{num_ranks}-{rank}-{len(resumed)}.json").write_text(json.dumps(found))


def held_out(engine: Any) -> tuple[float, float]:
    """Nats per target and bits per byte of five rows, of the last of which half counts.

    Ranks have unequal numbers of them; a row without targets makes up for that.
    """
    from caravela.data.order import rank_slice
    from caravela.train.engine import Rows

    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    tokens = batch(99, 5)
    weights = torch.ones(5, CONTEXT)
    weights[4, CONTEXT // 2 :] = 0
    batches = [Rows(tokens[[i]], weights=weights[[i]]) for i in rank_slice(5, rank, num_ranks)]
    batches += [Rows(tokens[[0]], weights=torch.zeros(1, CONTEXT))] * (-(-5 // num_ranks) - len(batches))
    sums = torch.tensor(engine.held_out_sums(batches), dtype=torch.float64).sum(dim=0)
    torch.distributed.all_reduce(sums)
    nats, targets = sums.tolist()
    return nats / targets, nats / math.log(2) / 50


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
