"""Calls to storage that outlast an outage: what fails because a server is away is tried again until it is back.

Storage itself gives up on a server within half a minute, so that a person with a wrong endpoint is not kept waiting.
A run that has worked for days should not end with it. Only what may pass by itself is tried again: not a missing
object, a bucket that is not there, a refused permission or a full disk. Calls must be idempotent; those of storage are,
as an object is replaced as a whole.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from caravela.storage import StorageError

OUTAGE_S = 600.0
"""The outage that work of hours outlasts."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 15.0

Result = TypeVar("Result")


def outlasting(
    call: Callable[[], Result],
    seconds: float = OUTAGE_S,
    say: Callable[[str], None] = lambda line: None,
    given_up: threading.Event | None = None,
) -> Result:
    """The result of ``call``, which is tried again for so long.

    Args:
        call: what may raise ``StorageError``.
        seconds: of patience, from the first failure on.
        say: told in one line when the first call has failed.
        given_up: ends the patience, from another thread.

    Raises:
        StorageError: the last one.
    """
    try:
        return call()
    except StorageError as error:
        if not error.may_pass or seconds <= 0:
            raise
        say(f"{' '.join(str(error).split())}; trying again for {seconds:.0f} s")
    given_up = given_up or threading.Event()
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE_S
    while True:
        given_up.wait(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(2 * pause, LONGEST_PAUSE_S)
        try:
            return call()
        except StorageError as error:
            if not error.may_pass or time.monotonic() > deadline or given_up.is_set():
                raise
