"""Starts jobs as a person does, in processes of their own, and ends what they leave behind by pid."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[1]
DEMO = "jobs/configs/demo.toml"
# After so long something hangs: ten times what the longest takes, for machines that others load too. What is claimed of
# a time is claimed as a ratio to something measured beside it.
HANG_S = 1200
# The demo's road at a size that takes under a minute on two cores.
TINY = (
    "train.steps=12",
    "train.checkpoint_every_steps=4",
    "train.validate_every_steps=6",
    "train.log_every_steps=4",
    "train.warmup_steps=2",
    "model.num_layers=2",
    "model.hidden_size=64",
    "model.feed_forward_size=128",
    "model.num_heads=4",
    "model.num_kv_heads=2",
    "tokenizer.vocabulary_size=1024",
    "pack.context=128",
    "evaluate.max_new_tokens=4",
    "cluster.dashboard=false",
)


def command(job: str, *settings: str, config: str = DEMO) -> list[str]:
    overrides = [argument for setting in settings for argument in ("--set", setting)]
    return [sys.executable, f"jobs/{job}.py", "--config", config, *overrides]


def start(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        arguments,
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = HANG_S
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments,
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def wait_until(condition: Callable[[], bool], what: str, timeout: float = HANG_S) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout} s"
        time.sleep(0.1)


def end(process: "subprocess.Popen[str]", number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process alone; then kills, by pid, the descendants that outlive it by ten seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        process.wait(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=10)
        for left in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs(alive, timeout=10)
