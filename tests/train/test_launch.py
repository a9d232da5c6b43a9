"""The stage as a job runs it: Ray Train, DeepSpeed, two worker processes, and one of them killed."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from caravela import stages
from caravela.cluster import ClusterConfig
from caravela.config import build
from caravela.data.sources import MixtureConfig
from caravela.errors import UserError
from caravela.manifest import Input
from caravela.model import weights
from caravela.ray_start import agents_at_known_ports
from caravela.stages import Stage
from caravela.train import goodput
from caravela.train.config import RESULT_FREE, TrainConfig
from caravela.train.launch import pretrain_stage
from tests.packed_rows import write_tokenizer
from tests.train.conftest import config
from tests.train.groups import MODEL, metrics

CLUSTER = ClusterConfig(num_cpus=2, dashboard=False)


def stage(root: Path, pack: Input, **changed: Any) -> Stage:
    tokenizer = f"{root}/tokenizer"
    write_tokenizer(tokenizer)
    tokens = Input(name="tokenizer", fingerprint="t", uri=tokenizer)
    return pretrain_stage(os.fspath(root), config(**changed), MODEL, [pack], tokens)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[float]:
    """A Ray of this module's own; gives the seconds that it took to start."""
    clock = time.monotonic()
    labels = {"market": "on-demand"}
    with agents_at_known_ports():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, labels=labels)
    yield time.monotonic() - clock
    ray.shutdown()


def test_launch_driver_needs_no_torch() -> None:
    code = "import sys; import caravela.train.launch; sys.exit('torch' in sys.modules or 'deepspeed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_launch_fingerprint_depends_on_what_changes_the_model_alone(tmp_path: Path, pack: Input) -> None:
    assert {field.name for field in dataclasses.fields(TrainConfig)}.issuperset(RESULT_FREE)
    usual = stage(tmp_path, pack).fingerprint
    same = {"num_workers": 1, "zero_stage": 2, "micro_batch_rows": 5, "trace": False, "max_failures": 0}
    same |= {"activation_checkpointing": 1, "compile": "off"}
    assert stage(tmp_path, pack, **same).fingerprint == usual
    for name, value in {"seed": 1, "steps": 25, "batch_rows": 8, "learning_rate": 2e-2, "precision": "bf16"}.items():
        assert stage(tmp_path, pack, **{name: value}).fingerprint != usual, name


def test_launch_rows_that_do_not_fit_the_model_are_refused(tmp_path: Path, pack: Input, tokenizer: Input) -> None:
    model = dataclasses.replace(MODEL, max_positions=8)
    with pytest.raises(UserError, match=r"model.max_positions = 8: expected 16, as the packed rows in"):
        pretrain_stage(os.fspath(tmp_path), config(), model, [pack], tokenizer).plan()


def test_launch_rows_of_another_tokenizer_are_refused(tmp_path: Path, pack: Input) -> None:
    write_tokenizer(os.fspath(tmp_path), "cd" * 32)
    other = Input(name="tokenizer", fingerprint="t", uri=os.fspath(tmp_path))
    with pytest.raises(
        UserError, match=r"packed with another tokenizer \(SHA-256 (ab){32}\) than that of .*; pack again"
    ):
        pretrain_stage(os.fspath(tmp_path), config(), MODEL, [pack], other).plan()


def test_launch_mixture_changes_the_fingerprint_and_where_a_run_lies_does_not(
    tmp_path: Path, pack: Input, tokenizer: Input
) -> None:
    def fingerprint(**source: Any) -> str:
        mixture = build(MixtureConfig, {"sources": [{"name": "web", **source}]}, "mixture")
        return pretrain_stage(os.fspath(tmp_path), config(), MODEL, [pack], tokenizer, mixture).fingerprint

    assert fingerprint() == fingerprint(root="elsewhere")
    assert len({fingerprint(), fingerprint(weight=2), fingerprint(max_epochs=3)}) == 3


def train_workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_launch_worker_lost_in_mid_run_changes_nothing(
    tmp_path: Path, pack: Input, unbroken: Path, blow: signal.Signals
) -> None:
    """One that is stopped answers nobody: the other waits for it, until its watchdog ends it."""
    stops = blow == signal.SIGSTOP
    made = stage(tmp_path, pack, rank0_labels={"market": "on-demand"}, hang_timeout_s=40.0 if stops else 1800.0)
    trace, killed = Path(made.uri) / "trace", []

    def kill_a_worker_after_step_12() -> None:
        while not list(trace.glob("00000012-*")):
            time.sleep(0.01)
        victim = train_workers()[0]
        os.kill(victim.pid, blow)
        killed.append(victim.pid)

    killer = threading.Thread(target=kill_a_worker_after_step_12, daemon=True)
    killer.start()
    stages.run(made, CLUSTER)
    assert killed
    written = [
        path for path in trace.iterdir() if path.suffix == ".json"
    ]  # the killed one may leave a file half-written
    attempts = {path.name.split("-")[1] for path in written}
    assert len(attempts) == 2
    assert len(list(Path(made.uri).glob("stacks/*.txt"))) == int(stops), "of the one that waited"
    expected, found = metrics(os.fspath(unbroken)), metrics(made.uri)
    assert [row["loss"] for row in found.values()] == [row["loss"] for row in expected.values()]
    read: dict[tuple[str, str], set[str]] = {}
    for path in written:
        step, _, rank = path.stem.split("-")
        read.setdefault((step, rank), set()).add(path.read_text())
    assert len(read) == 24 * 2
    assert all(len(texts) == 1 for texts in read.values())  # what was done again was done on the same rows
    reached = goodput.read(made.uri)
    assert reached is not None
    assert reached.step == 24
    assert reached.launch, "so the time between the two attempts is the run's"
    assert reached.ledger.wall > reached.ledger.starting + sum(row["seconds"] for row in found.values())
    assert found[24]["goodput"] < 1
    events = [path.name for path in (Path(made.uri) / "tensorboard").iterdir()]
    assert len({name.rpartition(".")[2] for name in events}) == 2, "the second begins where the first was kept"
    a, b = weights.load_model(os.fspath(unbroken)), weights.load_model(made.uri)
    assert all((x == y).all() for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.ray
@pytest.mark.slow
def test_launch_corrupt_part_is_one_line_and_not_tried_for_ever(tmp_path: Path, pack: Input, local_ray: float) -> None:
    shutil.copytree(pack.uri, tmp_path / "pack")
    (tmp_path / "pack" / "part-00001.parquet").unlink()
    broken = Input(name="pack", fingerprint="broken", uri=os.fspath(tmp_path / "pack"))
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"part-00001.parquet: named in the manifest of pack, but missing"):
        stages.run(stage(tmp_path, broken), CLUSTER)
    assert time.monotonic() - begun < 30 * local_ray
    assert not train_workers()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_launch_more_workers_than_the_machine_has_room_for_is_one_line(tmp_path: Path, pack: Input) -> None:
    with pytest.raises(UserError, match=r"train.num_workers = 3: there is room for 1 workers with 2 CPU each"):
        stages.run(stage(tmp_path, pack, num_workers=3, num_cpus_per_worker=2), CLUSTER)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_launch_rank_0_on_a_node_that_is_not_there_is_one_line(tmp_path: Path, pack: Input) -> None:
    with pytest.raises(UserError, match=r"train.rank0_labels = \{'market': 'spot'\}: no node has these labels"):
        stages.run(stage(tmp_path, pack, rank0_labels={"market": "spot"}), CLUSTER)
