"""This machine as a cluster: measured, kept and read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sciml.app.cli import main
from sciml.distributed.launcher import program
from sciml.planning import cluster_here as here
from sciml.planning import machine
from sciml.planning.cluster_here import cluster_here, peak_here, read_cluster
from sciml.planning.machine import _slowest, measure_machine, save_cluster

QUICK = str(Path(__file__).with_name("quick_machine.py"))


@pytest.fixture(scope="module")
def measured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "program", lambda processes: [*program(processes), QUICK])
        return measure_machine(2, "cpu")


@pytest.mark.slow
def test_two_processes_measure_in_full(tmp_path):
    test_two_processes_measure_what_a_plan_needs(measure_machine(2, "cpu"), tmp_path)


def test_two_processes_measure_what_a_plan_needs(measured, tmp_path):
    measured.check_for_plans()
    assert (measured.device, measured.devices_per_node, measured.measured) == ("cpu", 2, True)
    assert 1e-3 < measured.peak_tflops["fp32"] < 10
    assert 0.1 < measured.memory_gb_per_s < 500
    assert 0.5 < measured.kernel_us < 500
    assert 0.5 < measured.update_gb_per_s < 1000
    assert measured.shard_us > 0
    assert measured.shard_update_us > 0
    link = measured.links["machine"]
    assert 0.01 < link.gb_per_s < 100
    assert link.latency_us >= 0
    save_cluster(measured, tmp_path / "cluster" / "this_machine.yaml")
    assert read_cluster(tmp_path / "cluster" / "this_machine.yaml") == measured


def test_what_is_kept_is_not_measured_again(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(here, "OWN_CONF", tmp_path)
    monkeypatch.setattr(here, "measure_machine", lambda *_: pytest.fail("measured again"))
    save_cluster(measured, tmp_path / "cluster" / "this_machine.yaml")
    assert cluster_here(2, "cpu") == measured
    assert cluster_here(1, "cpu") == measured
    monkeypatch.setattr(here, "measure_machine", lambda *_: "anew")
    assert cluster_here(3, "cpu") == "anew"


def test_a_measured_peak_grows_with_the_threads_of_a_process(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(here, "OWN_CONF", tmp_path)
    assert peak_here("cpu", "fp32", 1) is None
    save_cluster(measured, tmp_path / "cluster" / "this_machine.yaml")
    one, two = (peak_here("cpu", "fp32", threads) for threads in (1, 2))
    assert one.flops_per_s == pytest.approx(measured.peak_tflops["fp32"] * 1e12)
    assert two.flops_per_s == 2 * one.flops_per_s
    assert peak_here("cpu", "fp16", 1) is None


def test_the_peak_of_a_known_device_is_that_of_its_cluster(monkeypatch):
    monkeypatch.setattr(here, "device_name", lambda kind: "NVIDIA H200")
    assert peak_here("cuda", "bf16", 8).flops_per_s == 989e12
    monkeypatch.setattr(here, "device_name", lambda kind: "Abacus 3000")
    assert peak_here("cuda", "bf16", 8) is None


def test_of_several_processes_the_slowest_counts():
    one = {"peaks": {"fp32": 2.0}, "kernel_us": 3.0, "link": {"gb_per_s": 1.0, "latency_us": 9.0}}
    other = {"peaks": {"fp32": 1.0}, "kernel_us": 5.0, "link": {"gb_per_s": 2.0, "latency_us": 4.0}}
    assert _slowest([one, other]) == {
        "peaks": {"fp32": 1.0}, "kernel_us": 5.0, "link": {"gb_per_s": 1.0, "latency_us": 9.0}
    }  # fmt: skip


def test_the_doctor_measures_and_keeps_it(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sciml.app.doctor.measure_machine", lambda *_, **__: measured)
    main("doctor", ["--measure", f"out={tmp_path}/mine.yaml", "processes=0", "output=json"])
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == f"{tmp_path}/mine.yaml"
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text())["kernel_us"] == measured.kernel_us


def test_a_file_of_another_kind_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main("doctor", ["measure=true", "out=machine.json"])
    assert ended.value.code == 2
    assert "out: machine.json is no option of the group cluster; name a .yaml file" in capsys.readouterr().err
