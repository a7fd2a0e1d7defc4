import sys
import types

import pytest
import torch

from sciml.distributed.world import World
from sciml.training.energy import EnergyMeter

RANGE_UJ = 1_000_000_000


def _zone(powercap, zone, name, energy_uj):
    folder = powercap / f"intel-rapl:{zone}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")


@pytest.fixture
def powercap(tmp_path):
    """Two packages with a zone inside the first, and one zone of the whole platform."""
    _zone(tmp_path, "0", "package-0", 5_000_000)
    _zone(tmp_path, "0:0", "core", 1_000_000)
    _zone(tmp_path, "1", "package-1", 7_000_000)
    _zone(tmp_path, "2", "psys", 30_000_000)
    return tmp_path


def test_packages_are_added_since_the_last_call(powercap):
    meter = EnergyMeter("cpu", powercap=powercap)
    _zone(powercap, "0", "package-0", 6_500_000)
    _zone(powercap, "0:0", "core", 2_000_000)
    _zone(powercap, "1", "package-1", 7_250_000)
    _zone(powercap, "2", "psys", 40_000_000)
    assert meter.source == "RAPL package"
    assert meter.joules() == pytest.approx(1.75)
    assert meter.joules() == 0.0


def test_a_counter_may_wrap_around(powercap):
    _zone(powercap, "0", "package-0", RANGE_UJ - 2_000_000)
    meter = EnergyMeter("cpu", powercap=powercap)
    _zone(powercap, "0", "package-0", 1_000_000)
    assert meter.joules() == pytest.approx(3.0)


def test_a_machine_is_counted_by_its_first_process_alone(powercap):
    meter = EnergyMeter("cpu", local_rank=1, powercap=powercap)
    _zone(powercap, "0", "package-0", 6_000_000)
    assert (meter.source, meter.joules()) == ("RAPL package", 0.0)


def test_what_cannot_be_read_is_not_measured(tmp_path):
    meter = EnergyMeter("cpu", powercap=tmp_path / "none")
    assert (meter.source, meter.joules()) == ("not measured", None)
    _zone(tmp_path, "0", "package-0", "no number")
    meter = EnergyMeter("cpu", powercap=tmp_path)
    assert (meter.source, meter.joules()) == ("not measured", None)
    assert meter.total(World(0, 1, torch.device("cpu"))) is None


def test_a_gap_is_told_and_then_it_goes_on(powercap):
    meter = EnergyMeter("cpu", powercap=powercap)
    counter = powercap / "intel-rapl:0" / "energy_uj"
    counter.unlink()
    assert meter.joules() is None
    counter.write_text("8000000")
    assert meter.joules() is None  # from when?
    counter.write_text("9000000")
    assert meter.joules() == pytest.approx(1.0)
    counter.write_text("9500000")
    assert meter.total(World(0, 1, torch.device("cpu"))) == pytest.approx(0.5)


def test_nvml_counts_millijoules(monkeypatch):
    readings = iter([10_000, 12_500])
    fake = types.SimpleNamespace(nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings))
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "_get_pynvml_handler", lambda device: device)
    monkeypatch.setattr(torch.version, "hip", None)
    meter = EnergyMeter("cuda:0")
    assert (meter.source, meter.joules()) == ("NVML", 2.5)
    assert meter.joules() is None  # the library gave up: StopIteration stands for any error


@pytest.mark.parametrize("key", ["energy_accumulator", "power"])
def test_amd_smi_counts_ticks(monkeypatch, key):
    readings = iter([1_000_000, 1_200_000])
    fake = types.SimpleNamespace(
        amdsmi_get_energy_count=lambda handle: {key: next(readings), "counter_resolution": 15.25, "timestamp": 1}
    )
    monkeypatch.setitem(sys.modules, "amdsmi", fake)
    monkeypatch.setattr(torch.cuda, "_get_amdsmi_handler", lambda device: device)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    meter = EnergyMeter("cuda:0")
    assert (meter.source, meter.joules()) == ("AMD SMI", pytest.approx(3.05))


def test_an_accelerator_without_its_library_is_not_measured(monkeypatch):
    for module in ("pynvml", "amdsmi"):
        monkeypatch.setitem(sys.modules, module, None)
    for hip in (None, "6.4"):
        monkeypatch.setattr(torch.version, "hip", hip)
        assert EnergyMeter("cuda:0").source == "not measured"
    assert EnergyMeter("xpu:0").source == "not measured"
