"""Trainings that take turns, so that a busy machine is equally busy for all of them; and what a Ray worker does first.

A process that trains stops itself (SIGSTOP, all threads at once) before the first step of each turn; ``go_on`` lets it
train until it stops again or ends. ``watch_engine`` brings this into the workers of the stage ``pretrain`` without a
change to it: Ray calls it when a worker process has started, and once the engine's module is imported, its constructor
and its steps are wrapped. The worker notes when it reached each of these places.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import os
import signal
import sys
import time
from types import ModuleType
from typing import Any

import psutil

TURNS = "CARAVELA_BENCHMARK_TURNS"
ENGINE = "caravela.train.engine"
LONGEST_TURN_S = 1800.0


class Turns:
    """Counts the steps of this process."""

    def __init__(self, warm_up: int, block: int) -> None:
        self.warm_up, self.block, self.steps = warm_up, block, 0

    def before_step(self) -> None:
        """Stops the process where a turn is over."""
        past = self.steps - self.warm_up
        if past >= 0 and past % self.block == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        self.steps += 1


class Noted(Turns):
    """Turns that note when steps end, by the clock and in processor time of all threads, and their losses."""

    def __init__(self, warm_up: int, block: int) -> None:
        super().__init__(warm_up, block)
        self.losses = list[float]()
        self.ends, self.processor_ends = [time.perf_counter()], [time.process_time()]

    def after_step(self, loss: float) -> None:
        self.losses.append(loss)
        self.ends.append(time.perf_counter())
        self.processor_ends.append(time.process_time())

    def figures(self) -> dict[str, list[float]]:
        """Of all steps."""
        ends = {"seconds": self.ends, "processor_seconds": self.processor_ends}
        steps = {name: [end - begin for begin, end in itertools.pairwise(each)] for name, each in ends.items()}
        return {**steps, "losses": self.losses}


def write_json(content: Any, path: str) -> None:
    """The same as a file, whole or not at all."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(f"{path}.new", path)


def wait_until_stopped(process: psutil.Process) -> None:
    """Returns when the process has stopped itself or has ended."""
    ended = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    deadline = time.monotonic() + LONGEST_TURN_S
    while process.is_running() and process.status() not in ended:
        assert time.monotonic() < deadline, f"{process}: did not end its turn"
        time.sleep(0.02)


def go_on(process: psutil.Process) -> None:
    """One turn."""
    process.send_signal(signal.SIGCONT)
    time.sleep(0.05)
    wait_until_stopped(process)


def watch_engine() -> None:
    """Run by Ray in each worker; the environment says how long turns are and where to note."""
    marks: dict[str, float] = {"worker": psutil.Process().create_time(), "pid": os.getpid()}
    sys.meta_path.insert(0, _Watcher(marks))


class _Watcher(importlib.abc.MetaPathFinder):
    """Finds the engine's module as it is found without, and wraps what it defines."""

    def __init__(self, marks: dict[str, float]) -> None:
        self.marks = marks

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != ENGINE:
            return None
        self.marks["torch"] = time.time()
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        assert spec.loader is not None, name
        execute = spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            self.marks["engine_import"] = time.time()
            _wrap(module.Engine, self.marks)

        spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


def _wrap(engine: Any, marks: dict[str, float]) -> None:
    warm_up, block, file = os.environ[TURNS].split(",", 2)
    turns = Noted(int(warm_up), int(block))
    make, step = engine.__init__, engine.step

    @functools.wraps(make)
    def made(*arguments: Any, **named: Any) -> None:
        marks["weights"] = time.time()
        make(*arguments, **named)
        marks["engine"] = time.time()

    @functools.wraps(step)
    def stepped(*arguments: Any, **named: Any) -> Any:
        marks.setdefault("data", time.time())
        turns.before_step()
        result = step(*arguments, **named)
        marks.setdefault("first_step", time.time())
        turns.after_step(result.loss)
        write_json({**marks, **turns.figures()}, file)
        return result

    engine.__init__, engine.step = made, stepped
