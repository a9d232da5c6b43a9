"""What a person sees while a stage runs: one line that is rewritten on a terminal, one line every few seconds in a log.

Workers post how far they are to a board, an actor without CPU that a driver's thread reads; a board that dies costs
the display and nothing else.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TextIO

import ray
from ray.exceptions import RayError

TERMINAL_INTERVAL_S = 0.5
LOG_INTERVAL_S = 5.0
POST_INTERVAL_S = 1.0


class Board:
    """Latest figures per key; keys are shards or training workers. Rows of text are handed out once."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}
        self.lines: list[str] = []

    def post(self, key: str, figures: dict[str, float]) -> None:
        self.figures[key] = figures

    def say(self, line: str) -> None:
        self.lines.append(line)

    def read(self) -> tuple[dict[str, dict[str, float]], list[str]]:
        lines, self.lines = self.lines, []
        return self.figures, lines


class Poster:
    """A worker's end of the board: ``add`` sums figures and sends them at most once a second."""

    def __init__(self, board: Any, key: str) -> None:
        self.board = board
        self.key = key
        self.figures: dict[str, float] = {}
        self.sent_at = 0.0

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            self.figures[name] = self.figures.get(name, 0) + value
        now = time.monotonic()
        if self.board is not None and now - self.sent_at >= POST_INTERVAL_S:
            self.sent_at = now
            self.board.post.remote(self.key, dict(self.figures))

    def say(self, line: str) -> None:
        if self.board is not None:
            self.board.say.remote(line)


class StageProgress:
    """Context in which a stage runs; a thread prints where it stands."""

    def __init__(
        self, stage: str, total: int, done: int = 0, stream: TextIO | None = None, on_ray: bool = True
    ) -> None:
        self.stage = stage
        self.total = total
        self.resumed = done
        self.finished = done
        self.stream = stream or sys.stdout
        self.on_ray = on_ray
        """Whether there are workers elsewhere that post to a board."""
        self.board: Any = None
        self.figures: dict[str, dict[str, float]] = {}
        self.started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> "StageProgress":
        if self.on_ray:
            self.board = ray.remote(num_cpus=0)(Board).remote()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        if kind is None:
            with contextlib.suppress(RayError):
                self._poll()
            self._print(f"{self.line()} · done")
        if self.board is not None:
            ray.kill(self.board)

    def advance(self) -> None:
        """One more shard is finished."""
        self.finished += 1

    def line(self) -> str:
        elapsed = time.monotonic() - self.started
        rows = sum(f.get("documents", 0) for f in self.figures.values())
        size = sum(f.get("bytes", 0) for f in self.figures.values())
        parts = [f"{self.stage:<12} {self.finished}/{self.total} shards"]
        if rows:
            parts.append(f"{rows:,.0f} documents ({rows / elapsed:,.0f}/s)")
        if size:
            parts.append(f"{size / 1e6:,.1f} MB ({size / 1e6 / elapsed:,.1f} MB/s)")
        parts.append(f"{clock(elapsed)} elapsed")
        fresh = self.finished - self.resumed
        if fresh > 0 and self.finished < self.total:
            parts.append(f"{clock(elapsed / fresh * (self.total - self.finished))} left")
        return " · ".join(parts)

    def _poll(self) -> bool:
        """Reads the board and prints what workers said; whether there was anything."""
        if self.board is None:
            return False
        self.figures, lines = ray.get(self.board.read.remote(), timeout=5)
        for line in lines:
            self._print(f"{self.stage:<12} {line}")
        return bool(lines)

    def _print(self, line: str) -> None:
        start = "\r\033[K" if self.stream.isatty() else ""
        self.stream.write(f"{start}{line}\n")
        self.stream.flush()

    def _tick(self) -> None:
        terminal = self.stream.isatty()
        while not self._stop.wait(TERMINAL_INTERVAL_S if terminal else LOG_INTERVAL_S):
            said = False
            with contextlib.suppress(RayError):
                said = self._poll()
            if terminal:
                self.stream.write("\r\033[K" + self.line())
                self.stream.flush()
            elif not said:
                self._print(self.line())


def clock(seconds: float) -> str:
    """``clock(75) == "1:15"``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Plain aligned columns: the first to the left, the others to the right."""
    lines = [headings, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
