"""``import sciml`` costs nothing, and what it offers takes keys as Python has them."""

import subprocess
import sys

import pytest

import sciml
from sciml.core.errors import ConfigError
from sciml.run.overrides import arguments


def test_importing_it_imports_nothing_heavy():
    program = "import sciml, sys; assert not {'torch', 'numpy', 'hydra', 'xarray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert {"load", "train", "plan"} <= set(dir(sciml))
    with pytest.raises(AttributeError, match="it has Plan"):
        sciml.predict  # noqa: B018


def test_keys_of_python_are_those_of_the_command_line():
    keys = {
        "domain": "climate", "reference_models": None, "trainer": {"max_steps": 3, "async_save": False},
        "task.intervals": ["24h", "[6h..12h]"], "data": {"path": "a, b's.nc"}, "model": "vit_tiny",
        "data.splits": {"train": 0.5},
    }  # fmt: skip
    assert arguments(keys) == [
        "domain=climate", "reference_models=null", "trainer.max_steps=3", "trainer.async_save=false",
        "task.intervals=[24h,'[6h..12h]']", r"data.path='a, b\'s.nc'", "model=vit_tiny", "data.splits={train:0.5}",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_plan_is_a_table_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = sciml.plan(domain="language", cluster="h100", devices=1, search=False, scaling=[])
    assert plan.document["best"]
    assert len(plan.table) == 1
    assert plan.table["step_s"].is_monotonic_increasing
    assert not list(tmp_path.iterdir())


def test_what_cannot_work_is_an_error_of_the_suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="unknown option 'weather'"):
        sciml.train(domain="weather")
    with pytest.raises(ConfigError, match="there is no run"):
        sciml.load("nothing")
