"""A process that stands still is ended with its stacks on storage; one that works is left alone."""

import subprocess
import sys
import time
from pathlib import Path

from caravela.train.watchdog import EXIT_STATUS, Watchdog

STANDING_STILL = """
import sys, threading
from caravela.train.watchdog import Watchdog

def waits_for_a_rank_that_is_gone():
    threading.Lock().acquire() and threading.Event().wait()

with Watchdog(1.0, sys.argv[1], "rank-00003", lambda line: print(line, flush=True)) as watchdog:
    watchdog.beat("step 7")
    waits_for_a_rank_that_is_gone()
"""


def test_watchdog_ends_a_process_that_stands_still_and_stores_its_stacks(tmp_path: Path) -> None:
    run = [sys.executable, "-c", STANDING_STILL, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_STATUS
    assert "rank-00003: no progress for 1 s in step 7" in done.stdout
    assert "waits_for_a_rank_that_is_gone" in (tmp_path / "stacks" / "rank-00003.txt").read_text()


def test_watchdog_ends_the_process_also_where_nothing_can_be_stored(tmp_path: Path) -> None:
    (tmp_path / "stacks").touch()  # where the folder would be
    run = [sys.executable, "-c", STANDING_STILL, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_STATUS
    assert "stacks not stored" in done.stdout


def test_watchdog_leaves_a_process_alone_that_goes_on(tmp_path: Path) -> None:
    ended: list[int] = []
    with Watchdog(0.4, str(tmp_path), "rank-00000", print, end=ended.append) as watchdog:
        for step in range(8):
            watchdog.beat(f"step {step}")
            time.sleep(0.1)
    time.sleep(0.6)
    assert ended == []


def test_watchdog_without_a_limit_never_ends_anything(tmp_path: Path) -> None:
    ended: list[int] = []
    with Watchdog(0.0, str(tmp_path), "rank-00000", print, end=ended.append):
        time.sleep(0.3)
    assert ended == []
