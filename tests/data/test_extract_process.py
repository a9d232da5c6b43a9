"""Extraction in a process of its own: equal to extraction without, and ended by what must end it and nothing else."""

import contextlib
import dataclasses
import gc
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from caravela.data.extract import ExtractConfig, Extraction, Page, extract
from caravela.data.extract_process import PageExtractor

PARAGRAPHS = (
    "A padaria da esquina abriu mais cedo naquele sábado, e o cheiro de pão quente desceu a ladeira até o porto.",
    "Os pescadores, que já voltavam com as redes vazias, pararam para ouvir a notícia: a ponte seria reaberta em maio.",
    "Ninguém sabia ao certo quem pagaria a obra, mas o presidente da junta prometeu que as contas seriam públicas.",
)
MENU = "<nav><ul><li><a href='/a'>Página inicial</a></li><li><a href='/b'>Assine já</a></li></ul></nav>"
LIMITED = ExtractConfig(extractor="resiliparse")


def page(number: int, paragraphs: int = 3) -> Page:
    """Each with a text of its own."""
    lines = "".join(f"<p>Carta {number}.{i}. {PARAGRAPHS[i % 3]}</p>" for i in range(paragraphs))
    head = f"<head><title>Carta {number}</title><meta name=date content='2019-03-{1 + number % 28:02}'></head>"
    html = f"<html lang=pt>{head}<body>{MENU}<article>{lines}</article></body></html>"
    return Page(html.encode(), url=f"https://cartas.example/{number}", fetched="2020-01-01")


def here(pages: list[Page], config: ExtractConfig) -> list[Extraction]:
    return [extract(one.html, one.header_charset, config, url=one.url, fetched=one.fetched) for one in pages]


def cpu_seconds(process_id: int) -> float:
    """That a running process has used, by Linux's clock of it."""
    return time.clock_gettime((~process_id << 3) | 2)


def runs(process_id: int) -> bool:
    try:
        with open(f"/proc/{process_id}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_gone(process_id: int) -> None:
    deadline = time.monotonic() + 60
    while runs(process_id):
        assert time.monotonic() < deadline, f"process {process_id} is still there"
        time.sleep(0.01)


@contextlib.contextmanager
def each_process_meets(extractor: PageExtractor, number: int, times: int) -> Iterator[None]:
    """Sends a signal to the first so many processes of the extractor, each as soon as it is at work on a page."""
    done = threading.Event()

    def watch() -> None:
        met: set[int] = set()
        while not done.is_set() and len(met) < times:
            process_id = extractor.process_id
            if process_id and process_id not in met:
                with contextlib.suppress(OSError):
                    if cpu_seconds(process_id) > used.setdefault(process_id, cpu_seconds(process_id)) + 0.02:
                        met.add(process_id)
                        os.kill(process_id, number)
            time.sleep(0.002)

    used: dict[int, float] = {}
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def mutated() -> list[Page]:
    """Pages with damage: bytes changed, cut out, doubled; tags and entities put in where none belong."""
    draw = random.Random(20)
    junk = (
        b"<",
        b">",
        b"</",
        b"&#",
        b"&amp",
        b"<!--",
        b"<table><td>",
        b"<script>",
        b"</article>",
        b"\x00",
        b"\xff\xc3",
        b"'",
    )
    pages = []
    for number in range(500):
        html = bytearray(page(number, paragraphs=2 + number % 5).html)
        for _ in range(draw.randint(1, 12)):
            start = draw.randrange(len(html))
            end = start + draw.randint(0, 60)
            what = draw.randrange(4)
            if what == 0:
                html[start] = draw.randrange(256)
            elif what == 1:
                del html[start:end]
            elif what == 2:
                html[start:start] = html[start:end]
            else:
                html[start:start] = draw.choice(junk)
        header = draw.choice(["", "utf-8", "iso-8859-1", "utf-16", "no-such-charset"])
        pages.append(Page(bytes(html), header, f"https://cartas.example/{number}", "2019-03-15"))
    return pages


@pytest.mark.parametrize(("extractor", "count"), [("trafilatura", 120), ("resiliparse", 300)])
def test_damaged_pages_give_the_same_with_a_process_as_without(mutated: list[Page], extractor: str, count: int) -> None:
    config = ExtractConfig(extractor=extractor)  # type: ignore[arg-type]
    with PageExtractor(config) as process:
        batches = [process.extract_many(mutated[i : i + 60]) for i in range(0, count, 60)]
        assert process.started == 1
    expected = here(mutated[:count], config)
    assert [one for batch in batches for one in batch][:count] == expected
    assert len({one.reason for one in expected}) >= 2, "some of the pages should have lost their text"


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
def test_page_over_the_time_limit_is_ended_and_the_next_is_fine(extractor: str) -> None:
    unlimited = ExtractConfig(extractor=extractor, time_limit_seconds=0)  # type: ignore[arg-type]
    # resiliparse's time grows with the square of the depth, in one call of compiled code.
    nested = Page(b"<div>" * 8000 + PARAGRAPHS[0].encode())
    long = page(1, paragraphs=10_000) if extractor == "trafilatura" else nested
    here([page(0)], unlimited)
    clock = time.process_time()
    here([long], unlimited)
    taken = time.process_time() - clock
    assert taken > 0.4
    # A share of what the page takes here and now: machines differ, and so do their hours.
    config = dataclasses.replace(unlimited, time_limit_seconds=taken / 4)
    with PageExtractor(config) as process:
        assert [one.reason for one in process.extract_many([page(0)])] == [""]
        assert process.process_id is not None
        before = cpu_seconds(process.process_id) + cpu_seconds_of_the_buried()
        assert [one.reason for one in process.extract_many([long])] == ["timeout"]
        assert taken / 8 < cpu_seconds_of_the_buried() - before < taken
        found = process.extract_many([page(2), long, page(3)])
        assert process.started == 3
    assert [one.reason for one in found] == ["", "timeout", ""]
    assert found[0::2] == here([page(2), page(3)], config)


def cpu_seconds_of_the_buried() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_process_that_sleeps_over_a_page_is_ended_by_the_clock_on_the_wall() -> None:
    with PageExtractor(ExtractConfig(extractor="resiliparse", time_limit_seconds=0.05)) as process:
        process.extract_many([page(0)])
        asleep = process.process_id
        assert asleep is not None
        os.kill(asleep, signal.SIGSTOP)
        assert process.extract_many([page(1), page(2)]) == here([page(1), page(2)], process.config)
        assert process.started == 2
        assert not runs(asleep)


def test_process_that_is_killed_changes_no_result() -> None:
    pages = [page(number, paragraphs=3000) for number in range(4)]
    with PageExtractor(LIMITED) as process:
        process.extract_many(pages[:1])
        assert process.process_id is not None
        os.kill(process.process_id, signal.SIGKILL)  # between two batches
        assert process.extract_many(pages[:2]) == here(pages[:2], LIMITED)
        assert process.started == 2
        with each_process_meets(process, signal.SIGKILL, times=3):
            assert process.extract_many(pages) == here(pages, LIMITED)
        assert process.started == 5


def test_process_that_is_killed_while_it_starts_changes_no_result() -> None:
    others = {child.pid for child in psutil.Process().children()}  # a server of tests before, for one
    with PageExtractor(LIMITED) as process:
        found: list[Extraction] = []
        thread = threading.Thread(target=lambda: found.extend(process.extract_many([page(0)])))
        thread.start()
        while not (new := [child for child in psutil.Process().children() if child.pid not in others]):
            time.sleep(0.001)
        new[0].kill()  # it takes a second to start
        thread.join()
        assert found == here([page(0)], LIMITED)
        assert process.started == 2


def test_process_that_is_killed_again_and_again_is_an_error_and_no_property_of_the_page() -> None:
    with PageExtractor(LIMITED) as process:
        process.extract_many([page(0)])
        with (
            each_process_meets(process, signal.SIGKILL, times=99),
            pytest.raises(RuntimeError, match="was killed 6 times"),
        ):
            process.extract_many([page(2, paragraphs=20_000)])


def test_page_that_ends_a_fresh_process_too_is_set_aside() -> None:
    pages = [page(1), page(2, paragraphs=20_000), page(3)]
    with PageExtractor(LIMITED) as process:
        process.extract_many([page(0)])
        with each_process_meets(process, signal.SIGSEGV, times=2):
            found = process.extract_many(pages)
    assert [one.reason for one in found] == ["", "crashed", ""]
    assert found[2] == here(pages, LIMITED)[2]


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
def test_page_that_takes_too_much_memory_is_set_aside_and_the_next_is_fine(extractor: str) -> None:
    config = ExtractConfig(extractor=extractor, memory_limit_mb=256, time_limit_seconds=60)  # type: ignore[arg-type]
    greedy = Page(b"<html><body><article>" + b"<p>a" * 1_400_000)
    with PageExtractor(config) as process:
        found = process.extract_many([greedy, page(1)])
    assert [one.reason for one in found] == ["out_of_memory", ""]


def test_process_is_gone_when_its_parent_is_killed_in_the_midst_of_a_page() -> None:
    program = (
        "import os, threading\n"
        "from tests.data.test_extract_process import page, LIMITED, PageExtractor\n"
        "extractor = PageExtractor(LIMITED)\n"
        "extractor.extract_many([page(0)])\n"
        "print(extractor.process_id, flush=True)\n"
        "while True: extractor.extract_many([page(1, paragraphs=60_000)])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        idle = cpu_seconds(child)
        while cpu_seconds(child) < idle + 0.1:
            time.sleep(0.01)
        parent.kill()
    clock = time.monotonic()
    wait_until_gone(child)
    assert time.monotonic() - clock < 20


def test_process_outlives_the_thread_that_started_it() -> None:
    with PageExtractor(LIMITED) as process:
        thread = threading.Thread(target=process.extract_many, args=([page(0)],))
        thread.start()
        thread.join()
        first = process.process_id
        time.sleep(0.1)
        assert process.extract_many([page(1)]) == here([page(1)], LIMITED)
        assert process.process_id == first


def test_close_leaves_neither_processes_nor_files_open() -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    for how in ("close", "dropped"):
        process = PageExtractor(LIMITED)
        process.extract_many([page(0)])
        child = process.process_id
        assert child is not None
        assert runs(child)
        if how == "close":
            process.close()
            process.close()
        else:
            del process
            gc.collect()
        with pytest.raises(ChildProcessError):  # ended, and buried
            os.waitpid(child, os.WNOHANG)
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_extractor_after_close_starts_anew() -> None:
    process = PageExtractor(LIMITED)
    assert process.extract_many([]) == []
    assert process.started == 0
    for _ in range(2):
        assert process.extract_many([page(0)]) == here([page(0)], LIMITED)
        process.close()
        assert process.process_id is None
    assert process.started == 2


def test_pages_larger_than_a_pipe_keep_their_order_among_those_that_are_too_large() -> None:
    config = ExtractConfig(extractor="resiliparse", max_html_bytes=3 << 20)
    pages = [page(number, paragraphs=1 if number % 3 else 10_000) for number in range(7)]
    pages.insert(2, Page(b" " * (3 << 20) + b"<"))
    pages.append(Page(b"x" * (4 << 20)))
    assert max(len(one.html) for one in pages[:2]) > 1 << 20
    with PageExtractor(config) as process:
        found = process.extract_many(pages)
    assert found == here(pages, config)
    assert [i for i, one in enumerate(found) if one.reason == "too_large"] == [2, 8]


def test_no_time_limit_means_no_process() -> None:
    config = ExtractConfig(time_limit_seconds=0)
    with PageExtractor(config) as process:
        assert process.extract_many([page(0), page(1)]) == here([page(0), page(1)], config)
        assert (process.started, process.process_id) == (0, None)


def test_process_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "executable", os.path.realpath(sys.executable))  # outside of the virtual environment
    with pytest.raises(RuntimeError, match=r"did not start \(crashed\): [\s\S]*ModuleNotFoundError: No module named"):
        PageExtractor(LIMITED).extract_many([page(0)])
