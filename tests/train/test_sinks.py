"""What reaches TensorBoard, Prometheus and the next attempt, and that a step waits for none of them."""

import re
import struct
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import ray
from tensorboardX.proto.event_pb2 import Event, SessionLog

from caravela import storage
from caravela.errors import UserError
from caravela.ray_start import agents_at_known_ports
from caravela.train import goodput, sinks
from caravela.train.goodput import Ledger, Reached
from caravela.train.sinks import Background, Point, Prometheus, SignOfLife, TensorBoard


def point(step: int, kept: bool = False, **columns: Any) -> Point:
    row = {"step": step, "loss": 4.0 / step, "loss/web": 2.0 / step, **columns}
    return Point(row, Reached(launch="a", step=step, time=1000.0 + step, ledger=Ledger(wall=step)), kept)


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, bit by bit, as RFC 3720 defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def events(uri: str) -> list[Event]:
    """The records of an event file, by the definition of TFRecord: length, its checksum, data, its checksum."""
    data, found, at = storage.read_bytes(uri), [], 0
    while at < len(data):
        (length,), (check,) = struct.unpack_from("<Q", data, at), struct.unpack_from("<I", data, at + 8)
        assert check == masked(crc32c(data[at : at + 8]))
        body = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length) == (masked(crc32c(body)),)
        found.append(Event.FromString(body))
        at += 16 + length
    return found


def curves(root: str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: files in the order of their names; a session's start forgets steps from its own on."""
    shown: dict[str, list[tuple[int, float]]] = {}
    for uri in storage.list_files(storage.join(root, sinks.TENSORBOARD_FOLDER)):
        for event in events(uri):
            if event.session_log.status == SessionLog.START:
                shown = {tag: [p for p in points if p[0] < event.step] for tag, points in shown.items()}
            for value in event.summary.value:
                shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    return shown


def test_tensorboard_gets_every_number_of_every_step(root: str) -> None:
    board = TensorBoard(root, 1)
    for step in (1, 2, 4):
        board.write(point(step, kept=step == 2, note="no number"))
    board.close()
    assert curves(root) == {"loss": [(1, 4.0), (2, 2.0), (4, 1.0)], "loss/web": [(1, 2.0), (2, 1.0), (4, 0.5)]}
    files = storage.list_files(storage.join(root, sinks.TENSORBOARD_FOLDER))
    assert len(files) == (2 if storage.is_remote(root) else 1)  # on storage with the checkpoint, or growing on disk


def test_tensorboard_of_a_resumed_run_forgets_what_is_done_again(root: str) -> None:
    board = TensorBoard(root, 1)
    for step in (1, 2, 4):
        board.write(point(step))
    board.close()
    time.sleep(1.1)  # files are named for the second
    board = TensorBoard(root, 3)
    board.write(point(8))
    board.close()
    assert curves(root)["loss"] == [(1, 4.0), (2, 2.0), (8, 0.5)]


def test_tensorboard_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    sinks.check_tensorboard()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboardX"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UserError, match=r"train.tensorboard = true: needs the package tensorboardX; install it"):
        sinks.check_tensorboard()


def test_sign_of_life_comes_with_every_checkpoint_and_at_the_end(root: str) -> None:
    sign, seen = SignOfLife(root), []
    for step in (1, 2, 3, 4):
        sign.write(point(step, kept=step == 3))
        seen.append(goodput.read(root))
    sign.close()
    assert [found.step for found in seen if found] == [1, 1, 3, 3]
    assert goodput.read(root) == point(4).reached


def test_step_waits_for_no_sink() -> None:
    free, seen = threading.Event(), []

    class Slow:
        def write(self, given: Point) -> None:
            free.wait()
            seen.append(given.row["step"])

        def close(self) -> None:
            seen.append("closed")

    background = Background([Slow], pytest.fail)
    begun = time.perf_counter()
    for step in range(1, 101):
        background.put(point(step))
    assert time.perf_counter() - begun < 1.0
    assert seen == []
    free.set()
    background.close()
    assert seen == [*range(1, 101), "closed"]


@pytest.mark.parametrize("error", [OSError("disk is\nfull"), UserError("disk is full")])
def test_sink_that_fails_is_one_warning_and_the_others_go_on(root: str, error: Exception) -> None:
    class Broken:
        def write(self, given: Point) -> None:
            raise error

        def close(self) -> None:
            raise AssertionError("it is left alone")

    warnings: list[str] = []
    background = Background([Broken, lambda: SignOfLife(root)], warnings.append)
    for step in (1, 2, 3):
        background.put(point(step))
    background.close()
    assert warnings == ["metrics: disk is full; no more of them go there"]
    assert goodput.read(root) == point(3).reached


def set_gauges(run: str) -> None:
    gauges = Prometheus(run)
    gauges.write(point(1))
    gauges.write(point(2, mfu=0.25))


@pytest.mark.ray
@pytest.mark.slow
def test_prometheus_scrapes_the_latest_figures_from_ray() -> None:
    with agents_at_known_ports():
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            _system_config={"metrics_report_interval_ms": 500},
        )
    try:
        ray.get(ray.remote(set_gauges).remote("a-run"))
        node = ray.nodes()[0]  # type: ignore[no-untyped-call]
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        text = until(lambda: scraped(address), lambda text: "caravela_train_mfu" in text)
    finally:
        ray.shutdown()
    assert gauge(text, "loss", "all") == 2.0
    assert gauge(text, "loss", "web") == 1.0
    assert gauge(text, "mfu", "all") == 0.25


def gauge(text: str, name: str, source: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(f"ray_caravela_train_{name}{{")]
    found = [line for line in lines if f'source="{source}"' in line and 'run="a-run"' in line]
    assert len(found) == 1, lines
    match = re.search(r"\} (\S+)", found[0])
    assert match
    return float(match[1])


def scraped(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            text: str = answer.read().decode()
    except OSError:
        return ""
    return text


def until(ask: Callable[[], str], good: Callable[[str], bool], patience_s: float = 120) -> str:
    begun = time.monotonic()
    while not good(answer := ask()):
        assert time.monotonic() - begun < patience_s, answer[-2000:]
        time.sleep(0.5)
    return answer
