"""Extraction within limits: a page that hangs, crashes or devours memory is one page set aside, and nothing else.

In: ``Page``s. Out: one ``Extraction`` each, in their order, equal to what ``caravela.data.extract`` gives; or the
reason ``timeout``, ``crashed`` or ``out_of_memory``. ``PageExtractor`` keeps one process of its own, started with the
first page, and sends it pages through a pipe ahead of their turn.

What a page's fate depends on, so that it is the same on every run:

* The time limit is CPU time. The process sets itself an alarm (ITIMER_PROF) whose signal ends it by default, also in
  the midst of C code. A loaded machine changes nothing. Only a process that sleeps, and has computed nothing between
  two looks ``WALL_FACTOR`` times the limit apart, is ended by the clock on the wall.
* Libraries swallow the error of memory that ran out and give no text, or half of it. So a page with which the process
  came near its limit of memory is one that took too much, whatever came out.
* What ends the process otherwise (a fault of the parser, memory that ran out) may be the doing of pages before. So the
  page is tried once more as the first of a fresh process, and set aside if that ends too.
* SIGKILL and SIGTERM come from outside, such as from a machine that is short of memory, and say nothing of the page: it
  is tried again, and after ``MOST_KILLS`` of them the shard ends with an error.

The process does not outlive its parent: it is told by signal when the parent's end of a pipe closes, however the
parent ended, and reads the end of its input besides. Price: about 0.3 ms a page, and a second per worker to start.
"""

import contextlib
import fcntl
import logging
import os
import pickle
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, Any, Self

from caravela.data.extract import ExtractConfig, Extraction, Page, extract

WALL_FACTOR = 3
START_SECONDS = 600.0
END_SECONDS = 60.0
LENGTH = struct.Struct("<Q")
READ_BYTES = 1 << 20
# The process's own files: what it says when it dies. More would be a library gone mad.
FILE_BYTES = 1 << 20
OUT_OF_MEMORY = 3
MOST_KILLS = 5
# Shares of the limit of memory above which it ran short: a page without text may have failed over one large piece.
MOST_WITH_TEXT, MOST_WITHOUT_TEXT = 0.9, 0.5
RUST_OUT_OF_MEMORY = b"memory allocation of"
READY, KILLED = "ready", "killed"
WARM_UP = b"<html><body><article><h1>Aviso</h1><p>A feira de livros abre hoje no largo da igreja.</p></article>"


class PageExtractor:
    """Extracts pages in a process of its own; in this one if the config's time limit is 0. For one thread."""

    def __init__(self, config: ExtractConfig) -> None:
        self.config = config
        self.started = 0
        """How many processes there have been; each above one stands for a page that ended its process."""
        self._process: _Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int | None:
        """Of the process that extracts, while there is one."""
        return self._process.popen.pid if self._process else None

    def extract_many(self, pages: Sequence[Page]) -> list[Extraction]:
        """One for each page, in their order."""
        if self.config.time_limit_seconds == 0:
            return [_extract(page, self.config) for page in pages]
        # A page that is too large is not sent, only to be refused there.
        fit = [page for page in pages if len(page.html) <= self.config.max_html_bytes]
        extractions = iter(self._by_process(fit))
        return [
            next(extractions) if len(page.html) <= self.config.max_html_bytes else Extraction(reason="too_large")
            for page in pages
        ]

    def close(self) -> None:
        """Ends the process. Another page would start a new one."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _by_process(self, pages: Sequence[Page]) -> list[Extraction]:
        done: list[Extraction] = []
        kills, before = 0, 0
        while len(done) < len(pages):
            try:
                if self._process is None:
                    self.started += 1
                    self._process = _Process(self.config)
                for extraction in self._process.extract(pages[len(done) :]):
                    done.append(extraction)
            except _Ended as ended:
                is_first = self._process is not None and self._process.answered == 0
                self.close()
                if ended.reason == KILLED:
                    kills, before = kills + 1 if len(done) == before else 1, len(done)
                    if kills > MOST_KILLS:
                        raise RuntimeError(
                            f"the process that extracts pages was killed {kills} times over a page"
                        ) from None
                elif ended.final or is_first:
                    done.append(Extraction(reason=ended.reason))
            except BaseException:
                self.close()  # answers are on their way that belong to no later page
                raise
        return done


class _Ended(Exception):
    """The process came to an end over a page: what happened to it, and no error of ours."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        """Whether the page would end another process too."""


class _Process:
    """A running process, from the side of the one that started it."""

    def __init__(self, config: ExtractConfig) -> None:
        self.answered = 0
        self.wall_seconds = WALL_FACTOR * config.time_limit_seconds
        self._received = bytearray()
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        lifeline, self._lifeline = os.pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        code = "import sys; from caravela.data.extract_process import serve; serve(*map(int, sys.argv[1:]))"
        ends = (requests, answers, lifeline)
        self.popen = subprocess.Popen(  # a new program, not a fork: the threads and memory of this one are not wanted
            [sys.executable, "-P", "-c", code, *map(str, ends)],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            # The order in which a set is walked is no property of the page.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"},
            process_group=0,  # Ctrl-C is for the parent, which ends this process in its own way
        )
        for end in ends:
            os.close(end)
        os.set_blocking(self._requests, False)
        self._finalizer = weakref.finalize(
            self, _end, os.getpid(), self.popen, (self._requests, self._answers, self._lifeline), self._errors
        )
        try:
            (ready,) = self._exchange([config], START_SECONDS)
        except _Ended as ended:
            said = self._last_words().decode("utf-8", errors="replace").strip()
            self.end()
            if ended.reason == KILLED:
                raise
            raise RuntimeError(f"the process that extracts pages did not start ({ended.reason}): {said}") from None
        assert ready == READY, f"expected {READY!r}, got {ready!r}"

    def extract(self, pages: Sequence[Page]) -> Iterator[Extraction]:
        """One for each page, as they come.

        Raises:
            _Ended: the process came to an end over the first page that has no answer.
        """
        for extraction in self._exchange(pages, self.wall_seconds):
            self.answered += 1
            yield extraction

    def end(self) -> None:
        """Whatever it is doing; leaves nothing behind."""
        self._finalizer()

    def _exchange(self, messages: Sequence[Any], seconds: float) -> Iterator[Any]:
        """Sends ahead what the pipe takes, and yields an answer to each. Who sleeps for ``seconds`` has ended."""
        unsent, outgoing, unanswered = iter(messages), memoryview(b""), len(messages)
        readable, writable = select.poll(), select.poll()
        readable.register(self._answers, select.POLLIN)
        writable.register(self._answers, select.POLLIN)
        writable.register(self._requests, select.POLLOUT)
        deadline, seen = time.monotonic() + seconds, -1
        while unanswered:
            if not outgoing:
                outgoing = memoryview(next((_framed(message) for message in unsent), b""))
            ready = dict((writable if outgoing else readable).poll(max(0.0, deadline - time.monotonic()) * 1000))
            if not ready:
                state, computed = self._state()
                if computed == seen and state not in ("R", "D"):  # it waits, and not for a core or a disk
                    raise _Ended("timeout")
                deadline, seen = time.monotonic() + seconds, computed
            if self._requests in ready:
                try:
                    outgoing = outgoing[os.write(self._requests, outgoing) :]
                except BrokenPipeError:  # it has ended; its last answers are still to be read
                    unsent, outgoing = iter(()), memoryview(b"")
            if self._answers in ready:
                data = os.read(self._answers, READ_BYTES)
                if not data:
                    raise self._how_it_ended()
                self._received += data
                for answer in self._complete_answers():
                    unanswered -= 1
                    deadline, seen = time.monotonic() + seconds, -1
                    yield answer

    def _complete_answers(self) -> Iterator[Any]:
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            answer = pickle.loads(self._received[LENGTH.size : end])
            del self._received[:end]
            yield answer

    def _state(self) -> tuple[str, int]:
        """Its state as one letter, and how many ticks of the processor it has had."""
        try:
            with open(f"/proc/{self.popen.pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except FileNotFoundError:  # a system without /proc
            return "S", -1
        return fields[0], int(fields[11]) + int(fields[12])

    def _how_it_ended(self) -> _Ended:
        try:
            status = self.popen.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return _Ended("crashed")
        if status in (-signal.SIGKILL, -signal.SIGTERM):
            return _Ended(KILLED)
        if status == -signal.SIGPROF:
            return _Ended("timeout", final=True)
        if status == OUT_OF_MEMORY or (status == -signal.SIGABRT and RUST_OUT_OF_MEMORY in self._last_words()):
            return _Ended("out_of_memory")
        return _Ended("crashed")

    def _last_words(self) -> bytes:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 4000))
        return self._errors.read()


def _end(owner: int, popen: subprocess.Popen[bytes], ends: tuple[int, ...], errors: IO[bytes]) -> None:
    """Ends and buries a process; at the latest when its parent's Python ends."""
    for end in ends:
        os.close(end)
    errors.close()
    if os.getpid() == owner:  # a fork of the owner holds copies of the pipes, and no right to more
        popen.kill()
        popen.wait()


def serve(requests: int, answers: int, lifeline: int) -> None:
    """The life of the process: a config, then pages until the input ends; an answer to each."""
    _die_with_parent(lifeline)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    with open(requests, "rb") as incoming, open(answers, "wb") as outgoing:
        config: ExtractConfig = _receive(incoming)
        _limit_resources(config)
        _extract(Page(WARM_UP), config)  # what is loaded with the first page is not the first page's affair
        _send(outgoing, READY)
        while (message := _receive(incoming)) is not None:
            signal.setitimer(signal.ITIMER_PROF, config.time_limit_seconds)
            try:
                extraction = _extract(message, config)
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if _largest_memory() > (MOST_WITH_TEXT if extraction.text else MOST_WITHOUT_TEXT) * (
                config.memory_limit_mb << 20
            ):
                os._exit(OUT_OF_MEMORY)
            _send(outgoing, extraction)


def _extract(page: Page, config: ExtractConfig) -> Extraction:
    return extract(page.html, page.header_charset, config, url=page.url, fetched=page.fetched)


def _die_with_parent(lifeline: int) -> None:
    """Asks for a signal when the last writing end of the pipe closes; by default it ends a process.

    Linux's own signal for the death of a parent (PR_SET_PDEATHSIG) will not do: it comes when the *thread* ends that
    started the process.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        os._exit(0)  # it was closed before


def _limit_resources(config: ExtractConfig) -> None:
    for limit, most in (
        (resource.RLIMIT_AS, config.memory_limit_mb << 20),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of memory
            resource.setrlimit(limit, (most, hard) if hard == resource.RLIM_INFINITY else (min(most, hard), hard))


def _largest_memory() -> int:
    """Bytes of address space that this process has had so far, at most; 0 on a system without /proc."""
    try:
        with open("/proc/self/status", "rb") as file:
            found = re.search(rb"VmPeak:\s*([0-9]+) kB", file.read())
    except FileNotFoundError:
        return 0
    return int(found[1]) << 10 if found else 0


def _framed(message: Any) -> bytes:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


def _send(outgoing: IO[bytes], message: Any) -> None:
    outgoing.write(_framed(message))
    outgoing.flush()


def _receive(incoming: IO[bytes]) -> Any:
    """A message; None at the end of the input."""
    header = incoming.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    data = incoming.read(LENGTH.unpack(header)[0])
    return pickle.loads(data) if len(data) == LENGTH.unpack(header)[0] else None
