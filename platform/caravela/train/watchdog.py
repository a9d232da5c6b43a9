"""Ends a worker that makes no progress, with the stacks of its threads, so that the group is started again.

A collective that never returns, a rank that another's silence blocks, a read that hangs: in all of them the main thread
stands in native code that cannot be interrupted. A thread beside it looks whether ``beat`` was called in time; if not,
it writes all stacks to the stage's directory and ends the process. Ray Train sees a lost worker and starts the group
again from the newest checkpoint, also where another rank was the one that stopped answering: those that wait for it end
here. Price: the limit must be longer than the longest step, validation or restore.
"""

import faulthandler
import os
import tempfile
import threading
import time
from collections.abc import Callable
from types import TracebackType

from caravela import storage
from caravela.errors import UserError

EXIT_STATUS = 86
STACKS_FOLDER = "stacks"


class Watchdog:
    """A context in which ``beat`` must be called at least every ``limit`` seconds; 0 is no limit."""

    def __init__(
        self, limit: float, directory: str, name: str, say: Callable[[str], None], end: Callable[[int], None] = os._exit
    ) -> None:
        """Watches from ``__enter__`` on.

        Args:
            limit: seconds without a beat that end the process.
            directory: where the stacks are stored, as ``<name>.txt``.
            name: of this process.
            say: told in one line.
            end: called with the exit status; a test gives another one.
        """
        self.limit = limit
        self.directory = directory
        self.name = name
        self.say = say
        self.end = end
        self._last = time.monotonic()
        self._doing = "start"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, doing: str) -> None:
        """Progress was made; ``doing`` is what comes next, for the message."""
        self._last, self._doing = time.monotonic(), doing

    def __enter__(self) -> "Watchdog":
        self._last = time.monotonic()
        if self.limit > 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self.limit / 4)):
            silent = time.monotonic() - self._last
            if silent > self.limit:
                self._end(silent)
                return

    def _end(self, silent: float) -> None:
        uri = storage.join(self.directory, STACKS_FOLDER, f"{self.name}.txt")
        try:
            storage.write_text(uri, all_stacks())
            self.say(f"{self.name}: no progress for {silent:.0f} s in {self._doing}; ended, its stacks are in {uri}")
        except (UserError, OSError) as error:  # whatever storage does, the process must end
            self.say(f"{self.name}: no progress for {silent:.0f} s in {self._doing}; ended, stacks not stored: {error}")
        finally:
            self.end(EXIT_STATUS)


def all_stacks() -> str:
    """The Python stacks of all threads of this process."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
