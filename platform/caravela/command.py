"""The shell around every job: arguments, one-line errors, a clean end on Ctrl-C, the plan and the final table.

A job gives the config's type and a function from config to stages; ``run_stages`` does the rest. Exit status: 0 done,
1 a mistake that the user can mend (one line on stderr), 130 interrupted.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import ray

from caravela import config, manifest, stages
from caravela.cluster import ClusterConfig
from caravela.errors import MissingInputError, UserError
from caravela.manifest import Manifest
from caravela.progress import clock, table
from caravela.stages import Stage


class RoadLike(Protocol):
    """What ``run_stages`` asks of a config."""

    @property
    def root(self) -> str: ...
    @property
    def cluster(self) -> ClusterConfig: ...


Road = TypeVar("Road", bound=RoadLike)


@dataclass(frozen=True, kw_only=True)
class Look(Generic[Road]):
    """An option ``--name [N]`` of a job, under which it runs no stage and shows what there is."""

    name: str
    help: str
    default: int
    """N where none is given."""
    show: Callable[[Road, int], str]


def run_stages(
    argv: Sequence[str] | None,
    description: str,
    config_type: type[Road],
    choose: Callable[[Road], Sequence[Stage]],
    epilogue: Callable[[Road, Mapping[str, Manifest]], str] = lambda road, manifests: "",
    look: Look[Road] | None = None,
    forecast: Callable[[Road], str] = lambda road: "",
) -> int:
    """Runs the stages that ``choose`` names, in order, and prints what was made. Returns the exit status.

    A dry run prints ``forecast`` and the plan, or, where something is missing that a plan is made of, what that is.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, metavar="FILE.toml", help="settings of the run, local or s3://")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="overrides a setting")
    parser.add_argument("--dry-run", action="store_true", help="print settings and plan, touch nothing")
    if look is not None:
        form: dict[str, Any] = {
            "nargs": "?",
            "const": look.default,
            "type": _positive,
            "metavar": "N",
            "help": look.help,
        }
        parser.add_argument(f"--{look.name}", dest="look", **form)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        road = config.load(config_type, options.config, options.set)
        if look is not None and options.look is not None:
            print(look.show(road, options.look))
            return 0
        if options.dry_run:
            print(config.to_toml(config.to_dict(road)))
            if text := forecast(road):
                print(f"\n{text}")
            print(f"\n{_plan(lambda: choose(road))}")
            return 0
        chosen = choose(road)
        manifests = {stage.name: stages.run(stage, road.cluster) for stage in chosen}
        print(f"\n{result_table(manifests)}")
        if text := epilogue(road, manifests):
            print(f"\n{text}")
        return 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ninterrupted: finished shards and checkpoints are kept; the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    finally:
        if ray.is_initialized():
            ray.shutdown()


def _plan(choose: Callable[[], Sequence[Stage]]) -> str:
    try:
        return plan_table(choose())
    except MissingInputError as error:
        return f"no plan yet: {error}"


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1")
    return int(text)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def plan_table(chosen: Sequence[Stage]) -> str:
    """What is done and what is to do, stage by stage, without touching anything."""
    rows = []
    for stage in chosen:
        if (done := stage.manifest()) is not None:
            shards, state = str(len(done.shards)), "done"
        elif missing := [i.name for i in stage.inputs if i.uri.startswith(stage.root) and manifest.read(i.uri) is None]:
            shards, state = "?", f"after {missing[0]}"
        else:
            count, recorded = len(stage.plan()), len(manifest.read_records(stage.uri))
            shards, state = str(count), f"{count - recorded} to do" + (f", {recorded} resumed" if recorded else "")
        rows.append((stage.name, shards, state, stage.uri))
    return table(("stage", "shards", "state", "directory"), rows)


def result_table(manifests: Mapping[str, Manifest]) -> str:
    """One line a stage: documents in and kept where it counts them, bytes written, time."""
    rows = []
    for name, done in manifests.items():
        written = sum(file.bytes for shard in done.shards for file in shard.files)
        counts = [
            f"{done.counters[key]:,}" if key in done.counters else "" for key in ("documents_in", "documents_kept")
        ]
        peak = max((shard.peak_memory_bytes for shard in done.shards), default=0)
        memory = f"{peak / 1e9:.2f} GB" if peak else ""
        rows.append((name, str(len(done.shards)), *counts, f"{written / 1e6:,.1f} MB", clock(done.seconds), memory))
    return table(("stage", "shards", "in", "kept", "written", "time", "peak memory"), rows)
