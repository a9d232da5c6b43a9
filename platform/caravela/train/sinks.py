"""Where rank 0 sends each step's figures beside ``metrics.jsonl``: TensorBoard, Prometheus, and a sign of life.

In: points (a row of numbers by step; how far the run is). Out: event files below ``{stage}/tensorboard/``, gauges that
Ray exports with its own (``ray_caravela_train_loss`` ...), ``{stage}/reached.json`` (train.goodput).

A step hands its point to a thread, which costs it microseconds, and goes on; what the thread cannot write is one line
of warning, and that destination is left alone from then on. On a local disk an event file grows as the run goes on; an
object store takes whole objects, so there it arrives with each checkpoint and at the end. A resumed run tells
TensorBoard to forget the steps that it does again.
"""

import functools
import importlib.util
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import ray

from caravela import storage
from caravela.errors import UserError
from caravela.outage import outlasting
from caravela.train import goodput
from caravela.train.goodput import Reached

TENSORBOARD_FOLDER = "tensorboard"
CLOSE_TIMEOUT_S = 60.0
FLUSH_INTERVAL_S = 5.0
PREFIX = "caravela_train_"


class Point(NamedTuple):
    """What is known after a step."""

    row: dict[str, Any]
    """Numbers by column, among them ``step``."""
    reached: Reached
    kept: bool = False
    """Whether a checkpoint of the step begins."""


class Sink(Protocol):
    """A destination. Called by one thread alone."""

    def write(self, point: Point) -> None: ...

    def close(self) -> None: ...


class Background:
    """Feeds sinks from a thread of its own."""

    def __init__(self, sinks: Sequence[Callable[[], Sink]], warn: Callable[[str], None]) -> None:
        """Starts the thread.

        Args:
            sinks: make the destinations; called in the thread, as loading libraries takes time.
            warn: told, in one line, of what could not be written.
        """
        self._makers = sinks
        self._warn = warn
        self._points: queue.SimpleQueue[Point | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def put(self, point: Point) -> None:
        """Returns at once."""
        self._points.put(point)

    def close(self) -> None:
        """Waits until everything is written, within limits."""
        self._points.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        sinks = [sink for make in self._makers if (sink := self._tried(make)) is not None]
        while (point := self._points.get()) is not None:
            sinks = [sink for sink in sinks if self._tried(functools.partial(_written, sink, point))]
        for sink in sinks:
            self._tried(sink.close)

    def _tried(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (UserError, OSError) as error:
            self._warn(f"metrics: {' '.join(str(error).split())}; no more of them go there")
            return None


def _written(sink: Sink, point: Point) -> bool:
    sink.write(point)
    return True


def check_tensorboard() -> None:
    """Fails where the writer is not installed.

    Raises:
        UserError: with the ways out.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "train.tensorboard = true: needs the package tensorboardX; install it "
            "(pip install 'caravela[train]'), or set train.tensorboard = false"
        )


class TensorBoard:
    """Event files. A point is one event with all its numbers; ``loss/web`` is a curve in the group ``loss``."""

    def __init__(self, stage_uri: str, first_step: int) -> None:
        """Begins a file.

        Args:
            stage_uri: directory of the pretrain stage.
            first_step: of this attempt; TensorBoard forgets older points from there on.
        """
        self.uri = storage.join(stage_uri, TENSORBOARD_FOLDER)
        self._temporary = (
            tempfile.TemporaryDirectory(prefix="caravela-events-") if storage.is_remote(self.uri) else None
        )
        self._folder = self._temporary.name if self._temporary else self.uri
        os.makedirs(self._folder, exist_ok=True)
        self._flushed_at = time.monotonic()
        self._open(first_step, purge=True)

    def _open(self, first_step: int, purge: bool) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        # Readers take files in the order of their names, which begin with the time.
        self._writer = EventsWriter(os.path.join(self._folder, "events"), f".{first_step:08d}")
        if purge:
            now = time.time()
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=now, step=first_step, session_log=start))
            self._writer.flush()

    def write(self, point: Point) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in numbers(point.row)]
        step = int(point.row["step"])
        self._writer.write_event(Event(wall_time=point.reached.time, step=step, summary=Summary(value=values)))
        if time.monotonic() - self._flushed_at >= FLUSH_INTERVAL_S:
            self._writer.flush()
            self._flushed_at = time.monotonic()
        if point.kept and self._temporary:
            self._publish()
            self._open(step + 1, purge=False)

    def _publish(self) -> None:
        self._writer.close()
        for name in sorted(os.listdir(self._folder)):
            local, remote = os.path.join(self._folder, name), storage.join(self.uri, name)
            outlasting(functools.partial(storage.publish, local, remote))
            os.remove(os.path.join(self._folder, name))

    def close(self) -> None:
        if self._temporary:
            self._publish()
            self._temporary.cleanup()
        else:
            self._writer.close()


class Prometheus:
    """Gauges of the latest step, exported by Ray on every node's metrics port with the tags ``run`` and ``source``."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._gauges: dict[str, Any] = {}

    def write(self, point: Point) -> None:
        from ray.util.metrics import Gauge

        for column, value in numbers(point.row):
            name, _, source = column.partition("/")
            if name not in self._gauges:
                description = f"{name.replace('_', ' ')} of the latest training step that has it"
                self._gauges[name] = Gauge(PREFIX + name, description, tag_keys=("run", "source"))
            self._gauges[name].set(float(value), {"run": self.run, "source": source or "all"})

    def close(self) -> None:
        """Nothing to do: Ray drops the gauges with the process."""


class SignOfLife:
    """Leaves in the stage's directory how far the run is."""

    def __init__(self, stage_uri: str) -> None:
        self.stage_uri = stage_uri
        self._latest: Reached | None = None
        self._written_at = float("-inf")

    def write(self, point: Point) -> None:
        self._latest = point.reached
        now = time.monotonic()
        if point.kept or now - self._written_at >= goodput.SIGN_INTERVAL_S:
            outlasting(lambda: goodput.write(self.stage_uri, point.reached))
            self._written_at = now

    def close(self) -> None:
        if self._latest is not None:
            goodput.write(self.stage_uri, self._latest)


def numbers(row: dict[str, Any]) -> list[tuple[str, float]]:
    """The columns that hold a number, without the step itself."""
    return [(name, value) for name, value in row.items() if name != "step" and isinstance(value, int | float)]


def opened(
    stage_uri: str, run: str, first_step: int, tensorboard: bool, prometheus: bool, warn: Callable[[str], None]
) -> Background:
    """The sinks that the settings name. Gauges exist only inside Ray."""
    makers: list[Callable[[], Sink]] = [functools.partial(SignOfLife, stage_uri)]
    if tensorboard:
        makers.append(functools.partial(TensorBoard, stage_uri, first_step))
    if prometheus and ray.is_initialized():
        makers.append(functools.partial(Prometheus, run))
    return Background(makers, warn)
