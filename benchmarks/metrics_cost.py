"""What a step of training pays for its metrics: ``python benchmarks/metrics_cost.py [--steps 300] [--out x.json]``.

Measures, in one process and without a model, the time for which ``Monitor.step_done`` keeps the training thread: with
all sinks (rows, TensorBoard on local disk, gauges in a Ray of its own, sign of life) and with the rows and the sign of
life alone. Between two steps the thread waits for ``--step-seconds``, as it does for a GPU, and the share is that of
such a step. Then what is paid once: opening, closing, and measuring the rate of matrix multiplication.
"""

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import ray
import torch
import torch.distributed

from caravela.model.config import ModelConfig
from caravela.model.transformer import Decoder
from caravela.train import sinks
from caravela.train.config import TrainConfig
from caravela.train.engine import Engine, StepResult
from caravela.train.goodput import Ledger
from caravela.train.journal import Journal
from caravela.train.matmul_rate import matmul_rate
from caravela.train.monitor import Monitor

SOURCES = ("web", "books", "code", "reasoning")
MODEL = ModelConfig(
    num_layers=1,
    hidden_size=32,
    feed_forward_size=64,
    num_heads=2,
    num_kv_heads=2,
    vocabulary_size=64,
    max_positions=16,
)


def one_process() -> None:
    """A process group of this process alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in ranks.items()}, MASTER_ADDR="127.0.0.1")
    torch.distributed.init_process_group("gloo")


def monitor(engine: Engine, folder: str, config: TrainConfig) -> Monitor:
    return Monitor(
        stage_uri=folder,
        run="benchmark",
        launch="",
        config=config,
        model=MODEL,
        source_names=SOURCES,
        engine=engine,
        rank=0,
        first_step=1,
        ledger=Ledger(),
        started=time.perf_counter(),
        journal=Journal(folder, 0),
        say=lambda line: None,
    )


def blocked(measured: Monitor, steps: int, step_seconds: float) -> list[float]:
    """Seconds for which each step's report kept the calling thread."""
    result = StepResult(2.5, 0.7, (2.1, 2.2, 2.3, 2.4))
    measured.begin()
    seconds = []
    for step in range(1, steps + 1):
        time.sleep(step_seconds)
        begun = time.perf_counter()
        measured.step_done(step, result, 1e-3, MODEL.max_positions, 1e-5, kept=False)
        seconds.append(time.perf_counter() - begun)
        if step % 100 == 0:  # what a checkpoint does
            measured.journal.hand_over()
            measured.journal.settle(step)
    return seconds


def figures(seconds: list[float], step_seconds: float) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "microseconds_mean": round(statistics.fmean(seconds) * 1e6, 1),
        "microseconds_median": round(statistics.median(seconds) * 1e6, 1),
        "microseconds_99th": round(ordered[len(ordered) * 99 // 100] * 1e6, 1),
        "share_of_step": round(statistics.fmean(seconds) / step_seconds, 6),
    }


def main(argv: list[str] | None = None) -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--steps", type=int, default=300)
    asked.add_argument("--step-seconds", type=float, default=0.05, help="length of a step")
    asked.add_argument("--out", default="", help="a file for the figures as JSON")
    given = asked.parse_args(argv)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    one_process()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    table: dict[str, dict[str, float]] = {}
    settings = {"steps": given.steps, "batch_rows": 1, "learning_rate": 1e-3, "precision": "fp32"}
    try:
        engine = Engine(Decoder(MODEL), TrainConfig(**settings), torch.device("cpu"), len(SOURCES))
        for name, with_sinks in (("rows alone", False), ("all sinks", True)):
            config = TrainConfig(**settings, tensorboard=with_sinks, prometheus=with_sinks)
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                measured = monitor(engine, folder, config)
                opened = time.perf_counter() - begun
                seconds = blocked(measured, given.steps, given.step_seconds)
                begun = time.perf_counter()
                measured.close()
                drained = time.perf_counter() - begun
                events = sum(f.stat().st_size for f in Path(folder, sinks.TENSORBOARD_FOLDER).glob("*"))
            table[name] = figures(seconds, given.step_seconds)
            table[name] |= {"seconds_to_open": round(opened, 3), "seconds_to_drain": round(drained, 3)}
            table[name] |= {"event_bytes_per_step": round(events / given.steps, 1)}
        begun = time.perf_counter()
        rate = matmul_rate(torch.device("cpu"), torch.float32)
        table["matmul rate"] = {"seconds": round(time.perf_counter() - begun, 3), "gflops": round(rate / 1e9, 1)}
    finally:
        ray.shutdown()
        torch.distributed.destroy_process_group()
    for name, row in table.items():
        print(f"{name:<12} " + " · ".join(f"{column} {value:g}" for column, value in row.items()))
    if given.out:
        Path(given.out).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
