"""Energy from counters as the kernel lays them out."""

import os
from pathlib import Path

import pytest

from caravela.train.energy import EnergyMeter, Nvml, Rapl


def domain(folder: Path, name: str, kind: str, microjoules: int, most: int = 1_000_000_000) -> Path:
    where = folder / name
    where.mkdir(parents=True)
    (where / "name").write_text(f"{kind}\n")
    (where / "energy_uj").write_text(f"{microjoules}\n")
    (where / "max_energy_range_uj").write_text(f"{most}\n")
    return where / "energy_uj"


def test_rapl_adds_packages_and_memory_and_nothing_twice(tmp_path: Path) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    other = domain(tmp_path, "intel-rapl:1", "package-1", 900_000_000)
    memory = domain(tmp_path, "intel-rapl:0:1", "dram", 0)
    core = domain(tmp_path, "intel-rapl:0:0", "core", 0)
    system = domain(tmp_path, "intel-rapl:2", "psys", 0)
    meter = EnergyMeter("", 0, os.fspath(tmp_path))
    assert meter
    assert meter.joules() == 0
    package.write_text("8000000\n")
    other.write_text("100000000\n")  # past its end of 1000 J, and 100 J on
    memory.write_text("250000\n")
    core.write_text("2000000\n")
    system.write_text("9000000\n")
    assert meter.joules() == pytest.approx(3 + 200 + 0.25)
    assert meter.joules() == 0


def test_rapl_is_read_by_one_worker_of_a_machine(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 1)
    assert EnergyMeter("", 0, os.fspath(tmp_path))
    assert not EnergyMeter("", 1, os.fspath(tmp_path))


def test_rapl_that_cannot_be_read_is_no_meter(tmp_path: Path) -> None:
    assert not Rapl(os.fspath(tmp_path / "absent"))
    (domain(tmp_path, "intel-rapl:0", "package-0", 1)).unlink()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()  # an OSError for root, too, whom no permission stops
    assert not Rapl(os.fspath(tmp_path))


def test_nvml_without_a_gpu_is_no_meter() -> None:
    assert not Nvml("")
