"""Paths mean the working folder, then the project; what a run keeps of them opens from any folder."""

import os
import subprocess
import sys

from sciml.core.installation import ROOT, located, recorded, start

COMMITTED = "data/climate/era5_week.nc"


def test_a_file_of_the_working_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located(COMMITTED) == str(ROOT / COMMITTED)
    (tmp_path / "data" / "climate").mkdir(parents=True)
    (tmp_path / COMMITTED).touch()
    assert located(COMMITTED) == recorded(COMMITTED) == str(tmp_path / COMMITTED)


def test_what_a_run_keeps_is_absolute_or_of_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recorded(COMMITTED) == recorded(str(ROOT / COMMITTED)) == COMMITTED
    assert recorded("mine.nc") == str(tmp_path / "mine.nc")
    assert recorded("*.nc") == str(tmp_path / "*.nc")


def test_addresses_and_homes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert located("gs://bucket/era5.zarr") == recorded("gs://bucket/era5.zarr") == "gs://bucket/era5.zarr"
    assert located("~/era5.nc") == str(tmp_path / "era5.nc")
    assert located("") == ""


def test_commands_are_told_as_this_one_was_started(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sciml", "train"])
    assert start("train") == "sciml train"
    monkeypatch.setattr(sys, "argv", [str(ROOT / "sciml" / "__main__.py")])
    assert start("train") == "python -m sciml train"
    monkeypatch.setattr(sys, "argv", [os.path.join("scripts", "train.py")])
    assert start("forecast") == "python scripts/forecast.py"


def test_an_account_without_a_home_imports_it():
    """As in a container whose user has a number and no name."""
    program = (
        "import pwd\n"
        "def unknown(*_): raise KeyError('uid not found')\n"
        "pwd.getpwuid = pwd.getpwnam = unknown\n"
        "import sciml.core.installation as i; print(i.USER_CONF)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CONFIG_HOME")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "~/.config/sciml"
