"""Workers that kill their own process, once for each shard that is chosen, at a moment that is chosen.

They stand around the real workers of a stage and are for tests alone. What they did lies as files in a folder:
``<stage>-<shard>-<moment>.killed``, written before the blow, and ``<stage>-<shard>-<number>.call``.
"""

import functools
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caravela.manifest import ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, Worker
from tests.running import HANG_S

MOMENTS = ("before", "amid", "unpublished", "unrecorded")
"""Before the work; at a random moment of it; when it is done and no file is in place; when files are, and no record."""
AT_THE_END = "unfinished"
"""When all records are there and no manifest: of a driver."""
AMID_S = 0.03


@dataclass(frozen=True)
class Plan:
    """Who is killed, and where that is written down."""

    folder: str
    seed: int
    shards: tuple[int, ...] = (0, 1)
    """The shards of every stage whose first attempt is killed, where the stage has them."""
    finish: bool = False
    """Whether the driver is killed too, when a stage has all its records."""

    def deaths(self) -> dict[str, set[str]]:
        """Stage → moments at which it lost a process."""
        found: dict[str, set[str]] = {}
        for path in Path(self.folder).glob("*.killed"):
            stage, _, moment = path.stem.split("-")
            found.setdefault(stage, set()).add(moment)
        return found

    def calls(self) -> dict[str, int]:
        """Stage-shard → how often it was begun."""
        found: dict[str, int] = {}
        for path in Path(self.folder).glob("*.call"):
            name = path.stem.rpartition("-")[0]
            found[name] = found.get(name, 0) + 1
        return found

    def killed_shards(self) -> dict[str, int]:
        """Stage-shard → how often its work was lost."""
        names = [path.stem.rpartition("-")[0] for path in Path(self.folder).glob("*.killed")]
        return {name: names.count(name) for name in names if not name.endswith("-all")}

    def strike(self, name: str, moment: str) -> None:
        """Kills this process, if it was not killed here before."""
        Path(self.folder, f"{name}-{moment}.killed").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)


class Doomed:
    """Does a shard as the real worker does, and dies at the first attempt."""

    def __init__(self, make_worker: Callable[[], Worker], plan: Plan) -> None:
        self.worker, self.plan = make_worker(), plan

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        name = f"{Path(out.directory).parent.name}-{shard.index}"  # of the stage, or of a round below it
        earlier = len(list(Path(self.plan.folder).glob(f"{name}-*.call")))
        Path(self.plan.folder, f"{name}-{earlier}.call").touch(exist_ok=False)
        if earlier or shard.index not in self.plan.shards:
            return self.worker(shard, out)
        chance = random.Random(f"{self.plan.seed} {name}")
        moment = chance.choice(MOMENTS)
        if moment == "before":
            self.plan.strike(name, moment)
        if moment == "amid":
            threading.Thread(target=self._later, args=(name, chance.uniform(0, AMID_S)), daemon=True).start()
        counters = self.worker(shard, out)
        if moment == "amid":
            time.sleep(HANG_S)  # it was quicker than the blow
        if moment == "unpublished":
            self.plan.strike(name, moment)
        if moment == "unrecorded":
            tuple(out.commit())
            self.plan.strike(name, moment)
        return counters

    def _later(self, name: str, seconds: float) -> None:
        time.sleep(seconds)
        self.plan.strike(name, "amid")


def doomed(stage: Stage, plan: Plan) -> Stage:
    """The stage with workers that die, and a driver too where the plan says so."""
    made = replace(stage, make_worker=functools.partial(Doomed, stage.make_worker, plan))
    return replace(made, finish=functools.partial(_finish, stage, plan)) if plan.finish else made


def _finish(stage: Stage, plan: Plan, records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    if AT_THE_END not in plan.deaths().get(stage.name, ()):
        plan.strike(f"{stage.name}-all", AT_THE_END)
    return stage.finish(records, uri)


def starts_until_done(drive: Callable[..., None], *arguments: Any) -> int:
    """Starts ``drive(*arguments)`` in processes of their own, one after the other, until one is not killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([drive.__module__])
    starts, code = 0, None
    while code != 0:
        driver = context.Process(target=drive, args=arguments)
        driver.start()
        driver.join(HANG_S)
        starts, code = starts + 1, driver.exitcode
        assert code in (0, -signal.SIGKILL), "the driver ended by itself, or hangs"
    return starts


def assert_only_killed_shards_were_done_again(plan: Plan) -> None:
    killed = plan.killed_shards()
    assert plan.calls() == {name: 1 + killed.get(name, 0) for name in plan.calls()}
