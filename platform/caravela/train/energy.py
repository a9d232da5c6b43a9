"""Energy that a worker's hardware used, where the machine lets it be read.

* GPU: NVML's counter of the worker's device (``pynvml``, if that is installed; Volta and later have the counter).
* Processors and their memory: the counters of RAPL below ``/sys/class/powercap``, of Intel and of AMD, if this user may
  read them (Linux lets root alone since 2020). They are the whole machine's, so one worker of a machine reads them.

Neither sees power supplies, fans, disks or the network: the true figure is higher.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

POWERCAP = "/sys/class/powercap"


class Rapl:
    """Joules of a machine's processors: packages, and memory where it is a domain of its own."""

    def __init__(self, folder: str = POWERCAP) -> None:
        self._last: dict[Path, int] = {}
        for domain in sorted(Path(folder).glob("intel-rapl:*")):  # AMD's driver has the name, too
            counter = domain / "energy_uj"
            try:
                name = (domain / "name").read_text().strip()
                if name.startswith("package") or name == "dram":  # their parts, and psys, would count twice
                    self._last[counter] = int(counter.read_text())
            except OSError:  # not for this user
                continue

    def __bool__(self) -> bool:
        return bool(self._last)

    def joules(self) -> float:
        """Since the call before, or since this was made. Counters start again at 0 now and then."""
        microjoules = 0
        for counter, last in self._last.items():
            now = int(counter.read_text())
            if now < last:
                last -= int((counter.parent / "max_energy_range_uj").read_text())
            microjoules += now - last
            self._last[counter] = now
        return microjoules / 1e6


class Nvml:
    """Joules of one GPU."""

    def __init__(self, device_uuid: str) -> None:
        self._library: Any = None
        if not device_uuid or importlib.util.find_spec("pynvml") is None:
            return
        import pynvml

        try:
            pynvml.nvmlInit()
            self._device = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{device_uuid.removeprefix('GPU-')}".encode())
            self._last = int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._device))
        except pynvml.NVMLError:  # no driver, a part of a device, or one without the counter
            return
        self._library = pynvml

    def __bool__(self) -> bool:
        return self._library is not None

    def joules(self) -> float:
        """Since the call before, or since this was made."""
        now = int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._device))
        used, self._last = (now - self._last) / 1e3, now
        return used


class EnergyMeter:
    """What one worker answers for: its GPU and, on the first worker of a machine, the machine's processors."""

    def __init__(self, device_uuid: str, local_rank: int, powercap: str = POWERCAP) -> None:
        sources: list[Rapl | Nvml] = [Nvml(device_uuid)]
        if local_rank == 0:
            sources.append(Rapl(powercap))
        self._sources = [source for source in sources if source]

    def __bool__(self) -> bool:
        return bool(self._sources)

    def joules(self) -> float:
        """Since the call before."""
        return sum(source.joules() for source in self._sources)


def local_rank() -> int:
    """Number of this worker on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
