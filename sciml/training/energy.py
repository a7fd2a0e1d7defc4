"""Energy that a run takes, read from counters in the hardware where there are any."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sciml.distributed.world import World

NOT_MEASURED = "not measured"
POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class _Counter:
    """Reads a counter of energy that only grows, or begins anew at 0 after ``wraps_at``.

    Attributes:
        read: gives microjoules.
        wraps_at: microjoules; None where that takes longer than any run.
    """

    read: Callable[[], int]
    wraps_at: int | None = None

    def since(self, before: int, now: int) -> int:
        return now - before + (self.wraps_at if self.wraps_at is not None and now < before else 0)


class EnergyMeter:
    """Measures joules between calls. It never raises: what cannot be read is not measured.

    An accelerator is read through NVML or AMD SMI: that device alone, without host and network. A process that computes
    on CPUs reads RAPL: all packages of its machine, without memory and with whatever else runs there, so only the
    first process of a machine counts them and the others take nothing. Most systems let only root read RAPL. A
    counter of RAPL wraps around after minutes to hours; call more often than that.

    Attributes:
        source: ``NVML``, ``AMD SMI``, ``RAPL package`` or ``not measured``.

    Args:
        device: where this process computes.
        local_rank: number of this process on its machine.
        powercap: where Linux shows RAPL.
    """

    def __init__(self, device: torch.device | str, *, local_rank: int = 0, powercap: Path = POWERCAP) -> None:
        self.source, self._counters = _find(torch.device(device), powercap)
        if self.source == "RAPL package" and local_rank > 0:
            self._counters = []
        self._last = self._read()
        if self._last is None:
            self.source = NOT_MEASURED

    def joules(self) -> float | None:
        """Returns the joules of this process's share since the last call or the beginning; None where not measured."""
        if self.source == NOT_MEASURED:
            return None
        before, self._last = self._last, self._read()
        if before is None or self._last is None:
            return None
        used = (counter.since(*pair) for counter, *pair in zip(self._counters, before, self._last, strict=True))
        return sum(used) / 1e6

    def total(self, world: World) -> float | None:
        """Returns the joules of all processes since the last call, which they make together; None where any
        does not measure.
        """
        joules = self.joules()
        total = torch.tensor(math.nan if joules is None else joules, dtype=torch.float64)
        world.add([total])
        return None if total.isnan() else total.item()

    def _read(self) -> list[int] | None:
        try:
            return [counter.read() for counter in self._counters]
        except Exception:  # each library has errors of its own, and none of them is worth a run
            return None


def _find(device: torch.device, powercap: Path) -> tuple[str, list[_Counter]]:
    try:
        if device.type == "cpu":
            return "RAPL package", _rapl(powercap)
        if device.type == "cuda":
            return ("NVML", [_nvml(device)]) if torch.version.hip is None else ("AMD SMI", [_amd_smi(device)])
        return NOT_MEASURED, []
    except Exception:  # no library, no driver, no permission
        return NOT_MEASURED, []


def _rapl(powercap: Path) -> list[_Counter]:
    # Zones below a package (core, dram) have a second number; other top zones, such as psys, would count twice.
    zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
    if not packages:
        raise FileNotFoundError(powercap)
    return [_Counter(_reader(zone / "energy_uj"), _reader(zone / "max_energy_range_uj")()) for zone in packages]


def _reader(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_text())


def _nvml(device: torch.device) -> _Counter:
    nvml = importlib.import_module("pynvml")
    handle = torch.cuda._get_pynvml_handler(device)  # knows CUDA_VISIBLE_DEVICES
    return _Counter(lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * 1000)  # millijoules


def _amd_smi(device: torch.device) -> _Counter:
    smi = importlib.import_module("amdsmi")
    handle = torch.cuda._get_amdsmi_handler(device)  # knows HIP_VISIBLE_DEVICES

    def read() -> int:
        counter = smi.amdsmi_get_energy_count(handle)
        ticks = counter.get("energy_accumulator", counter.get("power"))  # renamed in ROCm 6.2
        return round(ticks * counter["counter_resolution"])  # microjoules a tick

    return _Counter(read)
