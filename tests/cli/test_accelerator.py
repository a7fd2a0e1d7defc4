"""The measurement of an accelerator keeps its time, survives its items, and runs on a CPU in a small form."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STUB = """
import json, subprocess, sys, time
item, device, size, before, out = sys.argv[1:]
if item == "checks":
    raise RuntimeError("no kernel | for this device")
if item == "attention":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "left-behind"])
    time.sleep(600)
done = json.load(open(before))["items"]
open(out, "w").write(json.dumps({"lines": [f"after {len(done)}, {size}"], "figures": {"rate": 2.0}}))
"""


@pytest.fixture
def accelerator(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("accelerator", BENCHMARKS / "accelerator.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "accelerator", module)
    spec.loader.exec_module(module)
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(module, "ITEMS_FILE", tmp_path / "stub.py")
    monkeypatch.setattr(module, "LEAST_S", 0.5)
    monkeypatch.setattr(module, "machine_here", lambda: {"accelerators": ["Abacus"]})
    monkeypatch.setattr(module, "KEPT_S", 2.0)
    return module


def test_an_item_that_fails_or_hangs_stops_no_other_and_time_is_kept(accelerator, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(accelerator.LIMITS, "attention", 1.0)
    began = time.monotonic()
    outcomes = accelerator.run_all(["checks", "attention", "solver"], 20.0, "cpu", True, tmp_path)
    assert time.monotonic() - began < 15
    assert [outcome.state for outcome in outcomes] == ["failed", "too long", "ok"]
    assert outcomes[0].lines == ["RuntimeError: no kernel | for this device"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if "left-behind" in (p.info["cmdline"] or [])]
    document = json.loads((tmp_path / "accelerator.json").read_text())
    assert document["items"]["solver"]["figures"] == {"rate": 2.0}
    rows = (tmp_path / "accelerator.md").read_text().splitlines()
    assert "| checks | failed |" in rows[4]
    assert rows[4].count("|") == 5
    assert rows[6].endswith("| after 2, small |")
    assert "[2/3, " in capsys.readouterr().out


def test_what_there_is_no_time_for_is_left_out_but_the_fit(accelerator, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "KEPT_S", 3.0)
    outcomes = accelerator.run_all(["attention", "solver", "efficiency"], 4.5, "cpu", True, tmp_path)
    assert [outcome.state for outcome in outcomes] == ["too long", "left out", "ok"]


def run(folder, *arguments):
    command = [str(BENCHMARKS / "accelerator.sh"), "--device", "cpu", "--out", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    document = json.loads((folder / "accelerator.json").read_text())
    states = {name: item["state"] for name, item in document["items"].items()}
    assert {*states.values()} == {"ok"}, done.stdout
    assert done.returncode == 0
    return document["items"]


def test_the_solver_is_measured_on_a_cpu(tmp_path):
    assert run(tmp_path, "--items", "solver")["solver"]["figures"]["4"] > 0.01


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_items_run_on_a_cpu(tmp_path):
    items = run(tmp_path, "--limit", "1400")  # beside other tests
    assert items["attention"]["figures"]["flash"]
    assert items["climate"]["figures"]["losses"] == items["climate"]["figures"]["cpu_losses"]
    assert items["efficiency"]["figures"]["planned_over_measured"].keys() == {
        "vit_115m", "vit_1b", "gpt_1b", "gnn_large"
    }  # fmt: skip
